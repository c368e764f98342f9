"""MUT1, found by a search over architectures (Jozefowicz, Zaremba & Sutskever 2015, PMLR 37, 2342).

z multiplies the candidate, which reads tanh(x) itself: the input has the size of the state.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x", size="hidden")
h = states("h")
W_z, W_r, U_r, U_h = matrices("W_z W_r U_r U_h")
b_z, b_r, b_h = vectors("b_z b_r b_h")
z, r, n = gates("z r n")

mut1 = Cell(
    "mut1",
    Eq(z, sigmoid(W_z @ x + b_z)),
    Eq(r, sigmoid(W_r @ x + U_r @ h + b_r)),
    Eq(n, tanh(U_h @ (r * h) + tanh(x) + b_h)),
    Eq(h.next, n * z + h * (1 - z)),
    title="Mutated architecture 1 of a search over gated cells",
    reference="R. Jozefowicz, W. Zaremba, I. Sutskever 2015, An Empirical Exploration of Recurrent Network "
    "Architectures, PMLR 37, 2342",
)
