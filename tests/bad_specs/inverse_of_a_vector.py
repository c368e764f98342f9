# expects: inv() takes a matrix, not b
# hint: inv(A)
# line: 10
from gategen import Cell, Eq, inputs, inv, matrices, states, vectors

x, h = inputs("x"), states("h")
W = matrices("W")
b = vectors("b")

cell = Cell("cell", Eq(h.next, inv(b) @ h + W @ x))
