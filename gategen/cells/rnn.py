"""Simple recurrent network (Elman 1990)."""

from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

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
