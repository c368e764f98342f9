"""RG-LRU of Griffin with its gates in blocks (De et al. 2024, arXiv:2402.19427, eqs. 1-4 and section 2.4).

As `rglru`, but for the matrices of both gates, which are block-diagonal, as the paper uses them.
The blocks of a matrix lie one below the other, (hidden, hidden/heads).
"""

from gategen import Cell, Eq, exp, gates, inputs, matrices, sigmoid, softplus, sqrt, states, vectors

x = inputs("x", size="hidden")
h = states("h")
W_i, W_a = matrices("W_i W_a", shape=("hidden", "hidden/heads"))
b_i, b_a, k = vectors("b_i b_a k")
i, r, la = gates("i r la")

griffin = Cell(
    "griffin",
    Eq(i, sigmoid(W_i @ x + b_i)),
    Eq(r, sigmoid(W_a @ x + b_a)),
    Eq(la, -8 * r * softplus(k)),
    Eq(h.next, exp(la) * h + sqrt(1 - exp(2 * la)) * (i * x)),
    first=[
        Eq(i, sigmoid(W_i @ x + b_i)),
        Eq(h.next, i * x),
    ],
    title="Real-gated linear recurrent unit with gates in blocks",
    reference="S. De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention for "
    "Efficient Language Models, arXiv:2402.19427; program github.com/google-deepmind/recurrentgemma",
)
