# expects: the initial value of h reads the state c
# hint: it may be an expression of numbers, constants, vectors and scalars
# line: 8
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
c = states("c")
h = states("h", initial=c)

cell = Cell("cell", Eq(h.next, x + h), Eq(c.next, h))
