# expects: NameError: name 'sigma' is not defined
# hint: sigmoid(v)
# line: 8
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, sigma(W @ x)))
