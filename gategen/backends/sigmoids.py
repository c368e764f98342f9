"""Which sigmoids may be computed as `tanh(a / 2) / 2 + 1 / 2`.

NumPy's tanh is twice as fast as 1 / (1 + exp(-a)), and a gate beside one that is a tanh shares its call. But
the sum loses the digits of a result near 0, where 1 / (1 + exp(-a)) keeps them. A gate that is multiplied and
added does not need them; one that something is divided by, or whose logarithm or root is taken, does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import sympy as sp

from gategen.graph import Graph, Pointwise, Value
from gategen.plan import Slot
from gategen.spec import language as lang

HALF = sp.Rational(1, 2)


def exact(graph: Graph) -> frozenset[Value]:
    """The values whose every digit counts: what a quotient, a root or a logarithm is made of."""
    found: set[Value] = set()
    for op in graph.ops:
        if isinstance(op, Pointwise):
            found.update(*(part.atoms(Value) for part in strict_parts(op.expr)))
    before: set[Value] = set()
    while before != found:
        before = set(found)
        found.update(carry.next for carry in graph.states if carry.current in found)
        for op in reversed(graph.ops):
            if op.out in found:
                found.update(op.reads)
    return frozenset(found)


def strict_parts(expr: sp.Expr) -> list[sp.Expr]:
    """What `expr` divides by, or takes a root or a logarithm of."""
    powers = [p.base for p in expr.atoms(sp.Pow) if not (p.exp.is_Integer and p.exp > 0)]
    return [*powers, *(f.args[0] for f in expr.atoms(sp.log))]


def beside_tanh(ops: Sequence[Pointwise], slots: Mapping[Value, Slot]) -> dict[Value, Pointwise]:
    """The sigmoids that lie in a row with a tanh, written so that all of them take part in its call."""
    gates = [op for op in ops if op.out in slots and isinstance(op.expr, (lang.sigmoid, lang.tanh))]
    late = waiting(ops, {op.out for op in gates if isinstance(op.expr, lang.sigmoid)})
    gates = [op for op in gates if op.out not in late]
    tanhs = {op.out for op in gates if isinstance(op.expr, lang.tanh)}
    joined = in_a_row(tanhs, [op.out for op in gates], slots)
    found = [op for op in gates if op.out in joined and isinstance(op.expr, lang.sigmoid)]
    return {op.out: Pointwise(op.out, as_tanh(op.expr.args[0])) for op in found}


def beside_exact(ops: Sequence[Pointwise], slots: Mapping[Value, Slot], strict: Set[Value]) -> set[Value]:
    """The `strict` values, and the sigmoids that lie in a row with one: one call computes them all."""
    gates = [op.out for op in ops if op.out in slots and isinstance(op.expr, lang.sigmoid)]
    return {*strict, *in_a_row(strict & set(gates), gates, slots)}


def in_a_row(first: Set[Value], among: Sequence[Value], slots: Mapping[Value, Slot]) -> set[Value]:
    """`first`, and those that lie beside one of them, or beside one of these."""
    beside: dict[tuple[object, ...], list[Value]] = {}  # by where they begin and where they end
    for v in among:
        for edge in edges(slots[v]):
            beside.setdefault(edge, []).append(v)
    found: set[Value] = set()
    new = set(first)
    while new:
        found |= new
        touching = (beside.get(edge, ()) for v in new for edge in edges(slots[v]))
        new = {v for values in touching for v in values} - found
    return found


def waiting(ops: Sequence[Pointwise], first: Set[Value]) -> set[Value]:
    """The values that are made of `first` ones."""
    found: set[Value] = set()
    for op in ops:
        if not found.isdisjoint(op.reads) or not first.isdisjoint(op.reads):
            found.add(op.out)
    return found


def edges(slot: Slot) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Where a slot begins and where it ends: two that share one lie directly behind each other."""
    return (slot.home, slot.shift, slot.start), (slot.home, slot.shift, slot.stop)


def as_tanh(argument: sp.Expr) -> sp.Expr:
    """The sigmoid of `argument` in terms of tanh, as it is computed: scaled, tanh, scaled, shifted."""
    half = sp.Mul(HALF, argument, evaluate=False)
    return sp.Add(sp.Mul(HALF, lang.tanh(half), evaluate=False), HALF, evaluate=False)
