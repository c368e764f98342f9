"""IndyGRU: the GRU with diagonal recurrence, so that features do not mix over time.

z multiplies the previous state; diagonal weights make reset before and after the product the same.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_r, W_z, W_h = matrices("W_r W_z W_h")
u_r, u_z, u_h, b_r, b_z, b_h = vectors("u_r u_z u_h b_r b_z b_h")
r, z, n = gates("r z n")

indygru = Cell(
    "indygru",
    Eq(r, sigmoid(W_r @ x + u_r * h + b_r)),
    Eq(z, sigmoid(W_z @ x + u_z * h + b_z)),
    Eq(n, tanh(W_h @ x + u_h * (r * h) + b_h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="GRU with diagonal recurrence",
    reference="IndyGRUCell of TensorFlow contrib; P. Gonnet, T. Deselaers 2019, IndyLSTMs: Independently "
    "Recurrent LSTMs, arXiv:1903.08023",
)
