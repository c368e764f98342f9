# expects: identity is not what the vector b can hold
# hint: numbers such as (1, 2)
# line: 8
from gategen import Cell, Eq, identity, inputs, matrices, states, vectors

x, h = inputs("x"), states("h")
W = matrices("W")
b = vectors("b", initial=identity)

cell = Cell("cell", Eq(h.next, W @ x + h * b))
