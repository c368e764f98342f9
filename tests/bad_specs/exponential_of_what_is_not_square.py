# expects: sizes contradict: expm(W) is of a matrix that is not square: hidden rows and input columns
# hint: a square matrix has one size twice
# line: 8
from gategen import Cell, Eq, expm, inputs, matrices, states

x, h = inputs("x"), states("h")
W = matrices("W", shape=("hidden", "input"))
cell = Cell("cell", Eq(h.next, expm(W) @ x + h))
