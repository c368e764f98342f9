"""Cells that are given heads: weights that are cut into blocks, and a number for the size `heads`."""

from gategen import (
    Cell,
    Eq,
    cumsum,
    gates,
    inputs,
    matrices,
    norm,
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
h = states("h")
W, U, M = matrices("W U M")
R = matrices("R", shape=(("hidden",) * 2, "hidden"))
b = vectors("b")
z, n = gates("z n")

cut_into_blocks = Cell(
    "cut_into_blocks",
    Eq(z, sigmoid(W @ x + R[0] @ h + b * norm(U))),
    Eq(n, tanh(W @ x + R[1] @ (z * h) - (M * U) @ h - R[0].T @ h)),
    Eq(h.next, (1 - z) * h + z * n),
).with_heads(2)

k, v, p, q, y = gates("k v p q y")
b_c = vectors("b_c", size="heads")
C = states("C", size=("heads", "values", "keys"))
c = states("c", size="heads", initial=b_c)
A = matrices("A", shape=(("heads", "heads"), "input"))
W_k = matrices("W_k", shape=("heads*keys", "input"))
W_v = matrices("W_v", shape=("heads*values", "input"))

of_three_heads = Cell(
    "of_three_heads",
    Eq(k, W_k @ x),
    Eq(p, sigmoid(A[0] @ x + b_c) / size("heads")),
    Eq(v, tanh(W_v @ x)),
    Eq(q, cumsum(v, over="heads")),
    Eq(C.next, p * C + outer(q, k) - softmax(C, over="heads")),
    Eq(c.next, tanh(c + A[1] @ x + sum_(v * q, over="values"))),
    Eq(y, (C.next @ k) * c),
    output=y,
).with_heads(3)
