# expects: with heads=4: S would have the sizes (4, 4, keys), and sizes tell its axes apart
# hint: a name for the size that is 4, or another number of heads
# line: 9
from gategen import Cell, Eq, inputs, matrices, outer, states, tanh

x, S = inputs("x"), states("S", size=("heads", 4, "keys"))
V = matrices("V", shape=("heads*4", "input"))
K = matrices("K", shape=("heads*keys", "input"))
cell = Cell("cell", Eq(S.next, tanh(S + outer(V @ x, K @ x)))).with_heads(4)
