# expects: a size is a name or an integer, not 2.5
# hint: size="hidden"
# line: 7
from gategen import Cell, Eq, inputs, states

x = inputs("x")
h = states("h", size=2.5)

cell = Cell("cell", Eq(h.next, x + h))
