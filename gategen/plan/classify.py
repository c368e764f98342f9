"""classify: what the loop over time waits for. Which kernel serves a class is for backends to choose."""

from __future__ import annotations

from gategen.graph import LOOP, Graph, Pointwise, levels, values_in


def classify(graph: Graph) -> str:
    """`recurrent` (a product or sum waits for the state), `linear` (affine in it), else `elementwise`."""
    level = levels(graph)
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
        slopes = [op.expr.diff(v) for v in op.reads if v in moving]
        linear = linear and all(moving.isdisjoint(values_in(slope)) for slope in slopes)
    return "linear" if linear else "elementwise"
