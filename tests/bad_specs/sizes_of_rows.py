# expects: sizes contradict: the rows of U have size rank, h has size hidden
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 11
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W = matrices("W")
U = matrices("U", shape=("rank", "hidden"))

cell = Cell("cell", Eq(h.next, tanh(W @ x + U.T @ h)))
