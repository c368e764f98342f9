# expects: NameError: name 'hidden' is not defined
# hint: size("hidden") is how many features the size hidden has
# line: 8
from gategen import Cell, Eq, inputs, matrices, sqrt, states

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, W @ x / sqrt(hidden)))
