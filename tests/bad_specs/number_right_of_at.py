# expects: the right side of W @ must be a vector, not 1
# hint: a vector b instead of W @ 1
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, W @ 1 + U @ x + h))
