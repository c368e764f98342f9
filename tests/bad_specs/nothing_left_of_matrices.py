# expects: nothing is left of an expression of matrices but 0
# hint: A - A is 0 and A / A is 1, whatever A is
# line: 9
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
W, A = matrices("W A")

cell = Cell("cell", Eq(h.next, (A - A) @ h + W @ x))
