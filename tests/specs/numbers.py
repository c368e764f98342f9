"""Scalars, constants, parameters that are not trained."""

from gategen import Cell, Eq, constants, gates, inputs, matrices, scalars, sigmoid, states, tanh, vectors

x = inputs("x")
beta, eps = constants(beta=2, eps=1e-3)
h = states("h", initial=beta / 4)
W, U = matrices("W U")
E, F = matrices("E F", trainable=False)
b = vectors("b")
p = vectors("p", trainable=False)
alpha, gamma = scalars("alpha gamma")
delta = scalars("delta", trainable=False)
z = gates("z")

leaky = Cell(
    "leaky",
    Eq(z, sigmoid(alpha * (W @ x) + gamma)),
    Eq(h.next, (1 - z) * h / (beta + eps) + z * tanh(alpha * (U @ h) + b) + eps * gamma),
)

reservoir = Cell(
    "reservoir",
    Eq(h.next, (1 - alpha) * h + alpha * tanh(E @ x + F @ h + p * b + delta)),
)

fixed = Cell("fixed", Eq(h.next, tanh(E @ x + F @ h + delta * p)))
