# expects: S is a matrix of every row, and hidden/heads is the share of each of heads, beside all of hidden
# hint: all heads of them, each with its share
# line: 7
from gategen import Cell, Eq, inputs, states

x = inputs("x")
S = states("S", size=("heads", "hidden/heads", "hidden"))
cell = Cell("cell", Eq(S.next, S / 2))
