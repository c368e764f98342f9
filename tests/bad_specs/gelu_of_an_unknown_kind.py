# expects: gelu's approximate is 'none' or 'tanh', not 'fast'
# line: 8
from gategen import Cell, Eq, gelu, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + gelu(h, "fast")))
