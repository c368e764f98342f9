# expects: gamma is not a function gategen knows
# hint: build it from
# line: 12
import sympy

from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell("cell", Eq(h.next, sympy.gamma(W @ x + U @ h)))
