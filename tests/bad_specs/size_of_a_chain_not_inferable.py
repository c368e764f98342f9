# expects: the rows of Q cannot be inferred
# hint: matrices("Q", shape=
# line: 10
from gategen import Cell, Eq, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
P, Q, U = matrices("P Q U")

cell = Cell("cell", Eq(h.next, tanh(P @ (Q @ x) + U @ h)))
