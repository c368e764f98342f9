"""The words that are no arithmetic of entries: products, reductions, batch normalisation.

To SymPy they are functions without a derivative: `flatten` gives their values names before anything is
differentiated. What they mean is told by their sizes (`sizes.py`) and by the ops they become (`graph/`).
"""

from __future__ import annotations

from typing import Any, cast

import sympy as sp
from sympy.printing.precedence import PRECEDENCE


class Opaque(sp.Function):  # type: ignore[misc]
    """A function of whole vectors."""

    is_real = True


class matvec(Opaque):
    """`W @ v` (third argument 1: `W.T @ v`); written with `@`."""

    nargs = 3
    precedence = (PRECEDENCE["Add"] + PRECEDENCE["Mul"]) // 2  # for SymPy's own printer

    def _sympystr(self, printer: Any) -> str:
        matrix, operand, transposed = self.args
        shown = printer.parenthesize(operand, PRECEDENCE["Pow"])
        return f"{matrix}{'.T' if transposed else ''} @ {shown}"


class concat(Opaque):
    """Stacked vectors, for the right side of `@` alone: `A @ concat(h, x)`."""

    nargs = None


class sum_(Opaque):
    """The sum over the features of all arguments, as if concatenated; a size-1 value."""

    nargs = None


class mean(Opaque):
    """The mean over the features of all arguments, as if concatenated; a size-1 value."""

    nargs = None


class var(Opaque):
    """The biased variance over the features of all arguments, as if concatenated; a size-1 value."""

    nargs = None
    is_nonnegative = True


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
