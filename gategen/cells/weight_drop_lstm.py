"""Weight-dropped LSTM (Merity et al. 2018, arXiv:1708.02182, section 2).

DropConnect on the weights from state to state: M holds 0 where a weight is dropped and 1/(1 - p) elsewhere,
drawn once a call and the same at every step. It is fixed, and begins with ones, with which the cell is an
LSTM: `params._replace(M=mask)` trains with a mask of (4 * hidden, hidden).
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
W_i, W_f, W_g, W_o, U_i, U_f, U_g, U_o = matrices("W_i W_f W_g W_o U_i U_f U_g U_o")
M_i, M_f, M_g, M_o = matrices("M_i M_f M_g M_o", trainable=False, initial=1)
b_i, b_f, b_g, b_o = vectors("b_i b_f b_g b_o")
i, f, g, o = gates("i f g o")

weight_drop_lstm = Cell(
    "weight_drop_lstm",
    Eq(i, sigmoid(W_i @ x + (M_i * U_i) @ h + b_i)),
    Eq(f, sigmoid(W_f @ x + (M_f * U_f) @ h + b_f)),
    Eq(g, tanh(W_g @ x + (M_g * U_g) @ h + b_g)),
    Eq(o, sigmoid(W_o @ x + (M_o * U_o) @ h + b_o)),
    Eq(c.next, f * c + i * g),
    Eq(h.next, o * tanh(c.next)),
    title="Weight-dropped LSTM",
    reference="S. Merity, N. S. Keskar, R. Socher 2018, Regularizing and Optimizing LSTM Language Models, "
    "ICLR, arXiv:1708.02182, section 2",
)
