"""Gradients of generated modules, checked from outside with nothing but their public names.

Every gradient is compared with the complex step and, along random directions, with central differences, all
in float64. Of second derivatives `jvp` is compared with the complex step of `forward`, `backward_jvp` with
central differences of `backward`. Judged is the module that lies in a folder, where there is one of this
cell, else one that is generated into a temporary folder (`found.py`). The complex step is that of a freshly
generated module of NumPy, which alone runs on complex numbers.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gategen.build import Progress, names_of, second_of
from gategen.emulator import race_detector
from gategen.judge.derivatives import Slope, central, complex_step
from gategen.judge.finite import culprit
from gategen.judge.found import FRESH, Found, find
from gategen.judge.host import (
    CPU,
    EMULATION,
    Array,
    Host,
    ModuleError,
    blamed,
    host_of,
    imported,
    runnable,
    written,
)
from gategen.judge.problem import WIDE, Key, Problem, Setting, draw, settings, uses
from gategen.judge.runner import Runner
from gategen.judge.second import Second, differences, stepped
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.load import Target, load_each

COMPLEX_TOLERANCE = 1e-10
FINITE_TOLERANCE = 1e-7
TRIES = 8  # other numbers, where a kink lies within a step


@dataclass(frozen=True)
class Result:
    """What was found of one cell on one backend. Errors are relative to the largest entry of the gradient."""

    cell: str
    backend: str
    where: str  # "CPU", the name of the GPU, or "CPU emulation"
    complex_step: float  # the worst error against it
    gradient: str  # the one with that error; of second derivatives the output or the final state
    finite_difference: float | None  # the worst error against them; None where a gradient is stopped
    ok: bool
    seconds: float
    note: str = ""  # what else is wrong
    judged: str = FRESH  # the path of the module, or that it was generated for this
    differs: str = ""  # how what lies in the folder is not what `build` writes; `ok` is False then


def verify(
    cells: Target | Iterable[Target],
    backends: str | Iterable[str] | None = None,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    race: bool = False,
    progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Check every gradient of every cell on every backend (by default: on all that can run here).

    `cells` are cells, names of built-in ones, and paths of spec files, one or several; `backends` is one name
    or several.

    With `out`, the modules that lie in this folder are judged, which executes them, and they must be what
    `build` writes; without it, or where there is none of a cell, freshly generated ones. With `race`, CUDA
    runs on the CPU whatever there is, and races between its threads are looked for too.
    """
    return tuple(verified(cells, backends, out=out, seed=seed, race=race, progress=progress))


def verified(
    cells: Target | Iterable[Target],
    backends: str | Iterable[str] | None = None,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    race: bool = False,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """What `verify` returns, each as soon as it is known."""
    given = load_each(cells)
    names = runnable(emulated=race)[0] if backends is None else names_of(backends)
    hosts = {name: host_of(name, emulated=race) for name in names}
    folder = None if out is None else Path(out)
    jobs = list(product(given, names))
    for k, (cell, name) in enumerate(jobs):
        if progress:
            progress(f"{cell.name} ({name})", k, len(jobs))
        yield _verified(cell, name, hosts[name], folder, seed, race)
    if progress:
        progress("", len(jobs), len(jobs))


# ------------------------------------------------------------------------------------------ judging


class Judgement(NamedTuple):
    """The worst of one setting."""

    complex_step: float
    gradient: str
    finite_difference: float
    forward: float
    smooth: bool  # no kink within a step of the differences


def _verified(cell: Cell, backend: str, host: Host, out: Path | None, seed: int, race: bool) -> Result:
    """One cell on one backend; whatever a generated module raises is a wrong module."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gategen-") as folder:
        fresh = written(cell, "numpy", Path(folder))
        found = Found(written(cell, backend, Path(folder)))
        if out is not None:
            found = find(found.module, out)
        where = FRESH if found.module.parent == fresh.parent else str(found.module)
        result = Result(cell.name, backend, host.where, np.inf, "", None, False, 0.0, judged=where)
        try:
            with blamed():
                exact = Runner(cell, imported(fresh), Host(CPU, imported))
                own = found.module == fresh
                runner: Runner | Second
                if beside := second_of(backend):
                    first = written(cell, beside, Path(folder))
                    runner = Second(Runner(cell, host.load(first), host), host.load(found.module))
                else:
                    runner = exact if own else Runner(cell, host.load(found.module), host)
            result = _judged(result, exact, runner, seed)
            if race and host.where == EMULATION:
                look_for_races(exact, runner, seed)
        except ModuleError as error:
            result = replace(result, ok=False, note=str(error))
    seconds = time.perf_counter() - began
    return replace(result, ok=result.ok and not found.differs, differs=found.differs, seconds=seconds)


def look_for_races(exact: Runner, runner: Runner | Second, seed: int) -> None:
    """Both functions in every setting, over several blocks; a race is a `ModuleError` of the runner."""
    rng = np.random.default_rng(seed)
    for setting in settings(exact.cell):
        problem = draw(exact.cell, exact.module, setting, rng, True, WIDE)
        with race_detector(), np.errstate(all="ignore"):
            if isinstance(runner, Second):
                runner.gradients(problem, _direction(exact, problem, rng))
            else:
                runner.gradients(problem)


def _judged(result: Result, exact: Runner, runner: Runner | Second, seed: int) -> Result:
    cell = exact.cell
    judgements = {
        setting: _judge(exact, runner, setting, (seed, zlib.crc32(cell.name.encode()), k))
        for k, setting in enumerate(settings(cell))
    }
    setting, worst = max(judgements.items(), key=lambda item: item[1].complex_step)
    finite = max(judgement.finite_difference for judgement in judgements.values())
    forward = max(judgement.forward for judgement in judgements.values())
    seen = not uses(cell, lang.stop_gradient, lang.surrogate)
    note = ""
    if forward > COMPLEX_TOLERANCE:
        note = f"forward differs from the NumPy module by {forward:.1e}"
    elif worst.complex_step > COMPLEX_TOLERANCE:
        kind = "tangent" if isinstance(runner, Second) else "gradient"
        note = f"wrong {kind} of {worst.gradient}" + (f" with {setting}" if str(setting) else "")
    elif seen and finite > FINITE_TOLERANCE:
        note = f"finite differences are off by {finite:.1e}"
    return replace(
        result,
        complex_step=worst.complex_step,
        gradient=worst.gradient,
        finite_difference=finite if seen else None,
        ok=not note,
        note=note,
    )


def _judge(exact: Runner, runner: Runner | Second, setting: Setting, seed: Sequence[int]) -> Judgement:
    """One setting, at a point that no kink is near."""
    judgement = Judgement(np.inf, "", np.inf, np.inf, False)
    for attempt in range(TRIES):
        rng = np.random.default_rng([*seed, attempt])
        problem = _finite_problem(exact, setting, rng)
        if isinstance(runner, Second):
            judgement = _judge_second(exact, runner, problem, rng)
        else:
            judgement = _judge_at(exact, runner, problem, rng)
        if judgement.smooth:
            break
    return judgement


def _finite_problem(exact: Runner, setting: Setting, rng: np.random.Generator) -> Problem:
    """A point where the cell is defined: some want positive states, or parameters as they begin."""
    cell = exact.cell
    for positive, plain in ((False, False), (True, False), (True, True)):
        problem = draw(cell, exact.module, setting, rng, positive, plain=plain)
        with np.errstate(all="ignore"):
            if np.isfinite(exact.loss(problem, problem.point)):
                return problem
    equation = culprit(cell, problem)
    unknown = [array.name for array in cell.arrays if not array.trainable and not array.contents]
    said = ["forward is not finite at random numbers, nor from initial states in (0.2, 0.8)"]
    said += [f"the first equation that is not: {equation}"] if equation else []
    said += [f"numbers were drawn for {', '.join(unknown)}: state what is in them"] if unknown else []
    raise ModuleError("; ".join(said))


def _free(cell: Cell, problem: Problem) -> list[Key]:
    """What is differentiated by."""
    trained = {array.name for array in cell.arrays if array.trainable}
    return [(kind, name) for kind, name in problem.point if kind != "params" or name in trained]


def _direction(exact: Runner, problem: Problem, rng: np.random.Generator) -> dict[Key, Array]:
    """A random direction of length 1 for all that is differentiated by."""
    drawn = {key: rng.standard_normal(problem.point[key].shape) for key in _free(exact.cell, problem)}
    length = float(np.sqrt(sum((array**2).sum() for array in drawn.values()))) or 1.0
    return {key: array / length for key, array in drawn.items()}


def _judge_second(exact: Runner, runner: Second, problem: Problem, rng: np.random.Generator) -> Judgement:
    by = _direction(exact, problem, rng)
    found, expected = runner.tangent(problem, by), stepped(exact, problem, by)
    names = [*(f"output {k}" for k in range(len(found.y))), *(f"final {name}" for name in found.final)]
    pairs = list(zip((*found.y, *found.final.values()), (*expected.y, *expected.final.values()), strict=True))
    floor = 1e-3 * max(_largest(wanted) for _, wanted in pairs)
    errors = {name: _error(*pair, floor) for name, pair in zip(names, pairs, strict=True)}
    worst = max(errors, key=lambda name: errors[name])
    gradients = runner.gradients(problem, by)
    slopes, spread = differences(runner.first, problem, by)
    scale = max(_largest(array) for array in slopes.values()) or 1.0
    keys = _free(exact.cell, problem)
    return Judgement(
        errors[worst],
        worst,
        max(_error(gradients.get(key, np.array(np.nan)), slopes[key], scale) for key in keys),
        0.0,
        max(spread[key] for key in keys) < FINITE_TOLERANCE * scale,
    )


def _judge_at(exact: Runner, runner: Runner, problem: Problem, rng: np.random.Generator) -> Judgement:
    keys = _free(exact.cell, problem)
    gradients = runner.gradients(problem)
    found = {key: gradients.get(key, np.array(np.nan)) for key in keys}
    expected = complex_step(exact, problem, keys)
    floor = 1e-3 * max(_largest(array) for array in expected.values())
    errors = {key: _error(found[key], expected[key], floor) for key in keys}
    worst = max(errors, key=lambda key: errors[key])
    slopes = [_slope(runner, problem, key, found[key], expected[key], floor, rng) for key in keys]
    return Judgement(
        errors[worst],
        _name(worst),
        max(slope.value for slope in slopes),
        _forward_error(exact, runner, problem),
        all(slope.spread < FINITE_TOLERANCE for slope in slopes),
    )


def _error(found: Array, expected: Array, floor: float) -> float:
    """The largest difference, relative to the largest entry; infinite for other shapes and NaN."""
    if found.shape != expected.shape:
        return np.inf
    error = _largest(found - expected) / (max(_largest(expected), floor) or 1.0)
    return error if np.isfinite(error) else np.inf


def _slope(
    runner: Runner,
    problem: Problem,
    key: Key,
    found: Array,
    expected: Array,
    floor: float,
    rng: np.random.Generator,
) -> Slope:
    """Along one random direction: how far the gradient is off, and how sure the differences are."""
    direction = rng.standard_normal(expected.shape)
    direction /= np.linalg.norm(direction) or 1.0
    slope = central(runner, problem, key, direction)
    scale = max(float(np.linalg.norm(expected)), floor) or 1.0
    own = float((found * direction).sum()) if found.shape == expected.shape else np.inf
    error = abs(own - slope.value) / scale
    return Slope(error if np.isfinite(error) else np.inf, slope.spread / scale)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0))


def _forward_error(exact: Runner, runner: Runner, problem: Problem) -> float:
    if runner is exact:
        return 0.0
    a, b = (one.forward(problem, problem.point) for one in (exact, runner))
    pairs = [*zip(b.y, a.y, strict=True), *((b.final[name], a.final[name]) for name in a.final)]
    return max(_error(found, expected, 1e-3) for found, expected in pairs)


def _name(key: Key) -> str:
    kind, name = key
    return f"initial {name}" if kind == "initial" else name
