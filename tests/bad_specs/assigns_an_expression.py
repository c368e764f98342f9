# expects: the left side of an equation is one gate or one s.next, not W @ x + z
# hint: Eq(z, ...) for a gate z, Eq(h.next, ...) for a state h
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z + W @ x, U @ h),
    Eq(h.next, z * h),
)
