"""Expressions of values as nodes of ONNX, one for every operation."""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp
from sympy.core.relational import Relational

from gategen.graph import Length, Value
from gategen.onnx.nodes import Nodes
from gategen.spec import language as lang
from gategen.spec.functions import normalise, row_of

RELATIONS = {"<": "Less", "<=": "LessOrEqual", ">": "Greater", ">=": "GreaterOrEqual", "==": "Equal"}
POWERS = 4  # up to which a power is products


class Expressions:
    """Makes nodes of expressions; what stands twice in them is computed once.

    `known` are the names of values in the model, `sizes` the lengths of sizes. Where small values count to
    the last digit, `exact`, a sigmoid is written out: that of onnxruntime is no better than beside 1.
    """

    def __init__(
        self, nodes: Nodes, known: Mapping[Value, str], sizes: Mapping[str, int], exact: bool = False
    ) -> None:
        self.nodes = nodes
        self.exact = exact
        self.known = known
        self.sizes = sizes
        self.made: dict[sp.Basic, str] = {}

    def __call__(self, expr: sp.Expr) -> str:
        """The name of the value of an expression."""
        if isinstance(expr, Value):
            return self.known[expr]
        if isinstance(expr, Length):
            return self.nodes.number(self.sizes[expr.name])
        if expr.is_number:
            return self.nodes.number(float(expr))
        if expr not in self.made:
            self.made[expr] = self.operation(expr)
        return self.made[expr]

    def operation(self, expr: sp.Expr) -> str:
        if isinstance(expr, sp.Add):
            return self.sum(expr)
        if isinstance(expr, sp.Mul):
            return self.product(expr)
        if isinstance(expr, sp.Pow):
            return self.power(expr.base, expr.exp)
        if isinstance(expr, Relational):
            return self.nodes(RELATIONS[expr.rel_op], self(expr.lhs), self(expr.rhs))
        if isinstance(expr, lang.Word):
            return self(expr.formula)
        row = row_of(expr)
        if row is None or not row.onnx or (self.exact and row.exact):
            words = normalise(type(expr).number(*expr.args))
            assert not words.has(type(expr)), f"ONNX has no {expr.func}"
            return self(words)
        args = [self(arg) for arg in expr.args]
        return self.nodes(row.onnx, *args) if isinstance(row.onnx, str) else row.onnx(self.nodes, *args)

    def sum(self, expr: sp.Add) -> str:
        """What is subtracted stands behind the rest."""
        plus = [term for term in expr.args if term.as_coeff_Mul()[0] >= 0]
        minus = [-term for term in expr.args if term.as_coeff_Mul()[0] < 0]
        total = self(plus[0]) if plus else self.nodes("Neg", self(minus.pop(0)))
        for op, terms in (("Add", plus[1:]), ("Sub", minus)):
            for term in terms:
                total = self.nodes(op, total, self(term))
        return total

    def product(self, expr: sp.Mul) -> str:
        """Factors with negative powers are divided by."""
        number, factors = expr.as_coeff_mul()
        above = [f for f in factors if not _divides(f)]
        below = [1 / f for f in factors if _divides(f)]
        if number == -1 and above:
            total = self.nodes("Neg", self(above.pop(0)))
        else:
            above = above if number == 1 and above else [number, *above]
            total = self(above.pop(0))
        for op, part in (("Mul", above), ("Div", below)):
            for factor in part:
                total = self.nodes(op, total, self(factor))
        return total

    def power(self, base: sp.Expr, exponent: sp.Expr) -> str:
        if exponent.is_number and exponent < 0:
            return self.nodes("Div", 1.0, self(base**-exponent))
        if exponent == sp.Rational(1, 2):
            return self.nodes("Sqrt", self(base))
        if exponent.is_Integer and exponent <= POWERS:
            value = total = self(base)
            for _ in range(int(exponent) - 1):
                total = self.nodes("Mul", total, value)
            return total
        return self.nodes("Pow", self(base), self(exponent))


def _divides(factor: sp.Expr) -> bool:
    return isinstance(factor, sp.Pow) and factor.exp.is_number and bool(factor.exp < 0)
