"""GRU with zoneout: features that keep their old value at random (Krueger et al. 2016, arXiv:1606.01305).

m is a second input: in training a mask, 1 where the old value is kept; in evaluation the probability of
that. z multiplies the candidate n, as in `gru`.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
m = inputs("m", size="hidden")
h = states("h")
W_z, W_r, W_h, U_z, U_r, U_h = matrices("W_z W_r W_h U_z U_r U_h")
b_z, b_r, b_h = vectors("b_z b_r b_h")
z, r, n, k = gates("z r n k")

zoneout_gru = Cell(
    "zoneout_gru",
    Eq(z, sigmoid(W_z @ x + U_z @ h + b_z)),
    Eq(r, sigmoid(W_r @ x + U_r @ h + b_r)),
    Eq(n, tanh(W_h @ x + U_h @ (r * h) + b_h)),
    Eq(k, (1 - z) * h + z * n),
    Eq(h.next, m * h + (1 - m) * k),
    title="GRU with zoneout: a mask of features that keep their value",
    reference="D. Krueger et al. 2016, Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations, "
    "arXiv:1606.01305",
)
