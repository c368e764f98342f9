"""RG-LRU, real-gated linear recurrent unit of Griffin (De et al. 2024, arXiv:2402.19427, eqs. 1-4).

Both gates read the input alone, which has the size of the state. Where no state is given the first step is
i*x: there is nothing to decay and nothing to compensate for. One block: the gate matrices are full.
"""

from gategen import Cell, Eq, exp, gates, inputs, matrices, sigmoid, softplus, sqrt, states, vectors

x = inputs("x", size="hidden")
h = states("h")
W_i, W_a = matrices("W_i W_a")
b_i, b_a, k = vectors("b_i b_a k")
i, r, la = gates("i r la")

rglru = Cell(
    "rglru",
    Eq(i, sigmoid(W_i @ x + b_i)),
    Eq(r, sigmoid(W_a @ x + b_a)),
    Eq(la, -8 * r * softplus(k)),
    Eq(h.next, exp(la) * h + sqrt(1 - exp(2 * la)) * (i * x)),
    first=[
        Eq(i, sigmoid(W_i @ x + b_i)),
        Eq(h.next, i * x),
    ],
    title="Real-gated linear recurrent unit",
    reference="S. De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention for "
    "Efficient Language Models, arXiv:2402.19427; program github.com/google-deepmind/recurrentgemma",
)
