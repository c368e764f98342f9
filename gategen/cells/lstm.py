"""LSTM with forget gate, without peepholes (Hochreiter & Schmidhuber 1997; Gers et al. 1999)."""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
W_i, W_f, W_g, W_o, U_i, U_f, U_g, U_o = matrices("W_i W_f W_g W_o U_i U_f U_g U_o")
b_i, b_f, b_g, b_o = vectors("b_i b_f b_g b_o")
i, f, g, o = gates("i f g o")

lstm = Cell(
    "lstm",
    Eq(i, sigmoid(W_i @ x + U_i @ h + b_i)),
    Eq(f, sigmoid(W_f @ x + U_f @ h + b_f)),
    Eq(g, tanh(W_g @ x + U_g @ h + b_g)),
    Eq(o, sigmoid(W_o @ x + U_o @ h + b_o)),
    Eq(c.next, f * c + i * g),
    Eq(h.next, o * tanh(c.next)),
    title="Long short-term memory with forget gate",
    reference="S. Hochreiter, J. Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8), 1735; "
    "F. Gers, J. Schmidhuber, F. Cummins 1999, Learning to Forget, doi:10.1049/cp:19991218",
)
