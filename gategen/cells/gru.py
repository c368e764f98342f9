"""GRU, fully gated: reset before the product, z on the candidate (Chung et al. 2014, arXiv:1412.3555)."""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_z, W_r, W_h, U_z, U_r, U_h = matrices("W_z W_r W_h U_z U_r U_h")
b_z, b_r, b_h = vectors("b_z b_r b_h")
z, r, n = gates("z r n")

gru = Cell(
    "gru",
    Eq(z, sigmoid(W_z @ x + U_z @ h + b_z)),
    Eq(r, sigmoid(W_r @ x + U_r @ h + b_r)),
    Eq(n, tanh(W_h @ x + U_h @ (r * h) + b_h)),
    Eq(h.next, (1 - z) * h + z * n),
    title="GRU, fully gated: reset before the product, z on the candidate",
    reference="J. Chung, C. Gulcehre, K. Cho, Y. Bengio 2014, Empirical Evaluation of Gated Recurrent Neural "
    "Networks on Sequence Modeling, arXiv:1412.3555; Wikipedia, Gated recurrent unit",
)
