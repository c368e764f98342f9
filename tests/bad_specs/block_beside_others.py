# expects: V[1] is a block of V and stands beside others, entry by entry
# hint: declare a matrix for this use alone
# line: 13
from gategen import Cell, Eq, inputs, matrices, outer, states, tanh

x = inputs("x")
h = states("h")
S = states("S", size=("hidden", "input"))
V = matrices("V", shape=(("hidden", "hidden"), "input"))
cell = Cell(
    "cell",
    Eq(h.next, tanh(V[0] @ x)),
    Eq(S.next, tanh(V[1] * outer(h, x) + S)),
)
