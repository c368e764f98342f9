# expects: A is declared twice as matrix, and both are used
# hint: declare it once, or give one of them another name
# line: 13
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)
i, f, o = A @ x
p, q = matrices("A", shape=(("hidden",) * 2, "input")) @ x

cell = Cell("cell", Eq(h.next, tanh(i + f + o) + p + q))
