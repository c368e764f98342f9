# expects: batch_norm of a value that depends on the state h
# hint: inside the recurrence use layer_norm
# line: 11
from gategen import Cell, Eq, batch_norm, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W, U = matrices("W U")
g, b = vectors("g b")

cell = Cell("cell", Eq(h.next, tanh(batch_norm(W @ x + U @ h, g, b))))
