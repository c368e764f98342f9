"""GLA, gated linear attention: outer products, a gate for every key (Yang et al. 2023, arXiv:2312.06635).

The paper writes vectors as rows and the state transposed, keys by values. The gate is the sigmoid to the
power 1/tau, of a projection of low rank. One head. Norm, output gate and output matrix belong to the block,
and so does the program's factor keys**-0.5 of the query.
"""

from gategen import (
    Cell,
    Eq,
    constants,
    exp,
    gates,
    inputs,
    log_sigmoid,
    matrices,
    outer,
    states,
    vectors,
)

x = inputs("x")
S = states("S", size=("hidden", "keys"))
W_q, W_k = matrices("W_q W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("hidden", "input"))
W_1 = matrices("W_1", shape=("rank", "input"))
W_2 = matrices("W_2", shape=("keys", "rank"))
b_a = vectors("b_a", size="keys")
tau = constants(tau=16)
q, k, v, a, y = gates("q k v a y")

gla = Cell(
    "gla",
    Eq(q, W_q @ x),
    Eq(k, W_k @ x),
    Eq(v, W_v @ x),
    Eq(a, exp(log_sigmoid(W_2 @ (W_1 @ x) + b_a) / tau)),
    Eq(S.next, S * a + outer(v, k)),
    Eq(y, S.next @ q),
    output=y,
    title="Gated linear attention: a matrix of outer products, a gate for every key",
    reference="S. Yang, B. Wang, Y. Shen, R. Panda, Y. Kim 2023, Gated Linear Attention Transformers with "
    "Hardware-Efficient Training, arXiv:2312.06635; program github.com/fla-org/flash-linear-attention",
)
