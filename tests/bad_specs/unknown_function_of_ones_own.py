# expects: phi is not a function gategen knows
# hint: build it from
# line: 13
import sympy

from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
phi = sympy.Function("phi")

cell = Cell("cell", Eq(h.next, phi(W @ x + U @ h)))
