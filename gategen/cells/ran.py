"""RAN, recurrent additive network: a linear candidate without state (Lee et al. 2017, arXiv:1705.07393).

The gates read the output h = tanh(c), not c; the content W_c @ x has no bias.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
W_c, W_i, W_f, U_i, U_f = matrices("W_c W_i W_f U_i U_f")
b_i, b_f = vectors("b_i b_f")
a, i, f = gates("a i f")

ran = Cell(
    "ran",
    Eq(a, W_c @ x),
    Eq(i, sigmoid(W_i @ x + U_i @ h + b_i)),
    Eq(f, sigmoid(W_f @ x + U_f @ h + b_f)),
    Eq(c.next, i * a + f * c),
    Eq(h.next, tanh(c.next)),
    title="Recurrent additive network",
    reference="K. Lee, O. Levy, L. Zettlemoyer 2017, Recurrent Additive Networks, arXiv:1705.07393; "
    "program github.com/kentonl/ran",
)
