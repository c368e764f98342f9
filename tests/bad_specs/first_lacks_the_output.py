# expects: output y has no first-step equation
# hint: add Eq(y, ...) to first
# line: 11
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U, V = matrices("W U V")
y = gates("y")

cell = Cell(
    "cell",
    Eq(h.next, tanh(W @ x + U @ h)),
    Eq(y, V @ h.next + h),
    output=y,
    first=[Eq(h.next, W @ x)],
)
