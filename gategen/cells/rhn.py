"""RHN, recurrent highway network: three small steps inside one (Zilly et al. 2016, arXiv:1607.03474).

t multiplies the candidate, and the carry is 1 - t. The input enters the first small step alone.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_h, W_t = matrices("W_h W_t")
U_h1, U_t1, U_h2, U_t2, U_h3, U_t3 = matrices("U_h1 U_t1 U_h2 U_t2 U_h3 U_t3")
b_h1, b_t1, b_h2, b_t2, b_h3, b_t3 = vectors("b_h1 b_t1 b_h2 b_t2 b_h3 b_t3")
a1, t1, s1, a2, t2, s2, a3, t3 = gates("a1 t1 s1 a2 t2 s2 a3 t3")

rhn = Cell(
    "rhn",
    Eq(a1, tanh(W_h @ x + U_h1 @ h + b_h1)),
    Eq(t1, sigmoid(W_t @ x + U_t1 @ h + b_t1)),
    Eq(s1, (a1 - h) * t1 + h),
    Eq(a2, tanh(U_h2 @ s1 + b_h2)),
    Eq(t2, sigmoid(U_t2 @ s1 + b_t2)),
    Eq(s2, (a2 - s1) * t2 + s1),
    Eq(a3, tanh(U_h3 @ s2 + b_h3)),
    Eq(t3, sigmoid(U_t3 @ s2 + b_t3)),
    Eq(h.next, (a3 - s2) * t3 + s2),
    title="Recurrent highway network of depth 3",
    reference="J. G. Zilly, R. K. Srivastava, J. Koutnik, J. Schmidhuber 2016, Recurrent Highway Networks, "
    "arXiv:1607.03474, eqs. 7-9",
)
