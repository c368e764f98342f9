# expects: P has the axis hidden, which is shared out elsewhere, as heads*hidden/heads
# hint: its axes in shares too, or a size of another name
# line: 12
from gategen import Cell, Eq, inputs, states

x = inputs("x", size="hidden")
P = states("P", size=("hidden", "rank"))
S = states("S", size=("heads", "hidden/heads", "keys"))
cell = Cell(
    "cell",
    Eq(S.next, S * x),
    Eq(P.next, P / 2),
)
