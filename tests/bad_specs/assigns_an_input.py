# expects: x is declared as input and cannot be assigned
# hint: an equation gives a gate or the next value of a state
# line: 12
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")

cell = Cell(
    "cell",
    Eq(x, W @ h),
    Eq(h.next, tanh(W @ x + U @ h)),
)
