"""IndRNN, independently recurrent network: diagonal recurrence, ReLU (Li et al. 2018, arXiv:1803.04831)."""

from gategen import Cell, Eq, inputs, matrices, relu, states, vectors

x = inputs("x")
h = states("h")
W_h = matrices("W_h")
u, b_h = vectors("u b_h")

indrnn = Cell(
    "indrnn",
    Eq(h.next, relu(W_h @ x + u * h + b_h)),
    title="Independently recurrent network",
    reference="S. Li, W. Li, C. Cook, C. Zhu, Y. Gao 2018, Independently Recurrent Neural Network (IndRNN): "
    "Building A Longer and Deeper RNN, arXiv:1803.04831",
)
