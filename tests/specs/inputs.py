"""Inputs beside the sequence: a mask, noise of its own size, time, also as a divisor; and several outputs."""

from gategen import (
    Cell,
    Eq,
    abs,
    batch_norm,
    exp,
    gates,
    inputs,
    log,
    matrices,
    sigmoid,
    sqrt,
    states,
    tanh,
    vectors,
)

x = inputs("x")
m = inputs("m", size=1)
v = inputs("v", size="hidden")
w = inputs("w", size="memory")
h, c = states("h c")
W, U, V, R = matrices("W U V R")
C = matrices("C", shape=("rank", "hidden"))
b, g = vectors("b g")
n, y, q = gates("n y q")

masked = Cell(
    "masked",
    Eq(n, tanh(W @ x + U @ h + b)),
    Eq(h.next, m * n + (1 - m) * h),
)

noisy = Cell(
    "noisy",
    Eq(n, tanh(W @ x + U @ (v * h) + V @ w + b)),
    Eq(h.next, v * n + sigmoid(R @ w) * h * m),
)

decayed = Cell(
    "decayed",
    Eq(n, exp(-(m**2)) * h),
    Eq(h.next, tanh(W @ x + U @ n + b)),
    Eq(y, n * h.next),
    output=(h.next, y),
)

normed = Cell(
    "normed",
    Eq(n, batch_norm(V @ w + W @ x, g, b, momentum=0.2)),
    Eq(h.next, tanh(n + U @ h) * sigmoid(batch_norm(v))),
)

normed_input = Cell("normed_input", Eq(h.next, tanh(V @ batch_norm(w) + U @ h) * batch_norm(W @ x, g)))

several = Cell(
    "several",
    Eq(n, tanh(W @ x + U @ h + b)),
    Eq(h.next, n + c / 2),
    Eq(c.next, sigmoid(R @ h.next) * c),
    Eq(y, C @ (c.next * n)),
    Eq(q, h * g),
    output=(y, c.next, q),
)

echo = Cell(
    "echo",
    Eq(h.next, tanh(W @ x + U @ h)),
    Eq(y, C @ h),
    Eq(q, h),
    output=(y, q),
)

elapsed = Cell(
    "elapsed",
    Eq(n, tanh(W @ x / v + log(abs(v)) + b)),
    Eq(h.next, n * h / (1 + v**2) + 1 / v),
    Eq(y, sqrt(abs(v)) * h.next),
    output=(h.next, y),
)

elapsed_at_first = Cell(
    "elapsed_at_first",
    Eq(n, tanh(W @ x / v + U @ h)),
    Eq(h.next, n + g / v),
    first=[Eq(h.next, tanh(V @ w + W @ x) / v)],
)
