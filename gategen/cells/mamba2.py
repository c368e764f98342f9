"""Mamba2's SSD: a state space that decays by a number, as the input says (Dao & Gu 2024, arXiv:2405.21060).

One head: one step t, one A = -exp(A_log) and one D. u is the paper's X, and all projections read the input
(section 7.1). Discretised as in the program, by Euler's rule for B. Convolution, gate, norm and output
matrix belong to the block.
"""

from gategen import Cell, Eq, exp, gates, inputs, matrices, outer, scalars, softplus, states

x = inputs("x")
h = states("h", size=("hidden", "keys"))
W_u = matrices("W_u", shape=("hidden", "input"))
W_B, W_C = matrices("W_B W_C", shape=("keys", "input"))
W_t = matrices("W_t", shape=(1, "input"))
A_log, b_t, D = scalars("A_log b_t D")
u, B, C, t, y = gates("u B C t y")

mamba2 = Cell(
    "mamba2",
    Eq(u, W_u @ x),
    Eq(B, W_B @ x),
    Eq(C, W_C @ x),
    Eq(t, softplus(W_t @ x + b_t)),
    Eq(h.next, exp(-exp(A_log) * t) * h + outer(t * u, B)),
    Eq(y, h.next @ C + D * u),
    output=y,
    title="Mamba2's SSD: a selective state space that decays by a number",
    reference="T. Dao, A. Gu 2024, Transformers are SSMs: Generalized Models and Efficient Algorithms "
    "Through Structured State Space Duality, arXiv:2405.21060; program github.com/state-spaces/mamba",
)
