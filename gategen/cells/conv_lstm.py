"""ConvLSTM: an LSTM with peepholes whose products are convolutions, here along one axis (Shi et al. 2015).

Equation 3 of the paper, whose W_x, W_h and W_c are W, U and p here, with kernels of three places and zeros
beyond the ends. A peephole has a weight for every channel at every position, and the output gate looks at the
new cell. There x, h and c are images: with the sizes
("height", "width", "hidden"), over=("height", "width"), 9 blocks and peepholes of the shape
("height", "width*hidden") they are so here.
"""

from gategen import Cell, Eq, conv, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x", size=("positions", "input"))
h, c = states("h c", size=("positions", "hidden"))
W_i, W_f, W_c, W_o = matrices("W_i W_f W_c W_o", shape=(("input",) * 3, "hidden"))
U_i, U_f, U_c, U_o = matrices("U_i U_f U_c U_o", shape=(("hidden",) * 3, "hidden"))
p_i, p_f, p_o = matrices("p_i p_f p_o", shape=("positions", "hidden"))
b_i, b_f, b_c, b_o = vectors("b_i b_f b_c b_o")
i, f, g, o = gates("i f g o")

conv_lstm = Cell(
    "conv_lstm",
    Eq(i, sigmoid(conv(x, W_i, over="positions") + conv(h, U_i, over="positions") + p_i * c + b_i)),
    Eq(f, sigmoid(conv(x, W_f, over="positions") + conv(h, U_f, over="positions") + p_f * c + b_f)),
    Eq(g, tanh(conv(x, W_c, over="positions") + conv(h, U_c, over="positions") + b_c)),
    Eq(c.next, f * c + i * g),
    Eq(o, sigmoid(conv(x, W_o, over="positions") + conv(h, U_o, over="positions") + p_o * c.next + b_o)),
    Eq(h.next, o * tanh(c.next)),
    title="ConvLSTM: an LSTM with peepholes whose products are convolutions",
    reference="X. Shi, Z. Chen, H. Wang, D.-Y. Yeung, W.-K. Wong, W.-C. Woo 2015, Convolutional LSTM "
    "Network: A Machine Learning Approach for Precipitation Nowcasting, NIPS, arXiv:1506.04214, equation 3",
)
