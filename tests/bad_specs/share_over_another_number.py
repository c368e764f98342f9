# expects: hidden is shared out among heads and among 4, in mean(x, over='hidden/4')
# hint: one number of heads
# line: 10
from gategen import Cell, Eq, inputs, mean, states

x = inputs("x", size="hidden")
S = states("S", size=("heads", "hidden/heads", "keys"))
cell = Cell(
    "cell",
    Eq(S.next, S * mean(x, over="hidden/4")),
)
