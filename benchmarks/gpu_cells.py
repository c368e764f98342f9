"""For `gpu.py`: the CuPy module of every cell on the device against its NumPy module, forward and backward.

Both get the same numbers, rounded to the dtype at hand; NumPy computes with them in float64. The limits are
those of the tests (`tests/test_cupy_modules.py`). In 16 bits a sum may cancel, or a unit lie so near a kink
that it rounds to its other side: there a cell is right if one of eight draws is within the limit, and all
of them are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cpu import ROOT, loaded  # the neighbour file
from gpu_device import Device, storage
from model import plan_of

from gategen.judge.host import CPU, Host
from gategen.judge.problem import SIZES, Problem, draw, settings
from gategen.judge.runner import Runner
from gategen.spec.cell import Cell
from gategen.spec.load import find_builtin

LIMITS = {"float64": 1e-11, "float32": 1e-4, "float16": 2**-6, "bfloat16": 2**-2}
DRAWS = {"float64": 1, "float32": 1, "float16": 8, "bfloat16": 8}
SEED = 1
Pair = tuple[ModuleType, ModuleType]  # that of NumPy and that of CuPy
FLOOR = 1e-3  # of the largest entry that an error is relative to


def checked(on: Device, name: str, dtype: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The worst error of a cell over all settings, for each draw of numbers until one is within the limit."""
    cell = find_builtin(name)
    assert cell, f"no cell {name}"
    pair = (numpy_module(name), on.module(name))
    draws: list[tuple[float, str]] = []
    for seed in range(SEED, SEED + DRAWS[dtype]):
        draws.append(max(errors(on, cell, pair, dtype, sizes, seed)))
        if draws[-1][0] <= LIMITS[dtype]:
            break
    error, where = draws[-1]
    return {
        "class": plan_of(name).kind,
        "error": rounded_off(error),
        "limit": LIMITS[dtype],
        "worst": where,
        "draws": [rounded_off(each) for each, _ in draws],
        "ok": error <= LIMITS[dtype],
    }


def rounded_off(error: float) -> float | None:
    """Three digits; None, which JSON has, of what is no number."""
    return float(f"{error:.3g}") if np.isfinite(error) else None


def numpy_module(name: str) -> ModuleType:
    return loaded(ROOT / "generated" / f"{name}_numpy.py")


def errors(
    on: Device, cell: Cell, pair: Pair, dtype: str, sizes: Mapping[str, int], seed: int
) -> Iterator[tuple[float, str]]:
    """Of everything that comes out, in every setting."""
    plain, cuda = pair
    exact = Runner(cell, plain, Host(CPU, loaded_nowhere))
    there = Runner(cell, cuda, Host("device", loaded_nowhere, on.put, on.get))
    rng = np.random.default_rng(seed)
    for setting in settings(cell):
        problem = calm(cell, draw(cell, plain, setting, rng, True, sizes), sizes["hidden"])
        expected = outcome(exact, rounded(problem, dtype, "float64"))
        found = outcome(there, rounded(problem, dtype, dtype))
        for what, wanted in expected.items():
            yield error_of(wanted, found[what]), f"{what} ({setting})" if str(setting) else what


def loaded_nowhere(path: Path) -> ModuleType:
    raise AssertionError(f"{path}: the modules are there already")


def calm(cell: Cell, problem: Problem, hidden: int) -> Problem:
    """Matrices of many units with smaller numbers, so that what comes of them is no larger than of few."""
    matrices = {
        ("params", a.name) for a in cell.arrays if a.trainable and problem.point["params", a.name].ndim == 2
    }
    scale = (SIZES["hidden"] / hidden) ** 0.5
    point = {key: scale * array if key in matrices else array for key, array in problem.point.items()}
    return problem.at(point)


def rounded(problem: Problem, dtype: str, kept: str) -> Problem:
    """The problem in numbers that the dtype has, in arrays of the type `kept`; statistics of norms wider."""
    wide = np.dtype("float64" if kept == "float64" else "float32")

    def of(array: Any, kind: np.dtype[Any]) -> Any:
        return np.asarray(array, storage(dtype)).astype(kind)

    own = storage(kept)
    return replace(
        problem,
        point={key: of(array, own) for key, array in problem.point.items()},
        d_y=tuple(of(array, own) for array in problem.d_y),
        d_final={name: of(array, own) for name, array in problem.d_final.items()},
        buffers={name: np.asarray(array, "float32").astype(wide) for name, array in problem.buffers.items()},
    )


def outcome(runner: Runner, problem: Problem) -> dict[str, Any]:
    """What forward and backward give, by name."""
    run = runner.forward(problem, problem.point)
    found = {f"y {k}": array for k, array in enumerate(run.y)}
    found |= {f"final {name}": array for name, array in run.final.items()}
    gradients = runner.gradients(problem)
    return found | {f"d {kind} {name}": array for (kind, name), array in gradients.items()}


def error_of(wanted: Any, found: Any) -> float:
    """The largest difference over the largest entry."""
    if wanted.shape != found.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    error = np.abs(np.asarray(found, "float64") - wanted).max() / max(np.abs(wanted).max(), FLOOR)
    return float(np.nan_to_num(error, nan=np.inf))
