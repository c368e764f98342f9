# expects: b[6] does not fit its contents, blocks(1, 2, 3, 4)
# hint: the size is a multiple of 4
# line: 8
from gategen import Cell, Eq, blocks, inputs, matrices, states, vectors

x, h = inputs("x"), states("h", size=6)
W = matrices("W")
b = vectors("b", size=6, initial=blocks(1, 2, 3, 4))

cell = Cell("cell", Eq(h.next, W @ x + h * b))
