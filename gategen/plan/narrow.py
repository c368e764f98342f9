"""narrow: compute on vectors what a line of matrices needs of vectors alone.

In `S' = a * S + b * outer(v, k)` the product `b * v` is one for all columns: it becomes a vector of its own,
and what every entry of the matrix costs is two products and a sum. Which ops leave the loop is decided by
`graph.levels`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import sympy as sp

from gategen.graph import Builder, Graph, Pointwise, Value, check, values_in
from gategen.spec.language import Size


def narrow(graph: Graph) -> Graph:
    """The graph in which every part of a matrix that has fewer axes has a name of its own."""
    if not any(isinstance(op, Pointwise) and len(op.out.axes) > 1 for op in graph.ops):
        return graph
    builder = Builder((v.name for v in graph.values), graph.orders)
    for op in graph.ops:
        if isinstance(op, Pointwise) and len(op.out.axes) > 1:
            op = Pointwise(op.out, Narrower(builder, op.out).line(op.expr))
        builder.add(op)
    return check(replace(graph, ops=tuple(builder.ops)))


class Narrower:
    """Rewrites the line of one matrix."""

    def __init__(self, builder: Builder, out: Value) -> None:
        self.builder, self.out = builder, out
        self.whole = frozenset(out.axes)

    def line(self, expr: sp.Expr) -> sp.Expr:
        """An expression with all axes, its narrow parts by their names."""
        if axes_in(expr) < self.whole:
            return self.named(expr)
        if not isinstance(expr, (sp.Add, sp.Mul)):
            return expr
        numbers = [arg for arg in expr.args if not values_in(arg)]
        full = [self.line(arg) for arg in expr.args if axes_in(arg) == self.whole]
        rest = [arg for arg in expr.args if values_in(arg) and axes_in(arg) != self.whole]
        return expr.func(*numbers, *full, *(self.named(expr.func(*some)) for some in grouped(rest)))

    def named(self, expr: sp.Expr) -> sp.Expr:
        """What has fewer axes, under a name; a value that is there already, as it is."""
        factors = [f for f in sp.Mul.make_args(expr) if not f.is_number]
        if not factors or (len(factors) == 1 and isinstance(factors[0], Value)):
            return expr
        reads = values_in(expr)
        wish = (
            "_".join(v.name for v in reads)
            if isinstance(expr, sp.Mul) and len(reads) < 4
            else f"v_{self.out}"
        )
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr))


def grouped(parts: Sequence[sp.Expr]) -> list[list[sp.Expr]]:
    """Parts by their axes; what has fewer joins the first that has all of these and more."""
    found: dict[frozenset[Size], list[sp.Expr]] = {}
    for part in sorted(parts, key=lambda part: -len(axes_in(part))):
        along = frozenset(axes_in(part))
        found.setdefault(next((other for other in found if along <= other), along), []).append(part)
    return list(found.values())


def axes_in(expr: sp.Expr) -> Set[Size]:
    """The axes along which an expression differs."""
    return {axis for v in values_in(expr) for axis in v.axes}
