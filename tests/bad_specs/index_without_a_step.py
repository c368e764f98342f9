# expects: x[-1]: what stands in [ ] is the step
# hint: x[t - 1], with t from gategen, is x of the step before
# line: 8
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
W = matrices("W")
cell = Cell("cell", Eq(h.next, W @ x[-1] + h))
