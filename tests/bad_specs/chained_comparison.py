# expects: TypeError: cannot determine truth value of Relational
# hint: a comparison has no value before the cell runs
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, where

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, where(0 < h < 1, W @ x, U @ h)))
