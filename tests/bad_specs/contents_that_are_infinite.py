# expects: inf is not what a parameter can begin with
# hint: a number, numbers such as (1, 2)
# line: 8
from gategen import Cell, Eq, inputs, matrices, scalars, states

x, h = inputs("x"), states("h")
W = matrices("W")
alpha = scalars("alpha", initial=float("inf"))

cell = Cell("cell", Eq(h.next, W @ x + h * alpha))
