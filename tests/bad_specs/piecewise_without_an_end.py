# expects: Piecewise((h, h > 0)) is undefined where no condition holds
# hint: end it with (value, True)
# line: 14
import sympy

from gategen import Cell, Eq, inputs, matrices, states

x = inputs("x")
h = states("h")
W = matrices("W")

cell = Cell(
    "cell",
    Eq(h.next, sympy.Piecewise((h, h > 0)) + W @ x),
)
