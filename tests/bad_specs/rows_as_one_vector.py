# expects: 3 values stand where one belongs: A[0] @ x, A[1] @ x, A[2] @ x
# hint: unpack them first: v0, v1 = A @ x
# line: 11
from gategen import Cell, Eq, inputs, matrices, sigmoid, states, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)

cell = Cell("cell", Eq(h.next, sigmoid(A @ x)))
