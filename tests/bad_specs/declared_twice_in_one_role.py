# expects: h is declared twice as state, and both are used
# hint: declare it once, or give one of them another name
# line: 12
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
old = U @ h
h = states("h", initial=1)

cell = Cell("cell", Eq(h.next, tanh(W @ x + old)))
