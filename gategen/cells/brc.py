"""BRC, bistable recurrent cell: diagonal feedback (Vecoven, Ernst & Drion 2020, arXiv:2006.05252).

z multiplies the previous state. Where a, between 0 and 2, exceeds 1 a feature has two stable states. The
candidate has no bias, as in the authors' program.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_z, W_a, W_h = matrices("W_z W_a W_h")
w_z, w_a, b_z, b_a = vectors("w_z w_a b_z b_a")
z, a = gates("z a")

brc = Cell(
    "brc",
    Eq(z, sigmoid(W_z @ x + w_z * h + b_z)),
    Eq(a, 1 + tanh(W_a @ x + w_a * h + b_a)),
    Eq(h.next, z * h + (1 - z) * tanh(W_h @ x + a * h)),
    title="Bistable recurrent cell",
    reference="N. Vecoven, D. Ernst, G. Drion 2020, A Bio-inspired Bistable Recurrent Cell Allows for "
    "Long-lasting Memory, arXiv:2006.05252; program github.com/nvecoven/BRC",
)
