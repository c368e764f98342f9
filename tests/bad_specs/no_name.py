# expects: no name given
# line: 7
from gategen import Cell, Eq, gates, inputs, states

x = inputs("x", size="hidden")
h = states("h")
z = gates("")

cell = Cell("cell", Eq(z, x), Eq(h.next, z * h))
