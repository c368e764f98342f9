"""AntisymmetricRNN: a step of a stable differential equation (Chang et al. 2019, arXiv:1902.09689, eq. 10).

U_h - U_h.T has imaginary eigenvalues, so that signals neither grow nor fade; gamma damps them a little.
"""

from gategen import Cell, Eq, constants, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W_h, U_h = matrices("W_h U_h")
b_h = vectors("b_h")
ep, gamma = constants(ep=0.1, gamma=0.01)

antisymmetric = Cell(
    "antisymmetric",
    Eq(h.next, h + ep * tanh(U_h @ h - U_h.T @ h - gamma * h + W_h @ x + b_h)),
    title="Antisymmetric recurrent network",
    reference="B. Chang, M. Chen, E. Haber, E. H. Chi 2019, AntisymmetricRNN: A Dynamical System View on "
    "Recurrent Neural Networks, arXiv:1902.09689, eq. 10",
)
