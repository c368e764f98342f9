# expects: TypeError: 'State' object is not iterable
# hint: over its features run sum_(v), max_(v), mean(v) and cumsum(v)
# line: 8
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, W @ x / sum(h)))
