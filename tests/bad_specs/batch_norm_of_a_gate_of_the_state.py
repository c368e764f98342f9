# expects: batch_norm of a value that depends on the state through z
# hint: inside the recurrence use layer_norm
# line: 15
from gategen import Cell, Eq, batch_norm, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W, U = matrices("W U")
g, b = vectors("g b")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, sigmoid(W @ x + U @ h)),
    Eq(h.next, tanh(batch_norm(z, g, b))),
)
