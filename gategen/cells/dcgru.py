"""DCGRU: a GRU over the nodes of a graph, whose products are diffusion convolutions (Li et al. 2018).

X holds the features of all nodes. P = D_O^-1 W and Q = D_I^-1 W^T are the transition matrices of random walks
along the edges of the graph and against them, which are fixed. A diffusion convolution takes K = 3 powers of
each, 0 to 2, with weights for every one (equation 2): P^0 and Q^0 are both the unit matrix and share theirs.
X and H, which the paper concatenates, have rows of weights of their own.
"""

from functools import reduce
from operator import add
from typing import Any

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

X = inputs("X", size=("nodes", "input"))
H = states("H", size=("nodes", "hidden"))
P, Q = matrices("P Q", shape=("nodes", "nodes"), trainable=False)
W_r, W_u, W_c = matrices("W_r W_u W_c", shape=(("input",) * 5, "hidden"))
U_r, U_u, U_c = matrices("U_r U_u U_c", shape=(("hidden",) * 5, "hidden"))
b_r, b_u, b_c = vectors("b_r b_u b_c")
r, u, c, x_r, x_u, x_c, G = gates("r u c x_r x_u x_c G")


def walks(V: Any) -> tuple[list[Any], list[Eq]]:
    """All nodes' features V, and they after one step and two along the edges and against them."""
    p, pp, q, qq = gates(f"{V}_p {V}_pp {V}_q {V}_qq")
    return [V, p, pp, q, qq], [Eq(p, P @ V), Eq(pp, P @ p), Eq(q, Q @ V), Eq(qq, Q @ q)]


def weighted(parts: list[Any], W: Any) -> Any:
    """A diffusion convolution: weights W for each power."""
    return reduce(add, (part @ W[k] for k, part in enumerate(parts)))


of_x, walking_x = walks(X)
of_h, walking_h = walks(H)
of_g, walking_g = walks(G)

dcgru = Cell(
    "dcgru",
    *walking_x,
    *walking_h,
    Eq(x_r, weighted(of_x, W_r)),
    Eq(x_u, weighted(of_x, W_u)),
    Eq(x_c, weighted(of_x, W_c)),
    Eq(r, sigmoid(x_r + weighted(of_h, U_r) + b_r)),
    Eq(u, sigmoid(x_u + weighted(of_h, U_u) + b_u)),
    Eq(G, r * H),
    *walking_g,
    Eq(c, tanh(x_c + weighted(of_g, U_c) + b_c)),
    Eq(H.next, u * H + (1 - u) * c),
    title="DCGRU: a GRU with diffusion convolutions over the nodes of a graph",
    reference="Y. Li, R. Yu, C. Shahabi, Y. Liu 2018, Diffusion Convolutional Recurrent Neural Network: "
    "Data-Driven Traffic Forecasting, ICLR, arXiv:1707.01926, section 2",
)
