"""Stacked rows: blocks of other sizes, columns stacked too, not trained, beside matrices of their own."""

from gategen import Cell, Eq, concat, gates, inputs, layer_norm, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
k = states("k", size="memory")
A, A_h = matrices("A A_h", shape=(("memory", "hidden", "hidden"), "input"))
C = matrices("C", shape=(("hidden", "hidden"), ("hidden", "input")))
F = matrices("F", shape=(("hidden", "hidden"), "hidden"), trainable=False)
V, U_k = matrices("V U_k")
b, g = vectors("b g", size=("memory", "hidden", "hidden"))
b_h, p = vectors("b_h p")
f, n = gates("f n")

m, z, c = layer_norm(A @ x, g, b)

rows_of_two_sizes = Cell(
    "rows_of_two_sizes",
    Eq(k.next, tanh(m + U_k @ k + V @ h)),
    Eq(h.next, sigmoid(z) * h + (1 - sigmoid(z)) * tanh(c + b_h)),
    output=(h.next, k.next),
)

into_f, into_n = C @ concat(h, x)

rows_and_columns = Cell(
    "rows_and_columns",
    Eq(f, sigmoid(into_f + p)),
    Eq(n, tanh(into_n + b_h)),
    Eq(h.next, f * h + (1 - f) * n),
)

fed_f, fed_n = F @ h

rows_not_trained = Cell(
    "rows_not_trained",
    Eq(f, sigmoid(fed_f + A_h[1] @ x)),
    Eq(k.next, A_h[0] @ x),
    Eq(n, tanh(fed_n + A_h[2] @ x + F[1].T @ h)),
    Eq(h.next, f * h + (1 - f) * n),
)

one_row = vectors("one_row", size=("hidden",))

rows_of_one = Cell("rows_of_one", Eq(h.next, tanh(one_row[0] * h + V @ x)))
