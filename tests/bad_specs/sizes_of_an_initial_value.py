# expects: sizes contradict: h has size hidden, its initial value rank
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 8
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
p = vectors("p", size="rank")
h = states("h", initial=tanh(p))
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h)))
