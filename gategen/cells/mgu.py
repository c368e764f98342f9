"""MGU, minimal gated unit: one gate f is both update and reset (Zhou et al. 2016, arXiv:1603.09420).

f multiplies the candidate and 1 - f the previous state. In mgu1, mgu2, mgu3 (Heck & Salem 2017) the
gate loses the input, then the bias, then the state.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_f, W_h, U_f, U_h = matrices("W_f W_h U_f U_h")
b_f, b_h = vectors("b_f b_h")
f, n = gates("f n")

ZHOU = (
    "G.-B. Zhou, J. Wu, C.-L. Zhang, Z.-H. Zhou 2016, Minimal Gated Unit for Recurrent Neural Networks, "
    "arXiv:1603.09420"
)
HECK = (
    "J. Heck, F. M. Salem 2017, Simplified Minimal Gated Unit Variations for Recurrent Neural Networks, "
    "arXiv:1701.03452, doi:10.1109/MWSCAS.2017.8053242"
)


def mgu_with(name: str, gate_equation: Eq, title: str, reference: str) -> Cell:
    """The MGU with this equation for f."""
    return Cell(
        name,
        gate_equation,
        Eq(n, tanh(W_h @ x + U_h @ (f * h) + b_h)),
        Eq(h.next, (1 - f) * h + f * n),
        title=title,
        reference=reference,
    )


mgu = mgu_with(
    "mgu",
    Eq(f, sigmoid(W_f @ x + U_f @ h + b_f)),
    "Minimal gated unit",
    ZHOU,
)

mgu1 = mgu_with(
    "mgu1",
    Eq(f, sigmoid(U_f @ h + b_f)),
    "Minimal gated unit 1: gate of the state and a bias",
    HECK,
)

mgu2 = mgu_with(
    "mgu2",
    Eq(f, sigmoid(U_f @ h)),
    "Minimal gated unit 2: gate of the state alone",
    HECK,
)

mgu3 = mgu_with(
    "mgu3",
    Eq(f, sigmoid(b_f)),
    "Minimal gated unit 3: gate of a bias alone",
    HECK,
)
