"""sLSTM of the xLSTM: exponential input gate, normaliser, stabiliser (Beck et al. 2024, arXiv:2405.04517).

c and n are carried divided by exp(m), so that no exponential overflows; h does not depend on m. Before the
first step n is 0 and the stabiliser starts at the input gate. One head: the recurrent matrices are full.
"""

from gategen import (
    Cell,
    Eq,
    equal,
    exp,
    gates,
    inputs,
    log_sigmoid,
    matrices,
    maximum,
    sigmoid,
    states,
    tanh,
    vectors,
    where,
)

x = inputs("x")
h, c, n, m = states("h c n m")
W_i, W_f, W_z, W_o, U_i, U_f, U_z, U_o = matrices("W_i W_f W_z W_o U_i U_f U_z U_o")
b_i, b_f, b_z, b_o = vectors("b_i b_f b_z b_o")
ip, fp, zp, op, lf, i, f = gates("ip fp zp op lf i f")

slstm = Cell(
    "slstm",
    Eq(ip, W_i @ x + U_i @ h + b_i),
    Eq(fp, W_f @ x + U_f @ h + b_f),
    Eq(zp, W_z @ x + U_z @ h + b_z),
    Eq(op, W_o @ x + U_o @ h + b_o),
    Eq(lf, log_sigmoid(fp) + m),
    Eq(m.next, where(equal(n, 0), ip, maximum(ip, lf))),
    Eq(i, exp(ip - m.next)),
    Eq(f, exp(lf - m.next)),
    Eq(c.next, f * c + i * tanh(zp)),
    Eq(n.next, f * n + i),
    Eq(h.next, sigmoid(op) * c.next / n.next),
    title="sLSTM of the xLSTM: exponential gate with normaliser and stabiliser",
    reference="M. Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517; "
    "program github.com/NX-AI/xlstm",
)
