# expects: sizes contradict: c has size memory, its next value hidden
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 14
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
c = states("c", size="memory")
W, U = matrices("W U")

cell = Cell(
    "cell",
    Eq(h.next, tanh(W @ x + U @ c)),
    Eq(c.next, h),
)
