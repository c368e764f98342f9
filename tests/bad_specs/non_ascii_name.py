# expects: 'σ' is not a name: use ASCII letters, digits and _, beginning with a letter
# hint: greek letters are written out: alpha, sigma, theta
# line: 9
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
s = gates("σ")

cell = Cell("cell", Eq(s, sigmoid(W @ x + U @ h)), Eq(h.next, s * h))
