# expects: 'lambda' is a keyword of Python, C or CUDA
# hint: call it lambda_ or lambda0
# line: 8
from gategen import Cell, Eq, inputs, scalars, states

x = inputs("x")
h = states("h")
decay = scalars("lambda")

cell = Cell("cell", Eq(h.next, decay * h + x))
