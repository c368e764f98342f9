# expects: h**alpha: the exponent must be a number
# hint: exp(p * log(y))
# line: 10
from gategen import Cell, Eq, inputs, scalars, states

x = inputs("x", size="hidden")
h = states("h")
alpha = scalars("alpha")

cell = Cell("cell", Eq(h.next, x + h**alpha))
