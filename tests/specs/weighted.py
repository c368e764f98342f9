"""Weights that multiply matrices of every row, from the left and from the right."""

from gategen import (
    Cell,
    Eq,
    gates,
    inputs,
    matrices,
    outer,
    sigmoid,
    softmax,
    states,
    tanh,
    vectors,
)

x = inputs("x")
S = states("S", size=("hidden", "keys"))
A, B = matrices("A B", shape=("hidden", "hidden"))
U, V = matrices("U V", shape=("keys", "keys"))
W_o = matrices("W_o", shape=("memory", "hidden"))
P_o = matrices("P_o", shape=("keys", "rank"))
W_v = matrices("W_v", shape=("hidden", "input"))
W_k = matrices("W_k", shape=("keys", "input"))
b = vectors("b")
c = vectors("c", size="keys")
G, Z, M, N, Y, y, v, k = gates("G Z M N Y y v k")

both_sides = Cell(
    "both_sides",
    Eq(v, W_v @ x),
    Eq(k, W_k @ x),
    Eq(Z, sigmoid(A @ S + S @ U + c)),
    Eq(G, tanh(B.T @ (Z * S) + (Z * S) @ V.T + outer(v, k) + b)),
    Eq(S.next, (1 - Z) * S + Z * G),
    Eq(N, A @ S / 3),
    Eq(M, W_o @ S.next),
    Eq(Y, tanh(M) @ P_o),
    Eq(y, N @ k + A.T @ v),
    output=(Y, y),
    first=[
        Eq(v, W_v @ x),
        Eq(k, W_k @ x),
        Eq(S.next, tanh((A @ (S + outer(v, k))) @ U.T)),
        Eq(Y, W_o @ (S.next @ P_o)),
        Eq(y, v),
    ],
)

C = states("C", size=("heads", "values", "keys"))
h = states("h")
R_k = matrices("R_k", shape=("heads*keys", "input"))
R_v = matrices("R_v", shape=("heads*values", "hidden"))
E, F = matrices("E F", shape=("values", "values"))
J = matrices("J", shape=("keys", "hidden"))
Q_1 = matrices("Q_1", shape=("keys", "hidden"))
Q_2 = matrices("Q_2", shape=("hidden", "keys"))
W_h = matrices("W_h")
q, O, D = gates("q O D")  # noqa: E741

every_head = Cell(
    "every_head",
    Eq(q, R_k @ x),
    Eq(v, R_v @ h),
    Eq(D, (E * F) @ C + C @ (Q_1 @ Q_2)),
    Eq(O, softmax(C @ J, over="values")),
    Eq(C.next, tanh(D + outer(v, q) / 2 + (E - E.T) @ C)),
    Eq(h.next, tanh(W_h @ x + h)),
    Eq(y, D @ q),
    output=(y, O),
)

# Shapes that follow from use, a state that keeps its sizes, one weight on both sides.
X = states("X", size=("nodes", "hidden"))
T_n, T_h, T_x = matrices("T_n T_h T_x")
g = vectors("g")
a = vectors("a", size="nodes")
n = gates("n")

inferred_sizes = Cell(
    "inferred_sizes",
    Eq(v, tanh(T_x @ x + g)),
    Eq(X.next, tanh(T_n @ X + X @ T_h + X @ T_h.T + v + a)),
    Eq(M, T_n.T @ X.next),
    Eq(n, M @ v),
    output=(n, X.next),
)

# Two weights one after the other. On the way back a sum over the rows lies between the kernel that empties
# the gradient of the state and the product that adds to it.
Q = states("Q", size=("hidden", "input"))
A_m, B_m = matrices("A_m B_m", shape=("hidden", "hidden"))
b_m = vectors("b_m", size="input")

one_after_the_other = Cell(
    "one_after_the_other",
    Eq(Q.next, A_m @ (B_m @ Q) / 3 + x + b_m),
)
