"""QRNN, quasi-recurrent network, window 2, fo-pooling (Bradbury et al. 2016, arXiv:1611.01576).

Gates read this input and the previous one, which is the state xp and 0 before the first step. f multiplies
the candidate, as in the published programs; in the paper it multiplies the previous state.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
c = states("c")
xp = states("xp", size="input")
W_z, W_f, W_o, V_z, V_f, V_o = matrices("W_z W_f W_o V_z V_f V_o")
b_z, b_f, b_o = vectors("b_z b_f b_o")
z, f, o, h = gates("z f o h")

qrnn = Cell(
    "qrnn",
    Eq(z, tanh(W_z @ x + V_z @ xp + b_z)),
    Eq(f, sigmoid(W_f @ x + V_f @ xp + b_f)),
    Eq(o, sigmoid(W_o @ x + V_o @ xp + b_o)),
    Eq(c.next, f * z + (1 - f) * c),
    Eq(xp.next, x),
    Eq(h, o * c.next),
    output=h,
    title="Quasi-recurrent network: gates of two inputs",
    reference="J. Bradbury, S. Merity, C. Xiong, R. Socher 2016, Quasi-Recurrent Neural Networks, "
    "arXiv:1611.01576; program github.com/salesforce/pytorch-qrnn",
)
