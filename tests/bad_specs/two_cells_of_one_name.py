# expects: two cells are called 'cell'
# hint: files are named after the cell
# line: 10
from gategen import Cell, Eq, inputs, states, tanh

x = inputs("x", size="hidden")
h = states("h")

linear = Cell("cell", Eq(h.next, x + h))
bounded = Cell("cell", Eq(h.next, tanh(x + h)))
