# expects: sizes contradict: output y has size hidden, and input in the first step
# hint: give it one size in both sets of equations
# line: 11
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
y = gates("y")

cell = Cell(
    "cell",
    Eq(h.next, tanh(W @ x + U @ h)),
    Eq(y, tanh(h.next)),
    output=y,
    first=[Eq(h.next, W @ x), Eq(y, tanh(x))],
)
