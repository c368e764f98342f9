# expects: output y has no equation
# hint: add Eq(y, ...)
# line: 11
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
y = gates("y")

cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h)), output=y)
