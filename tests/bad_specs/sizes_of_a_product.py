# expects: sizes contradict: x has size input, h has size hidden
# hint: x = inputs("x", size="hidden") makes x as wide; a product W @ x changes the size
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W = matrices("W")

cell = Cell("cell", Eq(h.next, x * h + W @ x))
