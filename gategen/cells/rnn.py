"""Simple recurrent network (Elman 1990), and with ReLU (Le, Jaitly & Hinton 2015, arXiv:1504.00941).

The IRNN of Le et al. starts with U_h = identity and b_h = 0.
"""

from gategen import Cell, Eq, inputs, matrices, relu, states, tanh, vectors

x = inputs("x")
h = states("h")
W_h, U_h = matrices("W_h U_h")
b_h = vectors("b_h")

rnn = Cell(
    "rnn",
    Eq(h.next, tanh(W_h @ x + U_h @ h + b_h)),
    title="Simple recurrent network",
    reference="J. L. Elman 1990, Finding Structure in Time, Cognitive Science 14, 179-211",
)

irnn = Cell(
    "irnn",
    Eq(h.next, relu(W_h @ x + U_h @ h + b_h)),
    title="Simple recurrent network with ReLU",
    reference="Q. V. Le, N. Jaitly, G. E. Hinton 2015, A Simple Way to Initialize Recurrent Networks of "
    "Rectified Linear Units, arXiv:1504.00941",
)
