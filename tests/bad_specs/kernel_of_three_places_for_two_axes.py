# expects: K has 3 blocks of rows, which are no kernel that is as wide on both sides
# hint: an odd number for every axis: 9 blocks for 3 times 3 places
# line: 10
from gategen import Cell, Eq, conv, inputs, matrices, states

x = inputs("x", size=("height", "width", "input"))
h = states("h", size=("height", "width", "hidden"))
K = matrices("K", shape=(("input",) * 3, "hidden"))

cell = Cell("cell", Eq(h.next, h + conv(x, K, over=("height", "width"))))
