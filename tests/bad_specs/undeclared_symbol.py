# expects: q is not declared
# hint: use inputs, states, gates, matrices, vectors, scalars or constants
# line: 15
import sympy

from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
q = sympy.Symbol("q")

cell = Cell(
    "cell",
    Eq(h.next, tanh(W @ x + U @ h + q)),
)
