# expects: the initial value of h reads the earlier value x[t - 1]
# hint: it may be an expression of numbers, constants, vectors and scalars
# line: 8
from gategen import Cell, Eq, inputs, matrices, states, t

x = inputs("x", size="hidden")
W = matrices("W")
h = states("h", initial=x[t - 1])

cell = Cell("cell", Eq(h.next, W @ x + h))
