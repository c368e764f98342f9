# expects: ValueError: too many values to unpack
# hint: as many names on the left as there are values on the right
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)
i, f = A @ x

cell = Cell("cell", Eq(h.next, tanh(i + f)))
