# expects: with heads=4: U holds identity, a whole matrix, and heads would cut it into blocks
# hint: a number for what it holds, or nothing
# line: 7
from gategen import Cell, Eq, identity, inputs, matrices, states, tanh

x, h, W, U = inputs("x"), states("h"), matrices("W"), matrices("U", initial=identity)
cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h))).with_heads(4)
