# expects: 'int' is a keyword of Python, C or CUDA
# hint: call it int_ or int0
# line: 6
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="int")
h = states("h")

cell = Cell("cell", Eq(h.next, x + h))
