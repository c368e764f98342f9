"""Loops over time that CUDA takes in one launch, at shapes that fit no block, against the NumPy modules."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from reference import REFERENCES, outputs_of
from test_cupy_modules import FURTHER, device, modules, worst
from test_tally import ALL_AT_ONCE

SHAPES = ((0, 3, 5), (1, 1, 1), (1, 5, 13), (2, 0, 3), (9, 1, 3), (37, 5, 13))  # T, B, H
FOUR = ("lru", "sru", "griffin", "paralstm")  # two states, an extra use of x, a first step, two gates a state


def run(
    module: ModuleType, name: str, put: Any, shape: tuple[int, int, int], lengths: Any, **parallel: bool
) -> dict[str, np.ndarray]:
    """All that forward and backward return."""
    (steps, batch, hidden), rng, reference = shape, np.random.default_rng(0), REFERENCES[name]
    sizes = 3, hidden, FURTHER
    widths = reference.widths(*sizes)

    def normal(*of: int) -> Any:
        return put(rng.standard_normal(of))

    named = {key: 0.5 * normal(*of) for key, of in reference.shapes(*sizes).items()}
    params = module.pack(named)
    given = {s: normal(steps, batch, *widths[s]) for s in ("x", *reference.inputs)}
    d_y = [normal(steps, batch, *widths[s]) for s in reference.outputs]
    d_final = module.States(*(normal(batch, *widths[s]) for s in reference.states))
    y, final, tape = module.forward(params, given.pop("x"), lengths=lengths, **given, **parallel)
    grads = module.backward(params, tape, tuple(d_y) if len(d_y) > 1 else d_y[0], d_final, **parallel)
    found = [*outputs_of(y), *final, *grads.params, *grads[1:-1], *grads.initial]
    return {str(k): a if isinstance(a, np.ndarray) else a.get() for k, a in enumerate(found)}


def agrees(name: str, shape: tuple[int, int, int], folder: Path, ends: bool) -> None:
    plain, cuda = modules(name, folder)
    steps, batch, _ = shape
    lengths = np.linspace(0, steps, batch).astype(int)[::-1] if ends else None
    expected = run(plain, name, np.asarray, shape, lengths)
    actual = run(cuda, name, device, shape, lengths)
    filled = {key: value for key, value in expected.items() if value.size}
    error, key = worst(filled, {key: actual[key] for key in filled})
    assert error <= 1e-11, (name, shape, ends, key, error)


@pytest.mark.parametrize("name", FOUR)
def test_a_loop_agrees_with_numpy_at_any_shape(name: str, tmp_path: Path) -> None:
    for shape in SHAPES:
        for ends in (False, True):
            agrees(name, shape, tmp_path, ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*ALL_AT_ONCE.split()} - {*FOUR}))
def test_every_loop_agrees_with_numpy_at_any_shape(name: str, tmp_path: Path) -> None:
    test_a_loop_agrees_with_numpy_at_any_shape(name, tmp_path)
