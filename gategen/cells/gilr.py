"""GILR, gated impulse linear recurrence: gates of the input alone (Martin & Cundy 2018, arXiv:1709.04057).

g multiplies the previous state.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_g, W_j = matrices("W_g W_j")
b_g, b_j = vectors("b_g b_j")
g, j = gates("g j")

gilr = Cell(
    "gilr",
    Eq(g, sigmoid(W_g @ x + b_g)),
    Eq(j, tanh(W_j @ x + b_j)),
    Eq(h.next, g * h + (1 - g) * j),
    title="Gated impulse linear recurrence",
    reference="E. Martin, C. Cundy 2018, Parallelizing Linear Recurrent Neural Nets Over Sequence Length, "
    "arXiv:1709.04057",
)
