"""The words that are no arithmetic of entries: products, reductions, batch normalisation, computed matrices.

To SymPy they are functions without a derivative: `flatten` gives their values names before anything is
differentiated. What they mean is told by their sizes (`sizes.py`) and by the ops they become (`graph/`).
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import sympy as sp
from sympy.core.symbol import Str
from sympy.printing.precedence import PRECEDENCE

from gategen.errors import SpecError


class Opaque(sp.Function):  # type: ignore[misc]
    """A function of whole vectors."""

    is_real = True


class matvec(Opaque):
    """`W @ v` (third argument 1: `W.T @ v`), of vectors or of matrices of every row; written with `@`."""

    nargs = 3
    precedence = (PRECEDENCE["Add"] + PRECEDENCE["Mul"]) // 2  # for SymPy's own printer

    def _sympystr(self, printer: Any) -> str:
        matrix, operand, transposed = self.args
        shown = printer.parenthesize(operand, PRECEDENCE["Pow"])
        return f"{matrix}{'.T' if transposed else ''} @ {shown}"


class matmat(Opaque):
    """`C @ W` (third argument 1: `C @ W.T`), a matrix of every row times a weight; written with `@`."""

    nargs = 3
    precedence = matvec.precedence

    def _sympystr(self, printer: Any) -> str:
        value, matrix, transposed = self.args
        shown = printer.parenthesize(value, PRECEDENCE["Pow"])
        return f"{shown} @ {printer._print(matrix)}{'.T' if transposed else ''}"


class outer(Opaque):
    """The matrix of all products of two vectors of different sizes: `outer(v, k)[i, j] = v[i] * k[j]`."""

    nargs = 2


class concat(Opaque):
    """Stacked vectors, for the right side of `@` alone: `A @ concat(h, x)`."""

    nargs = None


class Over(Opaque):
    """What a word makes of a value along one of its axes, whose size is the last argument."""

    nargs = 2
    word: ClassVar[str]

    @property
    def axis(self) -> str:
        return str(self.args[-1])


class sum_over(Over):
    """Written `sum_(v, over="keys")`."""

    word = "sum_"


class mean_over(Over):
    """Written `mean(v, over="keys")`."""

    word = "mean"


class var_over(Over):
    """Written `var(v, over="keys")`."""

    word = "var"
    is_nonnegative = True


class max_over(Over):
    """Written `max_(v, over="keys")`."""

    word = "max_"


class cumsum_over(Over):
    """Written `cumsum(v, over="keys")`; as large as v is."""

    word = "cumsum"


class Reduction(Opaque):
    """What is made of the features of all arguments, or of one argument along one axis."""

    nargs: Any = None
    along: ClassVar[type[Over]]

    def __new__(cls, *args: Any, over: Any = None, **options: Any) -> sp.Expr:
        if over is None:
            return cast(sp.Expr, super().__new__(cls, *args, **options))
        if len(args) != 1:
            message = f"{cls.__name__} over {over} takes one value, not {len(args)}"
            raise SpecError(message, hint=f'{cls.__name__}(C, over="{over}")')
        return cast(sp.Expr, cls.along(args[0], Str(str(over))))


class sum_(Reduction):
    """The sum over the features of all arguments, as if concatenated; a size-1 value.

    With `over` the sum of one value along that one of its axes: `sum_(C, over="keys")`.
    """

    along = sum_over


class mean(Reduction):
    """The mean over the features of all arguments, as if concatenated; a size-1 value.

    With `over` the mean of one value along that one of its axes.
    """

    along = mean_over


class var(Reduction):
    """The biased variance over the features of all arguments, as if concatenated; a size-1 value.

    With `over` that of one value along that one of its axes.
    """

    is_nonnegative = True
    along = var_over


class max_(Reduction):
    """The largest of the features of all arguments; a size-1 value. Of equal ones each has a part of the
    derivative.

    With `over` the largest entries of one value along that one of its axes.
    """

    along = max_over


REDUCTIONS = (sum_, mean, var, max_)


class cumsum(Reduction):
    """The running sum over the features: entry k is the sum of the entries of `v` up to k.

    With `over` the same along one of several axes.
    """

    nargs = 1
    along = cumsum_over


class shifted(Over):
    """The value with every entry k places further on along one axis: entry i of `shifted(v, k, over="keys")`
    is entry i - k of v, and 0 where there is none. k is a whole number, and may be below 0.
    """

    nargs = 3
    word = "shifted"

    def __new__(cls, v: Any, k: Any, over: Any, **options: Any) -> sp.Expr:
        if not isinstance(k, (int, sp.Integer)) or isinstance(k, bool):
            raise SpecError(
                f"shifted() goes a whole number of places, not {float(k) if isinstance(k, sp.Number) else k}",
                hint='shifted(v, 1, over="keys")',
            )
        return cast(sp.Expr, super().__new__(cls, v, sp.Integer(k), Str(str(over)), **options))


class batch_norm(Opaque):
    """Batch normalisation of a value that depends on no state, with statistics over batch and time.

    `gain*(v - mean)/sqrt(var + eps) + bias` (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1). Running
    statistics follow PyTorch: `running += momentum*(batch - running)`, the running variance unbiased.
    """

    nargs = 5

    def __new__(
        cls, v: Any, gain: Any = 1, bias: Any = 0, eps: Any = 1e-5, momentum: Any = 0.1, **options: Any
    ) -> sp.Expr:
        return cast(sp.Expr, super().__new__(cls, v, gain, bias, eps, momentum, **options))


# ---------------------------------------------------------------------------------------------- matrices


class OfMatrices(Opaque):
    """A function of matrices; SymPy's own printer writes it as specs do."""

    def _sympystr(self, printer: Any) -> str:
        word = MATRIX_WORDS[type(self)]
        if word == "@":
            return " @ ".join(printer.parenthesize(arg, PRECEDENCE["Pow"]) for arg in self.args)
        if word == ".T":
            inner = self.args[0]
            shown = printer._print(inner)
            return f"{shown}.T" if isinstance(inner, leaf) else f"({shown}).T"
        inner = ", ".join(map(printer._print, self.args))
        return f"{word}({inner})" if word and inner else word or inner


class leaf(OfMatrices):
    """A matrix within an expression of matrices, where SymPy does arithmetic with it as with any name."""

    nargs = 1


class matmul(OfMatrices):
    """The product of two matrices, a matrix; written with `@`."""

    nargs = 2


class transposed(OfMatrices):
    """`A.T` in an expression of matrices."""

    nargs = 1


class inverse(OfMatrices):
    """The inverse of a square matrix; written `inv(A)`."""

    nargs = 1


class exponential(OfMatrices):
    """The exponential of a square matrix; written `expm(A)`."""

    nargs = 1


class unit(OfMatrices):
    """The unit matrix; written `identity`."""

    nargs = 0


class frobenius(OfMatrices):
    """The root of the sum of the squares of all entries of a matrix, a number; written `norm(A)`."""

    nargs = 1
    is_nonnegative = True


class row_norm(OfMatrices):
    """The same of each row, in a matrix of one column; written `row_norms(A)`."""

    nargs = 1
    is_nonnegative = True


MATRIX_WORDS: dict[type, str] = {
    leaf: "",
    matmul: "@",
    transposed: ".T",
    unit: "identity",
    inverse: "inv",
    exponential: "expm",
    frobenius: "norm",
    row_norm: "row_norms",
}
