# expects: TypeError: unsupported operand type(s) for *: 'StrictGreaterThan' and 'State'
# hint: where(h > 0, h, 0)
# line: 9
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + (h > 0) * h))
