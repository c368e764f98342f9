"""The CuPy modules of second derivatives, with their CUDA run on the CPU, against those of NumPy."""

from functools import cache
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from points import CELLS, LENGTHS, Point, point_of
from test_cupy_modules import device

from gategen import emulator
from gategen.judge.verify import imported, written

# One for each way there is: a stack in two parts, several states, a first step of its own, trained initial
# states, batch norms, sums over features, further inputs, several outputs, one matrix for several vectors.
CHOSEN = ("gru", "lstm", "caru", "rglru", "sligru", "indrnn", "gru_concat")
OTHERS = ("several", "elapsed_at_first", "normed_after_the_first", "opened", "layered", "decayed", "part")


@pytest.fixture(scope="module")
def modules_of(tmp_path_factory):
    """The modules of a cell: of first and second derivatives, for NumPy and for CUDA on the CPU."""
    folder = tmp_path_factory.mktemp("second_cupy")

    def load(name: str) -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
        paths = [written(CELLS[name], b, folder) for b in ("numpy", "numpy_jvp", "cupy", "cupy_jvp")]
        return (*map(imported, paths[:2]), *map(emulator.load, paths[2:]))

    return cache(load)


def results(point: Point, module: ModuleType, second: ModuleType, put: Any, seed: int = 0) -> dict[str, Any]:
    """All that both functions give, on the host, by name."""
    rng = np.random.default_rng(seed)

    def like(array: Any) -> Any:
        return put(rng.standard_normal(np.shape(array)).astype(np.asarray(array).dtype))

    cell = point.cell
    values = {name: put(value) for name, value in point.values.items()}
    moves = {name: like(value) for name, value in point.values.items()}
    ends = [like(d) for d in (*point.d_y, *point.d_final)]

    def params(of: Any) -> Any:
        return module.pack({a.name: of[a.name] for a in cell.arrays})

    def states(of: Any) -> Any:
        return module.States(*(of[f"initial.{s.name}"] for s in cell.states))

    inputs = [values[s.name] for s in cell.inputs]
    options: dict[str, Any] = dict(zip(module.Grads._fields[2:-1], inputs[1:], strict=True))
    options |= {"initial": states(values)} if point.initial else {}
    _, _, tape = module.forward(params(values), inputs[0], lengths=point.lengths, **options)
    by = module.Grads(params(moves), *(moves[s.name] for s in cell.inputs), states(moves))
    y, final, tangent = second.jvp(params(values), tape, by)
    n = len(point.d_y)

    def outputs(arrays: Any) -> Any:
        return tuple(arrays) if n > 1 else arrays[0]

    given = [put(d) for d in (*point.d_y, *point.d_final)]
    grads = second.backward_jvp(
        params(values), tape, tangent,
        outputs(given[:n]), second.States(*given[n:]), outputs(ends[:n]), second.States(*ends[n:]),
    )  # fmt: skip
    found = {f"y {k}": part for k, part in enumerate(y if n > 1 else (y,))}
    found |= {f"final {s}": part for s, part in final._asdict().items()}
    found |= {f"d {s}": part for s, part in zip(module.Grads._fields[1:-1], grads[1:-1], strict=True)}
    found |= {f"d {name}": part for name, part in module.unpack(grads.params).items()}
    found |= {f"initial {s}": part for s, part in grads.initial._asdict().items()}
    return {key: np.asarray(part.get() if hasattr(part, "get") else part) for key, part in found.items()}


def assert_alike(wanted: dict[str, Any], found: dict[str, Any], tolerance: float) -> None:
    assert wanted.keys() == found.keys()
    scale = max(1.0, *(np.abs(array).max(initial=0) for array in wanted.values()))
    for key, array in wanted.items():
        error = np.abs(array - found[key].astype(array.dtype)).max(initial=0)
        assert error <= tolerance * scale, f"{key}: off by {error / scale}"


def agree(name: str, modules: Any, dtype: str, tolerance: float) -> None:
    first, second, cuda, cuda_second = modules
    for initial, lengths in ((True, None), (False, LENGTHS)):
        point = point_of(CELLS[name], first, initial=initial, lengths=lengths).astype(dtype)
        wanted = results(point, first, second, np.asarray)
        for order, seed in (("forward", 0), ("shuffle", 3)):
            with emulator.thread_order(order, seed):
                assert_alike(wanted, results(point, cuda, cuda_second, device), tolerance)


@pytest.mark.parametrize("name", (*CHOSEN, *OTHERS))
def test_both_backends_give_the_same_second_derivatives(modules_of, name):
    agree(name, modules_of(name), "float64", 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CELLS if name not in (*CHOSEN, *OTHERS)])
def test_both_backends_give_the_same_second_derivatives_of_every_cell(modules_of, name):
    agree(name, modules_of(name), "float64", 1e-10)


@pytest.mark.parametrize("name", ("gru", "caru"))
def test_float32_is_float32_on_both(modules_of, name):
    agree(name, modules_of(name), "float32", 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ("gru", "lstm"))
def test_sixteen_bits_hold_second_derivatives_within_their_rounding(modules_of, name, dtype):
    first, second, cuda, cuda_second = modules_of(name)
    storage = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(np.float16)
    point = point_of(CELLS[name], first).astype("float32").astype(storage).astype("float32")
    wanted = results(point, first, second, np.asarray)
    found = results(point, cuda, cuda_second, lambda array: device(array, storage))
    assert all(part.dtype == storage for part in found.values())
    assert_alike(wanted, found, 2**-4 if dtype == "bfloat16" else 2**-7)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("name", ("gru", "caru", "sligru"))
def test_empty_runs_have_second_derivatives(modules_of, name, steps, batch):
    first, second, cuda, cuda_second = modules_of(name)
    for initial in (True, False):
        point = point_of(CELLS[name], first, steps=steps, batch=batch, initial=initial)
        assert_alike(
            results(point, first, second, np.asarray), results(point, cuda, cuda_second, device), 1e-11
        )
