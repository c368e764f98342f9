"""Parameters that say what they hold: patterns, numbers, blocks; and fixed ones that `init` asks for."""

from gategen import (
    Cell,
    Eq,
    blocks,
    concat,
    identity,
    inputs,
    lower,
    matrices,
    mod,
    rotation,
    scalars,
    shift,
    sigmoid,
    states,
    strict_lower,
    tanh,
    vectors,
    where,
)

x = inputs("x")
h, m = states("h m")
W = matrices("W")

S = matrices("S", trainable=False, initial=lower)
L = matrices("L", trainable=False, initial=strict_lower)
D = matrices("D", trainable=False, initial=shift(1))
O = matrices("O", trainable=False, initial=rotation(-2))  # noqa: E741
E = matrices("E", shape=("hidden", "input"), trainable=False, initial=blocks(1, -0.5))
B = matrices("B", initial=blocks(lower, identity))
period = vectors("period", trainable=False, initial=blocks(1, 2))

patterns = Cell(
    "patterns",
    Eq(h.next, where(mod(m, period) < 0.5, tanh(W @ x + S @ h), L @ h) + D @ m + O @ h / 4),
    Eq(m.next, sigmoid(B @ h) + E @ x),
)

N = matrices("N", shape=(3, 2), trainable=False, initial=((1, 0.5), (0, -2), (1e-3, 4)))
n, p = states("n", size=3), states("p", size=2)
e = vectors("e", size=2, trainable=False, initial=(0.25, 3))
b_f = vectors("b_f", initial=1)
alpha = scalars("alpha", initial=0.5)
half = scalars("half", trainable=False, initial=-0.5)

numbers = Cell(
    "numbers",
    Eq(h.next, alpha * tanh(W @ x + b_f) + half * h),
    Eq(n.next, sigmoid(N @ (e * p)) + half * n),
    Eq(p.next, tanh(N.T @ n) + e),
)

A = matrices(
    "A", shape=(("hidden", "hidden"), ("hidden", "input")), trainable=False, initial=((shift(-1), 2), 0.5)
)
G = matrices("G", shape=(("hidden", "hidden"), "hidden"), initial=identity)
g = vectors("g", size=("hidden", "hidden"), initial=(1, blocks(0, -1)))
u, v = A @ concat(h, x)
r, s = G @ h

stacks = Cell("stacks", Eq(h.next, tanh(u + g[0] * r) + sigmoid(v + g[1] * s)))

H, seed, k = matrices("H seed k", trainable=False)
memory = vectors("memory", size="memory", trainable=False)
c = states("c", size="memory")
V = matrices("V")

asked = Cell("asked", Eq(h.next, tanh(H @ x + seed @ h + k @ c)), Eq(c.next, memory * c + V @ h))
