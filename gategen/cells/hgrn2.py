"""HGRN2: outer products of inputs and of what the forget gate lets go (Qin et al. 2024, arXiv:2404.07904).

The key is 1 - f, and the output gate o is the query. gamma is the lower bound of the forget gate: 0 in the
first layer; in later ones the paper learns a vector over all layers, which is a number here. The
activations are those of the authors' program. One head; norm and output matrix belong to the block.
"""

from gategen import Cell, Eq, constants, gates, inputs, matrices, outer, sigmoid, silu, states, vectors

x = inputs("x")
h = states("h", size=("hidden", "keys"))
W_f, W_o = matrices("W_f W_o", shape=("keys", "input"))
W_i = matrices("W_i", shape=("hidden", "input"))
b_f, b_o = vectors("b_f b_o", size="keys")
b_i = vectors("b_i")
gamma = constants(gamma=0)
f, i, o, y = gates("f i o y")

hgrn2 = Cell(
    "hgrn2",
    Eq(f, gamma + (1 - gamma) * sigmoid(W_f @ x + b_f)),
    Eq(i, silu(W_i @ x + b_i)),
    Eq(o, sigmoid(W_o @ x + b_o)),
    Eq(h.next, h * f + outer(i, 1 - f)),
    Eq(y, h.next @ o),
    output=y,
    title="HGRN2: a gated linear recurrence whose state is expanded by outer products",
    reference="Z. Qin, S. Yang, W. Sun, X. Shen, D. Li, W. Sun, Y. Zhong 2024, HGRN2: Gated Linear RNNs with "
    "State Expansion, arXiv:2404.07904; program github.com/Doraemonzzz/hgru2-pytorch",
)
