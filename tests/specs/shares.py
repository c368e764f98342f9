"""Cells whose vectors of the size `hidden` have a part for every head."""

from gategen import (
    Cell,
    Eq,
    abs,
    exp,
    gates,
    inputs,
    layer_norm,
    log_sigmoid,
    matrices,
    maximum,
    mean,
    outer,
    sigmoid,
    size,
    softmax,
    states,
    sum_,
    tanh,
    vectors,
)

x = inputs("x")
C = states("C", size=("heads", "hidden/heads", "keys"))
norm = states("norm", size="heads*keys")
m = states("m", size="heads")
R_q, R_k = matrices("R_q R_k", shape=("heads*keys", "input"))
R_v, R_o = matrices("R_v R_o", shape=("hidden", "input"))
R_i, R_f = matrices("R_i R_f", shape=("heads", "input"))
b_i, b_f = vectors("b_i b_f", size="heads")
q, k, v, i, f, s, t, o, y, g = gates("q k v i f s t o y g")

shared_heads = Cell(
    "shared_heads",
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

h = states("h")
R = matrices("R", shape=("hidden", "hidden/heads"))
W = matrices("W")
b, gain = vectors("b gain")
scale = vectors("scale", size="heads")

norms_of_shares = Cell(
    "norms_of_shares",
    Eq(z := gates("z"), layer_norm(tanh(W @ x + R @ h + b), over="hidden/heads")),
    Eq(h.next, scale * z * gain + R.T @ (b * h)),
)

S = states("S", size=(2, "hidden/2", "keys"))
K = states("K", size="keys")
c = states("c", initial=b)
V = matrices("V", shape=("keys", "keys"))
W_k = matrices("W_k", shape=("keys", "input"))
U = matrices("U", shape=("hidden", "input"))
P = gates("P")

numbered_shares = Cell(
    "numbered_shares",
    Eq(P, softmax(S, over="hidden/2") / size("hidden")),
    Eq(K.next, tanh(W_k @ x + V @ K)),
    Eq(S.next, S * sigmoid(U @ x) + S @ V + outer(c, K.next)),
    Eq(c.next, P @ K + S.next @ K.next + sum_(P * S, over="keys")),
    output=(c.next, S.next),
)

X = inputs("X", size=("heads", "hidden/heads"))
A = states("A", size=("heads", "hidden/heads"))
B = matrices("B", shape=("keys", "hidden"))
e = vectors("e", size="heads")
n = states("n", size="keys")

inputs_of_shares = Cell(
    "inputs_of_shares",
    Eq(A.next, tanh(e * A + b * X) - mean(A, over="heads") / 2),
    Eq(n.next, n / 2 + B @ (b * v)),
    Eq(v, sigmoid(b) * h),
    Eq(h.next, h / 2 + sum_(A.next, over="hidden/heads") * b),
    output=(A.next, n.next),
)
