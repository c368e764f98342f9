# expects: sizes contradict: the columns of W have size input, h has size hidden
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 14
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh

x = inputs("x")
h = states("h")
W = matrices("W")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, sigmoid(W @ x)),
    Eq(h.next, z * tanh(W @ h)),
)
