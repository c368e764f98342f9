# expects: 'register' is a keyword of Python, C or CUDA
# hint: call it register_ or register0
# line: 8
from gategen import Cell, Eq, gates, inputs, sigmoid, states

x = inputs("x")
h = states("h")
z, r = gates("z register")

cell = Cell("cell", Eq(z, sigmoid(h)), Eq(r, z), Eq(h.next, r * h + x))
