"""Convolutions along one axis and two, and values that are shifted."""

from gategen import (
    Cell,
    Eq,
    conv,
    gates,
    inputs,
    matrices,
    outer,
    shifted,
    sigmoid,
    states,
    sum_,
    tanh,
    vectors,
)

x = inputs("x")
h = states("h")
S = states("S", size=("hidden", "keys"))
W_v = matrices("W_v")
W_k = matrices("W_k", shape=("keys", "input"))
A = matrices("A", shape=("hidden", "keys"))
b = vectors("b")
c = vectors("c", size="keys")
v, k, M, N, y = gates("v k M N y")

# Along both axes, far and beyond the ends, of vectors, of parameters and of what is computed.
moved = Cell(
    "moved",
    Eq(v, tanh(W_v @ x + shifted(h, 1, over="hidden") - shifted(b, -2, over="hidden"))),
    Eq(k, shifted(W_k @ x, -1, over="keys")),
    Eq(
        M,
        shifted(S * v + outer(v, k), 1, over="hidden")
        + shifted(shifted(S, -1, over="keys"), 2, over="hidden"),
    ),
    Eq(N, A * shifted(S, 100, over="keys") + shifted(c, 1, over="keys") * S),
    Eq(S.next, tanh(M + N / 2)),
    Eq(h.next, sigmoid(v + sum_(shifted(S.next, -3, over="hidden"), over="keys"))),
    Eq(y, shifted(S.next, 1, over="keys")),
    output=(h.next, y),
    first=[Eq(S.next, shifted(S, 1, over="keys")), Eq(h.next, shifted(h, -1, over="hidden")), Eq(y, S * c)],
)

X = inputs("X", size=("input", "positions"))
H = states("H", size=("hidden", "positions"))
K = matrices("K", shape=(("hidden",) * 5, "input"))
L = matrices("L", shape=(("hidden",), "hidden"))
U = matrices("U", shape=(("hidden",) * 3, "hidden"))
V = matrices("V", shape=(("rank",) * 3, "hidden"))
z, Y = gates("z Y")

# The weights on the left, kernels of five, three and one place, another size of the output.
channels_first = Cell(
    "channels_first",
    Eq(z, sigmoid(conv(K, X, over="positions") + conv(U, H, over="positions") + b)),
    Eq(H.next, (1 - z) * H + z * tanh(conv(L, z * H, over="positions"))),
    Eq(Y, conv(V, tanh(H.next) + b, over="positions")),
    output=Y,
)

I = inputs("I", size=("height", "width", "input"))  # noqa: E741
J = states("J", size=("height", "width", "hidden"))
P = matrices("P", shape=(("input",) * 9, "hidden"))
Q = matrices("Q", shape=("height", "width*hidden"))
G = gates("G")

# Images, and a peephole with a weight for every entry of one.
images = Cell(
    "images",
    Eq(G, conv(I, P, over=("height", "width"))),
    Eq(J.next, tanh(G + Q * J + shifted(J, 1, over="width"))),
)
