"""Where a run stops being finite: the equation, found in the slow interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gategen.graph import Graph, evaluate, flatten, with_computed
from gategen.graph.ops import shape_of
from gategen.judge.host import Array
from gategen.judge.problem import Problem
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.contents import lengths


def culprit(cell: Cell, problem: Problem) -> str:
    """The first equation, at the first step, that gives inf or NaN; empty where that cannot be told."""
    graph = flatten(cell)
    if graph.mask is not None or not problem.setting.initial:
        return ""
    sizes, given = _given(cell, graph, problem)
    steps = len(problem.point["inputs", cell.inputs[0].name])
    initial = {s.name: problem.point["initial", s.name] for s in cell.states}
    with np.errstate(all="ignore"):
        values = evaluate(graph, given, initial, sizes=sizes, steps=steps).values
    nexts = {carry.name: carry.next.name for carry in graph.states}
    found: list[tuple[int, int, str]] = []
    for eq, text in zip(cell.equations, cell.text(), strict=True):
        value = values[nexts[eq.lhs.state.name] if isinstance(eq.lhs, lang.Next) else eq.lhs.name]
        bad = ~np.isfinite(np.broadcast_to(value, (steps, *value.shape[-2:])) if value.ndim < 3 else value)
        if bad.any():
            found.append((int(bad.reshape(steps, -1).any(axis=1).argmax()), len(found), text))
    return min(found)[2] if found else ""


def _given(cell: Cell, graph: Graph, problem: Problem) -> tuple[dict[str, int], dict[str, Array]]:
    """The sizes, and what the graph reads beside states, by its own names."""
    point, sizes, given = problem.point, dict[str, int](), dict[str, Array]()
    steps = len(point["inputs", cell.inputs[0].name])
    for x in cell.inputs:
        value = point["inputs", x.name]
        given[x.name] = np.broadcast_to(value, (steps, *value.shape[-2:]))
        sizes[str(lang.regrouped(shape_of(x.size)[-1]))] = value.shape[-1]
    for s in cell.states:
        along = lang.as_said(shape_of(s.size))
        sizes |= zip(map(str, along), point["initial", s.name].shape[1:], strict=True)
    for a in cell.arrays:
        sizes |= zip(map(str, lang.as_said(a.shape)), point["params", a.name].shape, strict=True)
    shares = ((f"{whole}/{count}", whole, str(count)) for whole, count in cell.shares)
    sizes |= {count: sizes[whole] // sizes[each] for each, whole, count in shares if each in sizes}
    for a in cell.arrays:
        value = point["params", a.name]
        parts = _cut(value, a.shape[0], sizes, 0) if a.stacked else [value]
        given |= zip((p.name for p in a.members), parts, strict=True)
    given = with_computed(cell, given, sizes)
    for name, blocks in graph.blocks:
        parts = _cut(given[name], tuple(v.shape[1] for v in blocks), sizes, 1)
        given |= zip((v.name for v in blocks), parts, strict=True)
    return sizes, {v.name: given[v.name] for v in (*graph.parameters, *graph.inputs) if v.name in given}


def _cut(array: Array, parts: Any, sizes: Mapping[str, int], axis: int) -> list[Array]:
    """The blocks of stacked rows or columns."""
    return np.split(array, np.cumsum(lengths(parts, sizes))[:-1], axis)
