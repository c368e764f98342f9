# expects: sizes contradict: h has size hidden, b has size input
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 11
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W = matrices("W")
b = vectors("b", size="input")

cell = Cell("cell", Eq(h.next, tanh(b + h) + W @ x))
