'''The text form of a cell: equations as a paper prints them, read without executing anything.

    """LSTM with a projected state.

    H. Sak, A. Senior, F. Beaufays 2014, arXiv:1402.1128
    """
    states: r[projection], c
    i  = sigmoid(W_i @ x + R_i @ r + p_i * c + b_i)
    f  = sigmoid(W_f @ x + R_f @ r + p_f * c + b_f)
    c' = f * c + i * tanh(W_g @ x + R_g @ r + b_g)
    o  = sigmoid(W_o @ x + R_o @ r + b_o)
    r' = P_r @ (o * tanh(c'))

**Lines.** `#` begins a comment. What stands in brackets continues on the next line. The text may begin with
a docstring: its first paragraph is the title, the others are the reference.

**Equations.** `z = ...` defines a gate, `h' = ...` gives the next value of a state, and `h'` on the right
reads it. `n_a, n_b = layer_norm((U_a @ h, U_b @ h))` defines two gates. The order does not matter.
Expressions are those of the Python form: `+ - * / **`, `W @ v`, `W.T @ v`, comparisons inside `where`, and
the functions that gategen exports, with their keyword arguments; `Abs Max Min Heaviside erf` are known too.
`p, q = softmax(a, b)` is a joint softmax, `softmax(C, over=keys)` goes along one axis. `x[t-2]` and `h[t-2]`
are earlier values: the cell gets states for them, `x_1`, `x_2` and `h_2`, which begin with 0; `h[t-1]` is
`h`. A size that is no other name is a number: `q / sqrt(keys)`.

**Roles follow from use.** What an equation defines is a gate, or with `'` a state; `x` is the input; a name
that begins with one of `W U V P R b c p g` and `_` is a matrix where it stands on the left of `@`,
otherwise a vector of size `hidden`. Everything else is declared, each kind on a line, or on indented lines
below its word:

    name: mine                        where it is not the name of the file
    inputs: x, m[1], w[memory]        read at every step, the sequence first; size `input` unless given
    inputs: X[nodes, input]           a matrix at every step, as states and gates may be matrices
    states: h, k[6] = -0.25           carried; size `hidden` and start 0 unless given
    matrices: A, C[rank, hidden], D[hidden, (hidden, input)]        the last one for D @ concat(h, x)
    vectors: q, e[1], a[memory]       size `hidden` unless given
    scalars: alpha                    one trained number each
    fixed matrices: E, S = lower      not trained; and so `fixed vectors`, `fixed scalars`
    constants: eps = 1e-5, beta = 1   numbers that --set changes
    output: y, c'                     the next value of the first state unless given
    first:                            equations used instead at the first step, where no state is given
        h' = W_n @ x + b_n

**What parameters hold.** With `=` a fixed parameter holds what is said, and a trained one begins with it;
otherwise `init` draws trained ones, and asks for fixed ones by name:

    fixed matrices: S = lower, D = shift(1), N[2, 2] = ((1, 0.5), (0, 1))
    fixed matrices: A[hidden, (hidden, input)] = (identity, 0)
    fixed vectors: period = blocks(1, 2, 4, 8)        each for a quarter of the units
    vectors: b_f = 1
    scalars: alpha = 0.5

`lower @ v` is `cumsum(v)`, `strict_lower @ v` the sum of what stands before; entry i of
`shift(k) @ v` is entry i - k of `v`, or 0; in `rotation(k) @ v` the first entry follows the last. These, and
`identity`, are for square matrices. `blocks(a, b)` are equal blocks along a vector, or down the diagonal of a
matrix. Of stacked rows or columns a tuple has one for each.

**Weights and matrices.** `W @ C` and `C @ V`, with `states: C[hidden, keys]` and `matrices: W, V`, are
products with every row's matrix; what stands on the right of one is declared. With `inputs: X[rows, input]`
and `matrices: K[(input, input, input), hidden]`, `conv(X, K, over=rows)` is a convolution whose kernel has
three places, and `shifted(X, k, over=rows)` has as entry i the entry i - k of X, or 0.

**Matrices of matrices.** On the left of `@` may stand an expression of matrices, scalars and numbers:
`(M_h * U_h) @ h`, `(A - A.T) @ h`, `inv(identity + A) @ h`, `expm(A)`, `A / row_norms(A)`, `(A @ B) @ h`;
`norm(A)` is a number. All undeclared names in it are matrices, but for sizes: `(A / sqrt(keys)) @ h`.

**Safety.** `lines` cuts the text, `ast.parse` makes a tree of each expression, `trees` refuses a tree that
holds anything but the kinds of nodes listed there, and `expressions` looks names up in the cell's own and
functions in its own table. Sizes of everything are limited, and what SymPy could take long over, such as
`10**10**10`, is refused before SymPy sees it.

These modules make `Eq`s. That they form a cell is for `Cell` to check; `Spec.blamed` puts its words into
the text form. `writer` goes the other way, from a `Cell` to text, and therefore stands above `Cell`.
'''

from gategen.spec.text.reader import Spec, read

__all__ = ["Spec", "read"]
