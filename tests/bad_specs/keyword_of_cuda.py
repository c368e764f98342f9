# expects: 'threadIdx' is a keyword of Python, C or CUDA
# hint: call it threadIdx_ or threadIdx0
# line: 6
from gategen import Cell, Eq, inputs, states

x = inputs("threadIdx")
h = states("h")

cell = Cell("cell", Eq(h.next, x + h))
