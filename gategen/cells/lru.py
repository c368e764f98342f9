"""LRU, linear recurrent unit: a complex diagonal recurrence (Orvieto et al. 2023, arXiv:2303.06349).

lambda = exp(-exp(nu) + i*exp(th)) stays inside the unit circle. The complex state is a pair of real ones,
hr + i*hi; the output is the real part of C @ h + D*x, of the size of the input.
"""

from gategen import Cell, Eq, cos, exp, gates, inputs, matrices, sin, states, vectors

x = inputs("x")
hr, hi = states("hr hi")
nu, th, gl = vectors("nu th gl")
D = vectors("D", size="input")
Br, Bi = matrices("Br Bi", shape=("hidden", "input"))
Cr, Ci = matrices("Cr Ci", shape=("input", "hidden"))
m, lr, li, y = gates("m lr li y")

lru = Cell(
    "lru",
    Eq(m, exp(-exp(nu))),
    Eq(lr, m * cos(exp(th))),
    Eq(li, m * sin(exp(th))),
    Eq(hr.next, lr * hr - li * hi + exp(gl) * (Br @ x)),
    Eq(hi.next, lr * hi + li * hr + exp(gl) * (Bi @ x)),
    Eq(y, Cr @ hr.next - Ci @ hi.next + D * x),
    output=y,
    title="Linear recurrent unit: complex, diagonal, linear",
    reference="A. Orvieto, S. L. Smith, A. Gu, A. Fernando, C. Gulcehre, R. Pascanu, S. De 2023, "
    "Resurrecting Recurrent Neural Networks for Long Sequences, arXiv:2303.06349",
)
