"""Multiplicative LSTM: the input picks the recurrent weights (Krause et al. 2016, arXiv:1609.07959).

The product m = (W_m @ x) * (U_m @ h), without a bias, stands where the LSTM has h.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
W_m, W_i, W_f, W_o, W_u = matrices("W_m W_i W_f W_o W_u", shape=("hidden", "input"))
U_m, U_i, U_f, U_o, U_u = matrices("U_m U_i U_f U_o U_u", shape=("hidden", "hidden"))
b_i, b_f, b_o, b_u = vectors("b_i b_f b_o b_u")
m, i, f, o, u = gates("m i f o u")

mlstm = Cell(
    "mlstm",
    Eq(m, (W_m @ x) * (U_m @ h)),
    Eq(i, sigmoid(W_i @ x + U_i @ m + b_i)),
    Eq(f, sigmoid(W_f @ x + U_f @ m + b_f)),
    Eq(o, sigmoid(W_o @ x + U_o @ m + b_o)),
    Eq(u, tanh(W_u @ x + U_u @ m + b_u)),
    Eq(c.next, f * c + i * u),
    Eq(h.next, o * tanh(c.next)),
    title="Multiplicative LSTM",
    reference="B. Krause, L. Lu, I. Murray, S. Renals 2016, Multiplicative LSTM for sequence modelling, "
    "arXiv:1609.07959",
)
