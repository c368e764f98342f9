"""SCRN, structurally constrained network: a slow state beside h (Mikolov et al. 2014, arXiv:1412.7753).

The slow state s, of its own size, is a leaky average of the projected input; the hidden state reads its new
value, as in the paper. Both are outputs: the paper's readout is y = f(U @ h + V @ s).
"""

from gategen import Cell, Eq, constants, inputs, matrices, sigmoid, states

x = inputs("x")
h = states("h")
s = states("s", size="memory")
W_h, U_h, B, P = matrices("W_h U_h B P")
alpha = constants(alpha=0.95)

scrn = Cell(
    "scrn",
    Eq(s.next, (1 - alpha) * (B @ x) + alpha * s),
    Eq(h.next, sigmoid(P @ s.next + W_h @ x + U_h @ h)),
    output=(h.next, s.next),
    title="Structurally constrained recurrent network: a slow state beside a fast one",
    reference="T. Mikolov, A. Joulin, S. Chopra, M. Mathieu, M. Ranzato 2014, Learning Longer Memory in "
    "Recurrent Neural Networks, arXiv:1412.7753",
)
