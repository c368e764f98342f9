"""Modules of second derivatives, judged by those of the first: by differences of `forward` and `backward`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import TINY, assert_close
from points import (
    CELLS,
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

    def load(name: str) -> ModuleType:
        path = written(CELLS[name], "numpy", folder)
        text = path.read_text(encoding="utf-8")
        refusal = "if dtype == np.complex128:"
        assert text.count(refusal) == 1
        path.write_text(text.replace(refusal, "if False:"), encoding="utf-8")
        return imported(path)

    return cache(load)


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


@every_cell
@with_lengths
@with_initial
def test_jvp_is_the_complex_step_of_forward(module_of, second_of, name, initial, lengths):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths)
    by = direction_of(point, 1)
    _, found, _ = pushed(point, second_of(name), by)
    y, final, _ = forward(moved(in_complex(point), by, 1j * TINY))
    for k, (one, other) in enumerate(zip(found, (*y, *final), strict=True)):
        assert_close(one, np.imag(other) / TINY, 1e-10, f"{k}")


def pulled(point: Point, second: Any, by: Mapping[str, Array], dots: Any = None) -> dict[str, Array]:
    tape, _, tangent = pushed(point, second, by)
    n = len(point.d_y)
    more = (None, None) if dots is None else (several(point, dots[:n]), point.module.States(*dots[n:]))
    d_final = point.module.States(*point.d_final)
    return named(
        point, second.backward_jvp(point.params, tape, tangent, several(point, point.d_y), d_final, *more)
    )


@every_cell
@with_lengths
@with_initial
def test_backward_jvp_is_the_complex_step_of_backward(
    module_of, complex_of, second_of, name, initial, lengths
):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths)
    by, rng = direction_of(point, 2), np.random.default_rng(3)
    dots = [rng.standard_normal(d.shape) for d in (*point.d_y, *point.d_final)]

    at = moved(replace(in_complex(point), module=complex_of(name)), by, 1j * TINY)
    ends = [d + 1j * TINY * dot for d, dot in zip((*point.d_y, *point.d_final), dots, strict=True)]
    n = len(point.d_y)
    wanted = gradients(replace(at, d_y=tuple(ends[:n]), d_final=tuple(ends[n:])))
    found = pulled(point, second_of(name), by, dots)
    scale = max(1.0, *(np.abs(array).max(initial=0) for array in found.values()))
    for key, value in wanted.items():
        assert_close(found[key] / scale, np.imag(value) / TINY / scale, 1e-10, key)


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
