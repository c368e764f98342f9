# expects: A.T meets stacked vectors: only columns can be stacked
# hint: A @ concat(...)
# line: 10
from gategen import Cell, Eq, concat, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
A = matrices("A", shape=("hidden", ("hidden", "input")))

cell = Cell("cell", Eq(h.next, tanh(A.T @ concat(h, x))))
