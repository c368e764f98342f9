"""RWKV-7, Goose: a generalised delta rule, decay and rate for every key (Peng et al. 2025, arXiv:2503.14456).

One head of the time mixing. The input before the first is 0. The state loses what it has for the removal
key kappa, at the rate a, and gets the value v for the replacement key kr. The paper was not at hand: the
equations are those of the published program, which bounds the length of kappa from below by 1e-12. One rank
serves all projections of low rank, where the paper has one for each. Left out is what later layers mix into
their values, the values of the first. The output matrix belongs to the block.
"""

from typing import Any

from gategen import (
    Cell,
    Eq,
    exp,
    gates,
    inputs,
    layer_norm,
    matrices,
    outer,
    sigmoid,
    sqrt,
    states,
    sum_,
    t,
    tanh,
    vectors,
)

x = inputs("x")
S = states("S", size=("hidden", "keys"))
W_r, W_k = matrices("W_r W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("hidden", "input"))
mu_r, mu_k, mu_v, mu_w, mu_a, mu_g = vectors("mu_r mu_k mu_v mu_w mu_a mu_g", size="input")
A_w, A_a, A_g = matrices("A_w A_a A_g", shape=("rank", "input"))
B_w, B_a = matrices("B_w B_a", shape=("keys", "rank"))
B_g = matrices("B_g", shape=("hidden", "rank"))
b_w, b_a, xi, alpha, rho = vectors("b_w b_a xi alpha rho", size="keys")
g_y, b_y = vectors("g_y b_y")
r, k, v, w, a, g, kk, kappa, kr, y = gates("r k v w a g kk kappa kr y")


def lerp(mu: Any) -> Any:
    """Between this input and the previous one: the token shift."""
    return x + (x[t - 1] - x) * mu


rwkv7 = Cell(
    "rwkv7",
    Eq(r, W_r @ lerp(mu_r)),
    Eq(k, W_k @ lerp(mu_k)),
    Eq(v, W_v @ lerp(mu_v)),
    Eq(w, exp(-exp(-0.5) * sigmoid(b_w + B_w @ tanh(A_w @ lerp(mu_w))))),
    Eq(a, sigmoid(b_a + B_a @ (A_a @ lerp(mu_a)))),
    Eq(g, B_g @ sigmoid(A_g @ lerp(mu_g))),
    Eq(kk, k * xi),
    Eq(kappa, kk / sqrt(sum_(kk**2) + 1e-24)),
    Eq(kr, k * (1 + (a - 1) * alpha)),
    Eq(S.next, S * w - outer(S @ kappa, a * kappa) + outer(v, kr)),
    Eq(y, g * (layer_norm(S.next @ r, g_y, b_y, eps=64e-5) + sum_(r * rho * kr) * v)),
    output=y,
    title="RWKV-7, Goose: a generalised delta rule with vectors for decay and rate",
    reference='B. Peng et al. 2025, RWKV-7 "Goose" with Expressive Dynamic State Evolution, '
    "arXiv:2503.14456; program github.com/BlinkDL/RWKV-LM",
)
