# expects: U * mask is a matrix and stands without @
# hint: (U * mask) @ h
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U, mask = matrices("W U mask")

cell = Cell("cell", Eq(h.next, mask * U * h + W @ x))
