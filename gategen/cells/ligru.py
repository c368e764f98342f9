"""Li-GRU, light GRU: no reset gate, ReLU candidate, batch-normalised input (Ravanelli et al. 2018).

z multiplies the previous state. Only the products with the input are batch-normalised, and the norm's
shift is the bias. `ligru_nobn` has plain biases instead; `sligru` also normalises the products with the
state, jointly.
"""

from gategen import (
    Cell,
    Eq,
    batch_norm,
    constants,
    gates,
    inputs,
    layer_norm,
    matrices,
    relu,
    sigmoid,
    states,
    vectors,
)

x = inputs("x")
h = states("h")
W_z, W_h, U_z, U_h = matrices("W_z W_h U_z U_h")
g_z, g_h, b_z, b_h = vectors("g_z g_h b_z b_h")
z, n = gates("z n")
eps = constants(eps=1e-5)

RAVANELLI = (
    "M. Ravanelli, P. Brakel, M. Omologo, Y. Bengio 2018, Light Gated Recurrent Units for Speech "
    "Recognition, IEEE TETCI 2(2), 92-102, arXiv:1803.10225"
)

ligru = Cell(
    "ligru",
    Eq(z, sigmoid(batch_norm(W_z @ x, g_z, b_z, eps, momentum=0.05) + U_z @ h)),
    Eq(n, relu(batch_norm(W_h @ x, g_h, b_h, eps, momentum=0.05) + U_h @ h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="Light GRU with batch normalisation",
    reference=RAVANELLI,
)

ligru_nobn = Cell(
    "ligru_nobn",
    Eq(z, sigmoid(W_z @ x + U_z @ h + b_z)),
    Eq(n, relu(W_h @ x + U_h @ h + b_h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="Light GRU with biases instead of batch normalisation",
    reference=RAVANELLI,
)

n_h, n_z = layer_norm((U_h @ h, U_z @ h), eps=eps)

sligru = Cell(
    "sligru",
    Eq(z, sigmoid(batch_norm(W_z @ x, g_z, b_z, eps, momentum=0.05) + n_z)),
    Eq(n, relu(batch_norm(W_h @ x, g_h, b_h, eps, momentum=0.05) + n_h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="Stabilised light GRU: layer norm on the recurrent products",
    reference="A. Moumen, T. Parcollet 2023, Stabilising and accelerating light gated recurrent units for "
    "automatic speech recognition, arXiv:2302.10144",
)
