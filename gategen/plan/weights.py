"""weights: how computed parameters are made, and how gradients go back through that.

Both directions are graphs that stand by themselves: the way back computes anew what it reads of the way
there, which is cheap beside a run of many steps. Each reads the parameters of a cell, and the second the
gradients that a backward step has summed up.
"""

from __future__ import annotations

from dataclasses import replace

from gategen.graph import Graph, Value, check, weights
from gategen.graph.adjoint import adjoint
from gategen.graph.tangent import tangent
from gategen.plan.data import Slot, Weight, Weights
from gategen.plan.ends import alive
from gategen.plan.layout import Layout
from gategen.spec.cell import Cell


def weights_of(cell: Cell, layout: Layout) -> Weights | None:
    """How the computed parameters of a cell are made; None where it has none."""
    forward = weights(cell)
    if forward is None:
        return None
    found: dict[str, Weight | Slot] = {**layout.weights, **layout.slots}
    places = {v.name: found[v.name] for v in forward.parameters}
    return Weights(forward, whole(forward, adjoint(forward)), places)


def whole(forward: Graph, backward: Graph) -> Graph:
    """The way back, with those ops of the way there that it reads."""
    made = {op.out for op in forward.ops}
    given = tuple(v for v in backward.parameters if v not in made)
    extra = tuple(v for v in forward.parameters if v not in given)
    graph = replace(backward, parameters=(*extra, *given), ops=(*forward.ops, *backward.ops))
    return check(alive(replace(graph, fixed=forward.fixed)))


def moved(own: Weights) -> Weights:
    """The tangents of both ways: what is wanted of them moves."""
    return Weights(tangent_of(own.forward), tangent_of(own.backward), own.parameters)


def tangent_of(graph: Graph) -> Graph:
    both = tangent(graph)
    n = len(graph.sums)
    sums = tuple((name, dot) for (name, _), (_, dot) in zip(graph.sums, both.sums[n:], strict=True))
    return check(alive(replace(both, sums=sums)))


def seeds(graph: Graph) -> dict[str, Value]:
    """The gradients that the way back is given, by the names of the computed parameters."""
    read = {v for op in graph.ops for v in op.reads}
    given = (v for v in graph.parameters if v.role == "gradient" and v in read)
    return {str(v.of.name): v for v in given}
