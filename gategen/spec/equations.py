"""`Eq`: one equation, which knows where it was written."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.logic.boolalg import BooleanFalse, BooleanTrue

from gategen.errors import SpecError
from gategen.spec.names import caller, expression


class Eq:
    """`lhs = rhs`: what a gate, or the next value of a state, is. Knows where it was written."""

    __slots__ = ("lhs", "rhs", "where")

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.where = caller()
        self.lhs, self.rhs = lhs, rhs
        if isinstance(rhs, (bool, BooleanTrue, BooleanFalse)):
            raise SpecError(
                f"the right side of {lhs} is the truth value {bool(rhs)}",
                where=self.where,
                hint="comparisons belong inside where(...)",
            )
        if isinstance(rhs, (tuple, list)):
            raise SpecError(
                f"the right side of {lhs} is a tuple of {len(rhs)} values",
                where=self.where,
                hint="unpack it first: n_a, n_b = layer_norm((a, b))",
            )
        try:
            self.rhs = expression(rhs, f"the right side of {lhs}")
        except SpecError as error:
            raise error.at(self.where) from None

    @property
    def sympy(self) -> Any:
        """The equation as `sympy.Eq` (which SymPy may fold to a truth value)."""
        return sp.Eq(self.lhs, self.rhs)

    def __repr__(self) -> str:
        return f"Eq({self.lhs}, {self.rhs})"
