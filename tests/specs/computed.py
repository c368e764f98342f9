"""Matrices that are computed of parameters, in every place where a product stands."""

from gategen import (
    Cell,
    Eq,
    constants,
    expm,
    gates,
    identity,
    inputs,
    inv,
    lower,
    matrices,
    norm,
    row_norms,
    scalars,
    sigmoid,
    size,
    sqrt,
    states,
    tanh,
    vectors,
)

x = inputs("x")
h, k = states("h k")
z, r = gates("z r")
W, V, U, A, B = matrices("W V U A B")
W_z, U_z, U_r = matrices("W_z U_z U_r")
S = matrices("S", trainable=False, initial=lower)
M = matrices("M", trainable=False)
P, Q = matrices("P", ("hidden", "rank")), matrices("Q", ("rank", "hidden"))
g = scalars("g")
b = vectors("b")
c = constants(c=0.25)
skew = A - A.T

sparse = Cell(
    "sparse",
    Eq(z, sigmoid(W_z @ x + (S * U_z) @ h + b)),
    Eq(r, sigmoid(W @ x + (S.T * U_r) @ h)),
    Eq(h.next, z * h + (1 - z) * tanh(W @ x + (M * U) @ (r * h))),
    first=[Eq(h.next, tanh((c * W) @ x + b))],
)

orthogonal = Cell(
    "orthogonal",
    Eq(z, expm(skew) @ h + W @ x),
    Eq(h.next, tanh((inv(identity + skew) @ (identity - skew)) @ z)),
    Eq(k.next, tanh(expm(c * A).T @ k + inv(2 * identity + skew) @ h)),
    output=(h.next, z),
)

rescaled = Cell(
    "rescaled",
    Eq(h.next, tanh((g * U / norm(U)) @ h + g * (V / row_norms(V)) @ x + norm(V - W) * (W @ x))),
    Eq(k.next, tanh((P @ Q) @ k + (Q.T @ P.T).T @ h + (B**2 - B / 3).T @ h + B @ k)),
)

by_their_sizes = Cell(
    "by_their_sizes",
    Eq(z, sigmoid((W / sqrt(size("input"))) @ x + ((U + size("rank") * A) / size("hidden")) @ h)),
    Eq(h.next, tanh(z * h + ((2 / size("rank")) * (P @ Q)) @ h + norm(sqrt(size("hidden")) * U) * (W @ x))),
)

alone = Cell("alone", Eq(h.next, (1 - sigmoid(norm(W) + b)) * h + (W / 2 + c * V) @ x))

# The shape of W_v is told by the matrix that is computed of it alone.
u = inputs("u", size="hidden")
W_v, V_v = matrices("W_v V_v")
told_inside = Cell("told_inside", Eq(k.next, h), Eq(h.next, tanh(V_v @ (W_v @ h) + (W_v * W_v) @ k + u)))
