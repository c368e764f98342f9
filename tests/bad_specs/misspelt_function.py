# expects: ImportError: cannot import name 'sigmoide' from 'gategen'
# hint: did you mean sigmoid?
# line: 4
from gategen import Cell, Eq, inputs, sigmoide, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, sigmoide(x + h)))
