"""The built-in cells: spec files like any other, in the language that `gategen` exports and nothing else.

A file holds one cell or one family, and every `Cell` in it is found by its name. To add a cell, add a
file. Names are the papers': `W_*` acts on the input, `U_*` on a state, `b_*` is a bias; `z`, `r`, `f`
are gates and `n` is the candidate for the new state `h.next`.
"""
