# expects: heads is a whole number, 2 or more, not 1
# hint: one head is the cell as it is written
# line: 7
from gategen import Cell, Eq, inputs, matrices, states, tanh

x, h, W, U = inputs("x"), states("h"), *matrices("W U")
cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h))).with_heads(1)
