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
