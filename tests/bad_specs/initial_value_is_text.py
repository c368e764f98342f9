# expects: the initial value of h must be an expression, not str '0'
# hint: write the expression itself, without quotes
# line: 7
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h", initial="0")

cell = Cell("cell", Eq(h.next, x + h))
