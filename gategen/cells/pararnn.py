"""ParaGRU and ParaLSTM: GRU and LSTM with diagonal recurrent weights (Danieli et al. 2025, arXiv:2510.21450).

Eqs. 3.1 with 3.3. z multiplies the candidate in `paragru`, which with -z for z is `indygru`. `paralstm`
couples input and forget gate: f multiplies the previous c, and o sees the new one. One head: the matrices
of the input are full. The paper was not at hand: the equations are those of the authors' program, and of a
reimplementation that numbers them.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h, c = states("h c")
W_z, W_r, W_c, W_f, W_o = matrices("W_z W_r W_c W_f W_o", shape=("hidden", "input"))
a_z, a_r, a_c, a_f, a_o, c_f, c_o = vectors("a_z a_r a_c a_f a_o c_f c_o")
b_z, b_r, b_c, b_f, b_o = vectors("b_z b_r b_c b_f b_o")
z, r, n, f, o = gates("z r n f o")

DANIELI = (
    "F. Danieli, P. Rodriguez, M. Sarabia, X. Suau, L. Zappella 2025, ParaRNN: Unlocking Parallel Training "
    "of Nonlinear RNNs for Large Language Models, arXiv:2510.21450; program github.com/apple/ml-pararnn"
)

paragru = Cell(
    "paragru",
    Eq(z, sigmoid(a_z * h + W_z @ x + b_z)),
    Eq(r, sigmoid(a_r * h + W_r @ x + b_r)),
    Eq(n, tanh(a_c * (h * r) + W_c @ x + b_c)),
    Eq(h.next, (1 - z) * h + z * n),
    title="GRU with diagonal recurrent weights",
    reference=DANIELI,
)

paralstm = Cell(
    "paralstm",
    Eq(f, sigmoid(a_f * h + c_f * c + W_f @ x + b_f)),
    Eq(z, tanh(a_z * h + W_z @ x + b_z)),
    Eq(c.next, f * c + (1 - f) * z),
    Eq(o, sigmoid(a_o * h + c_o * c.next + W_o @ x + b_o)),
    Eq(h.next, o * tanh(c.next)),
    title="LSTM with diagonal recurrent weights, coupled gates and peepholes",
    reference=DANIELI,
)
