# expects: ((1, 2), (3,)) has no rows of one length
# hint: (1, 2, 3), or ((0, 1), (1, 0))
# line: 7
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
S = matrices("S", initial=((1, 2), (3,)))

cell = Cell("cell", Eq(h.next, S @ x + h))
