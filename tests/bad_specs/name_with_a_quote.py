# expects: "h'" is not a name
# hint: the next value of a state is not declared: h.next
# line: 8
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")
new = states("h'")

cell = Cell("cell", Eq(new, x + h))
