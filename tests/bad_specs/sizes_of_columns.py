# expects: sizes contradict: the columns of U have size hidden, x has size input
# hint: elementwise values have one size, or size 1; a product W @ v changes the size
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
U = matrices("U", shape=("hidden", "hidden"))

cell = Cell("cell", Eq(h.next, tanh(U @ x + U @ h)))
