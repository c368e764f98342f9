"""GRU with cheaper gates: z and r lose the input, then the bias, then the state (Dey & Salem 2017)."""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_h, U_z, U_r, U_h = matrices("W_h U_z U_r U_h")
b_z, b_r, b_h = vectors("b_z b_r b_h")
z, r, n = gates("z r n")


def gru_with(name: str, title: str, *gate_equations: Eq) -> Cell:
    """The GRU with these equations for z and r."""
    return Cell(
        name,
        *gate_equations,
        Eq(n, tanh(W_h @ x + U_h @ (r * h) + b_h)),
        Eq(h.next, (1 - z) * h + z * n),
        title=title,
        reference="R. Dey, F. M. Salem 2017, Gate-Variants of Gated Recurrent Unit (GRU) Neural Networks, "
        "arXiv:1701.05923",
    )


gru_type1 = gru_with(
    "gru_type1",
    "GRU type 1: gates of the state and a bias",
    Eq(z, sigmoid(U_z @ h + b_z)),
    Eq(r, sigmoid(U_r @ h + b_r)),
)

gru_type2 = gru_with(
    "gru_type2",
    "GRU type 2: gates of the state alone",
    Eq(z, sigmoid(U_z @ h)),
    Eq(r, sigmoid(U_r @ h)),
)

gru_type3 = gru_with(
    "gru_type3",
    "GRU type 3: gates of a bias alone",
    Eq(z, sigmoid(b_z)),
    Eq(r, sigmoid(b_r)),
)
