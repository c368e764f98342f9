# expects: output 2 * h' is not the name of a gate or of a next state
# hint: y = gates("y"), one more equation Eq(y, ...) and output=y
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h)), output=2 * h.next)
