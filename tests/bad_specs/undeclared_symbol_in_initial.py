# expects: p is not declared
# hint: use inputs, states, gates, matrices, vectors, scalars or constants
# line: 9
import sympy

from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h", initial=sympy.Symbol("p"))
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, tanh(W @ x + U @ h)))
