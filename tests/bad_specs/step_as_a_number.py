# expects: t is the step and no value
# hint: x[t - 1] is x of the step before
# line: 8
from gategen import Cell, Eq, inputs, matrices, states, t

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, W @ x + h / t))
