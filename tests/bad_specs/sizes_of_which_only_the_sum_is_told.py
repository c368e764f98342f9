# expects: the shape of W tells the sum of the sizes hidden and input alone
# hint: separate parameters instead of stacked ones, or another parameter of that size
# line: 9
from gategen import Cell, Eq, concat, inputs, matrices, states

x = inputs("x")
h, c = states("h"), states("c", size=1)
W = matrices("W", shape=(1, ("input", "hidden")))
cell = Cell("cell", Eq(h.next, h / 2), Eq(c.next, W @ concat(x, h)))
