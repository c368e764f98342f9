"""SRU, simple recurrent unit: a diagonal recurrence and a highway (Lei et al. 2018, arXiv:1709.02755).

f multiplies the previous state, and both gates read it. The highway passes the input itself, which has the
size of the state, scaled by alpha = sqrt(1 + 2*exp(0)).
"""

from gategen import Cell, Eq, constants, gates, inputs, matrices, sigmoid, states, vectors

x = inputs("x", size="hidden")
c = states("c")
W_c, W_f, W_r = matrices("W_c W_f W_r")
v_f, v_r, b_f, b_r = vectors("v_f v_r b_f b_r")
alpha = constants(alpha=1.7320508075688772)
u, f, r, h = gates("u f r h")

sru = Cell(
    "sru",
    Eq(u, W_c @ x),
    Eq(f, sigmoid(W_f @ x + v_f * c + b_f)),
    Eq(r, sigmoid(W_r @ x + v_r * c + b_r)),
    Eq(c.next, f * c + (1 - f) * u),
    Eq(h, r * c.next + (1 - r) * (alpha * x)),
    output=h,
    title="Simple recurrent unit",
    reference="T. Lei, Y. Zhang, S. I. Wang, H. Dai, Y. Artzi 2018, Simple Recurrent Units for Highly "
    "Parallelizable Recurrence, arXiv:1709.02755; program github.com/asappresearch/sru",
)
