"""ahead: what the backward step multiplies gradients by, computed before it needs them.

A backward step is linear in the gradients that it carries: `d_n = d_h * z * (1 - n**2)`. The factor
`z * (1 - n**2)` reads the tape alone, so it need not wait for `d_h`: where calls are dear, one call computes
it for many steps, and the loop is left with one product. For backends that work on whole arrays; where a
kernel computes a step in registers, such a factor costs more to store than to compute.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import sympy as sp

from gategen.graph import LOOP, Builder, Graph, Pointwise, Value, check, levels, values_in


def ahead(graph: Graph) -> Graph:
    """The backward graph, in whose loop every gradient is multiplied by at most one value."""
    level = levels(graph)
    moving = {carry.current for carry in graph.states} | {v for v, when in level.items() if when == LOOP}
    builder = Builder(v.name for v in graph.values)
    for op in graph.ops:
        if isinstance(op, Pointwise) and level[op.out] == LOOP and not op.out.static:
            terms = sp.Add.make_args(op.expr)
            of = op.out.of if op.out.role == "gradient" else op.out
            wish = "k_" + of.name.removesuffix("_next")
            op = Pointwise(op.out, sp.Add(*(split(term, moving, wish, builder) for term in terms)))
        builder.add(op)
    return check(replace(graph, ops=tuple(builder.ops)))


def split(term: sp.Expr, moving: Set[Value], wish: str, builder: Builder) -> sp.Expr:
    """A term with its factors that wait for no gradient as one value."""
    factors = sp.Mul.make_args(term)
    settled = [f for f in factors if moving.isdisjoint(values_in(f))]
    waiting = [f for f in factors if f not in settled]
    factor = sp.Mul(*settled)
    if not waiting or factor.is_number or isinstance(factor, Value) or not rows(factor):
        return term
    named = builder.once(factor, lambda: builder.pointwise(wish, factor))
    return sp.Mul(named, *waiting)


def rows(factor: sp.Expr) -> bool:
    """Whether the factor has a value for every row and step, and is more than one of them times a number."""
    reads = [v for v in values_in(factor) if not v.static]
    scaled = len(reads) == 1 and isinstance(
        sp.Mul(*(f for f in sp.Mul.make_args(factor) if not f.is_number)), Value
    )
    return bool(reads) and not scaled
