# expects: output names the same value twice
# hint: name each once
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h)), output=(h.next, h.next))
