"""The generated NumPy modules, run from outside: every built-in cell, and every cell of `tests/specs`.

Built-in cells are judged by the transcription in `reference.py`, the others by `graph.evaluate`; all
gradients by the complex step of the module itself.
"""

import ast
import inspect
import itertools
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from golden import golden_case
from helpers import TINY, assert_close
from reference import REFERENCES, numpy_functions, outputs_of
from reference import run as run_reference

from gategen import Cell, Eq, cli, exp, gates, inputs, matrices, sigmoid, states, tanh, vectors
from gategen.graph import Graph, evaluate, flatten, start
from gategen.judge.host import imported, written
from gategen.spec.cell import Size
from gategen.spec.language import RESERVED, Next, State, batch_norm
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
FURTHER = (6, 7, 8, 9)  # all distinct, and distinct from T and B

FUNCTIONS = numpy_functions()
Array = Any

every_cell = pytest.mark.parametrize("name", CELLS)
built_in_cell = pytest.mark.parametrize("name", BUILTIN)
extra_cell = pytest.mark.parametrize("name", EXTRA)
normed_cell = pytest.mark.parametrize("name", NORMED)
with_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
with_initial = pytest.mark.parametrize("initial", [True, False], ids=["given_start", "own_start"])


# -------------------------------------------------------------------------------- modules and points


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    """The module of a cell, generated once."""
    folder = tmp_path_factory.mktemp("modules")
    return cache(lambda name: imported(written(CELLS[name], "numpy", folder)))


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
    """Everything random and nonzero; with `constant`, further inputs are the same at all steps."""
    rng = np.random.default_rng(seed)
    further = [size for size in cell.sizes if size not in SIZES]
    sizes = dict(zip(further, FURTHER, strict=False)) | sizes

    def shape(*axes: Any) -> tuple[int, ...]:
        return tuple(sum(sizes.get(size, size) for size in parts(axis)) for axis in axes)

    values = {}
    for a in cell.arrays:
        values[a.name] = np.asarray(scale * rng.standard_normal(shape(*a.shape)))
    for k, s in enumerate(cell.inputs):
        values[s.name] = rng.standard_normal(
            (*((steps,) if k == 0 or not constant else ()), batch, *shape(s.size))
        )
    for s in cell.states:
        values[f"initial.{s.name}"] = rng.uniform(0.2, 0.8, (batch, *shape(s.size)))
    d_y = tuple(rng.standard_normal((steps, batch, *shape(output_size(cell, s)))) for s in cell.outputs)
    d_final = tuple(rng.standard_normal((batch, *shape(s.size))) for s in cell.states)
    lengths = None if lengths is None else np.array(lengths)
    if is_normed(cell) and "buffers" not in options:
        start = module.init_buffers(sizes["hidden"], dtype="float64", **buffer_sizes(module, sizes))
        options["buffers"] = {key: a + rng.uniform(0.2, 0.8, a.shape) for key, a in start._asdict().items()}
    return Point(cell, module, values, d_y, d_final, lengths=lengths, **options)


def buffer_sizes(module: ModuleType, sizes: Mapping[str, int]) -> dict[str, int]:
    """The further sizes that `init_buffers` asks for."""
    code = module.init_buffers.__code__
    known = {**SIZES, **sizes, "input_size": sizes.get("input", SIZES["input"])}
    return {name: known[name.removesuffix("_")] for name in code.co_varnames[2 : 1 + code.co_kwonlyargcount]}


def parts(axis: Any) -> tuple[Size, ...]:
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
        values[s.name] = np.broadcast_to(values[s.name], (steps, batch, values[s.name].shape[-1]))
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
        s.name: np.broadcast_to(out[0], (batch, out.shape[-1]))
        for s, out in zip(point.cell.states, done.outputs.values(), strict=True)
    }


def evaluated(
    point: Point, graph: Graph, values: dict[str, Array], states: Any, time: slice, lengths: Array
) -> tuple[dict[str, Array], list[Array]]:
    steps = len(point.x[time])
    left = np.clip(lengths - (time.start or 0), 0, steps)
    values = values | rows_of(point)
    given = {v.name: values[v.name] for v in graph.parameters if v.name in values}
    for name, blocks in graph.blocks:
        ends = np.cumsum([sizes_of(point).get(v.shape[1], v.shape[1]) for v in blocks])[:-1]
        given |= {v.name: part for v, part in zip(blocks, np.split(values[name], ends, axis=1), strict=True)}
    given |= {v.name: values[v.name][time] for v in graph.inputs if v.name in values}
    own = [v.name for v in graph.fixed if v.name not in given]
    if own:
        sizes = SIZES | sizes_of(point)
        fresh = point.module.init_buffers(
            sizes["hidden"], dtype="float64", **buffer_sizes(point.module, sizes)
        )
        given |= point.buffers or fresh._asdict()
        valid, count, training, *_ = own
        given[valid] = 1.0 * (np.arange(steps)[:, None] < left)[..., None]
        given |= {count: np.float64(max(left.sum(), 1)), training: np.float64(point.training)}
    done = evaluate(graph, given, states, sizes=sizes_of(point), steps=steps, lengths=left)
    return done.final, list(done.outputs.values())


def rows_of(point: Point) -> dict[str, Array]:
    """The blocks of stacked rows."""
    found: dict[str, Array] = {}
    for a in point.cell.arrays:
        if a.stacked:
            sizes = sizes_of(point)
            ends = np.cumsum([sizes.get(rows, rows) for rows in a.shape[0]])[:-1]
            found |= dict(zip((p.name for p in a.members), np.split(point.values[a.name], ends), strict=True))
    return found


def sizes_of(point: Point) -> dict[str, int]:
    """As the arrays of the point say."""
    found: dict[str, int] = {}
    for s in point.cell.inputs:
        found[s.size] = point.values[s.name].shape[-1]
    for s in point.cell.states:
        found[s.size] = point.values[f"initial.{s.name}"].shape[-1]
    for a in point.cell.arrays:
        for axis, length in zip(a.shape, point.values[a.name].shape, strict=True):
            if isinstance(axis, str):
                found[axis] = length
    return {size: length for size, length in found.items() if isinstance(size, str)}


def assert_forward_is_right(point: Point, tolerance: float = 1e-12) -> None:
    y, final, _ = forward(point)
    wanted_y, wanted_final = expected(point)
    for k, (found, wanted) in enumerate(zip(y, wanted_y, strict=True)):
        assert_close(found, wanted, tolerance, f"output {k}")
    for s, found, wanted in zip(point.cell.states, final, wanted_final, strict=True):
        assert_close(found, wanted, tolerance, f"final {s.name}")


# -------------------------------------------------------------------------------- forward


@every_cell
@with_lengths
@with_initial
def test_forward_is_what_the_equations_say(module_of, name, initial, lengths):
    assert_forward_is_right(random_point(name, module_of(name), initial=initial, lengths=lengths))


@every_cell
@with_lengths
@pytest.mark.parametrize("sizes", [SIZES, {"input": 2, "hidden": 1}], ids=["", "one_unit"])
def test_float32_is_float64_to_its_precision(module_of, name, lengths, sizes):
    if name == "layered" and sizes["hidden"] == 1:
        return  # layer normalisation of one unit is 0, but for its rounding, which it amplifies
    point = random_point(name, module_of(name), lengths=lengths, sizes=sizes)
    y, final, _ = forward(point.astype("float32"))
    wanted_y, wanted_final = expected(point)
    for found, wanted in zip((*y, *final), (*wanted_y, *wanted_final), strict=True):
        assert found.dtype == np.float32
        assert_close(found, wanted, 2e-5)
    exact = gradients(point)
    for key, gradient in gradients(point.astype("float32")).items():
        assert gradient.dtype == np.float32, key
        largest = max(np.abs(array).max(initial=0) for array in exact.values())
        scale = max(np.abs(exact[key]).max(initial=0), 1e-3)
        assert_close(gradient, exact[key], max(1e-4, 1e-6 * largest / scale), key)


def test_libru_log_is_finite_in_single_precision_far_below_zero(module_of):
    module = module_of("libru_log")
    params = module.init(SIZES["input"], SIZES["hidden"], seed=0)
    low = module.States(np.full((B, SIZES["hidden"]), -120, "float32"))
    y, _, tape = module.forward(params, np.zeros((T, B, SIZES["input"]), "float32"), initial=low)
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in module.backward(params, tape, np.ones_like(y)).params)


@built_in_cell
def test_the_golden_values_come_out(module_of, name):
    case, module = golden_case(name), module_of(name)
    params = module.pack(case.params)
    given, _, tape = module.forward(params, case.x, **case.inputs)
    y, *others = outputs_of(given)
    seeds = (np.ones_like(y), *(None for _ in others))
    grads = module.backward(params, tape, seeds if others else seeds[0])
    golden, d_params = case.golden, module.unpack(grads.params).values()
    np.testing.assert_allclose(y[-1, 0], golden.last, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(y.sum(), golden.loss, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(grads.x[0, 0], golden.d_x0, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(sum(d.sum() for d in d_params), golden.d_params_sum, rtol=0, atol=0.51e-5)
    np.testing.assert_allclose(
        sum((d * d).sum() for d in d_params), golden.d_params_square, rtol=0, atol=0.51e-5
    )


@pytest.mark.parametrize("name", ["noisy", "decayed", "normed", "masked", "opened_from_the_start"])
@with_lengths
def test_an_input_may_be_constant_in_time(module_of, name, lengths):
    point = random_point(name, module_of(name), lengths=lengths, constant=True, initial=False)
    assert_forward_is_right(point)
    assert_gradients_are_right(point)


def test_set_changes_a_constant(tmp_path):
    command = ["build", str(SPECS / "numbers.py"), "--backend", "numpy", "--out", str(tmp_path)]
    assert cli.commands.main([*command, "--set", "beta=3"], standalone_mode=False) in (None, 0)
    cell, module = EXTRA["leaky"].with_constants(beta=3), imported(tmp_path / "leaky_numpy.py")
    point = replace(random_point("leaky", module, initial=False), cell=cell)
    assert_forward_is_right(point)
    assert_gradients_are_right(point)


# -------------------------------------------------------------------------------- gradients


@every_cell
def test_every_entry_of_every_gradient_is_right(module_of, name):
    assert_gradients_are_right(random_point(name, module_of(name), lengths=LENGTHS), entries=True)


@every_cell
@with_lengths
@with_initial
def test_gradients_are_right_from_every_start(module_of, name, initial, lengths):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths, seed=1)
    assert_gradients_are_right(point)


@every_cell
def test_gradients_are_right_where_gates_saturate(module_of, name):
    assert_gradients_are_right(random_point(name, module_of(name), scale=3.0, seed=2), 1e-9)


@every_cell
@pytest.mark.parametrize(
    ("steps", "batch", "sizes"),
    [
        (1, B, SIZES),
        (T, 1, SIZES),
        (1, 1, {"input": 1, "hidden": 1}),
        (T, B, {"input": 1, "hidden": 3}),
        (T, B, {"input": 2, "hidden": 1}),
        (13, 7, {"input": 11, "hidden": 17}),
    ],
)
def test_every_size_is_right(module_of, name, steps, batch, sizes):
    for initial in (True, False):
        if name == "libru" and steps > T and not initial:
            continue  # the logarithm of states near 0 loses digits, whoever computes it
        point = random_point(name, module_of(name), steps=steps, batch=batch, sizes=sizes, initial=initial)
        assert_forward_is_right(point)
        assert_gradients_are_right(point)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("memory", range(1, 9))
def test_one_feature_beside_others_is_right_at_every_stride(module_of, dtype, memory):
    """np.negative gives wrong numbers in place on a column whose rows lie 16 or 64 bytes apart."""
    sizes = {"input": 2, "hidden": 1, "memory": memory}
    point = random_point("rows_not_trained", module_of("rows_not_trained"), sizes=sizes)
    y, _, _ = forward(point.astype(dtype))
    assert_close(y[0], expected(point)[0][0], 1e-5 if dtype == "float32" else 1e-12)


@every_cell
@with_initial
@pytest.mark.parametrize(("steps", "batch"), [(0, B), (T, 0), (0, 0)])
def test_nothing_gives_nothing(module_of, name, initial, steps, batch):
    for lengths in (None, np.zeros(batch, int)):
        point = random_point(
            name, module_of(name), steps=steps, batch=batch, lengths=lengths, initial=initial
        )
        assert_forward_is_right(point)
        found = gradients(point)
        for key in point.free:
            assert found[key].shape == point.values[key].shape
            if not key.startswith("initial.") and initial:
                assert not found[key].any()
        if initial:
            for s, d in zip(point.cell.states, point.d_final, strict=True):
                np.testing.assert_array_equal(found[f"initial.{s.name}"], d)


@every_cell
def test_gradients_of_the_outputs_or_of_the_final_states_may_be_missing(module_of, name):
    point = random_point(name, module_of(name), lengths=LENGTHS)
    module, params = point.module, point.params
    _, _, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    both = named(point, module.backward(params, tape, d_y, module.States(*point.d_final)))
    one = named(point, module.backward(params, tape, d_y))
    other = named(point, module.backward(params, tape, None, module.States(*point.d_final)))
    none = named(point, module.backward(params, tape, None))
    for key, wanted in both.items():
        assert_close(one[key] + other[key], wanted, 1e-12, key)
        assert not none[key].any()


@pytest.mark.parametrize("name", ["several", "decayed", "echo", "opened_from_the_start"])
def test_the_gradient_of_one_of_several_outputs_may_be_missing(module_of, name):
    point = random_point(name, module_of(name))
    _, _, tape = forward(point, True)
    for k, d in enumerate(point.d_y):
        some = [None] * len(point.d_y)
        some[k] = d
        alone = replace(
            point,
            d_y=tuple(d * (j == k) for j, d in enumerate(point.d_y)),
            d_final=tuple(0 * d for d in point.d_final),
        )
        found, wanted = named(point, point.module.backward(point.params, tape, some)), gradients(alone)
        for key in wanted:
            assert_close(found[key], wanted[key], 1e-12, key)


# -------------------------------------------------------------------------------- lengths


@every_cell
@with_initial
def test_what_lies_behind_a_length_is_never_read_and_zero(module_of, name, initial):
    clean = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    over = np.arange(T)[:, None] >= np.array(LENGTHS)
    dirty = {s.name: clean.values[s.name].copy() for s in clean.cell.inputs}
    for array in dirty.values():
        array[over] = np.nan
    garbage = tuple(np.where(over[..., None], np.nan, d) for d in clean.d_y)
    point = replace(clean, values=clean.values | dirty, d_y=garbage)
    (y, final, _), (clean_y, clean_final, _) = forward(point), forward(clean)
    assert_same((*y, *final), (*clean_y, *clean_final))
    for out in y:
        assert not out[over].any()
    found, wanted = gradients(point), gradients(clean)
    for key in wanted:
        np.testing.assert_array_equal(found[key], wanted[key], key)
    for s in point.cell.inputs:
        assert not found[s.name][over].any()


@pytest.mark.parametrize("name", [name for name in CELLS if name not in NORMED])
@with_initial
def test_the_final_state_is_that_of_the_sequence_alone(module_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    y, final, _ = forward(point)
    for b, length in enumerate(LENGTHS):
        alone = {s.name: point.values[s.name][:length, b : b + 1] for s in point.cell.inputs}
        alone |= {key: v[b : b + 1] for key, v in point.values.items() if key.startswith("initial.")}
        y_b, final_b, _ = forward(replace(point, values=point.values | alone, lengths=None))
        for found, wanted in zip(y, y_b, strict=True):
            assert_close(found[:length, b : b + 1], wanted, 1e-13)
        for found, wanted in zip(final, final_b, strict=True):
            assert_close(found[b : b + 1], wanted, 1e-13)


@every_cell
def test_full_lengths_are_no_lengths(module_of, name):
    point = random_point(name, module_of(name), initial=False)
    full = replace(point, lengths=np.full(B, T, np.uint8))
    assert_same((*forward(point)[0], *forward(point)[1]), (*forward(full)[0], *forward(full)[1]))
    found, wanted = gradients(full), gradients(point)
    for key in wanted:
        assert_close(found[key], wanted[key], 1e-14, key)


def test_lengths_may_be_a_list(module_of):
    point = random_point("gru", module_of("gru"))
    wanted = forward(replace(point, lengths=np.array(LENGTHS)))
    found = forward(replace(point, lengths=list(LENGTHS)))
    assert_same((*found[0], *found[1]), (*wanted[0], *wanted[1]))


# -------------------------------------------------------------------------------- tape and steps


@every_cell
@with_initial
def test_the_tape_is_not_consumed(module_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    module, params = point.module, point.params
    _, _, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    d_final = module.States(*point.d_final)
    first = named(point, module.backward(params, tape, d_y, d_final))
    module.backward(params, tape, None, module.States(*(d + 1 for d in d_final)))
    again = named(point, module.backward(params, tape, d_y, d_final))
    assert_same(again.values(), first.values())


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.first])
def test_states_that_the_first_step_does_not_read_have_no_gradient_at_their_own_start(module_of, name):
    point = random_point(name, module_of(name), initial=False)
    read = {s.name for eq in point.cell.first for s in eq.rhs.atoms(State)}
    found = gradients(point)
    for s in point.cell.states:
        assert s.name in read or not found[f"initial.{s.name}"].any(), s


def test_what_overflows_behind_a_length_is_in_no_gradient(tmp_path):
    x, h, W, u = inputs("x"), states("h"), matrices("W"), vectors("u")
    cell = Cell("overflow", Eq(h.next, W @ x + u * exp(-h)))
    module = imported(written(cell, "numpy", tmp_path))
    steps = np.zeros((3, 2, 1), "float32")
    steps[1, 1] = 1  # brings the sequence that ends there to -100, of which the exponential overflows
    params = module.pack({"W": np.full((4, 1), -100, "float32"), "u": np.ones(4, "float32")})
    y, final, tape = module.forward(params, steps, lengths=[3, 2])
    assert np.isfinite(final.h).all() and (final.h[1] < -90).all()
    grads = module.backward(params, tape, np.ones_like(y))
    assert all(np.isfinite(g).all() for g in (*grads.params, grads.x, *grads.initial))


@every_cell
@with_initial
def test_a_tape_can_be_used_again(module_of, name, initial):
    module = module_of(name)
    earlier, point = (random_point(name, module, seed=s, initial=initial, lengths=LENGTHS) for s in (3, 4))
    earlier = replace(earlier, lengths=None)
    _, _, tape = forward(earlier, True)
    y, final, reused = forward(point, tape)
    wanted_y, wanted_final, _ = forward(point, True)
    assert_same((*y, *final), (*wanted_y, *wanted_final))
    kept = [a for a in tape if isinstance(a, np.ndarray)]
    assert any(np.shares_memory(a, b) for a in kept for b in reused if isinstance(b, np.ndarray))
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    grads = module.backward(point.params, reused, d_y, module.States(*point.d_final))
    assert_same(named(point, grads).values(), gradients(point).values())
    assert_same((*y, *final), (*wanted_y, *wanted_final))  # and the outputs are not in the tape's memory
    forward(earlier, reused)
    assert_same((*y, *final), (*wanted_y, *wanted_final))


@built_in_cell
def test_a_tape_of_other_shapes_is_refused(module_of, name):
    module = module_of(name)
    _, _, tape = forward(random_point(name, module), True)
    with pytest.raises(ValueError, match=r"tape\.\w+ .*expected"):
        forward(random_point(name, module, steps=T + 1), tape)
    with pytest.raises(ValueError, match=r"tape\.\w+ .*expected"):
        forward(random_point(name, module).astype("float32"), tape)


@every_cell
def test_without_a_tape_nothing_is_kept_and_nothing_changes(module_of, name):
    point = random_point(name, module_of(name), initial=False)
    without, taped = forward(point, False), forward(point, True)
    assert without[2] is None and isinstance(taped[2], point.module.Tape)
    assert not taped[2].given and forward(replace(point, initial=True), True)[2].given
    assert_same((*without[0], *without[1]), (*taped[0], *taped[1]))


@every_cell
@with_initial
def test_a_loop_of_steps_is_forward(module_of, name, initial):
    point = random_point(name, module_of(name), initial=initial, training=False)
    y, final, _ = forward(point)
    state = point.states if initial else None
    options = {}
    if name in NORMED:
        options["buffers"] = point.module.Buffers(**point.buffers)
    for t in range(T):
        further = {key: value[t] for key, value in point.further.items()}
        y_t, state = point.module.step(point.params, point.x[t], state, **further, **options)
        for found, wanted in zip(y_t if isinstance(y_t, tuple) else (y_t,), y, strict=True):
            np.testing.assert_allclose(found, wanted[t], rtol=1e-14, atol=1e-15)
    assert isinstance(state, point.module.States)
    for found, wanted in zip(state, final, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-15)


# -------------------------------------------------------------------------------- parameters


@every_cell
def test_unpack_gives_views_under_the_names_of_the_spec(module_of, name):
    point = random_point(name, module_of(name))
    module, params = point.module, point.params
    views = module.unpack(params)
    assert set(views) == {a.name for a in point.cell.arrays}
    for key, view in views.items():
        np.testing.assert_array_equal(view, point.values[key])
        assert any(np.shares_memory(view, field) for field in params), key
    assert_same(module.pack(views), params)
    _, _, tape = forward(point, True)
    grads = module.backward(params, tape, None).params
    for key, view in module.unpack(grads).items():
        assert view.shape == point.values[key].shape
        assert any(np.shares_memory(view, field) for field in grads), key


@pytest.mark.parametrize("name", ["leaky", "narrow", "reservoir"])
def test_a_scalar_may_have_one_entry(module_of, name):
    point = random_point(name, module_of(name))
    given = {a.name: point.values[a.name] for a in point.cell.arrays}
    wider = {key: value[None] if value.shape == () else value for key, value in given.items()}
    assert_same(point.module.pack(wider), point.params)


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_init_is_uniform_and_seeded(module_of, name, dtype):
    module, cell = module_of(name), CELLS[name]
    further = dict(zip((s for s in cell.sizes if s not in SIZES), (30, 50, 70), strict=False))
    keywords = init_keywords(module, further)
    params = module.init(20, 40, seed=7, dtype=dtype, **keywords)
    assert_same(params, module.init(20, 40, seed=7, dtype=np.dtype(dtype), **keywords))
    assert all(isinstance(field, np.ndarray) and field.dtype == dtype for field in params)
    drawn = np.concatenate([np.empty(0), *(field.ravel() for field in params)])
    assert not drawn.size or np.abs(drawn).max() <= np.float32(40**-0.5)
    assert np.unique(drawn).size >= 0.99 * drawn.size
    other = module.init(20, 40, seed=8, dtype=dtype, **keywords)
    assert not drawn.size or not np.array_equal(params[0], other[0])
    if drawn.size > 500:
        assert np.abs(drawn).max() > 0.95 * 40**-0.5 and abs(drawn.mean()) < 0.1 * 40**-0.5
    x = np.zeros((T, B, 20), dtype)
    given = {
        key: np.zeros((B, {"input": 20, "hidden": 40, **further}.get(s.size, s.size)), dtype)
        for key, s in zip(module.Grads._fields[2:-1], cell.inputs[1:], strict=True)
    }
    size = {"input": 20, "hidden": 40, **further}.get(cell.inputs[0].size, cell.inputs[0].size)
    y, *_ = module.forward(params, x if size == 20 else np.zeros((T, B, size), dtype), **given)
    assert (y[0] if isinstance(y, tuple) else y).dtype == dtype


def init_keywords(module: ModuleType, further: Mapping[str, int]) -> dict[str, int]:
    """The further sizes by the names of the arguments of `init`."""
    code = module.init.__code__
    names = code.co_varnames[code.co_argcount + 2 : code.co_argcount + code.co_kwonlyargcount]
    return dict(zip(names, further.values(), strict=True))


@every_cell
def test_init_asks_for_sizes_by_their_names_and_they_may_be_one(module_of, name):
    module, further = module_of(name), [s for s in CELLS[name].sizes if s not in SIZES]
    keywords = init_keywords(module, dict.fromkeys(further, 1))
    taken = {*module.init.__code__.co_names, *module.init.__code__.co_varnames} - {*keywords}
    wishes = [f"{s}_" if s in taken else s for s in further]
    others = [{*further} - {s} for s in further]
    assert list(keywords) == [f"{w}_2" if w in o else w for w, o in zip(wishes, others, strict=True)]
    params = module.init(1, 1, **keywords)
    assert all(set(array.shape) <= set(range(1, 7)) for array in params)
    for wrong in (0, -1, 1.0):
        with pytest.raises(ValueError, match=rf"input_size is {wrong}, expected a positive integer"):
            module.init(wrong, 1, **keywords)
        with pytest.raises(ValueError, match=rf"hidden_size is {wrong}, expected a positive integer"):
            module.init(1, wrong, **keywords)
        for key in keywords:
            with pytest.raises(ValueError, match=rf"{key} is {wrong}, expected a positive integer"):
                module.init(1, 1, **keywords | {key: wrong})
    for dtype, said in ((int, "int64"), (None, "None")):
        with pytest.raises(TypeError, match=f"dtype is {said}"):
            module.init(1, 1, dtype=dtype, **keywords)


def test_init_without_a_seed_differs_every_time(module_of):
    one, other = (module_of("gru").init(3, 4) for _ in range(2))
    assert not np.array_equal(one[0], other[0])


def test_every_fact_of_a_cell_is_in_its_checksum(tmp_path):
    W, b, c = matrices("W"), vectors("b"), states("c")

    def checksum(**options):
        x, h = inputs("x", size=options.pop("size", "input")), states("h", initial=options.pop("initial", 0))
        fixed = options.pop("fixed", b)
        output = h.next if options.pop("other", False) else c.next
        cell = Cell("one", Eq(h.next, tanh(W @ x + fixed) * h), Eq(c.next, h), output=output)
        return imported(written(cell, "numpy", tmp_path)).SPEC_SHA256

    c = states("c")
    options = (
        {},
        {"initial": 1},
        {"size": "memory"},
        {"other": True},
        {"fixed": vectors("b", trainable=False)},
    )
    found = [checksum(**given) for given in (*options, {})]
    assert len(set(found)) == len(options) and found[0] == found[-1]


@every_cell
def test_a_module_says_what_it_is(module_of, name):
    module, cell = module_of(name), CELLS[name]
    assert cell.name == module.NAME
    assert tuple(cell.text()) == module.EQUATIONS
    assert tuple(cell.sizes) == module.SIZES
    assert len(module.SPEC_SHA256) == 64
    assert module.States._fields == tuple(s.name for s in cell.states)
    assert module.Grads._fields[0] == "params" and module.Grads._fields[-1] == "initial"
    assert module.Grads._fields[1] == "x"


@every_cell
def test_what_is_optional_is_given_by_name(module_of, name):
    module = module_of(name)
    for function, by_place in (
        (module.init, ["input_size", "hidden_size"]),
        (module.forward, ["params", "x"]),
        (module.backward, ["params", "tape", "d_y", "d_final"]),
        (module.step, ["params", "x_t", "state"]),
    ):
        kinds = {key: p.kind for key, p in inspect.signature(function).parameters.items()}
        assert [key for key, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY] == by_place
        assert all(kinds[key] is inspect.Parameter.POSITIONAL_OR_KEYWORD for key in by_place)


@every_cell
def test_a_module_says_how_wide_everything_is(module_of, name):
    module, point = module_of(name), random_point(name, module_of(name))
    y, final, tape = module.forward(point.params, point.x, initial=point.states, tape=True, **point.further)
    grads = module.backward(point.params, tape, None)
    sizes = sizes_of(point)
    for said, arrays in (
        (module.INPUTS, grads[1:-1]),
        (module.STATES, final),
        (module.OUTPUTS, y if isinstance(y, tuple) else (y,)),
    ):
        assert [sizes.get(size, size) for size in said.values()] == [array.shape[-1] for array in arrays]
    assert tuple(module.INPUTS) == module.Grads._fields[1:-1]
    assert tuple(module.STATES) == module.States._fields
    assert list(module.OUTPUTS) == [str(symbol) for symbol in CELLS[name].outputs]


# -------------------------------------------------------------------------------- behaving well


@every_cell
@with_initial
def test_nothing_that_is_given_is_written(module_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    module, params, states = point.module, point.params, point.states
    d_final = module.States(*point.d_final)
    arrays = [*params, *states, *point.values.values(), *point.d_y, *d_final, point.lengths]
    before = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    options = {"initial": states} if initial else {}
    if name in NORMED:
        options["buffers"] = module.Buffers(**point.buffers)
    _, _, tape = module.forward(params, point.x, lengths=point.lengths, **point.further, **options)
    kept = [a for a in tape if isinstance(a, np.ndarray) and a.flags.writeable]
    for array in kept:
        array.flags.writeable = False
    module.backward(params, tape, point.d_y if len(point.d_y) > 1 else point.d_y[0], d_final)
    assert_same(arrays, before)


@every_cell
def test_any_layout_of_memory_is_taken(module_of, name):
    point = random_point(name, module_of(name), lengths=LENGTHS)
    module = point.module
    wanted_y, wanted_final, tape = forward(point, True)
    wanted = gradients(point)
    params = module.Params(*(np.array(field, order="F") for field in point.params))

    def scattered(a: Array) -> Array:
        """The same numbers, none beside another."""
        wide = np.full([2 * n + 1 for n in a.shape], np.nan)
        view = wide[tuple(slice(1, None, 2) for _ in a.shape)]
        view[...] = a
        return view

    def turned(a: Array) -> Array:
        return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)

    for change in (np.asfortranarray, scattered, turned):
        options = {key: change(a) for key, a in point.further.items()}
        if name in NORMED:
            options["buffers"] = module.Buffers(**{key: scattered(a) for key, a in point.buffers.items()})
        initial = module.States(*map(change, point.states))
        y, final, tape = module.forward(
            params, change(point.x), initial=initial, lengths=point.lengths, **options
        )
        outputs = y if isinstance(y, tuple) else (y,)
        for a, b in zip((*outputs, *final), (*wanted_y, *wanted_final), strict=True):
            assert_close(a, b, 1e-13)
        d_y = tuple(map(change, point.d_y))
        d_final = module.States(*map(change, point.d_final))
        found = named(point, module.backward(params, tape, d_y if len(d_y) > 1 else d_y[0], d_final))
        for key in wanted:
            assert_close(found[key], wanted[key], 1e-12, key)


@every_cell
def test_the_same_inputs_give_the_same_bits(module_of, name):
    point = random_point(name, module_of(name), steps=9, batch=11, sizes={"input": 10, "hidden": 13})
    one, other = forward(point), forward(point)
    assert_same((*one[0], *one[1]), (*other[0], *other[1]))
    assert_same(gradients(point).values(), gradients(point).values())


@pytest.mark.parametrize("name", ["gru", "caru", "lstm", "sligru", "layered"])
def test_threads_do_not_disturb_each_other(module_of, name):
    module = module_of(name)
    points = [random_point(name, module, seed=s, steps=20, batch=8) for s in range(4)]
    wanted = [gradients(point) for point in points]
    found: list[Any] = [None] * len(points)

    def work(k: int) -> None:
        for _ in range(5):
            found[k] = gradients(points[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(points))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, wanted, strict=True):
        assert_same(one.values(), other.values())


@every_cell
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_inputs_raise_no_warning(module_of, name, size, dtype):
    point = random_point(name, module_of(name))
    huge = {s.name: size * np.abs(point.values[s.name]) for s in point.cell.inputs}
    point = replace(point, values=point.values | huge).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _, _ = forward(point)
        found = gradients(point)
    if name in BOUNDED:
        assert all(np.isfinite(a).all() for a in (*y, *found.values()))


# Not those with a logarithm of what vanishes, a quotient of two gates that do, a root of 1 - exp(0).
BOUNDED = [name for name in BUILTIN if not name.startswith("libru") and name not in ("minlstm", "rglru")]


@pytest.mark.parametrize("name", [name for name in CELLS if name not in NORMED])  # statistics spread it
def test_a_nan_stays_in_its_row(module_of, name):
    point = random_point(name, module_of(name))
    x = point.x.copy()
    x[1, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _, _ = forward(replace(point, values=point.values | {point.cell.inputs[0].name: x}))
    clean, _, _ = forward(point)
    for found, wanted in zip(y, clean, strict=True):
        assert_close(np.delete(found, 2, axis=1), np.delete(wanted, 2, axis=1), 1e-14)
        np.testing.assert_array_equal(found[:1], wanted[:1])


# -------------------------------------------------------------------------------- batch normalisation


@pytest.mark.parametrize("name", [name for name in NORMED if name in BUILTIN])
def test_running_statistics_follow_the_reference(module_of, name):
    module, reference = module_of(name), REFERENCES[name]
    buffers = module.init_buffers(SIZES["hidden"], dtype="float64")
    wanted = reference.initial_buffers(SIZES["hidden"])
    for seed, lengths in enumerate((None, LENGTHS, np.array(LENGTHS))):
        point = random_point(name, module, seed=seed, lengths=lengths)
        y, *_ = forward(point, buffers=buffers)
        (y_reference,), _ = by_hand(point, wanted)
        assert_close(y[0], y_reference, 1e-12)
    for key, found in as_reference(reference, buffers._asdict()).items():
        assert_close(found, wanted[key], 1e-12, key)


@normed_cell
@with_lengths
def test_evaluation_uses_the_running_statistics_and_leaves_them(module_of, name, lengths):
    point = random_point(name, module_of(name), training=False, lengths=lengths)
    assert_forward_is_right(point)
    assert_gradients_are_right(point, entries=True)
    buffers = point.module.Buffers(*(a.copy() for a in point.buffers.values()))
    forward(point, buffers=buffers)
    assert_same(buffers, point.buffers.values())


@normed_cell
def test_a_batch_that_is_over_leaves_the_running_statistics(module_of, name):
    point = random_point(name, module_of(name), lengths=(0,) * B)
    buffers = point.module.Buffers(*(a.copy() for a in point.buffers.values()))
    forward(point, buffers=buffers)
    assert_same(buffers, point.buffers.values())


@normed_cell
def test_buffers_are_needed_in_evaluation_alone(module_of, name):
    point = random_point(name, module_of(name), buffers=None)
    assert_forward_is_right(point)
    assert_gradients_are_right(point)
    with pytest.raises(ValueError, match="buffers"):
        forward(replace(point, training=False))


@normed_cell
def test_wrong_buffers_are_refused(module_of, name):
    point = random_point(name, module_of(name))
    module = point.module
    wide = module.Buffers(*(np.ones(4) for _ in point.buffers))
    for training in (True, False):
        with pytest.raises(ValueError, match=r"buffers\.\w+ has shape \(4,\), expected \(\d,\)"):
            forward(point, buffers=wide, training=training)
        with pytest.raises(TypeError, match="buffers is dict"):
            forward(point, buffers=dict(point.buffers), training=training)
        single = module.Buffers(*(a.astype("float32") for a in point.buffers.values()))
        with pytest.raises(TypeError, match=r"buffers\.\w+ has dtype float32, expected float64"):
            forward(point, buffers=single, training=training)


@normed_cell
def test_statistics_are_those_of_the_steps_that_count(module_of, name):
    """Sequences cut to lengths are the same as all their steps as a batch of one step."""
    module = module_of(name)
    point = random_point(name, module, lengths=LENGTHS)
    counted = np.arange(T)[:, None] < np.array(LENGTHS)
    flat = {s.name: point.values[s.name][counted][None] for s in point.cell.inputs}
    rows = int(counted.sum())
    flat |= {
        f"initial.{s.name}": np.ones((rows, d.shape[-1]))
        for s, d in zip(point.cell.states, point.d_final, strict=True)
    }
    one, other = (module.Buffers(*(a.copy() for a in point.buffers.values())) for _ in range(2))
    forward(point, buffers=one)
    forward(replace(point, values=point.values | flat, lengths=None), buffers=other)
    for found, wanted in zip(one, other, strict=True):
        assert_close(found, wanted, 1e-12)


# -------------------------------------------------------------------------------- mistakes


H, I = SIZES["hidden"], SIZES["input"]  # noqa: E741


# What `call` below is given instead of the right thing, and what the message then says.
MISTAKES = {
    "x of two dimensions": (lambda m, a: a.forward(x=a.x[0]), ValueError, ["x ", "(5, 2)", "(T, B, I)"]),
    "x of another size": (
        lambda m, a: a.forward(x=np.zeros((T, B, 9))),
        ValueError,
        ["x ", "(4, 5, 9)", "(4, 5, 2)"],
    ),
    "x of integers": (
        lambda m, a: a.forward(x=np.zeros((T, B, I), int)),
        TypeError,
        ["x ", "int64", "float"],
    ),
    "x of objects": (lambda m, a: a.forward(x=a.x.astype(object)), TypeError, ["x ", "object", "float"]),
    "x in half precision": (
        lambda m, a: a.forward(x=a.x.astype("float16")),
        TypeError,
        ["x ", "float16", "float32"],
    ),
    "x in another precision": (
        lambda m, a: a.forward(x=a.x.astype("float32")),
        TypeError,
        ["x ", "float32", "float64"],
    ),
    "x is None": (lambda m, a: a.forward(x=None), TypeError, ["x "]),
    "params are a dictionary": (
        lambda m, a: a.forward(params=m.unpack(a.params)),
        TypeError,
        ["params", "dict", "Params"],
    ),
    "params are a tuple": (
        lambda m, a: a.forward(params=tuple(a.params)),
        TypeError,
        ["params", "tuple", "Params"],
    ),
    "a parameter of another shape": (
        lambda m, a: a.forward(params=a.params._replace(b=np.zeros(4))),
        ValueError,
        ["params.b", "(4,)", "(9,)"],
    ),
    "a parameter of another rank": (
        lambda m, a: a.forward(params=a.params._replace(b=np.zeros((9, 1)))),
        ValueError,
        ["params.b", "(9, 1)", "1"],
    ),
    "a parameter in another precision": (
        lambda m, a: a.forward(params=a.params._replace(b=a.params.b.astype("float32"))),
        TypeError,
        ["params.b", "float32", "float64"],
    ),
    "a parameter is None": (
        lambda m, a: a.forward(params=a.params._replace(b=None)),
        (TypeError, ValueError),
        ["params.b"],
    ),
    "a parameter is a list": (
        lambda m, a: a.forward(params=a.params._replace(b=list(a.params.b))),
        TypeError,
        ["params.b", "list", "array"],
    ),
    "initial is an array": (
        lambda m, a: a.forward(initial=a.states.h),
        TypeError,
        ["initial", "ndarray", "States"],
    ),
    "initial is a dictionary": (
        lambda m, a: a.forward(initial={"h": a.states.h}),
        TypeError,
        ["initial", "dict", "States"],
    ),
    "initial of one batch fewer": (
        lambda m, a: a.forward(initial=m.States(a.states.h[1:])),
        ValueError,
        ["initial.h", "(4, 3)", "(5, 3)"],
    ),
    "initial of one row": (
        lambda m, a: a.forward(initial=m.States(a.states.h[:1])),
        ValueError,
        ["initial.h", "(1, 3)", "(5, 3)"],
    ),
    "initial in another precision": (
        lambda m, a: a.forward(initial=m.States(a.states.h.astype("float32"))),
        TypeError,
        ["initial.h", "float32"],
    ),
    "too many lengths": (lambda m, a: a.forward(lengths=[1] * 6), ValueError, ["lengths", "(6,)", "(5,)"]),
    "one length": (lambda m, a: a.forward(lengths=3), ValueError, ["lengths", "()", "(5,)"]),
    "a length over T": (
        lambda m, a: a.forward(lengths=[1, 2, 3, 4, 5]),
        ValueError,
        ["lengths", "5", "0 to 4"],
    ),
    "a negative length": (
        lambda m, a: a.forward(lengths=[1, 2, 3, 4, -1]),
        ValueError,
        ["lengths", "-1", "0 to 4"],
    ),
    "lengths of floats": (
        lambda m, a: a.forward(lengths=np.ones(B)),
        TypeError,
        ["lengths", "float64", "integers"],
    ),
    "lengths of truth values": (
        lambda m, a: a.forward(lengths=np.ones(B, bool)),
        TypeError,
        ["lengths", "bool", "integers"],
    ),
    "tape is None": (lambda m, a: a.forward(tape=None), TypeError, ["tape", "NoneType", "True, False"]),
    "tape is a number": (lambda m, a: a.forward(tape=1), TypeError, ["tape", "int", "True, False"]),
    "an unknown argument": (lambda m, a: a.forward(hidden=1), TypeError, ["hidden"]),
    "a tape of another shape": (
        lambda m, a: a.forward(tape=a.tape, x=a.x[1:]),
        ValueError,
        ["tape.h", "(5, 5, 3)", "(4, 5, 3)"],
    ),
    "backward without a tape": (lambda m, a: a.backward(tape=None), TypeError, ["tape", "NoneType", "Tape"]),
    "backward with parameters of another size": (
        lambda m, a: a.backward(params=m.init(I, 4, dtype="float64")),
        ValueError,
        ["tape.h", "(5, 5, 3)", "(5, 5, 4)"],
    ),
    "backward with parameters of another input size": (
        lambda m, a: a.backward(params=m.init(4, H, dtype="float64")),
        ValueError,
        ["tape.x", "(4, 5, 2)", "(4, 5, 4)"],
    ),
    "backward with parameters in another precision": (
        lambda m, a: a.backward(params=m.init(I, H)),
        TypeError,
        ["params", "float32", "float64"],
    ),
    "d_y of another shape": (
        lambda m, a: a.backward(d_y=a.d_y[1:]),
        ValueError,
        ["d_y", "(3, 5, 3)", "(4, 5, 3)"],
    ),
    "d_y of the last step": (
        lambda m, a: a.backward(d_y=a.d_y[-1]),
        ValueError,
        ["d_y", "(5, 3)", "(4, 5, 3)"],
    ),
    "d_y in another precision": (
        lambda m, a: a.backward(d_y=a.d_y.astype("float32")),
        TypeError,
        ["d_y", "float32", "float64"],
    ),
    "d_y of complex numbers": (
        lambda m, a: a.backward(d_y=a.d_y + 0j),
        TypeError,
        ["d_y", "complex128", "float64"],
    ),
    "d_final is an array": (
        lambda m, a: a.backward(d_final=a.states.h),
        TypeError,
        ["d_final", "ndarray", "States"],
    ),
    "d_final of another shape": (
        lambda m, a: a.backward(d_final=m.States(np.zeros((B, 4)))),
        ValueError,
        ["d_final.h", "(5, 4)", "(5, 3)"],
    ),
    "d_final in another precision": (
        lambda m, a: a.backward(d_final=m.States(np.zeros((B, H), "float32"))),
        TypeError,
        ["d_final.h", "float32", "float64"],
    ),
    "a step of a sequence": (lambda m, a: m.step(a.params, a.x), ValueError, ["x_t", "(4, 5, 2)", "(B, I)"]),
    "a step from another batch": (
        lambda m, a: m.step(a.params, a.x[0], m.States(a.states.h[1:])),
        ValueError,
        ["h", "(4, 3)", "(5, 3)"],
    ),
    "init of size 0": (lambda m, a: m.init(0, 4), ValueError, ["input_size", "0", "positive"]),
    "init of half a size": (
        lambda m, a: m.init(3, 4.5),
        (TypeError, ValueError),
        ["hidden_size", "4.5", "positive"],
    ),
    "init of integers": (lambda m, a: m.init(3, 4, dtype="int32"), TypeError, ["dtype", "int32", "float32"]),
    "pack of too little": (
        lambda m, a: m.pack({"W_z": np.zeros((3, 2))}),
        ValueError,
        ["pack", "W_z", "U_z"],
    ),
    "pack of too much": (
        lambda m, a: m.pack(m.unpack(a.params) | {"extra": 1}),
        ValueError,
        ["pack", "extra"],
    ),
    "pack of another shape": (
        lambda m, a: m.pack(m.unpack(a.params) | {"U_r": np.zeros((3, 4))}),
        ValueError,
        ["U_r", "(3, 4)"],
    ),
    "pack of a transposed matrix": (
        lambda m, a: m.pack(m.unpack(a.params) | {"W_r": np.zeros((2, 3))}),
        ValueError,
        ["W_r", "(2, 3)"],
    ),
    "unpack of a dictionary": (lambda m, a: m.unpack({}), TypeError, ["params", "dict", "Params"]),
}


class Arguments:
    """The right arguments of a GRU, and calls with some of them replaced."""

    def __init__(self, point: Point) -> None:
        self.module, self.params, self.states = point.module, point.params, point.states
        self.x, self.d_y = point.x, point.d_y[0]
        self.tape = forward(point, True)[2]

    def forward(self, params: Any = None, **changed: Any) -> Any:
        given = {"params": self.params if params is None else params, "x": self.x, "initial": self.states}
        return self.module.forward(**given | changed)

    def backward(self, **changed: Any) -> Any:
        given = {"params": self.params, "tape": self.tape, "d_y": self.d_y, "d_final": None}
        return self.module.backward(**given | changed)


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_refused_by_name(module_of, what):
    call, error, words = MISTAKES[what]
    arguments = Arguments(random_point("gru", module_of("gru")))
    with pytest.raises(error) as raised:
        call(arguments.module, arguments)
    for word in words:
        assert word in str(raised.value), str(raised.value)


@every_cell
def test_every_cell_refuses_what_does_not_fit(module_of, name):
    point = random_point(name, module_of(name))
    module = point.module
    options = {**point.further, **({"buffers": module.Buffers(**point.buffers)} if name in NORMED else {})}
    wide = np.zeros((T, B, point.x.shape[-1] + 1))
    given = {**options, "initial": point.states}
    told = {size for s in (*point.cell.parameters, *point.cell.states) for size in point.cell.sizes_of(s)}
    if point.cell.inputs[0].size in {*told, 1}:
        with pytest.raises(ValueError, match=r"\b(x|initial\.\w+) has shape"):
            module.forward(point.params, wide, **given)
    for key, s in itertools.chain(zip(input_keys(point)[1:], point.cell.inputs[1:], strict=True)):
        with pytest.raises(ValueError, match=rf"\b({key}|initial\.\w+) has shape .* expected"):
            module.forward(
                point.params, point.x, **given | {key: np.zeros((B, point.values[s.name].shape[-1] + 1))}
            )
    for k, field in enumerate(module.Params._fields):
        wrong = point.params._replace(**{field: np.zeros((1, 2, 3))})
        with pytest.raises(ValueError, match=rf"params\.{field} .*\(1, 2, 3\), expected"):
            module.forward(wrong, point.x, **options)
        single = point.params._replace(**{field: point.params[k].astype("float32")})
        with pytest.raises(TypeError, match=r"float32"):
            module.forward(single, point.x, **options)
        whole = point.params._replace(**{field: point.params[k].astype(int)})
        with pytest.raises(TypeError, match=rf"params\.{field} has dtype int64, expected float32 or float64"):
            module.forward(whole, point.x, **options)
    _, _, tape = forward(point, True)
    states = module.States(*(np.zeros((B + 1, d.shape[-1])) for d in point.d_final))
    with pytest.raises(ValueError, match=r"initial\.\w+ has shape"):
        module.forward(point.params, point.x, initial=states, **options)
    with pytest.raises(ValueError, match=r"d_final\.\w+ has shape"):
        module.backward(point.params, tape, None, states)
    single = tuple(d.astype("float32") for d in point.d_y)
    with pytest.raises(TypeError, match=r"d_y.* has dtype float32, expected float64"):
        module.backward(point.params, tape, single if len(single) > 1 else single[0])
    if len(point.d_y) > 1:
        with pytest.raises(ValueError, match=r"d_y has 1 parts, expected"):
            module.backward(point.params, tape, point.d_y[:1])
        with pytest.raises(ValueError, match=r"d_y\[1\] has shape"):
            module.backward(point.params, tape, (point.d_y[0], np.zeros((T, B, 1, 1)), *point.d_y[2:]))


def longer(array: Array, axis: int) -> Array:
    return np.concatenate([array, array.take([0], axis)], axis)


@every_cell
def test_every_cell_refuses_wrong_lengths(module_of, name):
    point = random_point(name, module_of(name))
    for lengths, error, words in (
        ((-1, 0, T, 1, T), ValueError, "from -1 to 4, expected from 0 to 4"),
        ((3, 0, T + 1, 1, T), ValueError, "from 0 to 5, expected from 0 to 4"),
        ((1,) * (B + 1), ValueError, r"shape \(6,\), expected \(5,\)"),
        (np.ones((B, 1), int), ValueError, r"shape \(5, 1\), expected \(5,\)"),
        ((1.0,) * B, TypeError, "dtype float64, expected integers"),
        ((True,) * B, TypeError, "dtype bool, expected integers"),
    ):
        with pytest.raises(error, match=words):
            forward(point, lengths=np.array(lengths))
    forward(point, lengths=np.array((0, T, 0, T, 1)))


def told_elsewhere(cell: Cell, name: str, axis: int, arrays: Iterable[Any]) -> bool:
    """Whether another axis of a parameter, or one of these inputs and states, says how long this axis is."""
    every = [size for a in cell.arrays for part in a.shape for size in parts(part)]
    every += [s.size for s in arrays]
    (own,) = (a.shape[axis] for a in cell.arrays if a.name == name)
    return all(not isinstance(size, str) or every.count(size) > 1 for size in parts(own))


@every_cell
def test_every_cell_refuses_parameters_that_do_not_fit(module_of, name):
    """Each field longer by one along each axis does not fit on the others, on the input, or on the state."""
    point = random_point(name, module_of(name))
    module, params = point.module, point.params
    options = {"buffers": module.Buffers(**point.buffers)} if name in NORMED else {}
    alone = {a.name for a in point.cell.arrays}
    given = (*point.cell.inputs, *point.cell.states)
    for field, array in params._asdict().items():
        for axis in range(array.ndim):
            if field not in alone or told_elsewhere(point.cell, field, axis, given):
                wrong = params._replace(**{field: longer(array, axis)})
                with pytest.raises(ValueError, match=r"has shape .*, expected"):
                    module.forward(wrong, point.x, initial=point.states, **point.further, **options)


def test_pack_refuses_rows_that_fit_in_sum_alone(module_of):
    arrays = module_of("gru").unpack(module_of("gru").init(4, 6))
    wrong = {"W_z": np.ones((5, 4), "float32"), "W_r": np.ones((7, 4), "float32")}
    with pytest.raises(ValueError, match=r"^W_z has shape \(5, 4\), expected \(6, 4\)$"):
        module_of("gru").pack(arrays | wrong)
    with pytest.raises(ValueError, match=r"pack was given \['1', 'b'\], expected"):
        module_of("gru").pack({1: 2, "b": 3})


@every_cell
def test_pack_refuses_what_does_not_fit(module_of, name):
    """Arrays longer by one where another parameter tells their length, and single numbers."""
    point = random_point(name, module_of(name))
    module, cell = point.module, point.cell
    arrays = module.unpack(point.params)
    for key, array in arrays.items():
        for axis in range(array.ndim):
            if told_elsewhere(cell, key, axis, ()):
                with pytest.raises(ValueError, match=r"has shape .*(expected|does not fit on)"):
                    module.pack(arrays | {key: longer(array, axis)})
        if array.ndim:
            with pytest.raises(ValueError, match=r"has shape \(\)|does not fit on"):
                module.pack(arrays | {key: np.float64(1)})


@every_cell
def test_outputs_and_gradients_share_no_memory_with_anything(module_of, name):
    point = random_point(name, module_of(name))
    y, final, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    grads = point.module.backward(point.params, tape, d_y, point.module.States(*point.d_final))
    made = [*y, *final, *named(point, grads).values()]
    held = [
        a for a in (*point.values.values(), *point.d_y, *point.d_final, *tape) if isinstance(a, np.ndarray)
    ]
    for a in made:
        assert not any(np.shares_memory(a, b) for b in held)
    for a, b in itertools.combinations((*y, *final), 2):
        assert not np.shares_memory(a, b)


# -------------------------------------------------------------------------------- names


def cell_with(role: str, names: list[str]) -> Cell:
    """A cell in which these names play this role, and all others end in `_q`."""
    x, h, (W, U) = inputs("x_q"), states("h_q"), matrices("W_q U_q")
    a = W @ x + U @ h
    if role == "vector":
        return Cell("named", Eq(h.next, tanh(a + sum(v * v for v in vectors(" ".join(names))) / 9)))
    if role == "input":
        return Cell("named", Eq(h.next, tanh(a + h * sum(inputs(" ".join(names), size="hidden")) / 9)))
    if role == "state":
        made = states(" ".join(names))
        equations = [Eq(s.next, s / 2 + h) for s in made]
        return Cell("named", *equations, Eq(h.next, tanh(a + sum(made) / 20)), output=h.next)
    made = gates(" ".join(names))
    equations = [Eq(g, sigmoid(a * (k + 1) / 9)) for k, g in enumerate(made)]
    return Cell("named", *equations, Eq(h.next, sum(made) / 20), first=[Eq(h.next, x_sum(x))])


def x_sum(x: Any) -> Any:
    return tanh(matrices("V_q") @ x)


@pytest.mark.parametrize("k", range(4))
def test_a_spec_may_use_every_name_that_a_module_uses(module_of, tmp_path, monkeypatch, k):
    """Each name of the code of some modules takes one of the roles."""
    used: set[str] = set()
    for name in ("caru", "sligru", "opened_from_the_start"):
        tree = ast.parse(Path(module_of(name).__file__).read_text("utf-8"))
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names = sorted(name for name in used - RESERVED if not name.startswith("_"))[k::4]
    for role, some in zip(("vector", "input", "state", "gate"), (names[j::4] for j in range(4)), strict=True):
        monkeypatch.setitem(CELLS, "named", cell_with(role, some))
        point = random_point("named", imported(written(CELLS["named"], "numpy", tmp_path)), lengths=LENGTHS)
        for initial in (True, False):
            assert_forward_is_right(replace(point, initial=initial))
            assert_gradients_are_right(replace(point, initial=initial))
