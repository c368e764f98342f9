"""More matrices of every row: three states, products beside them, starts; blocks of several gates."""

from gategen import (
    Cell,
    Eq,
    gates,
    inputs,
    matrices,
    mean,
    outer,
    sigmoid,
    states,
    sum_,
    tanh,
    vectors,
)

x = inputs("x")
h = states("h")
C = states("C", size=("values", "keys"))
W_k = matrices("W_k", shape=("keys", "input"))
W_v = matrices("W_v", shape=("values", "input"))
U_k = matrices("U_k", shape=("keys", "hidden"))
U_v = matrices("U_v", shape=("values", "hidden"))
V_h = matrices("V_h", shape=("hidden", "values"))
V = matrices("V", shape=("hidden", "input"))
b_k = vectors("b_k", size="keys")
k, v, r, y, G = gates("k v r y G")

# Two matrices of one shape, one of another; gates that are matrices; one of them is an output.
D = states("D", size=("values", "keys"))
E = states("E", size=("hidden", "values"))
two_memories = Cell(
    "two_memories",
    Eq(k, W_k @ x),
    Eq(v, tanh(W_v @ x)),
    Eq(G, tanh(outer(v, k) + C)),
    Eq(C.next, tanh(C * sigmoid(v) + G * D * k)),
    Eq(D.next, D / (1 + sum_(G * G)) + 0.5 * outer(tanh(C.next @ k), tanh(C.T @ v))),
    Eq(E.next, 0.5 * E + outer(V @ x, v) * sum_(C * D)),
    output=(D.next, G),
)

# Products in the loop, between what handles the matrix.
fed_back = Cell(
    "fed_back",
    Eq(k, tanh(U_k @ h + W_k @ x)),
    Eq(v, U_v @ h),
    Eq(C.next, 0.5 * C + outer(v, k) / mean(k * k + 1)),
    Eq(r, C.next @ tanh(k)),
    Eq(h.next, tanh(V @ x + V_h @ r + sum_(C.next) / 50)),
)

A = matrices("A", shape=("hidden", "keys"))
S = states("S", size=("hidden", "keys"))
b_d, u = vectors("b_d"), gates("u")

# Initial states of parameters, each along another axis; then a rule for the first step.
M = states("M", size=("hidden", "keys"), initial=tanh(b_k))
N = states("N", size=("hidden", "keys"), initial=b_d)
started_matrices = Cell(
    "started_matrices",
    Eq(u, V @ x),
    Eq(k, W_k @ x),
    Eq(M.next, sigmoid(M) * N + outer(u, k)),
    Eq(N.next, N * b_k + tanh(A)),
    Eq(y, M.next.T @ u),
    output=y,
)

opened_matrices = Cell(
    "opened_matrices",
    Eq(u, V @ x),
    Eq(k, W_k @ x),
    Eq(S.next, tanh(S * k + outer(u, k))),
    Eq(h.next, S.next @ k + tanh(h)),
    first=[Eq(S.next, outer(V @ x, b_k)), Eq(h.next, S.next @ b_k)],
)

# Blocks of several gates beside each other, in both directions.
R_z, R_r, R_n = matrices("R_z R_r R_n", shape=("hidden", "hidden/heads"))
z, n = gates("z n")
e, b_e = states("e", size="heads"), vectors("b_e", size="heads")
gates_of_blocks = Cell(
    "gates_of_blocks",
    Eq(z, sigmoid(R_z @ h + V @ x)),
    Eq(r, sigmoid(R_r @ h)),
    Eq(n, tanh(R_n @ h + 1)),
    Eq(h.next, z * h + r * n),
    Eq(e.next, tanh(e + b_e) * mean(h)),
)
