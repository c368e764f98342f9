"""Words that go along one axis of a matrix, or of the features of every head."""

from gategen import (
    Cell,
    Eq,
    cumsum,
    gates,
    inputs,
    layer_norm,
    logsumexp,
    matrices,
    max_,
    outer,
    sigmoid,
    softmax,
    states,
    sum_,
    tanh,
    var,
    vectors,
)

x = inputs("x")
S = states("S", size=("hidden", "keys"))
h = states("h")
W_k = matrices("W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("hidden", "input"))
g, b = vectors("g b", size="keys")
k, v, m, N, P, Q, y, u = gates("k v m N P Q y u")

along_axes = Cell(
    "along_axes",
    Eq(k, W_k @ x),
    Eq(v, tanh(W_v @ x) + h),
    Eq(N, layer_norm(S + outer(v, k), g, b, eps=0.1, over="keys")),
    Eq(P, softmax(2 * S, over="hidden") * N),
    Eq(Q, cumsum(tanh(P), over="keys") - cumsum(S * k, over="hidden") / 3),
    Eq(m, max_(S * N, over="keys") + var(S, over="keys")),
    Eq(u, logsumexp(S, over="hidden") - max_(Q, over="hidden")),
    Eq(S.next, tanh(0.5 * S + Q + outer(m, u))),
    Eq(h.next, tanh(m + N @ u)),
    Eq(y, sum_(softmax(S.next, over="keys") * k, over="keys")),
    output=(y, Q),
)

W_n = matrices("W_n", shape=("heads*values", "input"))
a = vectors("a", size="values")
c = vectors("c", size="heads")
n = states("n", size="heads*values")
C = states("C", size=("heads", "values", "keys"))
o, s, w, D = gates("o s w D")

per_head = Cell(
    "per_head",
    Eq(o, layer_norm(W_n @ x + n, a, c, eps=0.1, over="values")),
    Eq(s, softmax(n * o, over="values") + cumsum(o, over="heads") / 2),
    Eq(w, max_(s, over="values") * logsumexp(o, over="values")),
    Eq(D, layer_norm(C * s, over="values") + softmax(C, over="heads") + cumsum(C, over="values") / 4),
    Eq(n.next, tanh(o * w + max_(D, over="keys"))),
    Eq(C.next, sigmoid(c) * D / 2 + outer(s, W_k @ x) * max_(C, over="heads")),
    output=(n.next, D),
)
