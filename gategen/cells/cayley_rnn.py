"""scoRNN: an orthogonal recurrence by the scaled Cayley transform (Helfrich et al. 2018, arXiv:1707.09520).

W = (I + A)^-1 (I - A) D is orthogonal where A is skew-symmetric and D a diagonal of 1 and -1, which is fixed
and begins with ones. Here A is U_h - U_h.T of a free matrix. The activation is modReLU of real numbers.
"""

from gategen import Cell, Eq, abs, gates, identity, inputs, inv, matrices, relu, sign, states, vectors

x = inputs("x")
h = states("h")
W_h, U_h = matrices("W_h U_h")
b_h = vectors("b_h")
d = vectors("d", trainable=False, initial=1)
a = gates("a")
A = U_h - U_h.T

cayley_rnn = Cell(
    "cayley_rnn",
    Eq(a, W_h @ x + (inv(identity + A) @ (identity - A)) @ (d * h)),
    Eq(h.next, sign(a) * relu(abs(a) + b_h)),
    title="Scaled Cayley orthogonal RNN (scoRNN)",
    reference="K. Helfrich, D. Willmott, Q. Ye 2018, Orthogonal Recurrent Neural Networks with Scaled Cayley "
    "Transform, ICML, arXiv:1707.09520, section 3",
)
