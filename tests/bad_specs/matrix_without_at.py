# expects: W is a matrix and stands without @
# hint: W @ x
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W * x + U @ h)))
