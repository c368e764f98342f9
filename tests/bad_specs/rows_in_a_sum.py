# expects: b is 3 vectors and stands where one belongs
# hint: take one, (b)[0]
# line: 11
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)

cell = Cell("cell", Eq(h.next, tanh(h + b)))
