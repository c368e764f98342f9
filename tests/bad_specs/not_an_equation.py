# expects: W @ x + h is not an equation
# hint: write Eq(z, sigmoid(...))
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W = matrices("W")

cell = Cell("cell", Eq(h.next, h), W @ x + h)
