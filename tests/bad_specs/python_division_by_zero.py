# expects: ZeroDivisionError: division by zero
# line: 7
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")
scale = 1 / 0

cell = Cell("cell", Eq(h.next, x + scale * h))
