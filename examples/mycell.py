"""A cell of one's own: a GRU whose reset gate sees how far the state moved at the step before."""

from gategen import Cell, Eq, abs, gates, hard_sigmoid, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, m = states("h m")  # m: the size of the last move
W_z, W_r, W_n, U_z, U_n = matrices("W_z W_r W_n U_z U_n")
b_z, b_r, b_n, p_r = vectors("b_z b_r b_n p_r")
z, r, n = gates("z r n")

mycell = Cell(
    "mycell",
    Eq(z, hard_sigmoid(W_z @ x + U_z @ h + b_z, slope=0.2)),
    Eq(r, sigmoid(W_r @ x + p_r * m + b_r)),
    Eq(n, tanh(W_n @ x + U_n @ (r * h) + b_n)),
    Eq(h.next, (1 - z) * h + z * n),
    Eq(m.next, abs(h.next - h)),
    title="GRU with a motion-aware reset gate",
)
