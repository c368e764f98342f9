# expects: A is 3 matrices and stands without @
# hint: A @ x, which is 3 vectors
# line: 11
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)

cell = Cell("cell", Eq(h.next, tanh(A * h)))
