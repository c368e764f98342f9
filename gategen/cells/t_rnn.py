"""T-RNN, strongly typed network (Balduzzi & Ghifary 2016, arXiv:1602.02218).

f multiplies the previous state; gate and candidate read the input alone.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, vectors

x = inputs("x")
h = states("h")
W_z, W_f = matrices("W_z W_f")
b_f = vectors("b_f")
z, f = gates("z f")

t_rnn = Cell(
    "t_rnn",
    Eq(z, W_z @ x),
    Eq(f, sigmoid(W_f @ x + b_f)),
    Eq(h.next, f * h + (1 - f) * z),
    title="Strongly typed recurrent network",
    reference="D. Balduzzi, M. Ghifary 2016, Strongly-Typed Recurrent Neural Networks, arXiv:1602.02218",
)
