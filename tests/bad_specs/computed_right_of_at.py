# expects: the left side of @ must be a matrix, not x
# hint: the matrix stands on the left: (A + B) @ x
# line: 9
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
A, B = matrices("A B")

cell = Cell("cell", Eq(h.next, x @ (A + B) + h))
