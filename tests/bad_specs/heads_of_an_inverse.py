# expects: with heads=4: inv(identity + A) takes A whole, and heads would cut it into blocks
# hint: a weight in blocks stands in W @ v, alone or in what is computed of its entries
# line: 7
from gategen import Cell, Eq, identity, inputs, inv, matrices, states, tanh

x, h, W, A = inputs("x"), states("h"), *matrices("W A")
cell = Cell("cell", Eq(h.next, tanh(W @ x + inv(identity + A) @ h))).with_heads(4)
