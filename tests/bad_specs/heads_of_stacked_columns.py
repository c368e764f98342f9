# expects: with heads=4: A has the columns (hidden, input) side by side, which heads cannot cut into blocks
# hint: a matrix for each of them: U @ h + W @ x for A @ concat(h, x)
# line: 7
from gategen import Cell, Eq, concat, inputs, matrices, states, tanh

x, h, A = inputs("x"), states("h"), matrices("A")
cell = Cell("cell", Eq(h.next, tanh(A @ concat(h, x)))).with_heads(4)
