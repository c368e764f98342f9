# expects: a cell needs at least one equation
# hint: Cell(name, Eq(h.next, ...))
# line: 6
from gategen import Cell

cell = Cell("cell")
