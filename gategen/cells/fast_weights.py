"""Fast weights by sums of outer products, which is linear attention (Schlag et al. 2021, arXiv:2102.11174).

Keys and queries are positive by elu + 1, and z, the sum of all keys, normalises what is read, as in
Katharopoulos et al. 2020 (arXiv:2006.16236), whose program has the 1e-6. One head. `deltanet` is what the
paper puts in its place.
"""

from gategen import Cell, Eq, elu, gates, inputs, matrices, outer, states, sum_

x = inputs("x")
F = states("F", size=("hidden", "keys"))
z = states("z", size="keys")
W_q, W_k = matrices("W_q W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("hidden", "input"))
q, k, v, y = gates("q k v y")

fast_weights = Cell(
    "fast_weights",
    Eq(q, elu(W_q @ x) + 1),
    Eq(k, elu(W_k @ x) + 1),
    Eq(v, W_v @ x),
    Eq(F.next, F + outer(v, k)),
    Eq(z.next, z + k),
    Eq(y, (F.next @ q) / (sum_(z.next * q) + 1e-6)),
    output=y,
    title="Fast weights, additive: linear attention with its normaliser",
    reference="I. Schlag, K. Irie, J. Schmidhuber 2021, Linear Transformers Are Secretly Fast Weight "
    "Programmers, arXiv:2102.11174",
)
