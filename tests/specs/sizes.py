"""States of several sizes, further sizes, sizes that are numbers."""

from gategen import Cell, Eq, gates, inputs, matrices, mean, scalars, sigmoid, states, tanh, vectors

x = inputs("x")
r = states("r", size="projection")
c = states("c")
s = states("s", size=1)
k = states("k", size=6)
W_i, W_f, W_g, W_o, R_i, R_f, R_g, R_o, P = matrices("W_i W_f W_g W_o R_i R_f R_g R_o P")
K, L, A = matrices("K L A")
M = matrices("M", shape=("memory", "hidden"))
b_i, b_f, b_g, b_o, p_i, p_f = vectors("b_i b_f b_g b_o p_i p_f")
e = vectors("e", size=1)
a = vectors("a", size="memory")
alpha = scalars("alpha")
i, f, g, o, y = gates("i f g o y")

projected = Cell(
    "projected",
    Eq(i, sigmoid(W_i @ x + R_i @ r + p_i * c + b_i)),
    Eq(f, sigmoid(W_f @ x + R_f @ r + p_f * c + b_f)),
    Eq(g, tanh(W_g @ x + R_g @ r + b_g)),
    Eq(c.next, f * c + i * g),
    Eq(o, sigmoid(W_o @ x + R_o @ r + b_o)),
    Eq(r.next, P @ (o * tanh(c.next))),
    output=r.next,
)

narrow = Cell(
    "narrow",
    Eq(c.next, tanh(W_i @ x + R_i @ c + s * b_i)),
    Eq(s.next, alpha * s + mean(c.next) * e),
)

numbered = Cell(
    "numbered",
    Eq(k.next, tanh(K @ x + L @ k)),
    Eq(c.next, sigmoid(A @ k.next) * c + b_i),
    Eq(y, tanh(M @ c.next + a)),
    output=y,
)

# Sizes that the inputs alone tell, and cells with hardly any parameters or none.
x_h = inputs("x", size="hidden")
u = inputs("u", size=1)
m = inputs("m", size="memory")
s_m = states("s", size="memory")
h = states("h")
h_0 = scalars("h_0")
h_trained = states("h", initial=h_0)
p, q = states("p", size="left"), states("q", size="right")
W_p = matrices("W_p", shape=("left", "input"))
W_q = matrices("W_q", shape=("right", "input"))

parameterless = Cell("parameterless", Eq(h.next, 0.9 * h + x_h))
scaled = Cell("scaled", Eq(h.next, h * alpha + x_h))
started = Cell("started", Eq(h_trained.next, 0.9 * h_trained + x_h), first=[Eq(h_trained.next, tanh(x_h))])
started_late = Cell("started_late", Eq(h_trained.next, 0.9 * h_trained + tanh(x_h)))
told_by_the_second = Cell("told_by_the_second", Eq(s_m.next, 0.9 * s_m + u * m))
told_apart = Cell("told_apart", Eq(p.next, tanh(W_p @ x) + p / 2), Eq(q.next, tanh(W_q @ x) * q))
