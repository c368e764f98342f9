# expects: TypeError: unsupported operand type(s) for *: 'StrictGreaterThan' and 'State'
# line: 8
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + (h > 0) * h))
