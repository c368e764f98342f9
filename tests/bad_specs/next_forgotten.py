# expects: the equations wait for each other: h -> h
# hint: if h is carried, it is one: h = states("h"), Eq(h.next, ...)
# line: 8
from gategen import Cell, Eq, gates, inputs, matrices, tanh

x, h = inputs("x"), gates("h")
W, U = matrices("W U")
cell = Cell("cell", Eq(h, tanh(W @ x + U @ h)))
