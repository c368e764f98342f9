# expects: layer_norm of 2 values takes as many gains, not 3
# hint: None stands for no gain and no bias
# line: 11
from gategen import Cell, Eq, inputs, layer_norm, matrices, states, vectors

x = inputs("x")
h = states("h")
A = matrices("A", shape=(("hidden",) * 3, "input"))
b = vectors("b", size=("hidden",) * 3)

cell = Cell("cell", Eq(h.next, layer_norm((A[0] @ x, h), b)[0]))
