# expects: x has size hidden, and no axis hidden
# hint: over one of its sizes: heads or hidden/heads
# line: 10
from gategen import Cell, Eq, inputs, mean, states

x = inputs("x", size="hidden")
S = states("S", size=("heads", "hidden/heads", "keys"))
cell = Cell(
    "cell",
    Eq(S.next, S * mean(x, over="hidden")),
)
