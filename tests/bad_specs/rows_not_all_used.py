# expects: A[2] is not used
# hint: declare A without those rows, or use them
# line: 12
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)
i, f, _ = A @ x

cell = Cell("cell", Eq(h.next, tanh(i + f)))
