"""Names that generated code would like for itself."""

from gategen import Cell, Eq, constants, gates, inputs, matrices, scalars, sigmoid, states, tanh, vectors

# The sequence is not called x, and x is something else.
t, x, np, dtype = inputs("t x np dtype")
i, x_, tape, state, initial = gates("i x_ tape state initial")
h, T = states("h T")
H, count = states("H count", size="B")
B, I, W, params, forward = matrices("B I W params forward")  # noqa: E741
index, d, k, s, out = vectors("index d k s out")
grad, zip, lengths = scalars("grad zip lengths")
sigmoid_, step = vectors("sigmoid step")
y = constants(y=0.5)
d_h, h_next, d_y = gates("d_h h_next d_y")

colliding = Cell(
    "colliding",
    Eq(i, sigmoid(B @ t + I @ h + index)),
    Eq(x_, tanh(W @ (x + np * dtype) + d * k)),
    Eq(tape, i * x_ + grad * s),
    Eq(state, params @ (T * tape) + zip * out),
    Eq(initial, sigmoid_ * state + step),
    Eq(d_h, forward @ (initial - lengths) + H),
    Eq(h_next, tanh(h + initial)),
    Eq(d_y, h_next * y),
    Eq(h.next, d_y + T / 2),
    Eq(T.next, tanh(T * h.next)),
    Eq(H.next, tanh(d_h)),
    Eq(count.next, count / 2 + H.next),
    output=(d_y, count.next),
)

seed, positive, rng = (inputs(name, size=name) for name in ("seed", "positive", "rng"))
hidden_size, Params, Tape = matrices("hidden_size Params Tape")

sized = Cell("sized", Eq(h.next, tanh(W @ t + hidden_size @ seed + Params @ positive + Tape @ rng + h)))
