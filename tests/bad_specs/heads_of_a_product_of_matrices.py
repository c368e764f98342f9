# expects: with heads=4: S @ U takes U whole, and heads would cut it into blocks
# hint: a weight in blocks stands in W @ v
# line: 10
from gategen import Cell, Eq, inputs, matrices, outer, states

x, S = inputs("x"), states("S", size=("keys", "hidden"))
V = matrices("V", shape=("hidden", "input"))
K = matrices("K", shape=("keys", "input"))
U = matrices("U", shape=("hidden", "hidden"))
cell = Cell("cell", Eq(S.next, S @ U + outer(K @ x, V @ x))).with_heads(4)
