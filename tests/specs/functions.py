"""Every function of the language, and SymPy's own words for the same."""

import sympy as sp

from gategen import (
    Cell,
    Eq,
    abs,
    clip,
    cos,
    elu,
    equal,
    exp,
    gates,
    gelu,
    hard_sigmoid,
    hard_tanh,
    inputs,
    leaky_relu,
    log,
    log1p,
    log_sigmoid,
    matrices,
    maximum,
    minimum,
    mod,
    relu,
    scalars,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    softsign,
    sqrt,
    square,
    states,
    stop_gradient,
    tanh,
    vectors,
    where,
)

x = inputs("x")
h, c = states("h c")
W, U = matrices("W U")
b, p = vectors("b p")
alpha = scalars("alpha")
a, d, e, f, g, k, m, n, o, r, s, z = gates("a d e f g k m n o r s z")

every_function = Cell(
    "every_function",
    Eq(a, W @ x + U @ h + b),
    Eq(d, sigmoid(a) + tanh(a) + relu(a) + leaky_relu(a, 0.2) + elu(a, 0.7)),
    Eq(e, silu(a) + gelu(a) + gelu(a, approximate="tanh") + softplus(a) + log_sigmoid(a)),
    Eq(f, softsign(a) + hard_sigmoid(a) + hard_tanh(a) + clip(a, -0.3, 0.4)),
    Eq(g, exp(a / 2) + log(square(a) + 1) + log1p(exp(a)) + sqrt(1 + a**2)),
    Eq(k, abs(a) + sign(a) + sin(a) + cos(a) + square(a)),
    Eq(m, maximum(a, h) + minimum(a, b) + where(a > h, a * h, b / 2) + where(equal(a, b), a, h)),
    Eq(n, mod(a, 0.7) + mod(a, 1.5 + square(b)) + stop_gradient(a) * h),
    Eq(o, (1 + exp(a)) ** 1.5 + (2 + a**2) ** -2 + a**3 + 1 / (3 + a**2)),
    Eq(h.next, tanh((d + e - f) / 9 + (g - k) / 7 + m - n / 5 + o / 50)),
)

# The same names through SymPy, some of them of values that no state enters.
words_of_sympy = Cell(
    "words_of_sympy",
    Eq(a, W @ x + b),
    Eq(d, sp.Max(a, p, 0) + sp.Min(a, p) + sp.Abs(a) * sp.Heaviside(a)),
    Eq(e, sp.Piecewise((a, a > 1), (a**2, a > 0), (-h, True)) + sp.erf(a + h)),
    Eq(h.next, sp.tanh(d + e / 3 + sp.exp(-(h**2)) + sp.sqrt(1 + p**2)) + sp.log(2 + sp.cos(a)) / 4),
)

switched = Cell(
    "switched",
    Eq(a, W @ x + U @ h + b),
    Eq(z, where(a >= 0, maximum(a, abs(h)), mod(a, 0.75))),
    Eq(r, where(h <= p, gelu(z), minimum(z, alpha))),
    Eq(s, where(a < 0.1, 1, where(h > 0.2, h, 0))),
    Eq(h.next, sp.erf(r) + leaky_relu(s) - relu(-h) / 2),
    Eq(c.next, c + where(z < 0, b, -b) * h.next),
)
