# expects: the right side of z must be an expression, not a comparison
# hint: comparisons belong inside where(...)
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, W @ x > 0),
    Eq(h.next, z * (U @ h)),
)
