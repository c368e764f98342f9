# expects: constant eps must be a finite number, not inf
# line: 7
from gategen import Cell, Eq, constants, inputs, states

x = inputs("x", size="hidden")
h = states("h")
eps = constants(eps=float("inf"))

cell = Cell("cell", Eq(h.next, x + eps * h))
