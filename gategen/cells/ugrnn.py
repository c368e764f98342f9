"""UGRNN, update gate RNN: g multiplies the previous state (Collins et al. 2017, arXiv:1611.09913)."""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_g, W_c, U_g, U_c = matrices("W_g W_c U_g U_c")
b_g, b_c = vectors("b_g b_c")
g, n = gates("g n")

ugrnn = Cell(
    "ugrnn",
    Eq(g, sigmoid(W_g @ x + U_g @ h + b_g)),
    Eq(n, tanh(W_c @ x + U_c @ h + b_c)),
    Eq(h.next, g * h + (1 - g) * n),
    title="Update gate recurrent network",
    reference="J. Collins, J. Sohl-Dickstein, D. Sussillo 2017, Capacity and Trainability in Recurrent "
    "Neural Networks, arXiv:1611.09913",
)
