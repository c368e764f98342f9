"""SGU, simple gated unit: a multiplicative gate before the update (Gao & Glowacka 2016, PMLR 63).

z multiplies the candidate and is the piecewise linear sigmoid clip(0.2*v + 0.5, 0, 1).
"""

from gategen import Cell, Eq, gates, hard_sigmoid, inputs, matrices, softplus, states, tanh, vectors

x = inputs("x")
h = states("h")
W_g, W_z, U_g, U_z = matrices("W_g W_z U_g U_z")
b_g, b_z = vectors("b_g b_z")
a, g, n, z = gates("a g n z")

sgu = Cell(
    "sgu",
    Eq(a, W_g @ x + b_g),
    Eq(g, tanh(U_g @ (a * h))),
    Eq(n, softplus(g * h)),
    Eq(z, hard_sigmoid(W_z @ x + b_z + U_z @ h, slope=0.2)),
    Eq(h.next, (1 - z) * h + z * n),
    title="Simple gated unit",
    reference="Y. Gao, D. Glowacka 2016, Deep Gate Recurrent Neural Network, PMLR 63",
)
