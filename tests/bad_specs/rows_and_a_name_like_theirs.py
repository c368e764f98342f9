# expects: b_1 is also what generated code calls b[1]
# hint: declare it once, or give one of them another name
# line: 12
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)
b_1 = vectors("b_1")

cell = Cell("cell", Eq(h.next, tanh(A[0] @ x + A[1] @ x + A[2] @ x + b[0] + b[1] + b[2] + b_1)))
