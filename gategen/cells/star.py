"""STAR, stackable recurrent cell: k multiplies the candidate (Turkoglu et al. 2019, arXiv:1911.11033).

The paper's form. The authors' program has the two offset gates of JANET instead of k and 1 - k.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_z, W_k, U_k = matrices("W_z W_k U_k")
b_z, b_k = vectors("b_z b_k")
z, k = gates("z k")

star = Cell(
    "star",
    Eq(z, tanh(W_z @ x + b_z)),
    Eq(k, sigmoid(W_k @ x + U_k @ h + b_k)),
    Eq(h.next, tanh((1 - k) * h + k * z)),
    title="Stackable recurrent cell",
    reference="M. O. Turkoglu, S. D'Aronco, J. D. Wegner, K. Schindler 2019, Gating Revisited: Deep "
    "Multi-layer RNNs That Can Be Trained, arXiv:1911.11033",
)
