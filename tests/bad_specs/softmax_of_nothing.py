# expects: softmax() is of no value that has features
# hint: softmax(v)
# line: 9
from gategen import Cell, Eq, inputs, softmax, states

x = inputs("x", size="hidden")
h = states("h")

cell = Cell("cell", Eq(h.next, x + h * softmax()))
