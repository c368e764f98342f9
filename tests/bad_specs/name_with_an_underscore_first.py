# expects: '_z' is not a name
# hint: such as W_z or h1
# line: 8
from gategen import Cell, Eq, gates, inputs, states

x = inputs("x", size="hidden")
h = states("h")
z = gates("_z")

cell = Cell("cell", Eq(z, x), Eq(h.next, z * h))
