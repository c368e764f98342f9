"""Matrices in every position: transposed, chained, stacked, used twice, between reductions."""

from gategen import (
    Cell,
    Eq,
    concat,
    gates,
    inputs,
    layer_norm,
    matrices,
    mean,
    sigmoid,
    sqrt,
    states,
    sum_,
    tanh,
    var,
    vectors,
)

x = inputs("x")
h, c = states("h c")
W, U, V = matrices("W U V")
P = matrices("P", shape=("hidden", "rank"))
Q = matrices("Q", shape=("rank", "hidden"))
Q_x = matrices("Q_x", shape=("rank", "input"))
A = matrices("A", shape=("hidden", ("hidden", "input")))
C = matrices("C", shape=("hidden", ("input", "hidden", "hidden")))
S = matrices("S", shape=(1, "hidden"))
W_h = matrices("W_h", shape=("rank", "input"))
b, g, q = vectors("b g q")
z, n, y, s = gates("z n y s")

tied = Cell(
    "tied",
    Eq(n, tanh(W @ x + U @ h + b)),
    Eq(h.next, sigmoid(U.T @ n) * h + n),
    Eq(y, W.T @ h.next),
    output=y,
)

chained = Cell("chained", Eq(h.next, tanh(P @ (Q_x @ x) + P @ (Q @ h) + b) + Q.T @ (P.T @ h)))

stacked = Cell(
    "stacked",
    Eq(z, sigmoid(A @ concat(h, x) + b)),
    Eq(n, tanh(C @ concat(x, z * h, c))),
    Eq(h.next, (1 - z) * h + z * n),
    Eq(c.next, c * z + A @ concat(n, x)),
)

twice = Cell(
    "twice",
    Eq(n, tanh(W @ x + U @ h + U @ c)),
    Eq(h.next, U @ (U @ n) + W @ x),
    Eq(c.next, V @ h.next + V @ h + V @ c + 2 * (V @ n)),
)

joint, other = layer_norm((U @ h, V @ h), gain=(g, None), bias=(b, q), eps=1e-3)

layered = Cell(
    "layered",
    Eq(z, sigmoid(W @ x + joint)),
    Eq(n, tanh(other + layer_norm(z * h, gain=q, bias=g))),
    Eq(h.next, layer_norm(h + n) * z + b),
)

reduced = Cell(
    "reduced",
    Eq(s, S @ h),
    Eq(z, h * sum_(h, W_h @ x) / 9 + mean(h * c) - s * b),
    Eq(h.next, tanh(z + U @ h) / sqrt(var(h, c) + 0.5)),
    Eq(c.next, c * mean(h.next, c) + s),
)

W_z, W_r, W_n, U_z, U_r, U_n = matrices("W_z W_r W_n U_z U_r U_n")
V_r = matrices("V_r", shape=("hidden", "hidden"))
r = gates("r")

middle = Cell(
    "middle",
    Eq(z, sigmoid(W_z @ x + U_z @ h)),
    Eq(r, sigmoid(W_r @ x + U_r @ h)),
    Eq(n, sigmoid(W_n @ x + U_n @ h)),
    Eq(h.next, tanh(V_r @ r) * z + n * h),
)

D = matrices("D", shape=("hidden", ("hidden", "input", "input")))
w = inputs("w", size="input")

doubled = Cell("doubled", Eq(h.next, tanh(D @ concat(h, x, w))))
