"""Two cells on the same random numbers, in the slow interpreter; what corresponds is found elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from gategen.diff.match import Renaming
from gategen.diff.normal import Block
from gategen.diff.reading import Reading, kinds_of
from gategen.graph import Graph, evaluate, flatten, start, with_computed
from gategen.spec.cell import Cell
from gategen.spec.contents import entries, lengths
from gategen.spec.language import Extent, extent_of

STEPS, BATCH, DRAWS = 5, 3, 3

Array = Any
Arrays = Mapping[str, Array]


def trial(left: Reading, right: Reading, names: Renaming) -> float:
    """The largest difference of outputs and final states over several draws of all numbers.

    States start between 0 and 1 where they may be probabilities, from numbers of either sign, and from the
    cells' own start.
    """
    rng = np.random.default_rng(0)
    ranges: tuple[tuple[float, float] | None, ...] = ((0.1, 0.9), (-1.5, 1.5), None)
    return max(_error(left, right, names, rng, among) for _ in range(DRAWS) for among in ranges)


def _error(
    left: Reading,
    right: Reading,
    names: Renaming,
    rng: np.random.Generator,
    among: tuple[float, float] | None,
) -> float:
    sizes = _sizes(left.cell, right.cell)
    theirs = _drawn(right.cell, sizes, rng)
    ours = _drawn(left.cell, sizes, rng)
    for name, other in names.items():
        if name not in ours:
            continue
        sign = -1 if name in left.flipped else 1
        meant = sum((theirs[gone] for gone, kept in right.dropped if kept == other), start=theirs[other])
        ours[name] = sign * meant - sum(ours[gone] for gone, kept in left.dropped if kept == name)
    low, high = among or (0, 0)
    states = {s.name: rng.uniform(low, high, (BATCH, *features(s.size, sizes))) for s in left.cell.states}
    initial = {names[name]: array for name, array in states.items()}
    a = outcome(left.cell, ours, states if among else None, sizes)
    b = outcome(right.cell, theirs, initial if among else None, sizes)
    if len(left.cell.outputs) != len(right.cell.outputs):
        return np.inf
    return max(_distance(array, b[names.get(name, name)]) for name, array in a.items())


def _distance(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest entry; where both are no number they are equal."""
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    with np.errstate(invalid="ignore"):
        off = np.where((a == b) | np.isnan(a), 0, np.abs(a - b))
    return float(off.max(initial=0) / max(1, np.abs(b[np.isfinite(b)]).max(initial=0)))


def _sizes(*cells: Cell) -> dict[str, int]:
    names = dict.fromkeys(size for cell in cells for size in cell.sizes)
    sizes = {name: 3 + k for k, name in enumerate(names)}
    for cell in cells:
        sizes = cell.fitting(sizes)
    return sizes


def _drawn(cell: Cell, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, Any]:
    """Inputs and parameters, each entry of them random but for what fixed ones hold."""

    def values(kind: Any) -> Array:
        role, *shape = kind
        held = shape.pop() if role in ("matrix", "vector", "scalar") else None
        if role == "scalar":
            shape = []
        if held:
            return entries(held, tuple(shape), sizes)
        lead = (STEPS, BATCH) if role in ("sequence", "input") else ()
        return 0.5 * rng.standard_normal((*lead, *lengths(tuple(shape), sizes)))

    kinds: dict[str, Any] = kinds_of(cell)
    return {name: values(kind) for name, kind in kinds.items() if kind[0] != "state"}


# ---------------------------------------------------------------------------------------------- one cell

flattened = lru_cache(maxsize=4)(flatten)  # every draw runs the same graphs


def outcome(cell: Cell, given: Arrays, initial: Arrays | None, sizes: Mapping[str, int]) -> dict[str, Array]:
    """The outputs `y 0`, `y 1` ... (T, B, size), and the final states (B, size) by name.

    `given` holds inputs (T, B, size) and parameters by name, blocks of columns under `normal.Block`;
    `initial` the states before the first step, None for the cell's own start and its rule for a first step.
    """
    steps, batch = given[cell.inputs[0].name].shape[:2]
    if initial is not None:
        return _run(cell, flattened(cell), given, initial, sizes)
    initial = own_start(cell, given, sizes, batch)
    if not cell.first or not steps:
        return _run(cell, flattened(cell), given, initial, sizes)
    head = _run(cell, flattened(cell, first=True), _steps(cell, given, slice(0, 1)), initial, sizes)
    states = {s.name: head[s.name] for s in cell.states}
    rest = _run(cell, flattened(cell), _steps(cell, given, slice(1, None)), states, sizes)
    outputs = {name: np.concatenate([head[name], rest[name]]) for name in head if name not in states}
    return {**rest, **outputs}


def own_start(cell: Cell, given: Arrays, sizes: Mapping[str, int], batch: int) -> dict[str, Array]:
    """The states before the first step, as the cell declares them."""
    shapes = {s.name: (batch, *features(s.size, sizes)) for s in cell.states}
    graph = start(cell)
    if graph is None:
        return {s.name: np.full(shapes[s.name], float(s.initial)) for s in cell.states}
    found = evaluate(graph, _parameters(graph, given), {}, sizes=sizes, steps=1).outputs
    return {name: np.broadcast_to(found[name][0], shape) + 0.0 for name, shape in shapes.items()}


def _steps(cell: Cell, given: Arrays, which: slice) -> dict[str, Array]:
    return {**given, **{x.name: given[x.name][which] for x in cell.inputs}}


def _run(
    cell: Cell, graph: Graph, given: Arrays, initial: Arrays, sizes: Mapping[str, int]
) -> dict[str, Array]:
    steps, batch = given[cell.inputs[0].name].shape[:2]
    values = _parameters(graph, with_computed(cell, given, sizes)) | {
        x.name: given[x.name] for x in cell.inputs
    }
    values |= _statistics(graph, steps, batch, sizes)
    with np.errstate(all="ignore"):
        done = evaluate(graph, values, initial, sizes=sizes, steps=steps)
    outputs = {f"y {k}": done.outputs[name] for k, (name, _) in enumerate(graph.outputs)}
    return {**done.final, **outputs}


def _parameters(graph: Graph, given: Arrays) -> dict[str, Array]:
    blocks = {part.name: Block(name, k) for name, parts in graph.blocks for k, part in enumerate(parts)}
    names = {str(v.name): blocks.get(v.name, str(v.name)) for v in graph.parameters}
    return {name: given[wanted] for name, wanted in names.items() if wanted in given}


def _statistics(graph: Graph, steps: int, batch: int, sizes: Mapping[str, int]) -> dict[str, Array]:
    """What batch norms read beside the parameters: nothing is padded, and the batch's statistics count."""
    mask = graph.mask
    if mask is None:
        return {}
    found = {mask.valid.name: np.ones((steps, batch, 1)), mask.count.name: np.float64(max(steps * batch, 1))}
    running = {s.value.name: np.ones(features(s.value.size, sizes)) for s in graph.statistics}
    return {**found, mask.training.name: np.float64(1), **running}


def features(size: Extent, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of one row of a value."""
    return tuple(extent_of(part, sizes) for part in (size if isinstance(size, tuple) else (size,)))
