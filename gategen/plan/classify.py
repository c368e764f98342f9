"""classify: what the loop over time waits for. Which kernel serves a class is for backends to choose."""

from __future__ import annotations

from gategen.graph import LOOP, Pointwise, derivative, values_in
from gategen.plan.analysis import Analysis


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
        slopes = [derivative(op.expr, v) for v in op.reads if v in moving]
        linear = linear and all(moving.isdisjoint(values_in(slope)) for slope in slopes)
    return "linear" if linear else "elementwise"
