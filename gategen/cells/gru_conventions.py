"""GRU as other systems write it: the side of z, the place of the reset gate, the biases, the stacking.

Two of the differences are only a renaming: z here is 1 - z there (negate W_z, U_z, b_z), and
`A @ concat(h, x)` is `U @ h + W @ x`. The place of the reset gate is not: `U @ (r * h)` and
`r * (U @ h + c)` are different functions.
"""

from gategen import Cell, Eq, concat, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_z, W_r, W_h, U_z, U_r, U_h = matrices("W_z W_r W_h U_z U_r U_h")
A_z, A_r, A_h = matrices("A_z A_r A_h", shape=("hidden", ("hidden", "input")))
b_z, b_r, b_h, c_z, c_r, c_h = vectors("b_z b_r b_h c_z c_r c_h")
z, r, n = gates("z r n")

gru_cho = Cell(
    "gru_cho",
    Eq(z, sigmoid(W_z @ x + U_z @ h)),
    Eq(r, sigmoid(W_r @ x + U_r @ h)),
    Eq(n, tanh(W_h @ x + U_h @ (r * h))),
    Eq(h.next, z * h + (1 - z) * n),
    title="GRU of Cho et al.: no biases, z on the previous state",
    reference="K. Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder for Statistical "
    "Machine Translation, arXiv:1406.1078v3, eqs. 5-8",
)

gru_before = Cell(
    "gru_before",
    Eq(z, sigmoid(W_z @ x + U_z @ h + b_z)),
    Eq(r, sigmoid(W_r @ x + U_r @ h + b_r)),
    Eq(n, tanh(W_h @ x + U_h @ (r * h) + b_h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="GRU, reset before the product: Keras reset_after=False, ONNX default",
    reference="ONNX Operators, GRU with linear_before_reset=0; arXiv:1406.1078v3 with biases",
)

gru_after = Cell(
    "gru_after",
    Eq(z, sigmoid(W_z @ x + b_z + U_z @ h + c_z)),
    Eq(r, sigmoid(W_r @ x + b_r + U_r @ h + c_r)),
    Eq(n, tanh(W_h @ x + b_h + r * (U_h @ h + c_h))),
    Eq(h.next, (1 - z) * n + z * h),
    title="GRU, reset after the product: PyTorch, cuDNN, Keras reset_after=True",
    reference="torch.nn.GRU; ONNX Operators, GRU with linear_before_reset=1; arXiv:1406.1078v1",
)

gru_concat = Cell(
    "gru_concat",
    Eq(r, sigmoid(A_r @ concat(h, x) + b_r)),
    Eq(z, sigmoid(A_z @ concat(h, x) + b_z)),
    Eq(n, tanh(A_h @ concat(r * h, x) + b_h)),
    Eq(h.next, (1 - z) * h + z * n),
    title="GRU with one matrix a gate over the concatenated [h, x]",
    reference="arXiv:1412.3555 with A = [U | W]",
)
