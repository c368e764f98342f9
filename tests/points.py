"""A generated module at a point: random arguments, what comes out, and what should.

Shared by the tests of generated modules and by the hunt for wrong cells. The cells are every built-in one and
every one of `tests/specs`. Built-in cells are judged by the transcription in `reference.py`, the others by
`graph.evaluate`; all gradients by the complex step of the module itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import TINY, assert_close
from reference import REFERENCES, numpy_functions, outputs_of
from reference import run as run_reference

from gategen import Cell
from gategen.graph import Graph, evaluate, flatten, start, with_computed
from gategen.spec.cell import Size
from gategen.spec.language import Next, as_said, batch_norm, extent_of, factors
from gategen.spec.load import builtins, load

SPECS = Path(__file__).parent / "specs"
BUILTIN = dict(builtins())
EXTRA = {cell.name: cell for path in sorted(SPECS.glob("*.py")) for cell in load(path)}
CELLS = BUILTIN | EXTRA


def is_normed(cell: Cell) -> bool:
    return any(eq.rhs.has(batch_norm) for eq in cell.equations)


NORMED = [name for name, cell in CELLS.items() if is_normed(cell)]

T = 4
LENGTHS = (3, 0, T, 1, T)
B = len(LENGTHS)
SIZES = {"input": 2, "hidden": 3}
FURTHER = (6, 7, 8, 9, 10, 11, 12, 13)  # all distinct, and distinct from T and B

FUNCTIONS = numpy_functions()
Array = Any

every_cell = pytest.mark.parametrize("name", CELLS)
built_in_cell = pytest.mark.parametrize("name", BUILTIN)
extra_cell = pytest.mark.parametrize("name", EXTRA)
normed_cell = pytest.mark.parametrize("name", NORMED)
with_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
with_initial = pytest.mark.parametrize("initial", [True, False], ids=["given_start", "own_start"])


# -------------------------------------------------------------------------------- points


@dataclass(frozen=True)
class Point:
    """Everything that a module is given, under the names of the spec; states as `initial.h`."""

    cell: Cell
    module: ModuleType
    values: Mapping[str, Array]  # parameters, inputs and initial states
    d_y: tuple[Array, ...]
    d_final: tuple[Array, ...]
    initial: bool = True
    lengths: Array = None
    buffers: Mapping[str, Array] | None = None
    training: bool = True

    @property
    def params(self) -> Any:
        return self.module.pack({a.name: self.values[a.name] for a in self.cell.arrays})

    @property
    def x(self) -> Array:
        return self.values[self.cell.inputs[0].name]

    @property
    def further(self) -> dict[str, Array]:
        """The other inputs, by the names that the module has for them."""
        return {
            key: self.values[s.name]
            for key, s in zip(input_keys(self)[1:], self.cell.inputs[1:], strict=True)
        }

    @property
    def states(self) -> Any:
        return self.module.States(*(self.values[f"initial.{s.name}"] for s in self.cell.states))

    @property
    def free(self) -> list[str]:
        """What a gradient is wanted of."""
        return (
            [a.name for a in self.cell.arrays if a.trainable]
            + [name for name in self.values if name.startswith("initial.") and self.initial]
            + [s.name for s in self.cell.inputs]
        )

    def moved(self, name: str, step: Array) -> "Point":
        """The same point with a complex step added to one array."""
        return replace(self, values={**self.values, name: self.values[name] + step})

    def astype(self, dtype: Any) -> "Point":
        return replace(
            self,
            values={name: value.astype(dtype) for name, value in self.values.items()},
            d_y=tuple(d.astype(dtype) for d in self.d_y),
            d_final=tuple(d.astype(dtype) for d in self.d_final),
            buffers=self.buffers and {name: value.astype(dtype) for name, value in self.buffers.items()},
        )


def input_keys(point: Point) -> tuple[str, ...]:
    return point.module.Grads._fields[1:-1]


def random_point(name: str, module: ModuleType, **options: Any) -> Point:
    """One for the cell of that name."""
    return point_of(CELLS[name], module, **options)


def point_of(
    cell: Cell,
    module: ModuleType,
    *,
    seed: int = 0,
    steps: int = T,
    batch: int = B,
    sizes: Mapping[str, int] = SIZES,
    scale: float = 0.5,
    constant: bool = False,
    lengths: Any = None,
    **options: Any,
) -> Point:
    """Everything random and nonzero, but for what a fixed parameter holds.

    With `constant`, further inputs are the same at all steps.
    """
    rng = np.random.default_rng(seed)
    sizes = fitting_sizes(cell, sizes)

    def shape(*axes: Any) -> tuple[int, ...]:
        return tuple(sum(extent_of(size, sizes) for size in parts(axis)) for axis in axes)

    values = {}
    for a in cell.arrays:
        drawn = np.asarray(scale * rng.standard_normal(shape(*a.shape)))
        values[a.name] = drawn if a.trainable or not a.contents else a.entries(sizes)
    for k, s in enumerate(cell.inputs):
        values[s.name] = rng.standard_normal(
            (*((steps,) if k == 0 or not constant else ()), batch, *shape(*parts(s.size)))
        )
    for s in cell.states:
        values[f"initial.{s.name}"] = rng.uniform(0.2, 0.8, (batch, *shape(*parts(s.size))))
    outputs = (shape(*parts(output_size(cell, symbol))) for symbol in cell.outputs)
    d_y = tuple(rng.standard_normal((steps, batch, *size)) for size in outputs)
    d_final = tuple(rng.standard_normal((batch, *shape(*parts(s.size)))) for s in cell.states)
    lengths = None if lengths is None else np.array(lengths)
    if is_normed(cell) and "buffers" not in options:
        start = module.init_buffers(sizes["hidden"], dtype="float64", **buffer_sizes(module, sizes))
        options["buffers"] = {key: a + rng.uniform(0.2, 0.8, a.shape) for key, a in start._asdict().items()}
    return Point(cell, module, values, d_y, d_final, lengths=lengths, **options)


def fitting_sizes(cell: Cell, sizes: Mapping[str, int] = SIZES) -> dict[str, int]:
    """All sizes of the cell, such that its parameters can hold what they do."""
    further = [size for size in cell.sizes if size not in SIZES]
    heads = {"hidden": 6, "heads": 2} if cell.shares and sizes == SIZES else {}  # of more than one unit each
    return cell.fitting(dict(zip(further, FURTHER, strict=False)) | sizes | heads)


def init_keywords(cell: Cell, module: ModuleType, further: Mapping[str, int]) -> dict[str, int]:
    """The further sizes by the names of the arguments of `init`."""
    code = module.init.__code__
    names = code.co_varnames[code.co_argcount + 2 : code.co_argcount + code.co_kwonlyargcount]
    return dict(zip(names, (further[size] for size in cell.sizes if size not in SIZES), strict=False))


def init_contents(cell: Cell, module: ModuleType, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Ones for the fixed parameters that `init` asks for, by the names of its arguments."""
    asked = [a for a in cell.arrays if not a.trainable and not a.contents]
    code = module.init.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount][-len(asked) :] if asked else ()
    return {name: np.ones(a.lengths(sizes)) for name, a in zip(names, asked, strict=True)}


def buffer_sizes(module: ModuleType, sizes: Mapping[str, int]) -> dict[str, int]:
    """The further sizes that `init_buffers` asks for."""
    code = module.init_buffers.__code__
    known = {**SIZES, **sizes, "input_size": sizes.get("input", SIZES["input"])}
    return {name: known[name.removesuffix("_")] for name in code.co_varnames[2 : 1 + code.co_kwonlyargcount]}


def parts(axis: Any) -> tuple[Size, ...]:
    """Sizes that are added up, or those of the axes of a matrix."""
    return axis if isinstance(axis, tuple) else (axis,)


def output_size(cell: Cell, symbol: Any) -> Size:
    return symbol.state.size if isinstance(symbol, Next) else cell.gate_sizes[symbol.name]


# -------------------------------------------------------------------------------- running


def forward(point: Point, tape: Any = False, **changed: Any) -> tuple[tuple[Array, ...], Any, Any]:
    """The outputs as a tuple, the final states, the tape. Buffers are copied first."""
    options: dict[str, Any] = {**point.further, "lengths": point.lengths, "tape": tape}
    if point.initial:
        options["initial"] = point.states
    if is_normed(point.cell):
        buffers = point.buffers and point.module.Buffers(*(a.copy() for a in point.buffers.values()))
        options |= {"buffers": buffers, "training": point.training}
    y, final, kept = point.module.forward(point.params, point.x, **options | changed)
    return (y if len(point.cell.outputs) > 1 else (y,)), final, kept


def gradients(point: Point) -> dict[str, Array]:
    """By the names of the spec."""
    _, _, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    return named(point, point.module.backward(point.params, tape, d_y, point.module.States(*point.d_final)))


def named(point: Point, grads: Any) -> dict[str, Array]:
    found = dict(point.module.unpack(grads.params))
    found |= {s.name: d for s, d in zip(point.cell.inputs, grads[1:-1], strict=True)}
    return found | {f"initial.{s.name}": d for s, d in zip(point.cell.states, grads.initial, strict=True)}


def loss(point: Point) -> Any:
    y, final, _ = forward(point)
    pairs = [*zip(y, point.d_y, strict=True), *zip(final, point.d_final, strict=True)]
    return sum((value * d).sum() for value, d in pairs)


def slope(point: Point, name: str, direction: Array) -> float:
    """The derivative of the loss along a direction, by complex step."""
    return float(np.imag(loss(in_complex(point).moved(name, 1j * TINY * direction))) / TINY)


def in_complex(point: Point) -> Point:
    return replace(point, values={name: value.astype(complex) for name, value in point.values.items()})


def assert_gradients_are_right(point: Point, tolerance: float = 1e-10, entries: bool = False) -> None:
    """Along one random direction for each array, or entry by entry."""
    found, rng = gradients(point), np.random.default_rng(5)
    for name in point.free:
        assert found[name].shape == point.values[name].shape, name
        assert np.isfinite(found[name]).all(), name
        if entries:
            wanted = np.zeros(found[name].shape)
            for index in np.ndindex(wanted.shape):
                unit = np.zeros(wanted.shape)
                unit[index] = 1.0
                wanted[index] = slope(point, name, unit)
            assert_close(found[name], wanted, tolerance, name)
        else:
            direction = rng.standard_normal(found[name].shape)
            scale = max(np.abs(found[name] * direction).sum(), 1e-3)
            error = abs((found[name] * direction).sum() - slope(point, name, direction))
            assert error <= tolerance * scale, f"{name}: off by {error}"


def assert_same(found: Any, wanted: Any) -> None:
    """Equal bit for bit, NaN to NaN."""
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


# -------------------------------------------------------------------------------- what should come out


def expected(point: Point) -> tuple[list[Array], list[Array]]:
    """Outputs and final states: from the transcription, or from the graph."""
    return by_hand(point) if point.cell.name in BUILTIN else by_graph(point)


def by_hand(point: Point, buffers: dict[str, Array] | None = None) -> tuple[list[Array], list[Array]]:
    reference = REFERENCES[point.cell.name]
    initial = {s: point.values[f"initial.{s}"] for s in reference.states} if point.initial else None
    if buffers is None and point.buffers is not None:
        buffers = as_reference(reference, point.buffers)
    params = {name: point.values[name] for name in reference.params}
    inputs = {s: point.values[s] for s in reference.inputs}
    y, final = run_reference(
        FUNCTIONS, reference, params, point.x, initial, point.lengths, buffers, point.training, inputs
    )
    return list(outputs_of(y)), [final[s.name] for s in point.cell.states]


def as_reference(reference: Any, buffers: Mapping[str, Array]) -> dict[str, Array]:
    """The running statistics under the names of the transcription, which has them in the same order."""
    keys = [f"{kind}_{k}" for k in reference.normalized for kind in ("mu", "v")]
    return dict(zip(keys, buffers.values(), strict=True))


def by_graph(point: Point) -> tuple[list[Array], list[Array]]:
    """One step by the rule for the first where there is one, and the rest by the equations."""
    cell, values = point.cell, dict(point.values)
    steps, batch = point.x.shape[:2]
    for s in cell.inputs:
        values[s.name] = np.broadcast_to(
            values[s.name], (steps, batch, *values[s.name].shape[-len(parts(s.size)) :])
        )
    lengths = np.full(batch, steps) if point.lengths is None else point.lengths
    states = {s.name: values[f"initial.{s.name}"] for s in cell.states} if point.initial else started(point)
    head: list[Array] = []
    if cell.first and not point.initial and steps:
        states, head = evaluated(point, flatten(cell, first=True), values, states, slice(0, 1), lengths)
    states, tail = evaluated(point, flatten(cell), values, states, slice(len(head) and 1, None), lengths)
    y = [np.concatenate(two) for two in zip(head, tail, strict=True)] if head else tail
    return y, [states[s.name] for s in cell.states]


def started(point: Point) -> dict[str, Array]:
    """What the cell says that its states start from."""
    batch = point.x.shape[1]
    graph = start(point.cell)
    if graph is None:
        numbers = {s.name: float(s.initial) for s in point.cell.states}
        return {
            s.name: np.full_like(point.values[f"initial.{s.name}"], numbers[s.name])
            for s in point.cell.states
        }
    given = {v.name: point.values[v.name] for v in graph.parameters}
    given |= {v.name: np.zeros((1, batch, 1)) for v in graph.inputs}
    done = evaluate(graph, given, {}, sizes=sizes_of(point), steps=1)
    return {
        s.name: np.broadcast_to(out[0], (batch, *out.shape[2:]))
        for s, out in zip(point.cell.states, done.outputs.values(), strict=True)
    }


def evaluated(
    point: Point, graph: Graph, values: dict[str, Array], states: Any, time: slice, lengths: Array
) -> tuple[dict[str, Array], list[Array]]:
    steps = len(point.x[time])
    left = np.clip(lengths - (time.start or 0), 0, steps)
    values = with_computed(point.cell, values | rows_of(point), sizes_of(point))
    given = {v.name: values[v.name] for v in graph.parameters if v.name in values}
    for name, blocks in graph.blocks:
        ends = np.cumsum([extent_of(v.shape[1], sizes_of(point)) for v in blocks])[:-1]
        given |= {v.name: part for v, part in zip(blocks, np.split(values[name], ends, axis=1), strict=True)}
    given |= {v.name: values[v.name][time] for v in graph.inputs if v.name in values}
    if (mask := graph.mask) is not None:
        sizes = SIZES | sizes_of(point)
        fresh = point.module.init_buffers(
            sizes["hidden"], dtype="float64", **buffer_sizes(point.module, sizes)
        )
        given |= point.buffers or fresh._asdict()
        given[mask.valid.name] = 1.0 * (np.arange(steps)[:, None] < left)[..., None]
        given[mask.count.name] = np.float64(max(left.sum(), 1))
        given[mask.training.name] = np.float64(point.training)
    done = evaluate(graph, given, states, sizes=sizes_of(point), steps=steps, lengths=left)
    return done.final, list(done.outputs.values())


def rows_of(point: Point) -> dict[str, Array]:
    """The blocks of stacked rows."""
    found: dict[str, Array] = {}
    for a in point.cell.arrays:
        if a.stacked:
            sizes = sizes_of(point)
            ends = np.cumsum([extent_of(rows, sizes) for rows in a.shape[0]])[:-1]
            found |= dict(zip((p.name for p in a.members), np.split(point.values[a.name], ends), strict=True))
    return found


def sizes_of(point: Point) -> dict[str, int]:
    """As the arrays of the point say."""
    found: dict[str, int] = {}
    for s in point.cell.inputs:
        axes = parts(as_said(s.size))
        found |= zip(axes, point.values[s.name].shape[-len(axes) :], strict=True)
    for s in point.cell.states:
        found |= zip(parts(as_said(s.size)), point.values[f"initial.{s.name}"].shape[1:], strict=True)
    for a in point.cell.arrays:
        for axis, length in zip(as_said(a.shape), point.values[a.name].shape, strict=True):
            if isinstance(axis, str):
                found[axis] = length
            elif isinstance(axis, tuple) and len({*axis}) == 1:
                found.setdefault(axis[0], length // len(axis))
    for whole, count in point.cell.shares:
        if (each := f"{whole}/{count}") in found:
            found[count] = found[whole] // found[each]
    products = {size: length for size, length in found.items() if len(factors(size)) > 1}
    for size, length in products.items():
        unknown = [factor for factor in factors(size) if factor not in found]
        if len(unknown) == 1:
            found[unknown[0]] = length // math.prod(found[f] for f in factors(size) if f in found)
    return {size: length for size, length in found.items() if isinstance(size, str)}


def assert_forward_is_right(point: Point, tolerance: float = 1e-12) -> None:
    y, final, _ = forward(point)
    wanted_y, wanted_final = expected(point)
    for k, (found, wanted) in enumerate(zip(y, wanted_y, strict=True)):
        assert_close(found, wanted, tolerance, f"output {k}")
    for s, found, wanted in zip(point.cell.states, final, wanted_final, strict=True):
        assert_close(found, wanted, tolerance, f"final {s.name}")
