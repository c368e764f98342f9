"""`levels`: which ops wait for the time loop, and which leave it."""

from __future__ import annotations

from gategen.graph.ops import BatchSum, Graph, Op, Pointwise, Value

BEFORE, LOOP, AFTER = "before", "loop", "after"


def levels(graph: Graph) -> dict[Value, str]:
    """When each op's value can be known: before the time loop, in it, or after it.

    What reads no state leaves the loop forwards. What no next state waits for leaves it backwards, if it is a
    product, a reduction or a sum (or reads one that left); other arithmetic stays beside its operands. What
    handles matrices of every row stays in it, where they are one step at a time, unless a sum over all steps
    that a step waits for is of it.
    """
    summed: set[Value] = set()
    for op in reversed(graph.ops if not graph.backwards else ()):
        if isinstance(op, BatchSum) or op.out in summed:
            summed.update(op.reads)
    tainted = {carry.current for carry in graph.states}
    for op in graph.ops:
        if (wide(op) and op.out not in summed) or not tainted.isdisjoint(op.reads):
            tainted.add(op.out)
    currents = {carry.current for carry in graph.states}
    needed = {carry.next for carry in graph.states}
    for op in reversed(graph.ops):
        if op.out in needed or wide(op) or (graph.backwards and not currents.isdisjoint(op.reads)):
            needed.update((op.out, *op.reads))
    level: dict[Value, str] = {}
    for op in graph.ops:
        late = any(level.get(read) == AFTER for read in op.reads)
        leaves = op.out.static or (op.out not in needed and not isinstance(op, Pointwise))
        level[op.out] = BEFORE if op.out not in tainted else AFTER if late or leaves else LOOP
    return level


def wide(op: Op) -> bool:
    """Whether an op of every step reads or makes a matrix of every row."""
    return not op.out.static and (op.out.wide or any(v.wide for v in op.reads))
