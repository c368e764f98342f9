# expects: a is declared twice, as gate and as vector
# hint: declare it once, or give one of them another name
# line: 14
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W, U = matrices("W U")
n = gates("a")
a = vectors("a")

cell = Cell(
    "cell",
    Eq(h.next, n * h + a),
    Eq(n, tanh(W @ x + U @ h)),
)
