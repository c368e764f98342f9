# expects: with heads=4: sizes contradict: U @ S is a product with vectors, but this has size (hidden, keys)
# hint: a matrix C of every row becomes a vector
# line: 10
from gategen import Cell, Eq, inputs, matrices, outer, states

x, S = inputs("x"), states("S", size=("hidden", "keys"))
V = matrices("V", shape=("hidden", "input"))
K = matrices("K", shape=("keys", "input"))
U = matrices("U", shape=("hidden", "hidden"))
cell = Cell("cell", Eq(S.next, U @ S + outer(V @ x, K @ x))).with_heads(4)
