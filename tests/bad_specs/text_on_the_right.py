# expects: the right side of h' must be an expression, not str 'tanh(h)'
# hint: write the expression itself, without quotes
# line: 9
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, "tanh(h)"))
