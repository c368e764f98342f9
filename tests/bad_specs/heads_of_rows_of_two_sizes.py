# expects: with heads=4: A has the rows (hidden, keys) in one array, of which heads cut some into blocks
# hint: a matrix of its own for rows of another size
# line: 8
from gategen import Cell, Eq, inputs, matrices, states, tanh

x, h, k, W = inputs("x"), states("h"), states("k", size="keys"), matrices("W")
A = matrices("A", shape=(("hidden", "keys"), "hidden"))
cell = Cell("cell", Eq(h.next, tanh(W @ x + A[0] @ h)), Eq(k.next, tanh(A[1] @ h))).with_heads(4)
