# expects: A.T: the columns of A.T would be stacked
# hint: A[0].T @ v + A[1].T @ w
# line: 11
from gategen import Cell, Eq, inputs, matrices, states, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)

cell = Cell("cell", Eq(h.next, A.T @ h))
