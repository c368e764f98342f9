# expects: W.T can only stand on the left of @
# hint: W.T @ v
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W.T) * h + U @ x))
