# expects: the equations wait for each other: z -> r -> z
# hint: one of them must read the old value of a state; if r is carried, it is one: r = states("r"), Eq(r.next, ...)
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z, r = gates("z r")

cell = Cell(
    "cell",
    Eq(z, sigmoid(W @ x + r)),
    Eq(r, sigmoid(U @ h + z)),
    Eq(h.next, z * h),
)
