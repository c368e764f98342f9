# expects: p is declared twice, as gate and as vector
# hint: declare it once, or give one of them another name
# line: 7
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h", initial=vectors("p"))
W, U = matrices("W U")
p = gates("p")

cell = Cell("cell", Eq(p, W @ x), Eq(h.next, tanh(p + U @ h)))
