# expects: shift(1) is what a matrix holds, and no matrix
# hint: S = matrices("S", trainable=False, initial=shift(1)), then S @ v
# line: 9
from gategen import Cell, Eq, inputs, matrices, shift, states

x, h = inputs("x"), states("h")
W = matrices("W")

cell = Cell("cell", Eq(h.next, W @ x + shift(1) @ h))
