# expects: TypeError: loop of ufunc does not support argument 0 of type Add
# hint: from gategen import tanh
# line: 12
import numpy as np

from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, np.tanh(W @ x + U @ h)))
