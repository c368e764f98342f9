# expects: g is a number and is added to a matrix
# hint: the unit matrix is identity: identity + A
# line: 10
from gategen import Cell, Eq, inputs, matrices, scalars, states

x, h = inputs("x"), states("h")
W, A = matrices("W A")
g = scalars("g")

cell = Cell("cell", Eq(h.next, (A - g) @ h + W @ x))
