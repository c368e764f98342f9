# expects: mean() reduces nothing
# hint: mean(v)
# line: 9
from gategen import Cell, Eq, inputs, mean, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + h * mean()))
