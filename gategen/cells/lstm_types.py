"""LSTM before and after the forget gate: the original, peepholes, projection, coupled gates.

Peephole weights are diagonal. The input and the forget gate look at the old cell state, the output gate at
the new one. In `lstm_sak` the state that feeds back is a projection of another size; in `lstm_cifg` the
forget gate is 1 - i.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
W_i, W_f, W_g, W_o, U_i, U_f, U_g, U_o = matrices("W_i W_f W_g W_o U_i U_f U_g U_o")
b_i, b_f, b_g, b_o, p_i, p_f, p_o = vectors("b_i b_f b_g b_o p_i p_f p_o")
i, f, g, o = gates("i f g o")

lstm_1997 = Cell(
    "lstm_1997",
    Eq(i, sigmoid(W_i @ x + U_i @ h + b_i)),
    Eq(g, tanh(W_g @ x + U_g @ h + b_g)),
    Eq(o, sigmoid(W_o @ x + U_o @ h + b_o)),
    Eq(c.next, c + i * g),
    Eq(h.next, o * tanh(c.next)),
    title="Long short-term memory of 1997: no forget gate",
    reference="S. Hochreiter, J. Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8), 1735",
)

lstm_peephole = Cell(
    "lstm_peephole",
    Eq(i, sigmoid(W_i @ x + U_i @ h + p_i * c + b_i)),
    Eq(f, sigmoid(W_f @ x + U_f @ h + p_f * c + b_f)),
    Eq(g, tanh(W_g @ x + U_g @ h + b_g)),
    Eq(c.next, f * c + i * g),
    Eq(o, sigmoid(W_o @ x + U_o @ h + p_o * c.next + b_o)),
    Eq(h.next, o * tanh(c.next)),
    title="LSTM with peepholes: the gates see the cell state",
    reference="F. Gers, N. Schraudolph, J. Schmidhuber 2002, Learning Precise Timing with LSTM Recurrent "
    "Networks, JMLR 3, 115; ONNX Operators, LSTM with P",
)

lstm_cifg = Cell(
    "lstm_cifg",
    Eq(i, sigmoid(W_i @ x + U_i @ h + p_i * c + b_i)),
    Eq(g, tanh(W_g @ x + U_g @ h + b_g)),
    Eq(c.next, i * g + (1 - i) * c),
    Eq(o, sigmoid(W_o @ x + U_o @ h + p_o * c.next + b_o)),
    Eq(h.next, o * tanh(c.next)),
    title="LSTM with coupled input and forget gate, and peepholes",
    reference="K. Greff, R. K. Srivastava, J. Koutnik, B. R. Steunebrink, J. Schmidhuber 2017, LSTM: A "
    "Search Space Odyssey, arXiv:1503.04069",
)

r = states("r", size="projection")
c = states("c")  # declared after r: the first state is the output
R_i, R_f, R_g, R_o = matrices("R_i R_f R_g R_o", shape=("hidden", "projection"))
P = matrices("P", shape=("projection", "hidden"))

lstm_sak = Cell(
    "lstm_sak",
    Eq(i, sigmoid(W_i @ x + R_i @ r + p_i * c + b_i)),
    Eq(f, sigmoid(W_f @ x + R_f @ r + p_f * c + b_f)),
    Eq(g, tanh(W_g @ x + R_g @ r + b_g)),
    Eq(c.next, f * c + i * g),
    Eq(o, sigmoid(W_o @ x + R_o @ r + p_o * c.next + b_o)),
    Eq(r.next, P @ (o * tanh(c.next))),
    title="LSTM with peepholes and a recurrent projection",
    reference="H. Sak, A. Senior, F. Beaufays 2014, Long Short-Term Memory Based Recurrent Neural Network "
    "Architectures for Large Vocabulary Speech Recognition, arXiv:1402.1128",
)
