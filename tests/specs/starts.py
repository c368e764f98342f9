"""What happens before the first step: trained initial states, a rule of its own for the first step."""

from gategen import (
    Cell,
    Eq,
    batch_norm,
    gates,
    inputs,
    matrices,
    mean,
    scalars,
    sigmoid,
    square,
    states,
    tanh,
    vectors,
)

x = inputs("x")
m = inputs("m", size=1)
v, b, b_n, b_o = vectors("v b b_n b_o")
alpha = scalars("alpha")
W, U, W_n, U_n, W_o, R = matrices("W U W_n U_n W_o R")
h = states("h", initial=v)
h_0 = states("h_0", initial=tanh(v) * alpha + 0.5)
c = states("c", initial=square(v) - mean(v))
d = states("d", initial=alpha)
k = states("k", size="memory", initial=-0.25)
n, o, y = gates("n o y")

trained = Cell("trained", Eq(h.next, tanh(W @ x + U @ h + b)))

trained_by_an_expression = Cell(
    "trained_by_an_expression",
    Eq(h_0.next, tanh(W @ x + U @ h_0 + b)),
    Eq(c.next, sigmoid(h_0.next) * c + v),
    Eq(d.next, d * b + c),
)

opened = Cell(
    "opened",
    Eq(n, tanh(W_n @ x + U_n @ k + b_n)),
    Eq(k.next, k + R @ n),
    Eq(o, sigmoid(W_o @ x + b_o) * n),
    first=[Eq(k.next, R @ (W_n @ x + b_n)), Eq(o, sigmoid(W_o @ x + b_n))],
    output=o,
)

opened_from_the_start = Cell(
    "opened_from_the_start",
    Eq(n, tanh(W_n @ x + U_n @ h + b_n)),
    Eq(h.next, n * m + (1 - m) * h),
    Eq(k.next, k * alpha + R @ n),
    Eq(y, h.next * b),
    first=[Eq(h.next, tanh(W @ x) * m + h), Eq(k.next, k - R @ h.next), Eq(y, b * h)],
    output=(y, h.next),
)

# The gate n has another size in the first step, where u and V are met for the only time.
u = inputs("u", size="memory")
V = matrices("V")

resized = Cell(
    "resized",
    Eq(n, tanh(W_n @ x + U_n @ k + b_n)),
    Eq(k.next, k + R @ n),
    first=[Eq(n, tanh(V @ x + u)), Eq(k.next, n * k)],
)

normed_after_the_first = Cell(
    "normed_after_the_first",
    Eq(n, tanh(batch_norm(W @ x, b_n, b) + U @ h)),
    Eq(h.next, n + h / 2),
    Eq(y, n * b_o),
    first=[Eq(h.next, tanh(W @ x)), Eq(y, h.next)],
    output=y,
)
