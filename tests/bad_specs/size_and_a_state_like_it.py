# expects: keys is declared twice, as size and as state
# hint: declare it once, or give one of them another name
# line: 9
from gategen import Cell, Eq, inputs, matrices, size, states

x, keys = inputs("x"), states("keys", size="keys")
W = matrices("W")

cell = Cell("cell", Eq(keys.next, keys + W @ x / size("keys")))
