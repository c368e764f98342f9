"""LSTM and GRU with layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450).

The products with the input and with the state are each normalised jointly over all gates, with a gain and
without a shift; biases follow. In `ln_lstm` the output also normalises the cell state, which is carried as it
is. In `ln_gru` the reset gate stands after the product, and z multiplies the previous state.
"""

from gategen import Cell, Eq, gates, inputs, layer_norm, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
i, g, f, o = gates("i g f o")

BA = "J. L. Ba, J. R. Kiros, G. E. Hinton 2016, Layer Normalization, arXiv:1607.06450"
HASTE = "program github.com/lmnt-com/haste"

FOUR = ("hidden",) * 4
A = matrices("A", shape=(FOUR, "input"))
R = matrices("R", shape=(FOUR, "hidden"))
b, g_x, g_h = vectors("b g_x g_h", size=FOUR)
g_c, b_c = vectors("g_c b_c")

# in the order i, g, f, o
v = [
    of_x + of_h + shift
    for of_x, of_h, shift in zip(layer_norm(A @ x, g_x), layer_norm(R @ h, g_h), b, strict=True)
]

ln_lstm = Cell(
    "ln_lstm",
    Eq(i, sigmoid(v[0])),
    Eq(g, tanh(v[1])),
    Eq(f, sigmoid(v[2])),
    Eq(o, sigmoid(v[3])),
    Eq(c.next, f * c + i * g),
    Eq(h.next, o * tanh(layer_norm(c.next, g_c, b_c))),
    title="LSTM with layer normalisation",
    reference=f"{BA}, appendix, eqs. 20-22; {HASTE}",
)

z, r, n = gates("z r n")

THREE = ("hidden",) * 3
A = matrices("A", shape=(THREE, "input"))
R = matrices("R", shape=(THREE, "hidden"))
b, c, g_x, g_h = vectors("b c g_x g_h", size=THREE)

# in the order z, r, n
p = [of_x + shift for of_x, shift in zip(layer_norm(A @ x, g_x), b, strict=True)]
q = [of_h + shift for of_h, shift in zip(layer_norm(R @ h, g_h), c, strict=True)]

ln_gru = Cell(
    "ln_gru",
    Eq(z, sigmoid(p[0] + q[0])),
    Eq(r, sigmoid(p[1] + q[1])),
    Eq(n, tanh(p[2] + r * q[2])),
    Eq(h.next, z * h + (1 - z) * n),
    title="GRU with layer normalisation",
    reference=f"{BA}; as programmed in {HASTE.removeprefix('program ')}",
)
