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
from gategen.plan.groups import side_by_side


def ahead(graph: Graph) -> Graph:
    """The backward graph, in whose loop every gradient is multiplied by at most one value."""
    level = levels(graph)
    moving = {carry.current for carry in graph.states} | {v for v, when in level.items() if when == LOOP}
    builder = Builder((v.name for v in graph.values), graph.orders)
    sides = side_by_side(graph.ops)
    products: dict[Value, sp.Expr] = {}  # gradients, of one value that moves and one that does not
    for op in graph.ops:
        if isinstance(op, Pointwise) and level[op.out] == LOOP and not (op.out.static or op.out.wide):
            expr = collected(op.expr, moving)
            terms = sp.Add.make_args(expr)
            if len(terms) == 1 and op.out in sides:  # neighbours are to be the same value, times a stack
                terms = (sp.Mul(*(products.get(f, f) for f in sp.Mul.make_args(expr))),)
            of = op.out.of if op.out.role == "gradient" else op.out
            wish = "k_" + of.name.removesuffix("_next")
            op = Pointwise(op.out, sp.Add(*(split(term, moving, wish, builder) for term in terms)))
            if len(terms) == 1 and sum(v in moving for v in values_in(op.expr)) == 1:
                products[op.out] = op.expr
        builder.add(op)
    return check(replace(graph, ops=tuple(builder.ops)))


def collected(expr: sp.Expr, moving: Set[Value]) -> sp.Expr:
    """`d_h*n - d_h*h` as `d_h*(n - h)`, of which the loop is left with one product."""
    if isinstance(expr, sp.Mul):
        return sp.Mul(*(collected(factor, moving) for factor in expr.args))
    sums: dict[sp.Expr, list[sp.Expr]] = {}
    for term in sp.Add.make_args(expr):
        settled, waiting = parted(term, moving)
        sums.setdefault(sp.Mul(*waiting), []).append(sp.Mul(*settled))
    if len(sums) == len(sp.Add.make_args(expr)):
        return expr
    return sp.Add(*(sp.Mul(waiting, sp.Add(*parts)) for waiting, parts in sums.items()))


def parted(term: sp.Expr, moving: Set[Value]) -> tuple[list[sp.Expr], list[sp.Expr]]:
    """The factors of a term that wait for no gradient, and those that do."""
    factors = sp.Mul.make_args(term)
    settled = [f for f in factors if moving.isdisjoint(values_in(f))]
    return settled, [f for f in factors if f not in settled]


def split(term: sp.Expr, moving: Set[Value], wish: str, builder: Builder) -> sp.Expr:
    """A term with its factors that wait for no gradient as one value."""
    settled, waiting = parted(term, moving)
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
