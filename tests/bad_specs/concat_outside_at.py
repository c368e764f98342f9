# expects: concat(...) can only stand on the right of @
# hint: A @ concat(h, x)
# line: 10
from gategen import Cell, Eq, concat, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
A = matrices("A", shape=("hidden", ("hidden", "input")))

cell = Cell("cell", Eq(h.next, A @ concat(h, x) + tanh(concat(h, x))))
