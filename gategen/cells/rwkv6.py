"""RWKV-6, Finch: token shift and decay that depend on the input (Peng et al. 2024, arXiv:2404.05892).

One head of the time mixing, eqs. 14-22. The input before the first is 0. The paper writes vectors as rows
and the state transposed. u is the bonus of the current step. The eps of the norm is the program's. One rank
serves all projections of low rank, where the paper doubles that of the decay. The output matrix belongs to
the block.
"""

from typing import Any

from gategen import Cell, Eq, exp, gates, inputs, layer_norm, matrices, outer, silu, states, t, tanh, vectors

x = inputs("x")
S = states("S", size=("hidden", "keys"))
W_r, W_k = matrices("W_r W_k", shape=("keys", "input"))
W_v, W_g = matrices("W_v W_g", shape=("hidden", "input"))
mu_x, l_r, l_k, l_v, l_g, l_w = vectors("mu_x l_r l_k l_v l_g l_w", size="input")
A_r, A_k, A_v, A_g, A_w, A_d = matrices("A_r A_k A_v A_g A_w A_d", shape=("rank", "input"))
B_r, B_k, B_v, B_g, B_w = matrices("B_r B_k B_v B_g B_w", shape=("input", "rank"))
B_d = matrices("B_d", shape=("keys", "rank"))
l_d, u = vectors("l_d u", size="keys")
g_y, b_y = vectors("g_y b_y")
s, r, k, v, g, d, w, wkv, y = gates("s r k v g d w wkv y")


def lora(vector: Any, lam: Any, A: Any, B: Any) -> Any:
    """Eq. 14."""
    return lam + B @ tanh(A @ vector)


def ddlerp(lam: Any, A: Any, B: Any) -> Any:
    """Eq. 15: between this input and the previous one, as far as a mix of both says."""
    return x + (x[t - 1] - x) * lora(s, lam, A, B)


rwkv6 = Cell(
    "rwkv6",
    Eq(s, x + (x[t - 1] - x) * mu_x),
    Eq(r, W_r @ ddlerp(l_r, A_r, B_r)),
    Eq(k, W_k @ ddlerp(l_k, A_k, B_k)),
    Eq(v, W_v @ ddlerp(l_v, A_v, B_v)),
    Eq(g, W_g @ ddlerp(l_g, A_g, B_g)),
    Eq(d, lora(ddlerp(l_w, A_w, B_w), l_d, A_d, B_d)),
    Eq(w, exp(-exp(d))),
    Eq(wkv, S + outer(v, u * k)),
    Eq(S.next, S * w + outer(v, k)),
    Eq(y, silu(g) * layer_norm(wkv @ r, g_y, b_y, eps=64e-5)),
    output=y,
    title="RWKV-6, Finch: token shift and decay that depend on the input",
    reference="B. Peng et al. 2024, Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, "
    "arXiv:2404.05892; program github.com/BlinkDL/RWKV-LM",
)
