"""FastRNN and FastGRNN: a weighted residual connection, then a gate (Kusupati et al. 2018, arXiv:1901.02358).

The scalars are trained through a sigmoid. In `fastgrnn` gate and candidate share W and U, and z multiplies
the previous state.
"""

from gategen import Cell, Eq, gates, inputs, matrices, scalars, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_h, U_h = matrices("W_h U_h")
b_z, b_h = vectors("b_z b_h")
alpha, beta, zeta, nu = scalars("alpha beta zeta nu")
a, z, n = gates("a z n")

KUSUPATI = (
    "A. Kusupati, M. Singh, K. Bhatia, A. Kumar, P. Jain, M. Varma 2018, FastGRNN: A Fast, Accurate, Stable "
    "and Tiny Kilobyte Sized Gated Recurrent Neural Network, arXiv:1901.02358"
)

fastrnn = Cell(
    "fastrnn",
    Eq(n, tanh(W_h @ x + U_h @ h + b_h)),
    Eq(h.next, sigmoid(alpha) * n + sigmoid(beta) * h),
    title="Simple recurrent network with a weighted residual connection",
    reference=f"{KUSUPATI}, eq. 2",
)

fastgrnn = Cell(
    "fastgrnn",
    Eq(a, W_h @ x + U_h @ h),
    Eq(z, sigmoid(a + b_z)),
    Eq(n, tanh(a + b_h)),
    Eq(h.next, z * h + (sigmoid(zeta) * (1 - z) + sigmoid(nu)) * n),
    title="Gated FastRNN: gate and candidate share their matrices",
    reference=f"{KUSUPATI}, eq. 6",
)
