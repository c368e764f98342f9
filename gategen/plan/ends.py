"""What a graph promises: ops that nothing reads are dropped, and every promise gets a value of its own.

Outputs, sums and next states have places that are fixed from outside (a state's buffer, a field of the
gradients), so no two of them may be one value. Where those places are is left to `place.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from heapq import heappop, heappush

import sympy as sp

from gategen.graph import AFTER, Builder, Graph, Op, Pointwise, Reduce, Value, check, levels


def alive(graph: Graph, kept: Iterable[Value] = ()) -> Graph:
    """The graph without ops that nothing reads, but for those of `kept` values."""
    needed = {*graph.results, *graph.nexts, *kept}
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if op.out in needed:
            needed.update(op.reads)
            ops.append(op)
    return replace(graph, ops=tuple(reversed(ops)))


def distinct_ends(graph: Graph) -> Graph:
    """The graph with a value of its own for every sum, statistic and next state, and backwards for every
    output too.
    """
    builder = Builder(v.name for v in graph.values)
    builder.ops = list(graph.ops)
    used: set[Value] = {*graph.given}

    def own(value: Value) -> Value:
        if value in used:
            value = builder.add(Pointwise(builder.copy(value), value))
        used.add(value)
        return value

    states = tuple(replace(c, next=own(c.next)) for c in graph.states)
    outputs = tuple((n, own(v)) for n, v in graph.outputs) if graph.backwards else graph.outputs
    sums = tuple((n, own(v)) for n, v in graph.sums)
    statistics = tuple(replace(s, update=own(s.update)) for s in graph.statistics)
    ops = settled(builder.ops, {c.next for c in states}) if graph.backwards else builder.ops
    return check(
        replace(graph, ops=tuple(ops), states=states, outputs=outputs, sums=sums, statistics=statistics)
    )


def kept_carries(graph: Graph) -> Graph:
    """The graph in which what runs behind the loop reads copies of carried gradients, kept for every step."""
    level = levels(graph)
    currents = {carry.current for carry in graph.states}
    late = {v for op in graph.ops if level[op.out] == AFTER for v in op.reads if v in currents}
    builder = Builder(v.name for v in graph.values)
    copies = {
        v: builder.add(Pointwise(builder.copy(v), v))
        for v in (carry.current for carry in graph.states)
        if v in late
    }
    ops = (reading(op, copies) if level[op.out] == AFTER else op for op in graph.ops)
    return check(replace(graph, ops=(*builder.ops, *ops)))


def reading(op: Op, other: Mapping[Value, Value]) -> Op:
    """The op, reading other values."""
    if isinstance(op, Reduce):
        return replace(op, operands=tuple(other.get(v, v) for v in op.operands))
    read = {
        field.name: part.xreplace(dict(other))
        for field in fields(op)
        if field.name != "out" and isinstance(part := getattr(op, field.name), sp.Expr)
    }
    return replace(op, **read)


def settled(ops: Sequence[Op], last: set[Value]) -> list[Op]:
    """The ops in an order of dependence that keeps the given one where it can, those of `last` at the end."""
    wanted = sorted(ops, key=lambda op: op.out in last)
    made = {op.out for op in ops}
    missing = [{v for v in op.reads if v in made} for op in wanted]
    readers: dict[Value, list[int]] = {v: [] for v in made}
    for k, reads in enumerate(missing):
        for v in reads:
            readers[v].append(k)
    ready = [k for k, reads in enumerate(missing) if not reads]
    done: list[Op] = []
    while ready:
        op = wanted[heappop(ready)]
        done.append(op)
        for k in readers[op.out]:
            missing[k].discard(op.out)
            if not missing[k]:
                heappush(ready, k)
    assert len(done) == len(wanted), "ops wait for each other"
    return done
