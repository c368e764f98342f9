"""mLSTM of the xLSTM: matrix memory, exponential input gate (Beck et al. 2024, arXiv:2405.04517, eqs. 19-27).

C and n are carried divided by exp(m), so that no exponential overflows (eqs. 15-17); then the 1 in the
normaliser of eq. 21 is exp(-m), and h does not depend on m. The forget gate is the sigmoid of the two that
eq. 26 offers. The program adds 1e-6 to the normaliser, the paper does not. One head. `mlstm` is the
multiplicative LSTM, which had the name before.
"""

from gategen import (
    Cell,
    Eq,
    abs,
    exp,
    gates,
    inputs,
    log_sigmoid,
    matrices,
    maximum,
    outer,
    scalars,
    sigmoid,
    size,
    sqrt,
    states,
    sum_,
    vectors,
)

x = inputs("x")
C = states("C", size=("hidden", "keys"))
n = states("n", size="keys")
m = states("m", size=1)
W_q, W_k = matrices("W_q W_k", shape=("keys", "input"))
W_v, W_o = matrices("W_v W_o", shape=("hidden", "input"))
W_i, W_f = matrices("W_i W_f", shape=(1, "input"))
b_q, b_k = vectors("b_q b_k", size="keys")
b_v, b_o = vectors("b_v b_o")
b_i, b_f = scalars("b_i b_f")
q, k, v, ip, lf, o, i, f, h = gates("q k v ip lf o i f h")

matrix_lstm = Cell(
    "matrix_lstm",
    Eq(q, W_q @ x + b_q),
    Eq(k, W_k @ x / sqrt(size("keys")) + b_k),
    Eq(v, W_v @ x + b_v),
    Eq(ip, W_i @ x + b_i),
    Eq(lf, log_sigmoid(W_f @ x + b_f) + m),
    Eq(o, sigmoid(W_o @ x + b_o)),
    Eq(m.next, maximum(lf, ip)),
    Eq(i, exp(ip - m.next)),
    Eq(f, exp(lf - m.next)),
    Eq(C.next, f * C + i * outer(v, k)),
    Eq(n.next, f * n + i * k),
    Eq(h, o * (C.next @ q) / maximum(abs(sum_(n.next * q)), exp(-m.next))),
    output=h,
    title="mLSTM of the xLSTM: matrix memory, exponential gate with normaliser and stabiliser",
    reference="M. Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517; "
    "program github.com/NX-AI/xlstm",
)
