# expects: with heads=4: cell has no size heads, and no weight of the shape (hidden, hidden) to cut into blocks
# hint: a weight of the shape ("hidden", "hidden/heads"), or a state of the sizes
# line: 7
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x, h, W, u = inputs("x"), states("h"), matrices("W"), vectors("u")
cell = Cell("cell", Eq(h.next, tanh(W @ x + u * h))).with_heads(4)
