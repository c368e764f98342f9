# expects: an equation folded to True
# hint: use gategen's Eq instead of sympy.Eq
# line: 13
import sympy

from gategen import Cell, Eq, gates, inputs, matrices, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    sympy.Eq(z, z),
    Eq(h.next, z * (U @ h) + W @ x),
)
