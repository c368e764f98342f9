# expects: U on the right of @ is a matrix
# hint: multiply by the vector first: W @ (U @ v)
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, W @ U @ x + h))
