# expects: size() takes the name of a size, not 4
# hint: size("hidden")
# line: 7
from gategen import inputs, size, states

x, h = inputs("x"), states("h", size=4)
n = size(4)
