# expects: the right side of h' is not finite: it holds a division by 0
# hint: write a large number, such as 1e30
# line: 9
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + h / 0))
