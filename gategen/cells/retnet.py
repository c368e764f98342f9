"""Retention in its recurrent form: outer products that decay by a number (Sun et al. 2023, arXiv:2307.08621).

Eq. 6; the paper writes vectors as rows and the state transposed. gamma is that of the first of its heads, 1
- 2**-5 (eq. 8). Left out is xPos (eq. 5): it rotates query and key by angles that grow with the number of
the step, which a step does not know. One head; group norm, swish gate and output matrix belong to the
block.
"""

from gategen import Cell, Eq, constants, gates, inputs, matrices, outer, states

x = inputs("x")
S = states("S", size=("hidden", "keys"))
W_q, W_k = matrices("W_q W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("hidden", "input"))
gamma = constants(gamma=0.96875)
q, k, v, y = gates("q k v y")

retnet = Cell(
    "retnet",
    Eq(q, W_q @ x),
    Eq(k, W_k @ x),
    Eq(v, W_v @ x),
    Eq(S.next, gamma * S + outer(v, k)),
    Eq(y, S.next @ q),
    output=y,
    title="Retention: a matrix of outer products, a fixed decay",
    reference="Y. Sun, L. Dong, S. Huang, S. Ma, Y. Xia, J. Xue, J. Wang, F. Wei 2023, Retentive Network: "
    "A Successor to Transformer for Large Language Models, arXiv:2307.08621",
)
