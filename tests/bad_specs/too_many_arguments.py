# expects: TypeError: tanh takes exactly 1 argument (2 given)
# line: 8
from gategen import Cell, Eq, inputs, states, tanh

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, tanh(x, h)))
