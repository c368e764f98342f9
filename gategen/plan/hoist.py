"""hoist: split a sum in the loop into the part that waits for the state and the part that does not.

`a = W @ x + b + U @ h` becomes `x_z = W @ x + b` before the loop and `a = x_z + U @ h` in it. Only sums of a
forward step are cut here; which ops can leave the loop is decided by `graph.levels`, backwards by that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from gategen.graph import BEFORE, LOOP, Builder, Graph, Pointwise, Value, check, levels, values_in


def hoist(graph: Graph) -> Graph:
    """The graph with the early terms of every sum in the loop added up before it."""
    if graph.backwards:
        return graph
    level = levels(graph)
    states = {carry.current for carry in graph.states}
    early = {v for v in graph.values if v not in states and level.get(v, BEFORE) == BEFORE}
    builder = Builder(v.name for v in graph.values)
    for op in graph.ops:
        if isinstance(op, Pointwise) and isinstance(op.expr, sp.Add) and level[op.out] == LOOP:
            op = Pointwise(op.out, split(op, early, builder))
        builder.add(op)
    return check(replace(graph, ops=tuple(builder.ops)))


def split(op: Pointwise, early: set[Value], builder: Builder) -> sp.Expr:
    """The sum `op` computes, with its terms over `early` values alone replaced by one value."""
    ready = [term for term in op.expr.args if not term.is_number and early.issuperset(values_in(term))]
    rest = [term for term in op.expr.args if term not in ready]
    if len(ready) > 1 or any(not isinstance(term, Value) for term in ready):
        ready = [hoisted(builder, ready, op.out.name.removeprefix("a_"))]
    return sp.Add(*ready, *rest)


def hoisted(builder: Builder, terms: Sequence[sp.Expr], stem: str) -> Value:
    """One value before the loop for the sum of `terms`."""
    static = [term for term in terms if all(v.static for v in values_in(term))]
    rest = [term for term in terms if term not in static]
    if rest and (len(static) > 1 or any(not isinstance(term, Value) for term in static)):
        static = [named(builder, sp.Add(*static), f"bias_{stem}")]
    return named(builder, sp.Add(*rest, *static), f"x_{stem}")


def named(builder: Builder, total: sp.Expr, wish: str) -> Value:
    return total if isinstance(total, Value) else builder.once(total, lambda: builder.pointwise(wish, total))
