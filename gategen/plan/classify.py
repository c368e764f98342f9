"""classify: what the loop over time waits for. Which kernel serves a class is for backends to choose."""

from __future__ import annotations

from collections.abc import Set

import sympy as sp

from gategen.graph import LOOP, Pointwise, Value, values_in
from gategen.plan.analysis import Analysis
from gategen.spec import language as lang


def classify(analysis: Analysis) -> str:
    """`recurrent` (a product or sum waits for the state), `linear` (affine in it), else `elementwise`."""
    graph, level = analysis.graph, analysis.level
    moving = {carry.current for carry in graph.states}
    linear = True
    for op in graph.ops:
        if moving.isdisjoint(op.reads):
            continue
        moving.add(op.out)
        if level[op.out] != LOOP:
            continue
        if not isinstance(op, Pointwise):
            return "recurrent"
        linear = linear and affine(as_computed(op.expr), moving)
    return "linear" if linear else "elementwise"


def affine(expr: sp.Expr, moving: Set[Value]) -> bool:
    """Whether an expression is a sum of terms that each have one of these values as a factor, or none.

    By how it is written: what a condition or a jump makes of a value is not, though its derivative may be the
    same everywhere.
    """
    if moving.isdisjoint(values_in(expr)) or expr in moving:
        return True
    if isinstance(expr, sp.Add):
        return all(affine(term, moving) for term in expr.args)
    waits = [factor for factor in sp.Mul.make_args(expr) if not moving.isdisjoint(values_in(factor))]
    return isinstance(expr, sp.Mul) and len(waits) == 1 and affine(waits[0], moving)


def as_computed(expr: sp.Expr) -> sp.Expr:
    """What an expression computes, without what it says of its gradient."""
    while expr.has(lang.stop_gradient, lang.surrogate):
        expr = expr.replace(lang.stop_gradient, lambda v: v).replace(lang.surrogate, lambda f, psi: f)
    return expr
