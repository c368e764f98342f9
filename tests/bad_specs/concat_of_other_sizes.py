# expects: sizes contradict: column block 0 of A has size hidden, x has size input
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 10
from gategen import Cell, Eq, concat, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
A = matrices("A", shape=("hidden", ("hidden", "input")))

cell = Cell("cell", Eq(h.next, tanh(A @ concat(x, h))))
