"""minGRU and minLSTM: gates and candidates of the input alone (Feng et al. 2024, arXiv:2410.01201).

z multiplies the candidate. `mingru` has a linear candidate; `mingru_log` and `minlstm` have the candidate
that stays positive, so that the recurrence can be run on logarithms, and no biases, as in the published
program. minLSTM divides the two gates by their sum.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, vectors, where

x = inputs("x")
h = states("h")
W_z, W_f, W_i, W_h = matrices("W_z W_f W_i W_h")
b_z, b_h = vectors("b_z b_h")
z, f, i, a, n = gates("z f i a n")

FENG = (
    "L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi 2024, Were RNNs All We Needed?, "
    "arXiv:2410.01201"
)
LOG_FORM = f"{FENG}, log-space form; program github.com/lucidrains/minGRU-pytorch"

# continuous at 0, and positive everywhere
positive_candidate = (
    Eq(a, W_h @ x),
    Eq(n, where(a >= 0, a + 0.5, sigmoid(a))),
)

mingru = Cell(
    "mingru",
    Eq(z, sigmoid(W_z @ x + b_z)),
    Eq(n, W_h @ x + b_h),
    Eq(h.next, (1 - z) * h + z * n),
    title="Minimal GRU: gate and candidate of the input alone",
    reference=FENG,
)

mingru_log = Cell(
    "mingru_log",
    Eq(z, sigmoid(W_z @ x)),
    *positive_candidate,
    Eq(h.next, (1 - z) * h + z * n),
    title="Minimal GRU with a positive candidate",
    reference=LOG_FORM,
)

minlstm = Cell(
    "minlstm",
    Eq(f, sigmoid(W_f @ x)),
    Eq(i, sigmoid(W_i @ x)),
    *positive_candidate,
    Eq(h.next, f / (f + i) * h + i / (f + i) * n),
    title="Minimal LSTM with a positive candidate",
    reference=LOG_FORM,
)
