# expects: b is declared as vector and cannot be assigned
# hint: an equation gives a gate or the next value of a state
# line: 13
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")

cell = Cell(
    "cell",
    Eq(b, W @ x),
    Eq(h.next, tanh(U @ h + b)),
)
