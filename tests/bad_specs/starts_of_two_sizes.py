# expects: m is declared twice as vector, and both are used
# hint: declare it once, or give one of them another name
# line: 8
from gategen import Cell, Eq, inputs, states, sum_, vectors

x = inputs("x")
h = states("h", initial=vectors("m"))
q = states("q", size="memory", initial=vectors("m", size="memory"))

cell = Cell("cell", Eq(h.next, h + sum_(x)), Eq(q.next, q + sum_(x)))
