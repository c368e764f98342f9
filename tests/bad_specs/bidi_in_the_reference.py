# expects: the reference must be printable text on one line, not 'a\u202eb'
# line: 8
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + h), reference="a\u202eb")
