# expects: 1e+39 is infinite in float32
# hint: such as 1e30
# line: 7
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h", initial=1e39)
W = matrices("W")

cell = Cell("cell", Eq(h.next, tanh(W @ x) + h))
