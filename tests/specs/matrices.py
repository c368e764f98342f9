"""Cells with matrices in every row: states, gates, outputs, heads, and weights in blocks."""

from gategen import (
    Cell,
    Eq,
    abs,
    exp,
    gates,
    inputs,
    leaky_relu,
    log,
    log_sigmoid,
    matrices,
    maximum,
    mean,
    outer,
    scalars,
    sigmoid,
    softplus,
    sqrt,
    states,
    sum_,
    tanh,
    vectors,
)

x = inputs("x")
S = states("S", size=("hidden", "keys"))
W_k, W_q = matrices("W_k W_q", shape=("keys", "input"))
W_v, W_u = matrices("W_v W_u", shape=("hidden", "input"))
w_a, w_b = vectors("w_a w_b", size="input")
k, q, v, a, b, y, u, d, g = gates("k q v a b y u d g")

delta_rule = Cell(
    "delta_rule",
    Eq(k, W_k @ x / sqrt(sum_((W_k @ x) ** 2) + 1e-6)),
    Eq(v, W_v @ x),
    Eq(a, sigmoid(sum_(w_a * x))),
    Eq(b, sigmoid(sum_(w_b * x))),
    Eq(S.next, a * S + b * outer(v - a * (S @ k), k)),
    Eq(y, S.next @ (W_q @ x)),
    output=y,
)

A = matrices("A", shape=("hidden", "keys"))
D, b_d = vectors("D b_d")
n = states("n", size="keys")

static_matrix = Cell(
    "static_matrix",
    Eq(u, W_u @ x),
    Eq(d, softplus(W_v @ x + b_d)),
    Eq(k, W_k @ x),
    Eq(S.next, exp(-exp(A) * d) * S + outer(d * u, k)),
    Eq(n.next, tanh(S.T @ u + (1 - k) * n)),
    Eq(g, sum_(tanh(S.next * (1 - k)))),
    Eq(y, S.next @ (W_q @ x) + D * u + S.next @ n + g),
    output=(y, S.next),
)

alpha = scalars("alpha")
p = vectors("p", size="keys")
r = vectors("r")
F = states("F", size=("hidden", "keys"), initial=alpha)
M = states("M", size=("keys", "hidden"), initial=p)
h = states("h", initial=r)
U = matrices("U", shape=("hidden", "hidden"))
G, e = gates("G e")

two_matrices = Cell(
    "two_matrices",
    Eq(k, W_k @ x),
    Eq(v, tanh(W_v @ x + U @ h)),
    Eq(G, tanh(outer(v, k) + A * F)),
    Eq(F.next, 0.5 * F * sigmoid(A) + G * k),
    Eq(u, tanh(F.next.T @ h)),
    Eq(M.next, 0.4 * M * (1 - 0.1 * u) + outer(u, v) - sigmoid(h) * tanh(M) ** 2),
    Eq(e, tanh(sum_(M * M)) * mean(G * F)),
    Eq(h.next, v + 0.3 * tanh(M.next.T @ k) - log(1 + h**2) / (2 + e**2)),
    Eq(y, F @ k + F.next @ (k * u)),
    output=(y, F.next, M.next),
    first=(
        Eq(k, W_k @ x),
        Eq(v, tanh(W_v @ x)),
        Eq(F.next, F + outer(v, k)),
        Eq(M.next, M * sigmoid(M) + outer(k, v)),
        Eq(h.next, v * sum_(F)),
        Eq(y, F.next @ k),
    ),
)

C = states("C", size=("heads", "values", "keys"))
norm = states("norm", size="heads*keys")
m = states("m", size="heads")
R_q, R_k = matrices("R_q R_k", shape=("heads*keys", "input"))
R_v, R_o = matrices("R_v R_o", shape=("heads*values", "input"))
R_i, R_f = matrices("R_i R_f", shape=("heads", "input"))
b_i, b_f = vectors("b_i b_f", size="heads")
i, f, s, t, o = gates("i f s t o")

many_heads = Cell(
    "many_heads",
    Eq(q, R_q @ x),
    Eq(k, R_k @ x),
    Eq(v, R_v @ x),
    Eq(i, R_i @ x + b_i),
    Eq(f, log_sigmoid(R_f @ x + b_f)),
    Eq(m.next, maximum(f + m, i)),
    Eq(s, exp(i - m.next)),
    Eq(t, exp(f + m - m.next)),
    Eq(C.next, t * C + s * outer(v, k)),
    Eq(norm.next, t * norm + s * k),
    Eq(o, sigmoid(R_o @ x)),
    Eq(y, o * (C.next @ q) / maximum(abs(sum_(norm.next * q, over="keys")), 1)),
    Eq(g, tanh(C.next.T @ v) - mean(norm, over="keys")),
    output=(y, g, C.next),
)

B_z, B_r = matrices("B_z B_r", shape=("hidden", "hidden/heads"))
B_x = matrices("B_x", shape=("hidden", "input/heads"))
z = gates("z")

in_blocks = Cell(
    "in_blocks",
    Eq(z, sigmoid(B_x @ x + B_z @ h + r)),
    Eq(g, tanh(W_u @ x + B_r @ (z * h) + B_z.T @ h)),
    Eq(h.next, (1 - z) * h + z * g),
)

# Matrices that stand beside others in the first step alone, and in a sum alone.
A_1, A_2 = matrices("A_1 A_2", shape=("hidden", "input"))
Z = states("Z", size=("hidden", "input"))

beside_once = Cell(
    "beside_once",
    Eq(h.next, tanh(Z @ x)),
    Eq(Z.next, tanh(outer(sum_(A_2, over="input") + h, x) + Z)),
    first=[Eq(h.next, tanh(Z @ x)), Eq(Z.next, tanh(A_1 * outer(h + 1, x) + Z))],
)

# A vector that only a kernel of matrices reads, three times.
shared_part = Cell(
    "shared_part",
    Eq(h.next, tanh(Z @ x)),
    Eq(Z.next, 0.5 * leaky_relu(outer(1 / (h**2 + 1), x) * (1 - sigmoid(Z)) + sigmoid(Z) * Z)),
)
