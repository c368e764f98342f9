"""Cells without products in the loop, cells that are linear, cells that hardly do anything."""

from gategen import Cell, Eq, exp, gates, inputs, matrices, sigmoid, states, stop_gradient, tanh, vectors

x = inputs("x")
u = inputs("u", size="hidden")
h, c = states("h c")
k = states("k", size="memory")
W, W_f, W_r, U, V = matrices("W W_f W_r U V")
W_i, W_g, W_o, U_i, U_f, U_g, U_o = matrices("W_i W_g W_o U_i U_f U_g U_o")
C = matrices("C", shape=("rank", "hidden"))
b, b_f, v_f, v_r, v_o, a = vectors("b b_f v_f v_r v_o a")
f, i, g, o, r, y = gates("f i g o r y")

highway = Cell(
    "highway",
    Eq(f, sigmoid(W_f @ x + v_f * c + b_f)),
    Eq(c.next, f * c + (1 - f) * (W @ x)),
    Eq(r, sigmoid(W_r @ x + v_r * c)),
    Eq(h.next, r * tanh(c.next) + (1 - r) * (V @ x)),
)

linear = Cell("linear", Eq(h.next, U @ h + W @ x + b), Eq(y, C @ h.next), output=y)

diagonal = Cell("diagonal", Eq(h.next, exp(-exp(a)) * h + W @ x))

adding = Cell("adding", Eq(h.next, h + W @ x))

forgetful = Cell("forgetful", Eq(h.next, tanh(W @ x + b)))

swapped = Cell("swapped", Eq(h.next, c), Eq(c.next, h * f), Eq(f, sigmoid(W @ x)), Eq(y, h * c + b), output=y)

delayed = Cell("delayed", Eq(h.next, W @ x), Eq(c.next, h), output=c.next)

detached = Cell("detached", Eq(h.next, tanh(stop_gradient(U @ h) + W @ x) + stop_gradient(b) * h))

deep = Cell(
    "deep",
    Eq(h.next, tanh(W @ x + U @ h + b)),
    Eq(k.next, tanh(V @ h.next + k)),
    Eq(c.next, sigmoid(W_r @ k.next + b_f * c)),
    output=c.next,
)

ungated = Cell("ungated", Eq(h.next, tanh(h + b * u)))

# Four gates in one array, one of which is computed apart from the others.
peeping = Cell(
    "peeping",
    Eq(i, sigmoid(W_i @ x + U_i @ h)),
    Eq(f, sigmoid(W_f @ x + U_f @ h)),
    Eq(g, tanh(W_g @ x + U_g @ h)),
    Eq(c.next, f * c + i * g),
    Eq(o, sigmoid(W_o @ x + U_o @ h + v_o * c.next)),
    Eq(h.next, o * tanh(c.next)),
)
