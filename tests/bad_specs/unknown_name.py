# expects: NameError: name 'b_h' is not defined
# hint: declare it with inputs, states, gates, matrices, vectors, scalars or constants
# line: 12
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell(
    "cell",
    Eq(h.next, tanh(W @ x + U @ h + b_h)),
)
