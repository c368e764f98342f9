# expects: sizes contradict: P has columns of rank, U has rows of hidden
# hint: elementwise values have one size, or size 1
# line: 10
from gategen import Cell, Eq, inputs, matrices, states

x, h = inputs("x"), states("h")
W, U = matrices("W U", shape=("hidden", "hidden"))
P = matrices("P", shape=("hidden", "rank"))

cell = Cell("cell", Eq(h.next, (P @ U) @ h + W @ P @ x))
