# expects: a size is at least 1, not 0
# hint: size="hidden"
# line: 6
from gategen import Cell, Eq, inputs, states

x = inputs("x", size=0)
h = states("h")

cell = Cell("cell", Eq(h.next, x + h))
