"""Names that generated code would like for itself."""

from gategen import (
    Cell,
    Eq,
    batch_norm,
    constants,
    gates,
    inputs,
    matrices,
    scalars,
    sigmoid,
    states,
    tanh,
    vectors,
)

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

# What batch normalisation calls its own.
valid, training, mean_n, var_n = gates("valid training mean_n var_n")
U, V = matrices("U V")
b, scale_n = vectors("b scale_n")

named = Cell(
    "normed_by_name",
    Eq(valid, batch_norm(W @ t, scale_n, b)),
    Eq(mean_n, batch_norm(V @ t)),
    Eq(training, tanh(valid + U @ h)),
    Eq(var_n, sigmoid(mean_n * training)),
    Eq(h.next, training * var_n),
)

d_b, d_U, y_h = gates("d_b d_U y_h")

gradients = Cell(
    "gradients",
    Eq(d_b, tanh(W @ t + U @ h + b)),
    Eq(d_U, sigmoid(V @ d_b)),
    Eq(y_h, d_b * d_U),
    Eq(h.next, y_h + h / 2),
    output=(h.next, y_h),
)

# Further inputs keep their names as arguments where they can.
x = inputs("x")
d, k, y, T, H, B, out, np, count, index = inputs("d k y T H B out np count index")
h = states("h")
W, U = matrices("W U")

passed_by_name = Cell(
    "passed_by_name",
    Eq(h.next, tanh(W @ x + W @ (d + k * y + T + H * B + out + np + count * index)) + U @ h),
)

# A state, an input and a gate that share their names with what their vectors and matrices are stacked under.
c = states("c")
m, r = inputs("m", size="hidden"), gates("r")
c_i, c_f, m_i, m_f = vectors("c_i c_f m_i m_f")
R_i, R_f, r_i, r_f = matrices("R_i R_f r_i r_f")
i_gate, f_gate = gates("i_gate f_gate")

stems = Cell(
    "stems",
    Eq(i_gate, sigmoid(R_i @ t + r_i @ h + c_i + m_i * m)),
    Eq(f_gate, sigmoid(R_f @ t + r_f @ h + c_f + m_f * m)),
    Eq(r, c * f_gate),
    Eq(c.next, r + i_gate),
    Eq(h.next, tanh(c.next) * f_gate),
)

# What lies in a stack is said in a comment, which these names make longer than a line.
LONG = [f"a_gate_with_a_name_of_forty_characters_{k}" for k in (1, 2, 3)]
long_gates = gates(" ".join(LONG))
long_W, long_U = (matrices(" ".join(f"{stem}_{name}" for name in LONG)) for stem in "WU")
p, q, g = long_gates

long_stack = Cell(
    "long_stack",
    *(Eq(long_gates[k], sigmoid(long_W[k] @ t + long_U[k] @ h)) for k in (0, 1, 2)),
    Eq(h.next, p * q + g * h),
)
