# expects: nothing has the size keys, so it is no number
# hint: there are: hidden, input
# line: 9
from gategen import Cell, Eq, inputs, matrices, size, sqrt, states

x, h = inputs("x"), states("h")
W = matrices("W")

cell = Cell("cell", Eq(h.next, W @ x / sqrt(size("keys"))))
