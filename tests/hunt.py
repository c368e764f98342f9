"""Judging random cells, and hunting for one that is judged wrong.

    python tests/hunt.py --count 10000 --seed 1

For every cell the generated NumPy module must agree with `graph.evaluate`, its gradients with the complex
step, and the generated CUDA, run on the CPU, with the NumPy module; with `--c`, the generated C instead of
the CUDA. With `--heads` the cells have a matrix for every head. A cell that does not agree is made smaller
while it is wrong and printed as a spec file. The kernels of a batch of cells are compiled as one text.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import sympy as sp
from helpers import TINY
from points import (
    Point,
    by_graph,
    forward,
    gradients,
    in_complex,
    is_normed,
    loss,
    point_of,
)
from random_cells import Drawn, rolled, spec

from gategen import emulator
from gategen.backends import c, cupy, numpy
from gategen.emulator import cupy as cp
from gategen.errors import SpecError
from gategen.judge.host import imported
from gategen.plan import Plan, plan
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.language import Eq

Array = Any
Arrays = dict[str, Array]

FORWARD, GRADIENT, CUDA = 1e-12, 1e-10, 1e-11  # how far results may be apart, in parts of the largest entry
GROSS = 1e-7  # what is further apart at one point is wrong; else it may be the rounding of a steep function
SCALES = (0.5, 0.4, 0.2, 0.05)  # of the parameters, where a cell is too steep for the one before
JUMPS = (sp.Heaviside, sp.Piecewise, sp.sign, lang.where, lang.mod)
STEEP = 1e5  # a point with numbers above is not judged at
LENGTHS = (*((3, 0, 4, 1, 4), (4, 4, 0, 2, 1), (1, 1, 0, 3, 0)) * 3, (0,) * 5)
QUICK = '#pragma GCC optimize("O0")\n'  # most kernels run a few times only
FLAGS = ("-std=c++17", "-DSTORAGE=double", "-DREAL=double")


class Wrong(Exception):
    """A cell was judged wrong. `stage` says by what; `gross` that it is no rounding."""

    def __init__(self, stage: str, message: str, gross: bool = True) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage, self.gross = stage, gross


class Unfit(Exception):
    """A point is no judge: its numbers are too large, or rounding alone decides what comes out."""


# ---------------------------------------------------------------------------------------------- comparing


def agree(stage: str, found: Arrays, wanted: Arrays, tolerance: float) -> None:
    if found.keys() != wanted.keys():
        raise Wrong(stage, f"{sorted(found)}, not {sorted(wanted)}")
    for key, right in wanted.items():
        if np.shape(found[key]) != right.shape:
            raise Wrong(stage, f"{key} has shape {np.shape(found[key])}, not {right.shape}")
    for key, error in distances(found, wanted).items():
        if not error <= tolerance:
            raise Wrong(stage, f"{key} is off by {error:.1e} of its largest entry", not error <= GROSS)


def agree_at(
    point: Point, stage: str, found: Arrays, wanted: Arrays, tolerance: float, run: Callable[[Point], Arrays]
) -> None:
    """As `agree`, but `Unfit` where a few roundings of the point change what `run` gives about as much."""
    try:
        agree(stage, found, wanted, tolerance)
    except Wrong as wrong:
        error, here = np.max([*distances(found, wanted).values()]), run(point)
        if any(max(distances(run(other), here).values()) > error / 10 for other in shaken(point)):
            raise Unfit from wrong
        raise


def distances(found: Arrays, wanted: Arrays) -> dict[str, float]:
    """How far apart, in parts of the largest entry; what is 0 in truth is rounded all the same."""
    most = {key: np.abs(right).max(initial=0) for key, right in wanted.items()}
    least = max(0.1 * max(most.values(), default=0), 1e-2)
    return {
        key: float(np.abs(np.asarray(found[key]) - right).max(initial=0) / max(most[key], least))
        for key, right in wanted.items()
    }


def numbered(y: Iterable[Array], final: Iterable[Array]) -> Arrays:
    return {f"y {k}": a for k, a in enumerate(y)} | {f"final {k}": a for k, a in enumerate(final)}


def finite(arrays: Iterable[Array]) -> bool:
    return all(np.abs(a).max(initial=0) < STEEP for a in arrays)


def assert_forward_is_right(point: Point) -> None:
    """Against the slow interpreter of the graph."""
    with np.errstate(all="ignore"):
        wanted = numbered(*by_graph(point))
        if not finite(wanted.values()):
            raise Unfit
        try:
            agree_at(point, "forward", outputs(point), wanted, FORWARD, outputs)
        except Wrong:
            exact = numbered(*by_graph(point.astype(np.longdouble)))
            own = max(distances(wanted, exact).values())
            agree("forward", outputs(point), exact, max(FORWARD, 10 * own))  # the interpreter rounds as well


def outputs(point: Point) -> Arrays:
    y, final, _ = forward(point)
    return numbered(y, final)


def assert_gradients_are_right(point: Point) -> None:
    """Along one direction of everything at once, in which each gradient has a like share."""
    found = gradients(point)
    norms = {name: float(np.linalg.norm(found[name])) for name in point.free}
    bad = [name for name in point.free if found[name].shape != np.shape(point.values[name])]
    if bad:
        raise Wrong("gradient", f"of {bad[0]} has shape {found[bad[0]].shape}")
    rng = np.random.default_rng(5)
    least = max(1e-3 * max((n for n in norms.values() if np.isfinite(n)), default=0), 1e-2)
    direction = {
        name: rng.standard_normal(found[name].shape) / max(norms[name] if norms[name] < STEEP else 1, least)
        for name in point.free
    }
    wanted = slope(point, direction)
    if not abs(wanted) < STEEP:
        raise Unfit
    terms = {name: found[name] * d for name, d in direction.items()}
    share = sum(float(np.abs(t).sum()) for t in terms.values())
    along = total(terms.values())
    error = abs(along - wanted)
    if not error <= GRADIENT * max(share, 1e-3):
        apart = branches_apart(point, direction)
        if np.isfinite(error) and (apart or unsteady(point, direction, along, error)):
            raise Unfit
        raise Wrong("gradient", f"off by {error:.1e} of {share:.1e}: {culprits(point, terms, direction)}",
                    not error <= GROSS * max(share, 1e-3))  # fmt: skip


def slope(point: Point, direction: Arrays) -> float:
    """The derivative of the loss along a direction, by complex step."""
    return float(np.imag(loss(stepped(point, direction))) / TINY)


def stepped(point: Point, direction: Arrays) -> Point:
    moved = in_complex(point)
    values = {**moved.values} | {name: moved.values[name] + 1j * TINY * d for name, d in direction.items()}
    return replace(moved, values=values)


def shaken(point: Point) -> Iterator[Point]:
    """The point with a few roundings in every number."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        noise = {name: v * (1 + 4e-16 * rng.uniform(-1, 1, v.shape)) for name, v in point.values.items()}
        yield replace(point, values=noise)


def unsteady(point: Point, direction: Arrays, along: float, error: float) -> bool:
    """Whether a few roundings change the derivative along a direction about as much."""
    for other in shaken(point):
        found = gradients(other)
        if abs(total(found[name] * d for name, d in direction.items()) - along) > error / 10:
            return True
    return False


def total(arrays: Iterable[Array]) -> float:
    return sum(float(a.sum()) for a in arrays)


def branches_apart(point: Point, direction: Arrays) -> bool:
    """Whether the complex run jumps where the real one does not: complex log1p drops what is below 1e-16."""
    jumps = any(eq.rhs.has(*JUMPS) for eq in (*point.cell.equations, *point.cell.first))
    real = float(loss(point))
    return jumps and not abs(np.real(loss(stepped(point, direction))) - real) <= 1e-9 * max(abs(real), 1)


def culprits(point: Point, terms: Arrays, direction: Arrays) -> str:
    """The gradients that are off, one by one."""
    off = {name: abs(float(terms[name].sum()) - slope(point, {name: d})) for name, d in direction.items()}
    return ", ".join(f"{name} by {e:.1e}" for name, e in off.items() if not e <= GRADIENT * 10)


def results(point: Point) -> Arrays:
    """Everything that a module returns."""
    return outputs(point) | gradients(point)


# ---------------------------------------------------------------------------------------------- one cell


@dataclass(frozen=True)
class Judged:
    """A cell whose NumPy module was found right, with what its CUDA must give."""

    cell: Cell
    cuda: Path
    points: tuple[tuple[Point, Arrays], ...]


def judged(cell: Cell, folder: Path) -> Judged:
    """The cell through both backends, and its NumPy module. Raises `Wrong`; `Unfit` where no point is fit."""
    plans = attempt("plan", lambda: [plan(cell, backend.ARRAYS) for backend in (numpy, cupy)])
    module = attempt("numpy", lambda: imported(written(numpy, plans[0], folder)))
    cuda = attempt("cupy", lambda: written(cupy, plans[1], folder))
    return Judged(cell, cuda, attempt("run", lambda: at_some_scale(cell, module)))


def written(backend: Any, planned: Plan, folder: Path) -> Path:
    """The files as `gategen build` writes them; the path of the module."""
    texts = backend.files(planned)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return folder / next(iter(texts))


def attempt(stage: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; whatever it raises is a finding."""
    try:
        return make()
    except (Wrong, Unfit):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.name}"
        words = " ".join(str(error).split())[:300]
        raise Wrong(stage, f"{type(error).__name__} in {place}: {words}") from error


def at_some_scale(cell: Cell, module: ModuleType) -> tuple[tuple[Point, Arrays], ...]:
    """The NumPy module, judged where the cell is not too steep."""
    error: Exception = Unfit()
    for seed, scale in enumerate(SCALES):
        try:
            return judged_at(cell, module, seed, scale)
        except Unfit:
            continue
        except Wrong as wrong:
            if wrong.gross:
                raise
            error = wrong
    raise error


def judged_at(cell: Cell, module: ModuleType, seed: int, scale: float) -> tuple[tuple[Point, Arrays], ...]:
    good = []
    start = bool(cell.first) or any(not s.initial.is_number for s in cell.states)
    odd = zlib.crc32(cell.name.encode())
    lengths = LENGTHS[odd % len(LENGTHS)]
    for k, (given, ends) in enumerate(((True, None), (True, lengths), (False, None), (False, lengths))):
        options = {"training": k < 3} if is_normed(cell) else {}
        point = point_of(cell, module, seed=seed, scale=scale, initial=given, lengths=ends, **options)
        try:
            assert_forward_is_right(point)
            assert_gradients_are_right(point)
            found = results(point)  # with the gradients of a start of its own
            if not all(np.isfinite(a).all() for a in found.values()):
                raise Wrong("gradient", "is not finite")
        except Wrong:
            if singular(point):
                continue
            raise
        good.append((k, point, found))
    if not good:
        raise Unfit
    kept = [(point, found) for k, point, found in good if k == 1 + odd % 2 or (start and k == 3)]
    return tuple(kept) or (good[0][1:],)


def singular(point: Point) -> bool:
    """Whether the equations themselves divide by 0 there, or take its logarithm, as from a state of 0."""
    with np.errstate(divide="raise", invalid="raise"):
        try:
            by_graph(replace(point, lengths=None))
        except FloatingPointError:
            return True
    return False


# ---------------------------------------------------------------------------------------------- CUDA of many


class Kernels:
    """The compiled kernels of several cells, as `RawModule` gives them."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        spaces = (f"inline namespace of_{name} {{\n{text}\n}}\n" for name, text in texts)
        self.module = cp.RawModule(code=QUICK + "".join(spaces), options=FLAGS)

    def get_function(self, name: str) -> Any:
        kernel = self.module.get_function(name)
        kernel.max_dynamic_shared_size_bytes = (
            0  # none is used, and the static memory of all cells is counted
        )
        return kernel


def assert_cuda_is_right(one: Judged, kernels: Kernels | None = None) -> None:
    module = emulator.load(one.cuda)
    if kernels is not None:
        module.compiled = {"float64": kernels}.__getitem__
    try:
        for point, wanted in one.points:
            agree_at(point, "cuda", results_on_device(point, module), wanted, CUDA, results)
    finally:
        del sys.modules[module.__name__]


def results_on_device(point: Point, module: ModuleType) -> Arrays:
    def put(array: Array) -> Any:
        return cp.asarray(np.ascontiguousarray(array).reshape(np.shape(array)))

    there = replace(
        point,
        module=module,
        values={name: put(a) for name, a in point.values.items()},
        d_y=tuple(map(put, point.d_y)),
        d_final=tuple(map(put, point.d_final)),
        buffers=point.buffers and {name: put(a) for name, a in point.buffers.items()},
    )
    return {key: cp.asnumpy(a) for key, a in results(there).items()}


# ---------------------------------------------------------------------------------------------- C


def assert_c_is_right(one: Judged) -> None:
    """The module that calls C, at the same points."""
    module = imported(written(c, plan(one.cell, c.ARRAYS), one.cuda.parent))
    for point, wanted in one.points:
        agree_at(point, "c", results(replace(point, module=module)), wanted, CUDA, results)


# ---------------------------------------------------------------------------------------------- a batch


@dataclass(frozen=True)
class Finding:
    """A cell that was judged wrong."""

    drawn: Drawn
    stage: str
    message: str


def findings(many: Sequence[Drawn], target: str = "cuda") -> tuple[list[Finding], int]:
    """What is wrong with these cells, and how many had no point to judge at; `target` is cuda or c."""
    found: list[Finding] = []
    good: list[Judged] = []
    unfit = 0
    with tempfile.TemporaryDirectory(prefix="gategen_hunt_") as folder:
        for drawn in many:
            try:
                good.append(judged(attempt("spec", drawn.cell), Path(folder)))
            except Unfit:
                unfit += 1
            except Wrong as wrong:
                found.append(Finding(drawn, wrong.stage, str(wrong)))
        by_name = {drawn.name: drawn for drawn in many}
        for cell, message in wrong_on_cuda(good) if target == "cuda" else wrong_in_c(good):
            if message:
                found.append(Finding(by_name[cell.name], target, message))
            else:
                unfit += 1
    return found, unfit


def wrong_on_cuda(good: Sequence[Judged]) -> Iterator[tuple[Cell, str]]:
    """The cells of which the CUDA and the NumPy module disagree, and how; nothing where rounding decides."""
    kernels: Kernels | None = Kernels(
        [(one.cell.name, one.cuda.with_suffix(".cu").read_text("utf-8")) for one in good]
    )
    try:
        kernels.module.compile()
    except emulator.EmulatorError:
        kernels = None  # one of them does not compile: each by itself
    yield from wrong_ones(good, "cuda", lambda one: assert_cuda_is_right(one, kernels))


def wrong_in_c(good: Sequence[Judged]) -> Iterator[tuple[Cell, str]]:
    """The same of C; each cell is compiled by its module, and several at a time."""
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda one: [*wrong_ones([one], "c", assert_c_is_right)], good):
            yield from found


def wrong_ones(
    good: Sequence[Judged], stage: str, judge: Callable[[Judged], None]
) -> Iterator[tuple[Cell, str]]:
    for one in good:
        try:
            attempt(stage, lambda one=one: judge(one))
        except Unfit:
            yield one.cell, ""
        except Wrong as wrong:
            yield one.cell, str(wrong)


# ---------------------------------------------------------------------------------------------- shrinking


def shrunk(finding: Finding, seconds: float = 60, target: str = "cuda") -> Finding:
    """A smaller cell that is wrong in the same stage: the first smaller one that is, again and again."""
    end = time.monotonic() + seconds
    best = finding
    while True:
        for smaller in smaller_ones(best.drawn):
            if time.monotonic() > end:
                return best
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wrong, _ = findings([smaller], target) if valid(smaller) or best.stage == "spec" else ([], 0)
            if wrong and wrong[0].stage == best.stage and kind(wrong[0]) == kind(best):
                best = wrong[0]
                break
        else:
            return best


def kind(finding: Finding) -> str:
    """What must stay while a cell shrinks: the kind of error, where it is one."""
    return finding.message.split(":")[1] if finding.stage in ("spec", "plan", "numpy", "cupy", "run") else ""


def valid(drawn: Drawn) -> bool:
    try:
        return bool(drawn.cell())
    except SpecError:
        return False


def smaller_ones(drawn: Drawn) -> Iterator[Drawn]:
    """Cells with something less, the largest parts first."""
    if drawn.first:
        yield replace(drawn, first=())
    if drawn.output:
        yield replace(drawn, output=None)
        yield from (replace(drawn, output=(one,)) for one in drawn.output if len(drawn.output) > 1)
    for k in range(len(drawn.equations)):
        yield replace(drawn, equations=drawn.equations[:k] + drawn.equations[k + 1 :])
    for k in range(len(drawn.first)):
        yield replace(drawn, first=drawn.first[:k] + drawn.first[k + 1 :])
    for state in [eq.lhs.state for eq in drawn.equations if isinstance(eq.lhs, lang.Next)]:
        if state.initial != 0:
            plain = lang.State(state.name, state.size, sp.S.Zero, state.fields[-1])
            yield swapped(drawn, {state: plain, state.next: plain.next})
    for eq in drawn.equations:
        if isinstance(eq.lhs, lang.Gate) and eq.lhs not in (drawn.output or ()):
            rest = replace(drawn, equations=tuple(other for other in drawn.equations if other is not eq))
            yield swapped(rest, {eq.lhs: eq.rhs})
    for part in ("equations", "first"):
        equations = getattr(drawn, part)
        for k, eq in enumerate(equations):
            for rhs in simpler(eq.rhs):
                yield replace(drawn, **{part: (*equations[:k], Eq(eq.lhs, rhs), *equations[k + 1 :])})


def simpler(expr: Any) -> Iterator[Any]:
    """Expressions in which a part is replaced by a part of that part."""
    seen: set[Any] = set()
    for node in sp.preorder_traversal(expr):
        if not isinstance(node, sp.Expr) or not node.args or node in seen:
            continue
        seen.add(node)
        inner = [arg for arg in node.args if isinstance(arg, sp.Expr) and not isinstance(arg, lang.Matrix)]
        for arg in inner:
            if not (isinstance(arg, lang.concat) or (arg.is_number and node is expr)):
                yield expr.xreplace({node: arg})
        if isinstance(node, (sp.Add, sp.Mul)) and len(node.args) > 2:
            yield from (
                expr.xreplace({node: node.func(*(a for a in node.args if a is not arg))}) for arg in node.args
            )


def swapped(drawn: Drawn, swap: dict[Any, Any]) -> Drawn:
    return Drawn(
        drawn.name,
        tuple(Eq(eq.lhs.xreplace(swap), eq.rhs.xreplace(swap)) for eq in drawn.equations),
        tuple(Eq(eq.lhs.xreplace(swap), eq.rhs.xreplace(swap)) for eq in drawn.first),
        drawn.output and tuple(s.xreplace(swap) for s in drawn.output),
    )


# ---------------------------------------------------------------------------------------------- the hunt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="begin", type=int, default=0, help="the number of the first cell")
    parser.add_argument("--batch", type=int, default=10, help="cells whose kernels are compiled together")
    parser.add_argument("--shrink", type=float, default=60, help="seconds for a counterexample")
    parser.add_argument("--c", action="store_true", help="judge the generated C instead of the CUDA")
    parser.add_argument(
        "--heads", action="store_true", help="cells with a matrix for every head of every row"
    )
    given = parser.parse_args()
    target = "c" if given.c else "cuda"
    warnings.simplefilter("ignore")
    began, unfit = time.monotonic(), 0
    stages: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="gategen_kernels_") as cache:
        os.environ["GATEGEN_CACHE"] = cache
        os.environ.setdefault("CFLAGS", "-O1")
        for low in range(given.begin, given.begin + given.count, given.batch):
            high = min(low + given.batch, given.begin + given.count)
            found, skipped = findings([rolled(given.seed, k, given.heads) for k in range(low, high)], target)
            unfit += skipped
            for finding in found:
                stages[finding.stage] += 1
                print(f"\n{finding.drawn.name}  {finding.message}", flush=True)
                if stages[finding.stage] <= 20:
                    small = shrunk(finding, given.shrink, target)
                    print(f"{small.message}\n\n{spec(small.drawn)}", flush=True)
            for path in Path(cache).glob("*.so"):
                path.unlink()
            seconds = time.monotonic() - began
            done = high - given.begin
            pace = f"{sum(stages.values())} wrong, {unfit} without a fit point, {seconds / done:.2f} s a cell"
            print(f"{done} of {given.count} cells, seed {given.seed}: {pace}", flush=True)
    return int(bool(stages))


if __name__ == "__main__":
    sys.exit(main())
