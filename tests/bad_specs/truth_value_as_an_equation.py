# expects: the right side of z is the truth value False
# hint: comparisons belong inside where(...)
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, x == h),
    Eq(h.next, z * (U @ h) + W @ x),
)
