# expects: TypeError: unsupported operand type(s) for @
# hint: the left side of @ must be one matrix
# line: 14
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
r = gates("r")

cell = Cell(
    "cell",
    Eq(r, sigmoid(W @ x)),
    Eq(h.next, tanh((W + U) @ (r * h))),
)
