# expects: a * b, which is 1e-60, is 0 in float32
# hint: such as 1e-30
# line: 10
from gategen import Cell, Eq, constants, inputs, matrices, states, tanh

x, h = inputs("x"), states("h")
W = matrices("W")
a, b = constants(a=1e-30, b=1e-30)

cell = Cell("cell", Eq(h.next, tanh(W @ x) + a * h * b))
