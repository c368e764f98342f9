# expects: constant eps must be a finite number, not '1e-5'
# line: 7
from gategen import Cell, Eq, constants, inputs, states

x = inputs("x", size="hidden")
h = states("h")
eps = constants(eps="1e-5")

cell = Cell("cell", Eq(h.next, x + eps * h))
