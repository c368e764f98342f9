# expects: z is defined twice, first at
# hint: each gate and each s.next has exactly one equation
# line: 15
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
z = gates("z")

cell = Cell(
    "cell",
    Eq(z, sigmoid(W @ x)),
    Eq(h.next, z * h),
    Eq(z, tanh(U @ h)),
)
