# expects: the shape of no parameter tells the size
# hint: or a number for the size: size=4
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, vectors

x = inputs("x", size=("nodes", "keys", "hidden"))
S = states("S", size=("nodes", "keys", "hidden"))
p = vectors("p", size="nodes*keys*hidden")

cell = Cell("cell", Eq(S.next, p * S + x))
