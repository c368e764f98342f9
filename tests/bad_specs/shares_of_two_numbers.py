# expects: hidden is shared out among 3 and among 2, in S
# hint: one number of heads for all that has this size, or a size of another name
# line: 12
from gategen import Cell, Eq, inputs, states, sum_

x = inputs("x", size="hidden")
S = states("S", size=(2, "hidden/2", "keys"))
A = states("A", size=(3, "hidden/3"))
cell = Cell(
    "cell",
    Eq(A.next, A / 2),
    Eq(S.next, S * x),
)
