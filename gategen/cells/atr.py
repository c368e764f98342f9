"""ATR, addition-subtraction twin-gated unit: both gates of the same two products (arXiv:1810.12546).

i multiplies the projected input, f the previous state. The bias belongs to the recurrent product, as in the
authors' program.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, vectors

x = inputs("x")
h = states("h")
W_h, U_h = matrices("W_h U_h")
b_h = vectors("b_h")
p, q, i, f = gates("p q i f")

atr = Cell(
    "atr",
    Eq(p, W_h @ x),
    Eq(q, U_h @ h + b_h),
    Eq(i, sigmoid(p + q)),
    Eq(f, sigmoid(p - q)),
    Eq(h.next, i * p + f * h),
    title="Addition-subtraction twin-gated recurrent unit",
    reference="B. Zhang, D. Xiong, J. Su, Q. Lin, H. Zhang 2018, Simplifying Neural Machine Translation with "
    "Addition-Subtraction Twin-Gated Recurrent Networks, arXiv:1810.12546",
)
