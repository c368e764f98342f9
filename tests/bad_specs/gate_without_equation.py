# expects: r is used but no equation defines it
# hint: add Eq(r, ...)
# line: 14
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh

x = inputs("x")
h = states("h")
W, W_z, U = matrices("W W_z U")
z, r = gates("z r")

cell = Cell(
    "cell",
    Eq(z, sigmoid(W_z @ x)),
    Eq(h.next, z * tanh(W @ x + U @ (r * h))),
)
