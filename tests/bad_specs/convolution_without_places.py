# expects: conv(W, x) has 0 stacks of weights, and one is needed
# hint: K = matrices("K", shape=(("hidden",) * 3, "input"))
# line: 10
from gategen import Cell, Eq, conv, inputs, matrices, states

x = inputs("x", size=("input", "positions"))
h = states("h", size=("hidden", "positions"))
W = matrices("W", shape=("hidden", "input"))

cell = Cell("cell", Eq(h.next, conv(W, x, over="positions")))
