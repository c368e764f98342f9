"""hoist: split a sum in the loop into the part that waits for the state and the part that does not.

`a = W @ x + b + U @ h` becomes `x_z = W @ x + b` before the loop and `a = x_z + U @ h` in it. Only sums of a
forward step are cut here; which ops can leave the loop is decided by `graph.levels`, backwards by that alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from gategen.graph import BEFORE, LOOP, Builder, Graph, Pointwise, Value, check, levels, values_in
from gategen.graph.flatten import stem_of


def hoist(graph: Graph, arrays: bool = False) -> Graph:
    """The graph with the early terms of every sum in the loop added up before it.

    What is the same at every step takes part only with `arrays`: a kernel reads a bias in its registers, and
    adding it before would cost one more pass over memory.
    """
    if graph.backwards:
        return graph
    level = levels(graph)
    states = {carry.current for carry in graph.states}
    early = {v for v in graph.values if v not in states and level.get(v, BEFORE) == BEFORE}
    builder = Builder((v.name for v in graph.values), graph.orders)
    sums = [op for op in graph.ops if isinstance(op, Pointwise) and isinstance(op.expr, sp.Add)]
    sums = [op for op in sums if level[op.out] == LOOP and not op.out.wide]
    stacked = any(len(constants(ready(op, early))) > 1 for op in sums)
    summed = {op.out for op in sums}
    for op in graph.ops:
        if isinstance(op, Pointwise) and op.out in summed:
            op = Pointwise(op.out, split(op, early, builder, stacked, arrays))
        builder.add(op)
    return check(replace(graph, ops=tuple(builder.ops)))


def ready(op: Pointwise, early: set[Value]) -> list[sp.Expr]:
    """The terms of a sum that wait for no state."""
    return [term for term in op.expr.args if not term.is_number and early.issuperset(values_in(term))]


def constants(terms: Sequence[sp.Expr]) -> list[sp.Expr]:
    """Those of them that are the same at every step."""
    return [term for term in terms if all(v.static for v in values_in(term))]


def split(op: Pointwise, early: set[Value], builder: Builder, stacked: bool, arrays: bool) -> sp.Expr:
    """The sum `op` computes, with its terms over `early` values alone replaced by one value."""
    terms = ready(op, early)
    if not arrays:
        still = set(constants(terms))
        terms = [term for term in terms if term not in still]
    early_terms = set(terms)
    rest = [term for term in op.expr.args if term not in early_terms]
    if len(terms) > 1 or any(not isinstance(term, Value) for term in terms):
        stem = stem_of(op.out) if op.out.role == "argument" else str(op.out.name)
        terms = [hoisted(builder, terms, stem, stacked)]
    return sp.Add(*terms, *rest)


def hoisted(builder: Builder, terms: Sequence[sp.Expr], stem: str, stacked: bool) -> Value:
    """One value before the loop for the sum of `terms`.

    With `stacked` some gate adds up several biases, so every gate's bias is a value of its own: they lie side
    by side and are added to all gates at once.
    """
    static = constants(terms)
    same = set(static)
    rest = [term for term in terms if term not in same]
    if rest and static and (stacked or not isinstance(static[0], Value)):
        total = sp.Add(*static)
        static = [builder.once(("bias", total), lambda: builder.pointwise(f"bias_{stem}", total))]
    return named(builder, sp.Add(*rest, *static), f"x_{stem}")


def named(builder: Builder, total: sp.Expr, wish: str) -> Value:
    return total if isinstance(total, Value) else builder.once(total, lambda: builder.pointwise(wish, total))
