# expects: the right side of h' is not real: it holds I
# hint: carry the real and the imaginary part as two states
# line: 9
from gategen import Cell, Eq, exp, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + exp(1j * h)))
