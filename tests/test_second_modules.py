"""Modules of second derivatives, judged by those of the first: by differences of `forward` and `backward`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import TINY, assert_close
from points import (
    CELLS,
    LENGTHS,
    Point,
    every_cell,
    forward,
    gradients,
    in_complex,
    named,
    random_point,
    with_initial,
    with_lengths,
)

from gategen import Cell
from gategen.judge.verify import imported, written

Array = Any


@pytest.fixture(scope="session")
def second_of(tmp_path_factory):
    """The NumPy module of second derivatives of a cell, generated once."""
    folder = tmp_path_factory.mktemp("second")
    return cache(lambda name: imported(written(CELLS[name], "numpy_jvp", folder)))


@pytest.fixture(scope="session")
def complex_of(tmp_path_factory):
    """The NumPy module of a cell with a `backward` that takes complex numbers."""
    folder = tmp_path_factory.mktemp("complex")
    return cache(lambda name: with_complex_backward(CELLS[name], folder))


def with_complex_backward(cell: Cell, folder: Path) -> ModuleType:
    """The NumPy module of a cell, written without what refuses complex numbers."""
    path = written(cell, "numpy", folder)
    text, refusal = path.read_text(encoding="utf-8"), "if dtype == np.complex128:"
    assert text.count(refusal) == 1
    path.write_text(text.replace(refusal, "if False:"), encoding="utf-8")
    return imported(path)


# ---------------------------------------------------------------------------------------------- directions


def direction_of(point: Point, seed: int) -> dict[str, Array]:
    """A random direction of all that a gradient is wanted of; initial states that nobody gave stand still."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(point.values[name].shape) for name in point.free}


def record(point: Point, by: Mapping[str, Array]) -> Any:
    """A direction as `jvp` takes it; what a cell says of fixed parameters stands still."""
    zeros = {a.name: np.zeros_like(point.values[a.name]) for a in point.cell.arrays}
    params = point.module.pack({**zeros, **{name: by[name] for name in zeros if name in by}})
    states = [by.get(f"initial.{s.name}") for s in point.cell.states]
    return point.module.Grads(
        params, *(by.get(s.name) for s in point.cell.inputs), point.module.States(*states)
    )


def several(point: Point, arrays: Any) -> Any:
    return tuple(arrays) if len(point.cell.outputs) > 1 else arrays[0]


def together(point: Point, y: Any, final: Any) -> tuple[Array, ...]:
    """The outputs and the final states."""
    return (*(y if len(point.cell.outputs) > 1 else (y,)), *final)


def pushed(point: Point, second: Any, by: Mapping[str, Array]) -> tuple[Any, tuple[Array, ...], Any]:
    """The tape, how outputs and final states move, and the tangent."""
    _, _, tape = forward(point, True)
    d_y, d_final, tangent = second.jvp(point.params, tape, record(point, by))
    return tape, together(point, d_y, d_final), tangent


def moved(point: Point, by: Mapping[str, Array], step: Any) -> Point:
    return replace(point, values={**point.values, **{k: point.values[k] + step * d for k, d in by.items()}})


def pulled(point: Point, second: Any, by: Mapping[str, Array], dots: Any = None) -> dict[str, Array]:
    """How the gradients move by the names of the spec; `dots` is how those of outputs and final states do."""
    tape, _, tangent = pushed(point, second, by)
    n = len(point.d_y)
    more = (None, None) if dots is None else (several(point, dots[:n]), second.States(*dots[n:]))
    ends = several(point, point.d_y), point.module.States(*point.d_final)
    return named(point, second.backward_jvp(point.params, tape, tangent, *ends, *more))


def assert_jvp_is_right(point: Point, second: Any, by: Mapping[str, Array]) -> None:
    """By the complex step of `forward`."""
    _, found, _ = pushed(point, second, by)
    y, final, _ = forward(moved(in_complex(point), by, 1j * TINY))
    for k, (one, other) in enumerate(zip(found, (*y, *final), strict=True)):
        assert_close(one, np.imag(other) / TINY, 1e-10, f"{k}")


def assert_backward_jvp_is_right(
    point: Point, complex_module: ModuleType, second: Any, by: Mapping[str, Array], tolerance: float = 1e-10
) -> None:
    """By the complex step of `backward`, where the gradients of the loss move too."""
    rng = np.random.default_rng(3)
    dots = [rng.standard_normal(d.shape) for d in (*point.d_y, *point.d_final)]
    at = moved(replace(in_complex(point), module=complex_module), by, 1j * TINY)
    ends = [d + 1j * TINY * dot for d, dot in zip((*point.d_y, *point.d_final), dots, strict=True)]
    n = len(point.d_y)
    wanted = gradients(replace(at, d_y=tuple(ends[:n]), d_final=tuple(ends[n:])))
    found = pulled(point, second, by, dots)
    scale = max(1.0, *(np.abs(array).max(initial=0) for array in found.values()))
    for key, value in wanted.items():
        assert_close(found[key] / scale, np.imag(value) / TINY / scale, tolerance, key)


@every_cell
@with_lengths
@with_initial
def test_jvp_is_the_complex_step_of_forward(module_of, second_of, name, initial, lengths):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths)
    assert_jvp_is_right(point, second_of(name), direction_of(point, 1))


@every_cell
@with_lengths
@with_initial
def test_backward_jvp_is_the_complex_step_of_backward(
    module_of, complex_of, second_of, name, initial, lengths
):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths)
    assert_backward_jvp_is_right(point, complex_of(name), second_of(name), direction_of(point, 2))


@every_cell
@with_lengths
@with_initial
def test_hessians_are_symmetric_and_the_two_derivatives_adjoint(module_of, second_of, name, initial, lengths):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths, seed=4)
    v, w = direction_of(point, 5), direction_of(point, 6)
    second = second_of(name)

    def inner(a: Mapping[str, Array], b: Mapping[str, Array]) -> tuple[float, float]:
        terms = [(a[key] * b[key]).sum() for key in point.free]
        return sum(terms), max(1e-3, sum(map(abs, terms)))

    (vHw, scale), (wHv, _) = inner(v, pulled(point, second, w)), inner(w, pulled(point, second, v))
    assert abs(vHw - wHv) <= 1e-10 * scale
    _, dots, _ = pushed(point, second, v)
    d_y, d_final = several(point, point.d_y), point.module.States(*point.d_final)
    tape = forward(point, True)[2]
    back, scale = inner(v, named(point, point.module.backward(point.params, tape, d_y, d_final)))
    terms = [(d * dot).sum() for d, dot in zip((*point.d_y, *point.d_final), dots, strict=True)]
    assert abs(sum(terms) - back) <= 1e-10 * scale


# ---------------------------------------------------------------------------------------------- the contract


def gru_run(module_of, second_of, **options: Any) -> tuple[Point, Any, Any, Any]:
    """A point of the GRU, the module of second derivatives, a tape, and a direction as a record."""
    point = random_point("gru", module_of("gru"), **options)
    return point, second_of("gru"), forward(point, True)[2], record(point, direction_of(point, 1))


def arrays_of(result: Any) -> list[Array]:
    """All arrays of nested tuples."""
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in arrays_of(part)]
    return [result]


@pytest.mark.parametrize("name", ["gru", "several", "caru", "rglru", "sligru", "decayed"])
def test_what_a_direction_leaves_out_stands_still(module_of, second_of, name):
    """None for a field, and for one array of it, is 0; a tangent is linear in its direction."""
    point = random_point(name, module_of(name), initial=False)
    second, params, tape = second_of(name), point.params, forward(point, True)[2]
    by = record(point, {s: 0 * point.values[s] + 1 for s in point.values})
    zeros = type(by)(*(None for _ in by))
    parts = [zeros._replace(**{field: getattr(by, field)}) for field in by._fields]
    alone = by.params._replace(**dict.fromkeys(by.params._fields[1:]))
    rest = by.params._replace(**{by.params._fields[0]: None})
    parts[0:1] = [zeros._replace(params=alone), zeros._replace(params=rest)]
    whole = arrays_of(second.jvp(params, tape, by)[:2])
    sums = [
        sum(some)
        for some in zip(*(arrays_of(second.jvp(params, tape, part)[:2]) for part in parts), strict=True)
    ]
    for found, wanted in zip(sums, whole, strict=True):
        assert_close(found, wanted, 1e-12)
    for nothing in arrays_of(second.jvp(params, tape, zeros)[:2]):
        assert not nothing.any()


def test_gradients_that_are_left_out_are_zero_and_stand_still(module_of, second_of):
    point, second, tape, by = gru_run(module_of, second_of, lengths=LENGTHS)
    tangent = second.jvp(point.params, tape, by)[2]
    d_y, d_final = point.d_y[0], point.module.States(*point.d_final)

    def pull(*ends: Any) -> list[Array]:
        return arrays_of(second.backward_jvp(point.params, tape, tangent, *ends))

    parts = [pull(d_y, None), pull(None, d_final), pull(None, None, d_y), pull(None, None, None, d_final)]
    for found, wanted in zip(
        map(sum, zip(*parts, strict=True)), pull(d_y, d_final, d_y, d_final), strict=True
    ):
        assert_close(found, wanted, 1e-12)
    assert not any(array.any() for array in pull(None, None))


def test_the_second_derivative_along_nothing_is_the_gradient_of_what_moves(module_of, second_of):
    """Where only the gradients of the outputs move, the result is what `backward` gives of how they do."""
    point, second, tape, by = gru_run(module_of, second_of, lengths=LENGTHS)
    tangent = second.jvp(point.params, tape, type(by)(None, None, None))[2]
    found = second.backward_jvp(point.params, tape, tangent, None, None, point.d_y[0])
    wanted = point.module.backward(point.params, tape, point.d_y[0])
    for one, other in zip(arrays_of(found), arrays_of(wanted), strict=True):
        assert_close(one, other, 1e-12)
    assert isinstance(found.params, point.module.Params)  # so that `unpack` takes it


def test_nothing_is_written_to_and_the_same_comes_again(module_of, second_of):
    point, second, tape, by = gru_run(module_of, second_of, lengths=LENGTHS)
    for array in arrays_of((point.params, tape[:-2], by, point.d_y, point.d_final)):
        array.flags.writeable = False
    first = second.jvp(point.params, tape, by)
    ends = point.d_y[0], point.module.States(*point.d_final)
    pulled = [second.backward_jvp(point.params, tape, first[2], *ends, *ends) for _ in range(2)]
    for one, other in zip(arrays_of(first), arrays_of(second.jvp(point.params, tape, by)), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*map(arrays_of, pulled), strict=True):
        np.testing.assert_array_equal(one, other)
    for array in arrays_of(first[:2]):  # theirs whose they are: the tangent is none the wiser
        array.fill(np.nan)
    again = second.backward_jvp(point.params, tape, first[2], *ends, *ends)
    for one, other in zip(arrays_of(again), arrays_of(pulled[0]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["masked", "several", "decayed", "elapsed_at_first"])
def test_inputs_that_are_constant_in_time_have_directions_of_their_own_shape(module_of, second_of, name):
    point = random_point(name, module_of(name), constant=True, initial=False)
    v, w = direction_of(point, 5), direction_of(point, 6)
    second = second_of(name)
    _, dots, _ = pushed(point, second, v)
    y, final, _ = forward(moved(in_complex(point), v, 1j * TINY))
    for one, other in zip(dots, (*y, *final), strict=True):
        assert_close(one, np.imag(other) / TINY, 1e-10)
    one, other = pulled(point, second, w), pulled(point, second, v)
    products = [sum((a[key] * b[key]).sum() for key in point.free) for a, b in ((v, one), (w, other))]
    assert abs(products[0] - products[1]) <= 1e-10 * max(1, abs(products[0]))


@every_cell
@with_initial
def test_float32_gives_float32(module_of, second_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    if name == "layered":
        return  # of layer norms of one unit, float32 keeps nothing
    by = direction_of(point, 7)
    small = point.astype("float32")
    few = {key: array.astype("float32") for key, array in by.items()}
    wanted, found = pulled(point, second_of(name), by), pulled(small, second_of(name), few)
    scale = max(1.0, *(np.abs(array).max(initial=0) for array in wanted.values()))
    for key, array in wanted.items():
        assert found[key].dtype == np.float32, key
        assert_close(found[key] / scale, array / scale, 1e-3, key)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0), (1, 1)])
@with_initial
@every_cell
def test_empty_runs_have_second_derivatives(module_of, second_of, name, initial, steps, batch):
    for lengths in (None, np.zeros(batch, int)):
        point = random_point(
            name, module_of(name), steps=steps, batch=batch, lengths=lengths, initial=initial
        )
        by = direction_of(point, 8)
        _, dots, _ = pushed(point, second_of(name), by)
        for one, other in zip(dots, (*point.d_y, *point.d_final), strict=True):
            assert one.shape == other.shape
        found = pulled(point, second_of(name), by)
        assert all(np.isfinite(array).all() for array in found.values())
        for key in point.free:
            assert found[key].shape == point.values[key].shape


# What is wrong: which argument, what becomes of it, and what is said.
WRONG = {
    "a number": ("direction", lambda d: 3, TypeError, r"direction is int"),
    "the direction of params alone": (
        "direction",
        lambda d: d.params,
        TypeError,
        r"direction is Params of .* with",
    ),
    "another shape": (
        "direction",
        lambda d: d._replace(x=d.x[1:]),
        ValueError,
        r"direction\.x has shape \(3, 5, 2\)",
    ),
    "another dtype": (
        "direction",
        lambda d: d._replace(x=d.x.astype("float32")),
        TypeError,
        r"direction\.x has dtype float32, expected float64",
    ),
    "another shape of a parameter": (
        "direction",
        lambda d: d._replace(params=d.params._replace(U_h=d.params.b)),
        ValueError,
        r"direction\.params\.U_h has shape",
    ),
    "other parameters": (
        "direction",
        lambda d: d._replace(params=d.initial),
        TypeError,
        r"direction\.params is States of .* expected a record with \('W', 'U', 'U_h', 'b'\)",
    ),
    "no tape": ("tape", lambda tape: None, TypeError, r"tape is NoneType"),
    "a part of the tape": ("tape", lambda tape: tape[:3], TypeError, r"tape is tuple"),
    "a tape of float32": (
        "tape",
        lambda tape: tape._replace(gates=tape.gates.astype("float32")),
        TypeError,
        r"tape\.gates has dtype float32, expected float64",
    ),
    "a tape of complex numbers": (
        "tape",
        lambda tape: tape._replace(x=tape.x + 0j),
        TypeError,
        r"tape\.x has dtype complex128, expected float32 or float64",
    ),
    "a tape of other stacks": (
        "tape",
        lambda tape: tape._replace(gates=tape.gates[:, 1:]),
        ValueError,
        r"tape\.gates has shape",
    ),
    "a tape without time": (
        "tape",
        lambda tape: tape._replace(x=tape.x[0]),
        ValueError,
        r"tape\.x has shape \(5, 2\)",
    ),
    "parameters without names": ("params", tuple, TypeError, r"params is tuple"),
    "parameters of float32": (
        "params",
        lambda params: params._replace(b=params.b.astype("float32")),
        TypeError,
        r"params\.b has dtype float32, expected float64",
    ),
    "parameters that do not fit": (
        "params",
        lambda params: params._replace(b=params.b[1:]),
        ValueError,
        r"params\.b has shape",
    ),
    "no tangent": (
        "tangent",
        lambda tangent: None,
        TypeError,
        r"tangent is NoneType, expected the Tangent of jvp",
    ),
    "a tangent of another run": (
        "tangent",
        lambda tangent: tangent._replace(dot_gates=tangent.dot_gates[1:]),
        ValueError,
        r"tangent\.dot_gates has shape",
    ),
    "a gradient of another shape": ("d_y", lambda d: np.zeros((1, 2)), ValueError, r"d_y has shape \(1, 2\)"),
    "its tangent of another shape": (
        "d_d_y",
        lambda d: np.zeros((1, 2)),
        ValueError,
        r"d_d_y has shape \(1, 2\)",
    ),
    "an array of final states": ("d_final", lambda d: np.zeros(3), TypeError, r"d_final is ndarray of numpy"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_argument_that_is_wrong_is_named(module_of, second_of, what):
    point, second, tape, by = gru_run(module_of, second_of)
    tangent = second.jvp(point.params, tape, by)[2]
    given = {"params": point.params, "tape": tape, "direction": by, "tangent": tangent}
    given |= {"d_y": point.d_y[0], "d_final": None, "d_d_y": None}
    key, change, error, message = WRONG[what]
    given[key] = change(given[key])
    with pytest.raises(error, match=message):
        second.jvp(given["params"], given["tape"], given["direction"])
        second.backward_jvp(*(given[key] for key in ("params", "tape", "tangent", "d_y", "d_final", "d_d_y")))


def test_the_tape_of_another_cell_is_refused(module_of, second_of):
    """Also of one with the same fields: the shapes of its stacks are others."""
    point, second, _, by = gru_run(module_of, second_of)
    other = random_point("lstm", module_of("lstm"))
    with pytest.raises(TypeError, match=r"tape is Tape of .*lstm_numpy"):
        second.jvp(point.params, forward(other, True)[2], by)


def test_every_output_of_several_has_a_gradient_of_its_own(module_of, second_of):
    point = random_point("several", module_of("several"))
    second, by = second_of("several"), direction_of(point, 1)
    tape, _, tangent = pushed(point, second, by)
    for k in range(len(point.d_y)):
        some: list[Any] = [None] * len(point.d_y)
        some[k] = point.d_y[k]
        full = [d * (j == k) for j, d in enumerate(point.d_y)]
        one, other = (second.backward_jvp(point.params, tape, tangent, d, None) for d in (some, full))
        for a, b in zip(arrays_of(one), arrays_of(other), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="d_y has 1 parts and d_d_y"):
        second.backward_jvp(point.params, tape, tangent, [None], None)
