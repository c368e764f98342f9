# expects: z[t - 1]: a step reads its inputs and the states before it
# hint: q = states("q"), with Eq(q.next, z), is z of the step before
# line: 8
from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, t

x, h, z = inputs("x"), states("h"), gates("z")
W = matrices("W")
cell = Cell("cell", Eq(z, sigmoid(W @ x)), Eq(h.next, z * z[t - 1]))
