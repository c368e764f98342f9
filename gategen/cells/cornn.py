"""coRNN, coupled oscillators: position y and velocity z (Rusch & Mishra 2020, arXiv:2010.00951).

The velocity is damped by its old value and moves the position by its new one, as in the authors' program.
"""

from gategen import Cell, Eq, constants, inputs, matrices, states, tanh, vectors

x = inputs("x")
y, z = states("y z")
W_h, U_z, U_y = matrices("W_h U_z U_y")
b_h = vectors("b_h")
dt, gamma, epsilon = constants(dt=0.1, gamma=2.7, epsilon=4.7)

cornn = Cell(
    "cornn",
    Eq(z.next, z + dt * (tanh(W_h @ x + U_z @ z + U_y @ y + b_h) - gamma * y - epsilon * z)),
    Eq(y.next, y + dt * z.next),
    title="Coupled oscillatory recurrent network",
    reference="T. K. Rusch, S. Mishra 2020, Coupled Oscillatory Recurrent Neural Network (coRNN), "
    "arXiv:2010.00951; program github.com/tk-rusch/coRNN",
)
