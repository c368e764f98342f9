# expects: the left side of @ must be one matrix, not x
# hint: the matrix stands on the left: W @ x
# line: 8
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, x @ W + h))
