"""The generated C: called through its Python module against the NumPy modules, and compiled as others would.

Cells are compiled with -O1, once for all tests. What C reads and writes is watched three times: Python hands
it memory full of NaN with a margin around it, sanitizers run a C program that makes the same calls in memory
of exactly the size that is asked for, and valgrind runs that program for some cells.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import test_module_errors
from helpers import MINUTES, assert_close
from hunt import findings
from points import (
    BUILTIN,
    CELLS,
    LENGTHS,
    NORMED,
    Array,
    Point,
    T,
    forward,
    gradients,
    random_point,
)
from random_cells import rolled
from test_module_errors import MISTAKES, Arguments

from gategen import Cell, Eq, batch_norm, compile, inputs, matrices, sigmoid, sqrt, states, tanh, vectors
from gategen.build import generate
from gategen.judge.host import imported
from gategen.judge.verify import verify
from gategen.layers import RNN

DOUBLE, SINGLE = 1e-11, 2e-5  # how far results may be apart, in parts of the largest entry
QUICK = "-O1"
SEED, BATCH = 0, 8  # of random cells
STRICT = "-Wall -Wextra -Wpedantic -Wconversion -Werror -fsyntax-only".split()

# What is met in them: several inputs, outputs, states and sizes, states of one unit, sizes that are numbers;
# a rule for the first step, trained starts; batch norm and layer norm; matrices that are transposed, stacked
# and not trained; scalars; cells without parameters, without products and without a loop; every function;
# matrices of every row.
ORDINARY = """
    gru lstm_peephole ln_gru sligru rhn several noisy decayed projected narrow numbered told_apart
    opened_from_the_start trained_by_an_expression normed_after_the_first rows_of_two_sizes rows_not_trained
    parameterless idle every_function switched chained
    two_memories fed_back started_matrices opened_matrices many_heads gates_of_blocks
""".split()
SEVERAL = "gru ln_gru sligru opened_from_the_start several".split()

# In single precision the results of these are further apart, and in that of NumPy as well: a layer norm of
# three numbers of which two are nearly the same, and a sum of terms that cancel.
ILL = {"layered": 1e-3, "narrow": 1e-4}

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def chosen(names: Sequence[str]) -> Any:
    """Every cell, of which the others are slow."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in CELLS]
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", QUICK)
    monkeypatch.delenv("CC", raising=False)


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a run share, so that each cell is compiled once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "c_modules"
    folder.mkdir(exist_ok=True)
    return folder


def put(folder: Path, files: Mapping[str, str]) -> None:
    """Each file whole, whoever else is writing it."""
    for name, text in files.items():
        if not (folder / name).exists():
            with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
                file.write(text)
            os.replace(file.name, folder / name)


@pytest.fixture(scope="session")
def c_module_of(common: Path) -> Callable[[str], ModuleType]:
    def made(name: str) -> ModuleType:
        put(common, generate(CELLS[name], "c"))
        return imported(common / f"{name}_c.py")

    return cache(made)


@pytest.fixture
def gru(tmp_path: Path) -> Path:
    """The module of a GRU in a folder of its own."""
    return alone(tmp_path / "own")


def alone(folder: Path, name: str = "gru") -> Path:
    folder.mkdir(parents=True)
    put(folder, generate(CELLS[name], "c"))
    return folder / f"{name}_c.py"


# ---------------------------------------------------------------------------------------------- results


def results(point: Point) -> dict[str, Array]:
    """All that a run and its way back give; without a tape the run gives the same bits."""
    with np.errstate(all="ignore"):
        y, final, _ = forward(point, True)
        found = {f"y {k}": a for k, a in enumerate(y)}
        found |= {f"final {s}": a for s, a in final._asdict().items()}
        if point.module.__name__.endswith("_c"):
            again, last, none = forward(point)
            assert none is None
            assert_same_bits([*y, *final], [*again, *last])
        return found | gradients(point)


def assert_same_bits(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    for k, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.array_equal(one, other, equal_nan=True), f"array {k} differs"


def assert_agree(
    found: Mapping[str, Array], wanted: Mapping[str, Array], tolerance: float, what: str
) -> None:
    assert found.keys() == wanted.keys()
    for key, right in wanted.items():
        if np.isfinite(right).all():
            assert_close(found[key], right, tolerance, f"{what}, {key}")
        else:
            assert not np.isfinite(found[key]).all(), f"{what}, {key}: finite"


def modes(name: str) -> tuple[dict[str, Any], ...]:
    """With and without lengths, from a given and the own start; batch norms without training too."""
    starts = [{"lengths": n, "initial": given} for n in (None, LENGTHS) for given in (True, False)]
    if name not in NORMED:
        return tuple(starts)
    return tuple({**s, "training": training} for s in starts for training in (True, False))


@chosen(ORDINARY)
def test_the_c_of_a_cell_is_as_its_numpy(name: str, module_of: Any, c_module_of: Any) -> None:
    """Outputs, final states and every gradient; running statistics; what is behind lengths is NaN."""
    module = c_module_of(name)
    for options in modes(name):
        point = random_point(name, module_of(name), **options)
        wanted = results(point)
        there = replace(point, module=module)
        assert_agree(results(there), wanted, DOUBLE, f"{options}")
        single = results(there.astype("float32"))
        assert {a.dtype for a in single.values()} == {np.dtype(np.float32)}
        assert_agree(single, wanted, ILL.get(name, SINGLE), f"{options} in float32")
        if options["lengths"] is not None:
            hidden = results(replace(there, **behind_lengths(point)))
            assert_same_bits(list(hidden.values()), list(results(there).values()))


def behind_lengths(point: Point) -> dict[str, Any]:
    """The point with NaN behind the lengths."""
    steps, batch = point.x.shape[:2]
    over = np.arange(steps)[:, None] >= np.broadcast_to(point.lengths, batch)

    def cut(array: Array) -> Array:
        return np.where(over.reshape(*over.shape, *(1,) * (array.ndim - 2)), np.nan, array)

    names = [s.name for s in point.cell.inputs]
    values = {**point.values, **{name: cut(point.values[name]) for name in names}}
    return {"values": values, "d_y": tuple(map(cut, point.d_y))}


@chosen(ORDINARY)
def test_steps_are_as_in_numpy(name: str, module_of: Any, c_module_of: Any) -> None:
    """From the own start and from given states, one after the other; the states before are left alone."""
    for given in (True, False):
        point = random_point(name, module_of(name), initial=given, training=False)
        assert_agree(streamed(replace(point, module=c_module_of(name))), streamed(point), DOUBLE, f"{given}")


def streamed(point: Point) -> dict[str, Array]:
    module, found = point.module, {}
    state = point.states if point.initial else None
    options: dict[str, Any] = {}
    if point.buffers:
        options = {"buffers": module.Buffers(**point.buffers), "training": False}
    with np.errstate(all="ignore"):
        for t in range(T):
            inputs_now = {key: array[t] for key, array in point.further.items()}
            before = state and [a.copy() for a in state]
            y, after = module.step(point.params, point.x[t], state, **inputs_now, **options)
            if state:
                assert_same_bits(list(state), before)
            several = len(point.cell.outputs) > 1
            found |= {f"{t} y {k}": a for k, a in enumerate(y if several else (y,))}
            found |= {f"{t} {s}": a for s, a in after._asdict().items()}
            state = after
    return found


@pytest.mark.parametrize("name", [name for name in NORMED if name in ("ligru", "sligru", "normed")])
def test_running_statistics_are_updated_in_place_and_used(
    name: str, module_of: Any, c_module_of: Any
) -> None:
    """Also where they lie with gaps; without training they are left alone."""
    kept = {}
    for module in (module_of(name), c_module_of(name)):
        for gaps in (1, 3):
            point = random_point(name, module, lengths=LENGTHS)
            wide = [np.repeat(a, gaps) for a in point.buffers.values()]
            running = module.Buffers(*(a[::gaps] for a in wide))
            for training in (True, False):
                forward(point, buffers=running, training=training)
                kept[module, gaps, training] = [a.copy() for a in running]
            assert_same_bits(kept[module, gaps, True], kept[module, gaps, False])
            assert not np.array_equal(running[0], next(iter(point.buffers.values())))
    plain, there = module_of(name), c_module_of(name)
    assert_same_bits(kept[there, 1, True], kept[there, 3, True])
    for one, other in zip(kept[there, 1, True], kept[plain, 1, True], strict=True):
        assert_close(one, other, DOUBLE)


def test_running_statistics_that_cannot_be_written_are_refused(c_module_of: Any) -> None:
    point = random_point("ligru", c_module_of("ligru"))
    running = point.module.Buffers(**point.buffers)
    for array in running:
        array.flags.writeable = False
    before = [a.copy() for a in running]
    forward(point, buffers=running, training=False)
    with pytest.raises(ValueError, match="read-only"):
        forward(point, buffers=running, training=True)
    assert_same_bits(list(running), before)


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("hidden", [1, 15, 31, 32, 33, 65])
def test_any_number_of_rows_and_units(name: str, hidden: int, module_of: Any, c_module_of: Any) -> None:
    """Tiles are of up to 5 or 8 rows, and panels of 8 to 32 columns."""
    for batch in range(2, 14):
        point = sized(name, module_of(name), 3, batch, hidden, initial=batch % 2 == 0)
        wanted = results(point)
        assert_agree(results(replace(point, module=c_module_of(name))), wanted, DOUBLE, f"B = {batch}")


@pytest.mark.parametrize("name", ["two_memories", "many_heads", "gates_of_blocks"])
def test_matrices_of_any_sizes(name: str, module_of: Any, c_module_of: Any) -> None:
    """Sums along an axis take four rows and 16 or 32 columns at a time."""
    for values, keys, heads in ((1, 1, 1), (3, 16, 2), (4, 35, 3), (9, 64, 2), (70, 19, 1)):
        sizes = {"input": 3 * heads, "hidden": 6 * heads, "values": values, "keys": keys, "heads": heads}
        for lengths in (None, (2, 0, 1)):
            options: dict[str, Any] = {"steps": 2, "batch": 3, "sizes": sizes, "lengths": lengths}
            point = random_point(name, module_of(name), **options, scale=0.2)
            wanted = results(point)
            found = results(replace(point, module=c_module_of(name)))
            assert_agree(found, wanted, DOUBLE, f"{sizes}")


def sized(name: str, module: ModuleType, steps: int, batch: int, hidden: int = 3, **options: Any) -> Point:
    lengths = None if batch % 3 else [k % (steps + 1) for k in range(batch)]
    sizes = {"input": 2, "hidden": hidden}
    return random_point(name, module, steps=steps, batch=batch, sizes=sizes, lengths=lengths, **options)


@chosen(SEVERAL)
def test_no_steps_and_no_sequences(name: str, module_of: Any, c_module_of: Any) -> None:
    for steps, batch in ((0, 0), (0, 3), (3, 0), (1, 1), (1, 3), (4, 1)):
        for given in (True, False):
            point = sized(name, module_of(name), steps, batch, initial=given)
            wanted = results(point)
            what = f"T = {steps}, B = {batch}, {given}"
            assert_agree(results(replace(point, module=c_module_of(name))), wanted, DOUBLE, what)


def test_no_units_are_no_crash(tmp_path: Path, module_of: Any) -> None:
    """An input of size 0 tells that there are none; a division by 0 would end the process."""
    path = alone(tmp_path / "own", "parameterless")
    program = f"""
import sys, numpy as np
sys.path.insert(0, {str(path.parent)!r})
import parameterless_c as c
y, final, tape = c.forward(c.Params(), np.zeros((3, 2, 0)))
print(y.shape, final[0].shape, c.backward(c.Params(), tape, y).x.shape)
"""
    done = run_python(program)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "(3, 2, 0) (2, 0) (3, 2, 0)\n"


@pytest.mark.parametrize("name", ["gru", "ln_gru", "opened_from_the_start", "opened_matrices"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_more_steps_than_are_taken_at_once(name: str, batch: int, module_of: Any, c_module_of: Any) -> None:
    there = c_module_of(name)
    for steps in (257, 700):
        point = sized(name, module_of(name), steps, batch, 65, initial=batch == 2, scale=0.05)
        wanted = results(point)
        assert_agree(results(replace(point, module=there)), wanted, DOUBLE, f"T = {steps}")
    if name == "gru":
        rooms = {there.entries("workspace", np.dtype(float), steps, batch, 2, 65) for steps in (700, 1400)}
        assert len(rooms) == 1, "all steps are taken at once"


# ---------------------------------------------------------------------------------------------- arrays


class Own(np.ndarray):
    """A class of arrays."""


def misaligned(array: Array, by: int) -> Array:
    room = np.zeros(array.nbytes + 64, np.uint8)
    there = room[by : by + array.nbytes].view(array.dtype).reshape(array.shape)
    there[...] = array
    return there


def spread(array: Array, fill: float = np.nan) -> Array:
    """With gaps in which there is something else."""
    wide = np.full([2 * n + 1 for n in array.shape], fill, array.dtype)
    there = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    there[...] = array
    return there


def unwritable(array: Array) -> Array:
    there = array.copy()
    there.flags.writeable = False
    return there


AWKWARD: dict[str, Callable[[Array], Array]] = {
    "one entry behind": lambda a: misaligned(a, a.itemsize),
    "not aligned": lambda a: misaligned(a, 1),
    "with gaps": spread,
    "in Fortran order": lambda a: np.asfortranarray(a) if a.ndim else a,
    "backwards": lambda a: a[(slice(None, None, -1),) * a.ndim].copy()[(slice(None, None, -1),) * a.ndim],
    "read-only": unwritable,
    "of a subclass": lambda a: a.view(Own),
}


class Awkward(Point):
    """A point whose parameters are changed behind `pack`."""

    change: Any = staticmethod(lambda a: a)

    @property
    def params(self) -> Any:
        plain = super().params
        return type(plain)(*map(self.change, plain))


def changed(point: Point, change: Callable[[Array], Array]) -> Point:
    there = Awkward(**{name: getattr(point, name) for name in Point.__dataclass_fields__})
    object.__setattr__(there, "change", change)
    moved = {k: change(v) for k, v in point.values.items() if k not in {a.name for a in point.cell.arrays}}
    return replace_in(
        there,
        values={**point.values, **moved},
        d_y=tuple(map(change, point.d_y)),
        d_final=tuple(map(change, point.d_final)),
    )


def replace_in(point: Point, **fields: Any) -> Point:
    for name, value in fields.items():
        object.__setattr__(point, name, value)
    return point


@pytest.mark.parametrize("how", AWKWARD)
@pytest.mark.parametrize("name", ["gru", "noisy", "sligru"])
def test_arrays_need_not_lie_as_c_has_them(name: str, how: str, c_module_of: Any) -> None:
    for dtype in ("float64", "float32"):
        point = random_point(name, c_module_of(name), lengths=LENGTHS).astype(dtype)
        found = results(changed(point, AWKWARD[how]))
        assert_same_bits(list(found.values()), list(results(point).values()))
        assert {type(a) for a in found.values()} == {np.ndarray}


def test_arrays_that_are_not_aligned_are_copied_before_c_reads_them(
    c_module_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor may read them all the same, so that results do not tell."""
    module = c_module_of("gru")
    point = changed(random_point("gru", module), AWKWARD["not aligned"])
    seen: list[Array] = []
    run = module.run_c

    def watched(name: str, dtype: Any, /, *arguments: Any) -> None:
        for argument in arguments:
            seen.extend(argument if isinstance(argument, list) else [argument])
        run(name, dtype, *arguments)

    monkeypatch.setattr(module, "run_c", watched)
    gradients(point)
    module.step(point.params, point.x[0], point.states)
    arrays = [a for a in seen if isinstance(a, np.ndarray)]
    assert len(arrays) > 20
    assert all(a.flags.aligned and a.flags.c_contiguous for a in arrays)


def test_one_number_for_all_entries(c_module_of: Any) -> None:
    """Gradients and inputs of which every entry is the same lie in one place."""
    module = c_module_of("noisy")
    point = random_point("noisy", module)
    flat = {k: np.broadcast_to(v.dtype.type(0.25), v.shape) for k, v in point.values.items() if v.ndim == 3}
    d_y = tuple(np.broadcast_to(np.float64(0.5), d.shape) for d in point.d_y)
    there = replace(point, values={**point.values, **flat}, d_y=d_y)
    whole = replace(
        there, values={k: v.copy() for k, v in there.values.items()}, d_y=tuple(d.copy() for d in d_y)
    )
    assert_same_bits(list(results(there).values()), list(results(whole).values()))


@chosen(["gru", "slstm", "switched", "lstm", "ln_gru"])
def test_what_is_no_number_spreads_as_in_numpy(name: str, module_of: Any, c_module_of: Any) -> None:
    """But for gradients of inputs behind the lengths, which are 0 whatever the parameters are."""
    for what in ("input", "gradient", "parameter"):
        point = spoilt(random_point(name, module_of(name), lengths=LENGTHS), what)
        wanted, found = results(point), results(replace(point, module=c_module_of(name)))
        over = np.arange(T)[:, None] >= np.array(LENGTHS)
        for key, right in wanted.items():
            lost = np.isfinite(found[key]) & ~np.isfinite(right)
            if key in {s.name for s in point.cell.inputs}:
                lost &= ~over.reshape(T, -1, *(1 for _ in lost.shape[2:]))
            assert not lost.any(), f"NaN in an {what}: {key} is finite where NumPy's is not"
        if what == "input" and name in BUILTIN:
            assert any(np.isnan(a).any() for a in found.values())


def spoilt(point: Point, what: str) -> Point:
    values = {name: array.copy() for name, array in point.values.items()}
    d_y = tuple(d.copy() for d in point.d_y)
    if what == "input":
        values[point.cell.inputs[0].name][1, 2, 0] = np.nan
    elif what == "gradient":
        d_y[0][1, 2, 0] = np.nan
    elif point.cell.arrays:
        values[point.cell.arrays[0].name].flat[0] = np.nan
    return replace(point, values=values, d_y=d_y)


# ---------------------------------------------------------------------------------------------- mistakes


def raised(call: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises((TypeError, ValueError)) as found:
        call()
    return found.type, str(found.value)


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_refused_as_numpy_refuses_it(what: str, module_of: Any, c_module_of: Any) -> None:
    """In the same words, but for the array of a tape that tells its precision."""
    call, *_ = MISTAKES[what]
    said = []
    for module in (module_of("gru"), c_module_of("gru")):
        arguments = Arguments(random_point("gru", module))
        kind, text = raised(lambda m=module, a=arguments: call(m, a))
        said.append((kind, text.replace(module.__name__, "module")))
    (kind, text), (found, words) = said
    assert found is kind
    assert words.replace("tape.x has dtype", "tape.h has dtype") == text


@pytest.mark.parametrize("attack", [
    "test_every_cell_refuses_what_does_not_fit",
    "test_every_cell_refuses_wrong_lengths",
    "test_every_cell_refuses_parameters_that_do_not_fit",
    "test_pack_refuses_what_does_not_fit",
])  # fmt: skip
@chosen([*SEVERAL, "noisy"])
def test_every_cell_refuses_in_c_what_it_does_in_numpy(attack: str, name: str, c_module_of: Any) -> None:
    getattr(test_module_errors, attack)(c_module_of, name)


def test_a_tape_of_other_sizes_is_refused_whatever_its_length(c_module_of: Any) -> None:
    """C has no way to tell."""
    module = c_module_of("gru")
    small, large = module.init(2, 3, seed=0, dtype="float64"), module.init(2, 4, seed=0, dtype="float64")
    _, _, tape = module.forward(small, np.ones((1, 1, 2)))
    with pytest.raises(ValueError, match=r"tape"):
        module.backward(large, tape, np.ones((1, 1, 4)))


# ---------------------------------------------------------------------------------------------- tapes


def test_an_earlier_tape_is_used_again(c_module_of: Any) -> None:
    module = c_module_of("several")
    first, second = (random_point("several", module, seed=k) for k in (0, 1))
    wanted = results(second)
    _, _, tape = forward(first, True)
    y, final, again = forward(second, tape)
    names = {s.name for s in second.cell.inputs}
    kept = [f for f in tape._fields if f not in names and isinstance(getattr(tape, f), np.ndarray)]
    assert kept and all(getattr(again, field) is getattr(tape, field) for field in kept)
    assert_same_bits([*y, *final], [wanted[key] for key in wanted if key[:2] == "y " or key[:5] == "final"])
    grads = module.backward(second.params, again, second.d_y, module.States(*second.d_final))
    assert_same_bits(list(grads[1:-1]), [wanted[s.name] for s in second.cell.inputs])


def test_backward_may_be_called_again_and_leaves_the_tape_as_it_is(c_module_of: Any) -> None:
    for name in SEVERAL:
        point = random_point(name, c_module_of(name), lengths=LENGTHS)
        _, _, tape = forward(point, True)
        before = [np.copy(a) for a in tape if isinstance(a, np.ndarray)]
        d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
        found = [point.module.backward(point.params, tape, d_y) for _ in range(2)]
        assert_same_bits(found[0].params, found[1].params)
        assert_same_bits([a for a in tape if isinstance(a, np.ndarray)], before)


def test_parameters_and_tapes_can_be_pickled(c_module_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SEVERAL:
        point = random_point(name, c_module_of(name), lengths=LENGTHS, initial=False)
        monkeypatch.setitem(sys.modules, point.module.__name__, point.module)
        _, _, tape = forward(point, True)
        params, kept = pickle.loads(pickle.dumps((point.params, tape)))
        d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
        wanted, found = (
            point.module.backward(point.params, tape, d_y),
            point.module.backward(params, kept, d_y),
        )
        assert_same_bits([*found.params, *found[1:-1]], [*wanted.params, *wanted[1:-1]])


# ---------------------------------------------------------------------------------------------- memory

MARGIN = 64  # entries before and behind an array


class Watched:
    """Memory full of NaN, with a margin that nobody may write."""

    def __init__(self) -> None:
        self.rooms: list[tuple[Array, int]] = []

    def empty(self, shape: Any, dtype: Any) -> Array:
        count = int(np.prod(shape))
        room = np.full((count + 2 * MARGIN) * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)
        self.rooms.append((room, count))
        return room[MARGIN : MARGIN + count].reshape(shape)

    def check(self) -> None:
        assert self.rooms
        for room, count in self.rooms:
            for margin in (room[:MARGIN], room[MARGIN + count :]):
                assert (margin.view(np.uint8) == 0xFF).all(), f"written beside {count} entries"


@chosen(ORDINARY)
def test_memory_is_enough_and_nothing_is_read_of_it(
    name: str, c_module_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in the workspace, the tape and the results before, the same comes out."""
    module = c_module_of(name)
    for options in modes(name):
        for steps, batch, hidden in ((T, 5, 3), (1, 1, 33), (2, 7, 1)):
            lengths = None if options["lengths"] is None else (np.arange(batch) * 2) % (steps + 1)
            sizes = {"input": 2, "hidden": hidden}
            point = random_point(
                name, module, steps=steps, batch=batch, sizes=sizes, **options | {"lengths": lengths}
            )
            wanted = results(point)
            watched = Watched()
            with monkeypatch.context() as patch:
                patch.setattr(module, "np", Fresh(watched.empty))
                found = results(point)
            assert_same_bits(list(found.values()), list(wanted.values()))
            watched.check()


# A C program that makes the calls which a Python module made: arrays are read from a file, or are fresh where
# C fills them, and each is a piece of memory of its own.


class Fresh:
    """NumPy, but for `empty`."""

    def __init__(self, empty: Callable[[Any, Any], Array]) -> None:
        self.empty = empty

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class Recorder:
    """What `run` of a module is given, as lines of C and as numbers."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.original = module, module.run_c
        self.lines: list[str] = []
        self.data = bytearray()
        self.named: dict[int, str] = {}  # by the address
        self.held: list[Any] = []  # so that no address comes again
        self.fresh: set[int] = set()

    def empty(self, shape: Any, dtype: Any) -> Array:
        made = np.full(shape, np.nan, dtype)
        self.held.append(made)
        self.fresh.add(made.ctypes.data)
        return made

    def array(self, array: Array) -> str:
        at = array.ctypes.data
        if at in self.named and array.size:
            return self.named[at]
        name = f"a{len(self.held)}"
        kind = "size_t" if array.dtype == np.uintp else "real"
        self.held.append(array)
        self.lines.append(f"    {kind} *{name} = malloc({array.nbytes});")
        if at not in self.fresh:
            self.lines.append(f"    if (fread({name}, 1, {array.nbytes}, data) != {array.nbytes}) return 2;")
            self.data += array.tobytes()
        if array.size:
            self.named[at] = name
        return name

    def argument(self, value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, list):
            parts = [self.array(array) for array in value]
            name = f"r{len(self.held)}"
            self.held.append(value)
            self.lines.append(f"    void *{name}[] = {{{', '.join(parts) or 'NULL'}}};")
            return f"(void *){name}"
        return self.array(value) if isinstance(value, np.ndarray) else str(int(value))

    def run(self, name: str, dtype: Any, /, *arguments: Any) -> None:
        cell = self.module.NAME
        texts = [self.argument(argument) for argument in arguments]
        sizes = ", ".join(str(a) for a in arguments if type(a) is int)
        room = "step_workspace" if name == "step" else "workspace"
        work = f"w{len(self.lines)}"
        self.lines.append(f"    real *{work} = malloc({cell}_{room}({sizes}) * sizeof(real));")
        self.lines.append(f"    {cell}_{name}({', '.join([*texts, work])});")
        self.lines.append(f"    free({work});")
        self.original(name, dtype, *arguments)

    def program(self, results: Sequence[Array]) -> str:
        """It writes the results."""
        names = [(self.named[a.ctypes.data], a.nbytes) for a in results if a.size]
        lines = [
            "#include <stdio.h>",
            "#include <stdlib.h>",
            f'#include "{self.module.NAME}_c.h"',
            f"typedef {self.module.NAME}_real real;",
            "int main(void)\n{",
            '    FILE *data = fopen("data", "rb");',
            *self.lines,
            *(f"    fwrite({name}, 1, {size}, stdout);" for name, size in names),
            "    return 0;\n}\n",
        ]
        return "\n".join(lines)


FEW = ("65536 / (width", "8 / (width"), ("fit > 256 ? fit : 256", "fit > 4 ? fit : 4")
FEW += (("fit > 64 ? fit : 64", "fit > 4 ? fit : 4"),)  # of matrices


def recorded(name: str, module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """Writes the program and its data, and gives the results that it should write.

    Only a few steps are taken at once there, so that there are several parts.
    """
    recorder = Recorder(module)
    kept: list[Array] = []
    cases = [(T, 5, 3, LENGTHS), (7, 3, 4, None), (1, 1, 33, None), (0, 2, 3, None), (2, 0, 3, None)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "np", Fresh(recorder.empty))
        patch.setattr(module, "run_c", recorder.run)
        for k, (steps, batch, hidden, lengths) in enumerate(cases):
            for given in (True, False):
                options: dict[str, Any] = {"initial": given, "lengths": lengths, "training": k % 2 == 0}
                sizes = {"input": 2, "hidden": hidden}
                point = random_point(name, module, steps=steps, batch=batch, sizes=sizes, **options)
                d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
                recorder.held.append(point)
                with np.errstate(all="ignore"):
                    y, final, tape = forward(point, True)
                    grads = module.backward(point.params, tape, d_y, module.States(*point.d_final))
                    again, last, _ = forward(point)
                    kept += [*y, *final, *grads.params, *grads[1:-1], *grads.initial, *again, *last]
                    if steps and name not in NORMED:
                        first = {key: array[0] for key, array in point.further.items()}
                        out, after = module.step(point.params, point.x[0], point.states, **first)
                        kept += [*(out if len(point.d_y) > 1 else (out,)), *after]
    text = generate(CELLS[name], "c")
    source = text[f"{name}_c.c"]
    for before, after in FEW:
        source = source.replace(before, after)
    assert "steps_at_once(T" not in source or ("8 / (width" in source and "fit > 4" in source)
    (folder / f"{name}_c.c").write_text(source, "utf-8")
    (folder / f"{name}_c.h").write_text(text[f"{name}_c.h"], "utf-8")
    (folder / "main.c").write_text(recorder.program(kept), "utf-8")
    (folder / "data").write_bytes(recorder.data)
    return kept


def built(name: str, folder: Path, *flags: str) -> Path:
    line = ["gcc", "-std=c99", "-DREAL=double", *flags, "main.c", f"{name}_c.c", "-o", "main", "-lm"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=MINUTES)
    assert done.returncode == 0, done.stderr
    return folder / "main"


def assert_written(output: bytes, wanted: Sequence[Array]) -> None:
    found = np.frombuffer(output)
    assert found.size == sum(a.size for a in wanted)
    for array in wanted:
        part, found = found[: array.size].reshape(array.shape), found[array.size :]
        assert_agree({"": part}, {"": array}, DOUBLE, "the program")


@needs_gcc
@chosen(["gru", "opened_from_the_start", "sligru", "opened_matrices"])
def test_sanitizers_find_nothing_in_programs_of_exact_memory(
    name: str, c_module_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses, undefined behaviour, and several parts of steps."""
    wanted = recorded(name, c_module_of(name), tmp_path, monkeypatch)
    program = built(name, tmp_path, "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    settings = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], cwd=tmp_path, env=settings, capture_output=True, timeout=MINUTES)
    assert done.returncode == 0, done.stderr.decode()[:3000]
    assert_written(done.stdout, wanted)


@needs_gcc
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None and "CI" not in os.environ, reason="needs valgrind")
@pytest.mark.parametrize("name", """
    gru ln_lstm sligru lstm_peephole several opened_from_the_start trained_by_an_expression
    normed_after_the_first rows_of_two_sizes projected two_memories started_matrices opened_matrices
""".split())  # fmt: skip
def test_valgrind_finds_nothing(
    name: str, c_module_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number decides or is written that was never set."""
    wanted = recorded(name, c_module_of(name), tmp_path, monkeypatch)
    program = built(name, tmp_path, "-O1", "-g")
    line = ["valgrind", "-q", "--error-exitcode=9", program]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, timeout=MINUTES)
    assert done.returncode == 0, done.stderr.decode()[:3000]
    assert_written(done.stdout, wanted)


@needs_gcc
@chosen(["gru", "projected", "chained"])
def test_a_step_on_packed_parameters_is_the_same_up_to_rounding(name: str, c_module_of: Any) -> None:
    """Python does not pack them; those who call C can."""
    module = c_module_of(name)
    if name in NORMED:
        pytest.skip("steps of batch norms are runs of one step")
    sizes_of = tuple(module.ARGUMENTS["workspace"]).count("s") - 2
    library = module.library("float64")
    calls: list[tuple[Any, ...]] = []
    point = random_point(name, module, batch=7)
    original = module.run_c
    try:
        module.run_c = lambda name, dtype, /, *arguments: calls.append(arguments)
        module.step(point.params, point.x[0], point.states, **{k: a[0] for k, a in point.further.items()})
    finally:
        module.run_c = original
    (arguments,) = calls
    assert sum(type(a) is int for a in arguments) == sizes_of + 1
    letters = [ctypes.c_size_t(size) for size in arguments[1 : sizes_of + 1]]
    kept = [[a.copy() for a in part] if isinstance(part, list) else part for part in arguments]
    original("step", np.dtype(float), *arguments)
    count = getattr(library, f"{name}_packed")
    count.restype = ctypes.c_size_t
    room = Watched()
    packed = room.empty((count(*letters),), np.float64)
    getattr(library, f"{name}_pack")(
        *letters, module.passed(arguments[sizes_of + 1]), ctypes.c_void_p(packed.ctypes.data)
    )
    at = max(k for k, part in enumerate(kept) if part is None)
    kept[at] = packed
    outputs = [np.full_like(a, np.nan) for a in arguments[at + 2 :]]
    original("step", np.dtype(float), *kept[: at + 2], *outputs)
    room.check()
    for one, other in zip([*kept[at + 1], *outputs], [*arguments[at + 1], *arguments[at + 2 :]], strict=True):
        assert_close(one, other, DOUBLE)


# ---------------------------------------------------------------------------------------------- compilers

LANGUAGES = {
    "gcc": ["gcc", "-std=c99"],
    "g++": ["g++", "-x", "c++"],
    "clang": ["clang", "-std=c99"],
    "clang++": ["clang++", "-x", "c++"],
}


@pytest.mark.parametrize(
    ("compiler", "real", "names"),
    [
        *((compiler, real, SEVERAL) for compiler in LANGUAGES for real in ("float", "double")),
        *(
            pytest.param(compiler, real, list(names), marks=pytest.mark.slow)
            for compiler, real, names in (
                ("gcc", "float", CELLS),
                ("g++", "double", ORDINARY),  # which takes three times as long as clang++
                ("clang", "double", CELLS),
                ("clang++", "float", CELLS),
            )
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else f"{len(part)} cells",
)
def test_compilers_warn_of_nothing(compiler: str, real: str, names: list[str], common: Path) -> None:
    """In C99 and in C++."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    for name in names:
        put(common, generate(CELLS[name], "c"))
    sources = [f"{name}_c.c" for name in names]
    line = [*LANGUAGES[compiler], *STRICT, f"-DREAL={real}", *sources]
    done = subprocess.run(line, cwd=common, capture_output=True, text=True, timeout=MINUTES)
    errors = [line for line in done.stderr.splitlines() if "error" in line or "warning" in line]
    assert done.returncode == 0 and not errors, "\n".join(errors)


x, h, W, U, b = inputs("x"), states("h"), matrices("W"), matrices("U"), vectors("b")

# What the functions call their own, and macros of the headers.
OWN = """
    begin given states d_states params part_of_params first_x first_d_x first_y first_h_0 kept_d_h_0 h_0_now
    x_copy x_now room most seen work packed forward_1 backward_1 first_forward_1 first_backward_1
    start_forward_1
""".split()
MACROS = "NAN INFINITY HUGE_VAL SIZE_MAX INT8_MAX M_PI M_E FP_NAN EOF REAL NULL linux I PANEL DEPTH".split()


def cell_named(name: str) -> Cell:
    """One that has all functions that a file of C can have."""
    start = states("h", initial=vectors("v_0"))
    return Cell(
        name,
        Eq(start.next, tanh(W @ x + U @ start + b) + sqrt(1 + start * start)),
        first=[Eq(start.next, sigmoid(W @ x))],
    )


def states_named(words: Sequence[str]) -> Cell:
    every = [states(word, initial=tanh(b)) for word in words]
    first = [Eq(s.next, sigmoid(W @ x)) for s in every]
    return Cell("of_states", *(Eq(s.next, tanh(W @ x + U @ s) + s / 2) for s in every), first=first)


def two_states(names: Sequence[str]) -> Cell:
    """Two states that start where they are trained to, of which one is called as a gradient of the other."""
    one, two = (states(name, initial=b) for name in names)
    return Cell("two_states", Eq(one.next, tanh(W @ x)), Eq(two.next, one.next * two))


def vectors_named(words: Sequence[str]) -> Cell:
    start = states("h_0", initial=tanh(b))
    value = sum(tanh(vectors(word) * start) for word in words)
    return Cell("of_vectors", Eq(start.next, value + W @ x), first=[Eq(start.next, value * (W @ x))])


def matrices_named(words: Sequence[str]) -> Cell:
    start = states("h_0", initial=tanh(b))
    value = sum(tanh(matrices(word) @ start + U @ x) for word in words)
    return Cell("of_matrices", Eq(start.next, value), first=[Eq(start.next, value * (W @ x))])


def syntax_errors(folder: Path, cells: Sequence[Cell], compiler: str) -> list[str]:
    for cell in cells:
        put(folder, generate(cell, "c"))
    sources = [f"{cell.name}_c.c" for cell in cells]
    line = [*LANGUAGES[compiler], "-fsyntax-only", "-Wno-unused", *sources]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=MINUTES)
    assert done.returncode == 0 or done.stderr
    return [line for line in done.stderr.splitlines() if "error" in line]


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
def test_a_cell_may_be_called_as_what_c_has(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    cells = [cell_named(name) for name in "first start first_step start_states sqrt tanh d put".split()]
    assert not (errors := syntax_errors(tmp_path, cells, compiler)), "\n".join(errors)


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
@pytest.mark.parametrize("words", [OWN, MACROS], ids=["own", "macros"])
@pytest.mark.parametrize("kind", [states_named, vectors_named, matrices_named])
def test_values_may_be_called_as_what_c_has(
    kind: Callable[[Sequence[str]], Cell], words: Sequence[str], compiler: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    assert not (errors := syntax_errors(tmp_path, [kind(words)], compiler)), "\n".join(errors)


@needs_gcc
@pytest.mark.parametrize("names", ["h d_h".split(), "d_h h".split(), "h h_next".split(), "x_now h".split()])
def test_two_states_of_which_one_is_called_as_something_of_the_other(
    names: Sequence[str], tmp_path: Path
) -> None:
    assert not (errors := syntax_errors(tmp_path, [two_states(names)], "gcc")), "\n".join(errors)


# ---------------------------------------------------------------------------------------------- the library


def run_python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=MINUTES,
    )


def called(module: ModuleType, seed: int = 0, batch: int = 3, dtype: str = "float32") -> list[Array]:
    """One run there and back."""
    params = module.init(2, 5, seed=seed, dtype=dtype)
    x = np.random.default_rng(seed).standard_normal((6, batch, 2)).astype(dtype)
    y, final, tape = module.forward(params, x)
    grads = module.backward(params, tape, np.ones_like(y))
    return [y, *final, *grads.params, grads.x]


def libraries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.so"))


def test_importing_compiles_nothing(gru: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("something was run"))
    module = imported(gru)
    module.unpack(module.init(2, 3, seed=0))
    assert not libraries(gru.parent)


def test_a_library_is_compiled_once_for_each_precision(gru: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        for dtype in ("float32", "float64"):
            called(imported(gru), dtype=dtype)
        assert len(libraries(gru.parent)) == 2
        monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("compiled again"))
    assert {path.name for path in gru.parent.iterdir()} == {"__pycache__", "gru_c.c", "gru_c.h", "gru_c.py"}
    assert set((gru.parent / "__pycache__").iterdir()) == set(libraries(gru.parent))


def test_another_text_is_compiled_anew(gru: Path) -> None:
    before = called(imported(gru))
    source = gru.with_suffix(".c")
    text = source.read_text("utf-8")
    source.write_text(text.replace("void gru_forward(", "int other_one;\nvoid gru_forward("), "utf-8")
    assert_same_bits(called(imported(gru)), before)
    assert len(libraries(gru.parent)) == 2


def test_nothing_is_left_in_the_folder_for_temporary_files(
    gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    monkeypatch.setenv("TMPDIR", str(room))
    called(imported(gru))
    assert libraries(gru.parent)
    assert not list(room.iterdir())


def test_eight_threads_at_once(gru: Path, c_module_of: Any) -> None:
    """Which also compile it together."""
    module = imported(gru)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda k: called(module, k % 4, 9), range(64)))
    for k, arrays in enumerate(found):
        assert_same_bits(arrays, called(c_module_of("gru"), k % 4, 9))
    assert len(libraries(gru.parent)) == 1


def test_two_processes_compile_at_the_same_time(gru: Path) -> None:
    program = f"""
import sys, numpy as np
sys.path.insert(0, {str(gru.parent)!r})
sys.dont_write_bytecode = True
import gru_c as c
y, _, _ = c.forward(c.init(2, 5, seed=0), np.ones((6, 3, 2), "float32"))
print(y.tobytes().hex())
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=MINUTES) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert len({out for out, _ in said}) == 1
    assert len(libraries(gru.parent)) == 1
    assert list((gru.parent / "__pycache__").iterdir()) == libraries(gru.parent)


def closed(folder: Path) -> None:
    """A folder that cannot be made, as where one may not write; who is root may write everywhere."""
    folder.write_text("a file stands here")


def test_where_the_folder_is_read_only_the_library_goes_to_the_cache(
    gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed(gru.parent / "__pycache__")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    called(imported(gru))
    assert not libraries(gru.parent)
    assert len(libraries(tmp_path / "cache" / "gategen")) == 1
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("compiled again"))
    called(imported(gru))


def test_without_a_folder_of_its_own_it_works_all_the_same(
    gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed(gru.parent / "__pycache__")
    closed(tmp_path / "cache")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    called(imported(gru))
    assert len(libraries(tmp_path)) == 1


def test_a_home_is_not_needed(gru: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, for a user that has no entry."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    called(imported(gru))
    assert libraries(gru.parent)


def test_a_path_with_blanks_and_letters_beyond_ascii(tmp_path: Path) -> None:
    called(imported(alone(tmp_path / "with a blank" / "größer 'n' \"so\" $HOME -l")))
    assert len(libraries(tmp_path)) == 1


def test_without_a_compiler_the_error_names_the_numpy_module(
    gru: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    module = imported(gru)
    params = module.init(2, 3, seed=0)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"gru_c needs a C compiler.*gru_numpy"):
            module.forward(params, np.ones((3, 2, 2), "float32"))
    monkeypatch.undo()
    monkeypatch.setenv("CFLAGS", QUICK)
    module.forward(params, np.ones((3, 2, 2), "float32"))  # once there is one


def script(folder: Path, text: str, name: str = "compiler") -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_what_a_compiler_says_that_fails_is_told(
    gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path, "#!/bin/sh\necho no such machine >&2\nexit 3\n")
    monkeypatch.setenv("CC", broken)
    with pytest.raises(RuntimeError, match=r"(?s)compiler.*gru_numpy.*no such machine"):
        called(imported(gru))
    assert not libraries(gru.parent)
    assert not list((gru.parent / "__pycache__").iterdir())


def test_a_compiler_that_cannot_be_run_is_told(
    gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", script(tmp_path, "no program"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"gru_c.*Exec format error"):
        called(imported(gru))


@needs_gcc
def test_a_compiler_with_arguments(gru: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As build tools have it: CC="ccache gcc", CC="gcc -m64"."""
    own = script(tmp_path, f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec gcc "$@"\n')
    monkeypatch.setenv("CC", f"{own} -DCALLED_SO")
    called(imported(gru))
    assert "-DCALLED_SO" in (tmp_path / "calls").read_text()


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_clang_compiles_it(gru: Path, module_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "clang")
    module = imported(gru)
    for options in modes("gru"):
        point = random_point("gru", module_of("gru"), **options)
        assert_agree(results(replace(point, module=module)), results(point), DOUBLE, f"{options}")


def test_a_process_that_was_forked_goes_on(gru: Path) -> None:
    """Threads of OpenMP do not survive a fork, and are not waited for."""
    program = f"""
import os, signal, sys, numpy as np
sys.path.insert(0, {str(gru.parent)!r})
import gru_c as c
params, x = c.init(8, 40, seed=0), np.ones((20, 40, 8), "float32")
y, _, tape = c.forward(params, x)
d = c.backward(params, tape, y)
if os.fork() == 0:
    signal.alarm(5)
    z, _, tape = c.forward(params, x)
    e = c.backward(params, tape, z)
    os._exit(not ((y == z).all() and all((a == b).all() for a, b in zip(d.params, e.params))))
_, status = os.wait()
print(status)
"""
    done = run_python(program, OMP_NUM_THREADS="3")
    assert done.stdout == "0\n", f"{done.stdout} {done.stderr}: 14 is that of the alarm"


# ---------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["gru", "sligru", "opened_from_the_start", "two_memories"])
def test_results_are_the_same_whatever_the_number_of_threads(name: str, dtype: str, c_module_of: Any) -> None:
    module = c_module_of(name)
    library = module.library(dtype)
    if not hasattr(library, "omp_set_num_threads"):
        pytest.skip("needs a compiler with OpenMP")
    before = library.omp_get_max_threads()
    try:
        for batch in (1, 7, 16, 40):
            lengths = np.arange(batch) % 21
            options: dict[str, Any] = {"lengths": lengths, "initial": batch == 7}
            sizes = {"input": 3, "hidden": 140}
            point = random_point(name, module, steps=20, batch=batch, sizes=sizes, scale=0.1, **options)
            found = []
            for threads in (1, 2, 3, 5):
                library.omp_set_num_threads(threads)
                assert library.omp_get_max_threads() == threads
                found.append(list(results(point.astype(dtype)).values()))
            for arrays in found[1:]:
                assert_same_bits(arrays, found[0])
    finally:
        library.omp_set_num_threads(before)


def test_python_goes_on_while_c_runs(c_module_of: Any) -> None:
    module = c_module_of("gru")
    params = module.init(64, 128, seed=0)
    x = np.zeros((400, 32, 64), "float32")
    module.forward(params, x[:1])
    times: list[float] = []
    over = threading.Event()

    def note() -> None:
        while not over.wait(0.001):
            times.append(time.perf_counter())

    noting = threading.Thread(target=note)
    noting.start()
    try:
        began = time.perf_counter()
        module.forward(params, x, tape=False)
        ended = time.perf_counter()
    finally:
        over.set()
        noting.join()
    assert ended - began > 0.05, "too short to tell"
    quarter = (ended - began) / 4
    assert sum(began + quarter < t < ended - quarter for t in times) >= 3


def test_memory_is_given_back(c_module_of: Any) -> None:
    """No array is held once results are gone."""
    module = c_module_of("gru")
    params = module.init(4, 64, seed=0)
    y, final, tape = module.forward(params, np.zeros((50, 16, 4), "float32"))
    grads = module.backward(params, tape, y)
    arrays = (y, *final, tape.x, tape.h, tape.gates, grads.x, *grads.params, *params)
    watched = [weakref.ref(a) for a in arrays]
    del arrays, y, final, tape, grads, params
    assert [reference() for reference in watched] == [None] * len(watched)


# ---------------------------------------------------------------------------------------------- judges


@pytest.mark.parametrize("name", ["gru", "ln_gru", "sligru", "opened_from_the_start"])
def test_verify_judges_the_c_of_a_cell(name: str) -> None:
    (result,) = verify(CELLS[name], "c")
    assert result.ok, result
    assert 0 < result.complex_step < 1e-12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "first", [pytest.param(k, marks=pytest.mark.slow if k else ()) for k in range(0, 80, BATCH)]
)
def test_random_cells_are_right_in_c(first: int) -> None:
    """`python tests/hunt.py --c` goes on, and makes a cell that is wrong smaller."""
    found, unfit = findings([rolled(SEED, k) for k in range(first, first + BATCH)], "c")
    assert not found, "\n\n".join(f"{one.message}\n{one.drawn}" for one in found)
    assert unfit <= BATCH // 5


def test_batch_norms_count_more_rows_than_single_precision_has_integers() -> None:
    """Behind 2^24 of them, adding 1 changes nothing; to run it would take gigabytes."""
    cell = Cell("counting", Eq(h.next, batch_norm(W @ x, b)))
    text = generate(cell, "c")["counting_c.c"]
    (counting,) = re.findall(r"(?ms)^static inline \w+ mark\(.*?^\}", text)
    assert not re.search(r"\breal count\b", counting), counting


def test_the_directions_of_a_layer_run_at_once_with_the_same_bits(monkeypatch):
    module = compile("gru", "c")
    rng = np.random.default_rng(0)
    x, d_y = (rng.standard_normal((100, 2, size), np.float32) for size in (16, 128))
    threads: list[set[int]] = []

    def run(*asked: str) -> Any:
        for value in asked:
            monkeypatch.setenv("OMP_NUM_THREADS", value)
        seen: set[int] = set()
        forward = module.forward

        def watched(*given: Any, **options: Any) -> Any:
            seen.add(threading.get_ident())
            return forward(*given, **options)

        monkeypatch.setattr(module, "forward", watched)
        net = RNN(module, 16, 64, 2, bidirectional=True, seed=1)
        y, final = net(x)
        grads = net.backward(d_y)
        monkeypatch.setattr(module, "forward", forward)
        threads.append(seen)
        return [y, *final, grads.x, *grads.params.values()]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for one, other in zip(run(), run("1"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(threads[0]) > 1 and len(threads[1]) == 1
