# expects: stacked rows need at least one size
# hint: ("hidden",) * 4
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)
c = vectors("c", size=())

cell = Cell("cell", Eq(h.next, tanh(A[0] @ x)))
