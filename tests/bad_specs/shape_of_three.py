# expects: a matrix has shape (rows, columns), not ('hidden', 'input', 'rank')
# hint: shape=("hidden", "input")
# line: 8
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W = matrices("W", shape=("hidden", "input", "rank"))

cell = Cell("cell", Eq(h.next, W @ x + h))
