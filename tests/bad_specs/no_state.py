# expects: cell has no state
# hint: h = states("h") and Eq(h.next, ...)
# line: 10
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid

x = inputs("x")
W = matrices("W", shape=("hidden", "input"))
z = gates("z")

cell = Cell("cell", Eq(z, sigmoid(W @ x)), output=z)
