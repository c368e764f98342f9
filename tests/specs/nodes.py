"""Matrices that are read at every step: graphs of nodes with features, and a further one."""

from gategen import (
    Cell,
    Eq,
    gates,
    inputs,
    layer_norm,
    matrices,
    mean,
    outer,
    sigmoid,
    states,
    sum_,
    t,
    tanh,
    vectors,
)

X = inputs("X", size=("nodes", "input"))
E = inputs("E", size=("edges", 3))
m = inputs("m", size=1)
H = states("H", size=("nodes", "hidden"))
P = matrices("P", shape=("nodes", "nodes"))
Q = matrices("Q", shape=("nodes", "edges"))
W_z, W_n = matrices("W_z W_n", shape=("input", "hidden"))
U_z, U_n = matrices("U_z U_n", shape=("hidden", "hidden"))
V = matrices("V", shape=(3, "hidden"))
b_z, b_n = vectors("b_z b_n")
z, N, y = gates("z N y")

node_gru = Cell(
    "node_gru",
    Eq(z, sigmoid(X @ W_z + P @ (H @ U_z) + b_z)),
    Eq(N, tanh((P.T @ X) @ W_n + (z * H) @ U_n + (Q @ E) @ V + b_n)),
    Eq(H.next, (1 - z) * H + m * z * N),
    Eq(y, sum_(H.next, over="nodes") + mean(X)),
    output=(y, H.next),
)

c = states("c", size="nodes")
w, u = vectors("w u", size="input")
D = inputs("D", size=("nodes", "edges"))
S = states("S", size=("nodes", "edges"))
v, G = gates("v G")

# A size that only an input tells, an earlier value of a matrix, and a first step of its own.
told_by_inputs = Cell(
    "told_by_inputs",
    Eq(v, X @ w + X[t - 1] @ u),
    Eq(c.next, tanh(v + 0.5 * c)),
    Eq(G, layer_norm(D, eps=0.1, over="edges")),
    Eq(S.next, 0.5 * S * sigmoid(c) + G),
    output=(c.next, S.next),
    first=[
        Eq(v, X @ u),
        Eq(c.next, v - c),
        Eq(S.next, D + outer(v, sum_(S + D, over="nodes"))),
    ],
)
