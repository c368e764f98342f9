# expects: the equations wait for each other: h' -> h'
# hint: h instead of h.next
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h.next)))
