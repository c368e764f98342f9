# expects: the left side of @ must be one matrix, not h
# hint: the inner product is sum_(h * x), and h * x is elementwise
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W = matrices("W")

cell = Cell("cell", Eq(h.next, W @ x + h @ x))
