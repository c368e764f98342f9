# expects: 'import' is a keyword of Python, C or CUDA
# hint: call it import_ or import0
# line: 9
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("import", Eq(h.next, x + h))
