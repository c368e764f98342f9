# expects: blocks() has no block
# hint: blocks(1, 2, 4, 8)
# line: 7
from gategen import Cell, Eq, blocks, inputs, matrices, states

x, h = inputs("x"), states("h")
S = matrices("S", initial=blocks())

cell = Cell("cell", Eq(h.next, S @ x + h))
