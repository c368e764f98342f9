"""Gradients of generated modules, checked from outside with nothing but their public names.

Every gradient is compared with the complex step (the forward pass at `p + 1e-30i`, exact to rounding:
Squire & Trapp 1998, doi:10.1137/S003614459631241X) and, along random directions, with central differences,
all in float64. The modules are generated into a temporary folder and imported from there. Only the NumPy
module runs on complex numbers; that of CuPy is compared with it. Where there is no GPU, the emulator runs
the CuPy module on the CPU.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gategen import language as lang
from gategen.build import Progress, all_backends, generate
from gategen.callables import make_callable
from gategen.cell import Cell
from gategen.errors import GategenError
from gategen.language import Size

T, B = 5, 4
SIZES = {"input": 3, "hidden": 7}  # and all further ones different from these, from T and from B
FURTHER = (2, 8, 9, 10, 11, 12, 13)
LENGTHS = (1, T, 0, 1)

COMPLEX_TOLERANCE = 1e-10
FINITE_TOLERANCE = 1e-7
TINY = 1e-30  # the complex step
STEP = 2e-4  # of central differences, halved twice
TRIES = 8  # other numbers, where a kink lies within a step

CPU, EMULATION = "CPU", "CPU emulation"

Array = npt.NDArray[Any]
Key = tuple[str, str]  # ("params", "W_z"), ("inputs", "x"), ("initial", "h")


class MissingError(GategenError):
    """A package or a program is needed that is not installed."""

    exit_code = 3


@dataclass(frozen=True)
class Result:
    """What was found of one cell on one backend. Errors are relative to the largest entry of the gradient."""

    cell: str
    backend: str
    where: str  # "CPU", the name of the GPU, or "CPU emulation"
    complex_step: float  # the worst error against it
    gradient: str  # the one with that error
    finite_difference: float | None  # the worst error against them; None where the cell has stop_gradient
    ok: bool
    seconds: float
    note: str = ""  # what else is wrong


def verify(
    cells: Cell | Iterable[Cell],
    backends: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Check every gradient of every cell on every backend (by default: on all that can run here)."""
    given = (cells,) if isinstance(cells, Cell) else tuple(cells)
    names = runnable()[0] if backends is None else tuple(dict.fromkeys(backends))
    hosts = {name: _host(name) for name in names}
    results = []
    jobs = list(product(given, names))
    for k, (cell, name) in enumerate(jobs):
        if progress:
            progress(f"{cell.name} ({name})", k, len(jobs))
        results.append(_verified(cell, name, hosts[name], seed))
    if progress:
        progress("", len(jobs), len(jobs))
    return tuple(results)


# ------------------------------------------------------------------------------------------ where it runs


@dataclass(frozen=True)
class Host:
    """Where the modules of a backend run: how one is imported, and how arrays get there and back."""

    where: str
    load: Callable[[Path], ModuleType]
    put: Callable[[Any], Any] = np.asarray
    get: Callable[[Any], Array] = np.asarray


def runnable() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The backends that can run here, and for each of the others a line that says why not."""
    names, reasons = [], []
    for name in all_backends():
        try:
            _host(name)
            names.append(name)
        except MissingError as error:
            reasons.append(f"{name} is left out: {error}")
    return tuple(names), tuple(reasons)


def gpu() -> str:
    """The name of the GPU that CuPy would use; empty without one."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() < 1:
            return ""
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"]
    except Exception:  # no driver, no CuPy, or one that does not load: each has errors of its own
        return ""
    return name.decode() if isinstance(name, bytes) else str(name)


def _host(backend: str) -> Host:
    if backend != "cupy":
        return Host(CPU, imported)
    name = gpu()
    if name:
        import cupy

        return Host(name, imported, cupy.asarray, cupy.asnumpy)
    from gategen import emulator

    if emulator.compiler() is None:
        raise MissingError(
            "no GPU with CuPy and no C++ compiler to emulate one: install g++ or clang++, or set CXX"
        )
    with emulator.installed() as xp:
        return Host(EMULATION, emulator.load, xp.asarray, xp.asnumpy)


def imported(path: Path) -> ModuleType:
    """A generated module, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"_gategen_verified_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


# ------------------------------------------------------------------------------------------ a problem


class _ModuleError(Exception):
    """A generated module raised something, or cannot be judged."""


@contextmanager
def _blamed() -> Iterator[None]:
    """Within, whatever is raised is the module's fault: it was called as documented."""
    try:
        yield
    except _ModuleError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise _ModuleError(f"the module raised {type(error).__name__}: {reason}") from error


@dataclass(frozen=True)
class Setting:
    """Which of the optional arguments of `forward` are given."""

    initial: bool
    lengths: tuple[int, ...] | None
    training: bool | None  # None: the cell has no batch normalisation

    def __str__(self) -> str:
        words = [
            "" if self.initial else "initial=None",
            "" if self.lengths is None else f"lengths={self.lengths}",
            "" if self.training is None else f"training={self.training}",
        ]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Problem:
    """A point at which to differentiate, and the gradients of a loss with respect to what comes out."""

    setting: Setting
    point: Mapping[Key, Array]
    d_y: tuple[Array, ...]
    d_final: Mapping[str, Array]
    buffers: Mapping[str, Array]


def settings(cell: Cell) -> Iterator[Setting]:
    """With lengths and without; from no initial state where that differs; both modes of batch norm."""
    own_start = bool(cell.first) or any(not state.initial.is_number for state in cell.states)
    modes = (True, False) if _has(cell, lang.batch_norm) else (None,)
    for initial, lengths, training in product(
        (True, False) if own_start else (True,), (None, LENGTHS), modes
    ):
        yield Setting(initial, lengths, training)


def _has(cell: Cell, function: Any) -> bool:
    return any(eq.rhs.has(function) for eq in cell.all_equations)


def _sizes(cell: Cell) -> dict[str, int]:
    further = [size for size in cell.sizes if size not in SIZES]
    return SIZES | dict(zip(further, FURTHER, strict=False))


def _problem(
    cell: Cell, module: ModuleType, setting: Setting, rng: np.random.Generator, positive: bool
) -> Problem:
    """Random numbers for everything; initial states in (0.2, 0.8) where `positive`."""
    sizes = _sizes(cell)

    def length(size: Size) -> int:
        return sizes[size] if isinstance(size, str) else size

    def state(size: Size) -> Array:
        drawn = rng.standard_normal((B, length(size)))
        return 0.2 + 0.6 / (1 + np.exp(-drawn)) if positive else drawn

    point: dict[Key, Array] = {}
    for name, shape in _shapes(module, sizes).items():
        point["params", name] = np.array(0.5 * rng.standard_normal(shape))
    for k, x in enumerate(cell.inputs):
        steps = (T,) if k == 0 or setting.lengths else ()  # further inputs may be constant in time
        point["inputs", x.name] = rng.standard_normal((*steps, B, length(x.size)))
    if setting.initial:
        point |= {("initial", s.name): state(s.size) for s in cell.states}
    outputs = (length(_output_size(cell, symbol)) for symbol in cell.outputs)
    d_y = tuple(rng.standard_normal((T, B, size)) for size in outputs)
    d_final = {s.name: rng.standard_normal((B, length(s.size))) for s in cell.states}
    for array in (*point.values(), *d_y, *d_final.values()):
        array.flags.writeable = False  # a module that writes into what it is given raises
    return Problem(
        setting,
        point,
        d_y,
        d_final,
        _buffers(module, sizes, rng) if setting.training is not None else {},
    )


def _shapes(module: ModuleType, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Of the parameters, by name."""
    with _blamed():
        params = module.init(**init_arguments(module, sizes), seed=0, dtype="float64")
        return {name: array.shape for name, array in module.unpack(params).items()}


def init_arguments(module: ModuleType, sizes: Mapping[str, int]) -> dict[str, int]:
    """All sizes, under the names that `init` has for them."""
    own = [name for name in signature(module.init).parameters if name not in ("seed", "dtype", "hidden_size")]
    further = dict(zip(own, (size for name, size in sizes.items() if name != "hidden"), strict=True))
    return {"hidden_size": sizes.get("hidden", SIZES["hidden"]), **further}


def buffer_arguments(module: ModuleType, sizes: Mapping[str, int]) -> dict[str, int]:
    """Those of them that `init_buffers` takes: the sizes of what is normalised."""
    wanted = signature(module.init_buffers).parameters
    return {name: size for name, size in init_arguments(module, sizes).items() if name in wanted}


def _buffers(module: ModuleType, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, Array]:
    """Running statistics somewhere between those of the start and twice as much."""
    with _blamed():
        start = module.init_buffers(**buffer_arguments(module, sizes), dtype="float64")
    return {
        name: np.asarray(array) + rng.uniform(0.1, 0.9, array.shape)
        for name, array in start._asdict().items()
    }


def _output_size(cell: Cell, symbol: Any) -> Size:
    return symbol.state.size if isinstance(symbol, lang.Next) else cell.gate_sizes[symbol.name]


# ------------------------------------------------------------------------------------------ running a module


class Outcome(NamedTuple):
    """What `forward` gives: outputs, final states by name, the tape."""

    y: tuple[Array, ...]
    final: Mapping[str, Array]
    tape: Any


@dataclass(frozen=True)
class Runner:
    """A generated module, called with the spec's own names and arrays of the host."""

    cell: Cell
    module: ModuleType
    host: Host

    @_blamed()
    def forward(self, problem: Problem, point: Mapping[Key, Array], tape: bool = False) -> Outcome:
        put, get = self.host.put, self.host.get
        first, *others = self.cell.inputs
        spelled = self.module.Grads._fields[2:-1]  # as the module calls the further inputs
        options: dict[str, Any] = {
            key: put(point["inputs", x.name]) for key, x in zip(spelled, others, strict=True)
        }
        if problem.setting.initial:
            options["initial"] = self.states(point)
        if problem.setting.lengths is not None:
            options["lengths"] = np.array(problem.setting.lengths)
        if problem.setting.training is not None:
            arrays = {name: put(array) for name, array in problem.buffers.items()}
            options |= {"buffers": self.module.Buffers(**arrays), "training": problem.setting.training}
        x = put(point["inputs", first.name])
        y, final, kept = self.module.forward(self.params(point), x, tape=tape, **options)
        outputs = y if len(self.cell.outputs) > 1 else (y,)
        return Outcome(tuple(map(get, outputs)), self.by_state(final), kept)

    def params(self, point: Mapping[Key, Array]) -> Any:
        return self.module.pack(
            {name: self.host.put(a) for (kind, name), a in point.items() if kind == "params"}
        )

    def states(self, point: Mapping[Key, Array]) -> Any:
        return self.module.States(*(self.host.put(point["initial", s.name]) for s in self.cell.states))

    def by_state(self, arrays: Any) -> dict[str, Array]:
        return {s.name: self.host.get(array) for s, array in zip(self.cell.states, arrays, strict=True)}

    @_blamed()
    def gradients(self, problem: Problem) -> dict[Key, Array]:
        """Of the loss, by what the module gives a gradient of."""
        put, get = self.host.put, self.host.get
        tape = self.forward(problem, problem.point, tape=True).tape
        d_y = tuple(map(put, problem.d_y))
        d_final = self.module.States(*(put(problem.d_final[s.name]) for s in self.cell.states))
        grads = self.module.backward(
            self.params(problem.point), tape, d_y if len(d_y) > 1 else d_y[0], d_final
        )
        found = {("params", name): get(array) for name, array in self.module.unpack(grads.params).items()}
        for x, array in zip(self.cell.inputs, grads[1:], strict=False):
            found["inputs", x.name] = get(array)
        if problem.setting.initial:
            found |= {("initial", name): array for name, array in self.by_state(grads.initial).items()}
        return found

    def loss(self, problem: Problem, point: Mapping[Key, Array]) -> Any:
        run = self.forward(problem, point)
        outputs = sum((d * y).sum() for d, y in zip(problem.d_y, run.y, strict=True))
        return outputs + sum((d * run.final[name]).sum() for name, d in problem.d_final.items())


# ------------------------------------------------------------------------------------------ derivatives


def complex_step(runner: Runner, problem: Problem, keys: Iterable[Key]) -> dict[Key, Array]:
    """The gradients, entry by entry."""
    point = {key: array.astype(complex) for key, array in problem.point.items()}
    gradients = {}
    for key in keys:
        gradient = np.empty(point[key].shape)
        for at in np.ndindex(gradient.shape):
            point[key][at] += 1j * TINY
            gradient[at] = runner.loss(problem, point).imag / TINY
            point[key][at] = problem.point[key][at]
        gradients[key] = gradient
    return gradients


class Slope(NamedTuple):
    """A derivative along a direction, and how far two estimates of it lie apart."""

    value: float
    spread: float


def central(runner: Runner, problem: Problem, key: Key, direction: Array) -> Slope:
    """Central differences with three steps, extrapolated twice."""

    def difference(step: float) -> float:
        moved = ({**problem.point, key: problem.point[key] + sign * step * direction} for sign in (1, -1))
        plus, minus = (float(runner.loss(problem, point)) for point in moved)
        return (plus - minus) / (2 * step)

    coarse, middle, fine = (difference(STEP / k) for k in (1, 2, 4))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return Slope(second, abs(second - first))


# ------------------------------------------------------------------------------------------ judging


class Judgement(NamedTuple):
    """The worst of one setting."""

    complex_step: float
    gradient: str
    finite_difference: float
    forward: float
    smooth: bool  # no kink within a step of the differences


def _verified(cell: Cell, backend: str, host: Host, seed: int) -> Result:
    """One cell on one backend; whatever a generated module raises is a wrong module."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gategen-") as folder:
        paths = {name: written(cell, name, Path(folder)) for name in dict.fromkeys(("numpy", backend))}
        result = Result(cell.name, backend, host.where, np.inf, "", None, False, 0.0)
        try:
            with _blamed():
                exact = Runner(cell, imported(paths["numpy"]), Host(CPU, imported))
                runner = exact if backend == "numpy" else Runner(cell, host.load(paths[backend]), host)
            result = _judged(result, exact, runner, seed)
        except _ModuleError as error:
            result = replace(result, note=str(error))
    return replace(result, seconds=time.perf_counter() - began)


def written(cell: Cell, backend: str, folder: Path) -> Path:
    """The module of this cell, with the files that it reads beside it."""
    files = generate(cell, backend)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder / next(name for name in files if name.endswith(".py"))


def _judged(result: Result, exact: Runner, runner: Runner, seed: int) -> Result:
    cell = exact.cell
    judgements = {
        setting: _judge(exact, runner, setting, (seed, zlib.crc32(cell.name.encode()), k))
        for k, setting in enumerate(settings(cell))
    }
    setting, worst = max(judgements.items(), key=lambda item: item[1].complex_step)
    finite = max(judgement.finite_difference for judgement in judgements.values())
    forward = max(judgement.forward for judgement in judgements.values())
    seen = not _has(cell, lang.stop_gradient)
    note = ""
    if forward > COMPLEX_TOLERANCE:
        note = f"forward differs from the NumPy module by {forward:.1e}"
    elif worst.complex_step > COMPLEX_TOLERANCE:
        note = f"wrong gradient of {worst.gradient}" + (f" with {setting}" if str(setting) else "")
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


def _judge(exact: Runner, runner: Runner, setting: Setting, seed: Sequence[int]) -> Judgement:
    """One setting, at a point that no kink is near."""
    judgement = Judgement(np.inf, "", np.inf, np.inf, False)
    for attempt in range(TRIES):
        rng = np.random.default_rng([*seed, attempt])
        problem = _finite_problem(exact, setting, rng)
        judgement = _judge_at(exact, runner, problem, rng)
        if judgement.smooth:
            break
    return judgement


def _finite_problem(exact: Runner, setting: Setting, rng: np.random.Generator) -> Problem:
    """A point where the cell is defined: some start from positive states alone."""
    problem = _problem(exact.cell, exact.module, setting, rng, positive=False)
    with np.errstate(all="ignore"):
        if not np.isfinite(exact.loss(problem, problem.point)):
            problem = _problem(exact.cell, exact.module, setting, rng, positive=True)
        if not np.isfinite(exact.loss(problem, problem.point)):
            raise _ModuleError(
                "forward is not finite at random numbers, nor from initial states in (0.2, 0.8)"
            )
    return problem


def _judge_at(exact: Runner, runner: Runner, problem: Problem, rng: np.random.Generator) -> Judgement:
    trained = {array.name for array in exact.cell.arrays if array.trainable}
    keys = [(kind, name) for kind, name in problem.point if kind != "params" or name in trained]
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


make_callable(__name__, verify)
