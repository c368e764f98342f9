# expects: sizes contradict: b has size input, W @ x has size hidden
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 11
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W = matrices("W", shape=("hidden", "input"))
b = vectors("b", size="input")

cell = Cell("cell", Eq(h.next, tanh(W @ x + b) * h))
