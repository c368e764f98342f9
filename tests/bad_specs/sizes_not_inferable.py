# expects: the rows of W cannot be inferred
# hint: matrices("W", shape=("hidden", "input"))
# line: 13
from gategen import Cell, Eq, gates, inputs, matrices, mean, states

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, mean(W @ x)),
    Eq(h.next, z * (U @ h)),
)
