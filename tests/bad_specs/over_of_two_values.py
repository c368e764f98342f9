# expects: softmax over keys takes one value, not 2
# hint: softmax(C, over="keys")
# line: 8
from gategen import inputs, softmax, states

x = inputs("x")
S, M = states("S M", size=("hidden", "keys"))
softmax(S, M, over="keys")
