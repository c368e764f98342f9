# expects: W is a matrix and stands without @
# hint: W @ x
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, W),
    Eq(h.next, z * h + U @ x),
)
