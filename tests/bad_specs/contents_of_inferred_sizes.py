# expects: S[hidden, input] does not fit its contents, shift(1)
# hint: it is for a square matrix, S[hidden, hidden]
# line: 9
from gategen import Cell, Eq, inputs, matrices, shift, states

x, h = inputs("x"), states("h")
S = matrices("S", trainable=False, initial=shift(1))

cell = Cell("cell", Eq(h.next, S @ x + h))
