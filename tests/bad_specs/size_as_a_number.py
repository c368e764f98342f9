# expects: NameError: name 'hidden' is not defined
# hint: hidden is a size and no value; a number is a constant: n = constants(n=64)
# line: 8
from gategen import Cell, Eq, inputs, matrices, sqrt, states

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, W @ x / sqrt(hidden)))
