# expects: conv goes along positions twice
# hint: over=("height", "width")
# line: 10
from gategen import Cell, Eq, conv, inputs, matrices, states

x = inputs("x", size=("positions", "input"))
h = states("h", size=("positions", "hidden"))
K = matrices("K", shape=(("input",) * 9, "hidden"))

cell = Cell("cell", Eq(h.next, conv(x, K, over=("positions", "positions"))))
