# expects: z is used but no first-step equation defines it
# hint: add Eq(z, ...)
# line: 15
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, sigmoid(U @ h)),
    Eq(h.next, z * tanh(W @ x)),
    first=[Eq(h.next, z * (W @ x))],
)
