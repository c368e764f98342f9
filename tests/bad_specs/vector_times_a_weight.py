# expects: the left side of @ must be a matrix, not q
# hint: the matrix stands on the left: W @ q
# line: 10
from gategen import Cell, Eq, gates, inputs, matrices, states

x, h = inputs("x"), states("h")
W, U = matrices("W U")
q = gates("q")

cell = Cell("cell", Eq(q, U @ x), Eq(h.next, q @ W))
