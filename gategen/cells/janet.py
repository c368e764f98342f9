"""JANET, an LSTM with the forget gate alone (van der Westhuizen & Lasenby 2018, arXiv:1804.04849).

The gate keeps sigmoid(s) of the state and lets in 1 - sigmoid(s - beta) of the candidate; with beta = 1
the two are not complementary. The cell state is the output, without tanh.
"""

from gategen import Cell, Eq, constants, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_f, W_c, U_f, U_c = matrices("W_f W_c U_f U_c")
b_f, b_c = vectors("b_f b_c")
beta = constants(beta=1)
s, g = gates("s g")

janet = Cell(
    "janet",
    Eq(s, W_f @ x + U_f @ h + b_f),
    Eq(g, tanh(W_c @ x + U_c @ h + b_c)),
    Eq(h.next, sigmoid(s) * h + (1 - sigmoid(s - beta)) * g),
    title="LSTM with the forget gate alone",
    reference="J. van der Westhuizen, J. Lasenby 2018, The Unreasonable Effectiveness of the Forget Gate, "
    "arXiv:1804.04849",
)
