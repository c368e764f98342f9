"""DeltaNet and Gated DeltaNet: the delta rule on a matrix of outer products, without and with decay.

`deltanet` (Schlag et al. 2021, arXiv:2102.11174; Yang et al. 2024, arXiv:2406.06484) replaces what the
state has for a key, `S @ k`, by the share b of a new value. `gated_deltanet` (Yang et al. 2024,
arXiv:2412.06464, eq. 10) first lets the state decay by a number a, with Mamba2's parameters. Queries and
keys have length 1, as in the later two papers; the 1e-6 is the program's. One head. Short convolutions,
norm, output gate and output matrix belong to the block, and so does the program's factor keys**-0.5 of the
query.
"""

from typing import Any

from gategen import (
    Cell,
    Eq,
    exp,
    gates,
    inputs,
    matrices,
    outer,
    scalars,
    sigmoid,
    silu,
    softplus,
    sqrt,
    states,
    sum_,
)

x = inputs("x")
S = states("S", size=("hidden", "keys"))
W_q, W_k = matrices("W_q W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("hidden", "input"))
W_a, W_b = matrices("W_a W_b", shape=(1, "input"))
A_log, b_a = scalars("A_log b_a")
q, k, v, a, b, y = gates("q k v a b y")


def normalised(vector: Any) -> Any:
    """Of length 1."""
    return vector / sqrt(sum_(vector**2) + 1e-6)


deltanet = Cell(
    "deltanet",
    Eq(q, normalised(silu(W_q @ x))),
    Eq(k, normalised(silu(W_k @ x))),
    Eq(v, silu(W_v @ x)),
    Eq(b, sigmoid(W_b @ x)),
    Eq(S.next, S + b * outer(v - S @ k, k)),
    Eq(y, S.next @ q),
    output=y,
    title="DeltaNet: the delta rule on a matrix of outer products",
    reference="S. Yang, B. Wang, Y. Zhang, Y. Shen, Y. Kim 2024, Parallelizing Linear Transformers with the "
    "Delta Rule over Sequence Length, arXiv:2406.06484; program github.com/fla-org/flash-linear-attention",
)

gated_deltanet = Cell(
    "gated_deltanet",
    Eq(k, normalised(silu(W_k @ x))),
    Eq(v, silu(W_v @ x)),
    Eq(a, exp(-exp(A_log) * softplus(W_a @ x + b_a))),
    Eq(b, sigmoid(W_b @ x)),
    Eq(S.next, a * S + b * outer(v - a * (S @ k), k)),
    Eq(y, S.next @ normalised(silu(W_q @ x))),
    output=y,
    title="Gated DeltaNet: the delta rule on a matrix of outer products that decays",
    reference="S. Yang, J. Kautz, A. Hatamizadeh 2024, Gated Delta Networks: Improving Mamba2 with Delta "
    "Rule, arXiv:2412.06464; program github.com/fla-org/flash-linear-attention",
)
