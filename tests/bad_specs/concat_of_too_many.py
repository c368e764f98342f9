# expects: A meets 3 stacked vectors, but its columns are (hidden, input)
# hint: matrices("A", shape=("hidden", ("hidden", "input", "hidden")))
# line: 10
from gategen import Cell, Eq, concat, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
A = matrices("A", shape=("hidden", ("hidden", "input")))

cell = Cell("cell", Eq(h.next, tanh(A @ concat(h, x, h))))
