"""ConvGRU: a GRU whose products are convolutions, here along one axis (Ballas et al. 2016).

The equations of the paper's section 3.1, with kernels of three places and zeros beyond the ends. There x and
h are images: with the sizes ("height", "width", "hidden"), over=("height", "width") and 9 blocks they are so
here.
"""

from gategen import Cell, Eq, conv, gates, inputs, matrices, sigmoid, states, tanh

x = inputs("x", size=("positions", "input"))
h = states("h", size=("positions", "hidden"))
W_z, W_r, W = matrices("W_z W_r W", shape=(("input",) * 3, "hidden"))
U_z, U_r, U = matrices("U_z U_r U", shape=(("hidden",) * 3, "hidden"))
z, r, n = gates("z r n")

conv_gru = Cell(
    "conv_gru",
    Eq(z, sigmoid(conv(x, W_z, over="positions") + conv(h, U_z, over="positions"))),
    Eq(r, sigmoid(conv(x, W_r, over="positions") + conv(h, U_r, over="positions"))),
    Eq(n, tanh(conv(x, W, over="positions") + conv(r * h, U, over="positions"))),
    Eq(h.next, (1 - z) * h + z * n),
    title="ConvGRU: a GRU whose products are convolutions",
    reference="N. Ballas, L. Yao, C. Pal, A. Courville 2016, Delving Deeper into Convolutional Networks "
    "for Learning Video Representations, ICLR, arXiv:1511.06432, section 3.1",
)
