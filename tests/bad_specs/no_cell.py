# expects: there is no Cell in this file
# hint: my_cell = Cell("my_cell", Eq(...))
from gategen import Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

equation = Eq(h.next, x + h)
