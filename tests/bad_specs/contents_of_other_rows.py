# expects: b has 4 blocks of rows, but initial has 2
# hint: initial=(0, 1, ...), one for every block, or one for all of them
# line: 7
from gategen import Cell, Eq, inputs, states, vectors

x, h = inputs("x", size="hidden"), states("h")
b = vectors("b", size=("hidden",) * 4, initial=(0, 1))

cell = Cell("cell", Eq(h.next, x + h * b[0]))
