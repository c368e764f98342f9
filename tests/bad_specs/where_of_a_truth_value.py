# expects: the condition of where() is already False: it does not depend on any value
# hint: == compares symbols structurally in Python: write where(equal(a, b), ...)
# line: 14
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, where

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, sigmoid(W @ x)),
    Eq(h.next, where(z == 1, h, U @ h)),
)
