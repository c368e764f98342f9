"""sLSTM of the xLSTM with heads, each of which mixes its part of h (Beck et al. 2024, arXiv:2405.04517).

As `slstm`, but for the recurrent matrices, which are block-diagonal, a block for every head (section 2.2).
The blocks of a matrix lie one below the other, (hidden, hidden/heads).
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
W_i, W_f, W_z, W_o = matrices("W_i W_f W_z W_o")
R_i, R_f, R_z, R_o = matrices("R_i R_f R_z R_o", shape=("hidden", "hidden/heads"))
b_i, b_f, b_z, b_o = vectors("b_i b_f b_z b_o")
ip, fp, zp, op, lf, i, f = gates("ip fp zp op lf i f")

slstm_heads = Cell(
    "slstm_heads",
    Eq(ip, W_i @ x + R_i @ h + b_i),
    Eq(fp, W_f @ x + R_f @ h + b_f),
    Eq(zp, W_z @ x + R_z @ h + b_z),
    Eq(op, W_o @ x + R_o @ h + b_o),
    Eq(lf, log_sigmoid(fp) + m),
    Eq(m.next, where(equal(n, 0), ip, maximum(ip, lf))),
    Eq(i, exp(ip - m.next)),
    Eq(f, exp(lf - m.next)),
    Eq(c.next, f * c + i * tanh(zp)),
    Eq(n.next, f * n + i),
    Eq(h.next, sigmoid(op) * c.next / n.next),
    title="sLSTM of the xLSTM with heads: recurrent weights in blocks",
    reference="M. Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517; "
    "program github.com/NX-AI/xlstm",
)
