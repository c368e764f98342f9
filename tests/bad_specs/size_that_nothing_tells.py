# expects: the shape of no parameter and of no input tells the size hidden of h
# hint: a vector b = vectors("b", size="hidden"), an input of that size, or a number for the size: size=4
# line: 9
from gategen import Cell, Eq, inputs, scalars, states

x = inputs("x", size=1)
h = states("h")
a = scalars("a")
cell = Cell("cell", Eq(h.next, a * h + x))
