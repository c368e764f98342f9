# expects: the initial value of h is not finite: it holds an infinite number
# hint: write a large number, such as 1e30
# line: 7
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h", initial=-float("inf"))

cell = Cell("cell", Eq(h.next, x + h))
