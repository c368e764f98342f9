# expects: S is a matrix of every row, and hidden/heads is the share of each of heads, which is no axis of it
# hint: all heads of them, each with its share: size=("heads", "hidden/heads", "keys")
# line: 7
from gategen import Cell, Eq, inputs, states

x = inputs("x")
S = states("S", size=("hidden/heads", "keys"))
cell = Cell("cell", Eq(S.next, S / 2))
