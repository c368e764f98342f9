# expects: A is declared twice, as stacked rows and as gate
# hint: give one of them another name
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)
i, f, o = A @ x
g = gates("A")

cell = Cell("cell", Eq(g, tanh(i + f + o)), Eq(h.next, g))
