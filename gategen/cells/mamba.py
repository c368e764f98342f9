"""Mamba's S6: a state space whose step, input and output the input sets (Gu & Dao 2023, arXiv:2312.00752).

Algorithm 2 with section 3.6: every feature of the input has a state of its own, A = -exp(A_log) is
diagonal, and the step t (the paper's Delta) is of low rank. B is discretised by Euler's rule, as in the
program, where the paper prints a zero-order hold. The program begins with A_log = log(1), log(2), ... in
every row. Convolution, gate and the other projections belong to the block.
"""

from gategen import Cell, Eq, exp, gates, inputs, matrices, outer, softplus, states, vectors

x = inputs("x", size="hidden")
h = states("h", size=("hidden", "keys"))
A_log = matrices("A_log", shape=("hidden", "keys"))
W_B, W_C = matrices("W_B W_C", shape=("keys", "hidden"))
W_1 = matrices("W_1", shape=("rank", "hidden"))
W_2 = matrices("W_2", shape=("hidden", "rank"))
b_t, D = vectors("b_t D")
t, B, C, y = gates("t B C y")

mamba = Cell(
    "mamba",
    Eq(t, softplus(W_2 @ (W_1 @ x) + b_t)),
    Eq(B, W_B @ x),
    Eq(C, W_C @ x),
    Eq(h.next, exp(-exp(A_log) * t) * h + outer(t * x, B)),
    Eq(y, h.next @ C + D * x),
    output=y,
    title="Mamba's S6: a selective state space, diagonal",
    reference="A. Gu, T. Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, "
    "arXiv:2312.00752; program github.com/state-spaces/mamba",
)
