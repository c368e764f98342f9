"""Words of whole vectors: softmax, the largest feature, alone and jointly, of states and of parameters."""

from gategen import (
    Cell,
    Eq,
    cumsum,
    gates,
    inputs,
    log,
    logsumexp,
    matrices,
    max_,
    mean,
    relu,
    scalars,
    sigmoid,
    sign,
    size,
    softmax,
    sqrt,
    states,
    step,
    stop_gradient,
    surrogate,
    t,
    tanh,
    vectors,
    where,
)

x = inputs("x")
h = states("h")
m = states("m", size="memory")
v = states("v", initial=1 / size("hidden"))
W, V, W_a, U_a, W_m = matrices("W V W_a U_a W_m")
U = matrices("U", shape=("hidden", "hidden"))
R, M = matrices("R", shape=("memory", "hidden")), matrices("M")
b, k = vectors("b k")
u = vectors("u", size="memory")
alpha = scalars("alpha")
a, p, q, s, y = gates("a p q s y")

attentive = Cell(
    "attentive",
    Eq(p, softmax(R @ h + u)),
    Eq(m.next, p * m + (1 - p) * tanh(W_m @ x)),
    Eq(h.next, tanh(W @ x + V @ (p * m)) + logsumexp(m, h) / 4),
)

# p and q share their sum and lie beside nothing
shared = Cell(
    "shared",
    Eq(a, W_a @ x + U_a @ h),
    *(Eq(out, part) for out, part in zip((p, q, s), softmax(a, R @ h + u, alpha), strict=True)),
    Eq(h.next, tanh(W @ x + R.T @ q) * s + p * h),
)

# at 0 all entries are the largest; the last term is one of them twice
winner = Cell(
    "winner",
    Eq(a, W_a @ x + U_a @ h + b),
    Eq(s, max_(a)),
    Eq(h.next, tanh(a) * tanh(s) + tanh(max_(relu(a), U @ h)) * k - tanh(max_(h, h)) / 2),
    Eq(y, sigmoid(a) / (1 + max_(sigmoid(a)))),
    output=(h.next, y),
)

# of what is the same at every step, alone and beside what is not
standing = Cell(
    "standing",
    Eq(h.next, tanh(W @ x) * softmax(b) + h * max_(b, k) + max_(b, W @ x, alpha) - logsumexp(k, alpha)),
)

unmoved = Cell("unmoved", Eq(h.next, tanh(W @ x + U @ h - stop_gradient(max_(h, W @ x)))))

# twice, of a stack of gates, of what is the same at every step, of one feature
cumulative = Cell(
    "cumulative",
    Eq(a, cumsum(softmax(W_a @ x + U_a @ h))),
    Eq(p, 1 - cumsum(softmax(W @ x + U @ h + b))),
    Eq(s, cumsum(mean(h))),
    Eq(h.next, tanh(cumsum(cumsum(h * k)) / 4 + s * (V @ (a * p))) + p * h * cumsum(b)),
)

counting = Cell("counting", Eq(m.next, cumsum(m) / 2 + M @ cumsum(x)), Eq(h.next, W @ x + cumsum(alpha * k)))

# the value of a step, the derivative of something else; f and psi of other sizes
spiking = Cell(
    "spiking",
    Eq(a, W_a @ x + U_a @ p - y * b),
    Eq(p, surrogate(step(h - 0.3), tanh(2 * h) * k)),
    Eq(y, surrogate(sign(mean(h)), sigmoid(b * h))),
    Eq(h.next, alpha * h * (1 - p) + a),
    output=(p, y),
)

# how many features there are, in what is computed at every step and in what is computed once
scaled = Cell(
    "scaled",
    Eq(p, softmax(R @ h / sqrt(size("memory")))),
    Eq(q, 1 / size("hidden")),
    Eq(m.next, p * log(1 + size("memory")) + m * mean(p) / (size("hidden") + 2)),
    Eq(h.next, tanh(W @ x * (2 - q)) * where(size("hidden") > size("input"), h, 1) + sqrt(size("input")) * b),
    Eq(s, size("memory") / 100),
    output=(h.next, s, q),
)

evenly = Cell("evenly", Eq(v.next, tanh(W @ x) * v / size("input")), output=v.next)

# what the input and the state were some steps ago
delayed_by_two = Cell(
    "delayed_by_two",
    Eq(h.next, tanh(W @ x + V @ x[t - 2] + U @ h[t - 1]) * k + h[t - 3] / 2),
    first=[Eq(h.next, tanh(W @ x + b))],
)

# numbers with a root among sizes
rooted = Cell(
    "rooted", Eq(h.next, tanh(W @ x)), Eq(y, sqrt(2) * (size("hidden") * h / 7 + sqrt(2))), output=y
)
