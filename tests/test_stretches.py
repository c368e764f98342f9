"""Stretches of a loop over time side by side, in CUDA: against the loop, and against the NumPy modules."""

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from points import CELLS
from test_cupy_modules import ORDERS, device, modules, worst
from test_parallel import PARALLEL as ENTRYWISE
from test_tally import ALL_AT_ONCE
from test_time_loops import SHAPES, run

from gategen import Cell, emulator
from gategen.build import generate
from gategen.emulator.errors import EmulatorError
from gategen.judge import host
from gategen.judge.verify import verify
from gategen.plan import loops, plan

LINEAR = "gilr griffin lru mingru mingru_log minlstm rglru t_rnn".split()
NEWTON = [name for name in ALL_AT_ONCE.split() if name not in LINEAR]
PARALLEL = {"parallel": True}
LOOP_UNLESS_ASKED = "parallel: bool = False", "parallel: bool = True"
STEEP = Cell.parse("steep", "states: h\nh' = 3.9 * h * (1 - h) + 0.001 * tanh(W_h @ x)")
EXPLODING = Cell.parse("exploding", "states: h\nh' = (1 + exp(W_a @ x)) * h + W_h @ x")
SETTLED = Cell.parse("settled", "states: h, c\nh' = tanh(W_h @ x)\nc' = tanh(c + h)")


def own(cell: Cell, folder: Path) -> ModuleType:
    """The CuPy module of a cell that is not in the catalogue."""
    for file, text in generate(cell, "cupy").items():
        (folder / file).write_text(text, encoding="utf-8")
    return emulator.load(folder / f"{cell.name}_cupy.py")


def drawn(module: ModuleType, steps: int, dtype: str) -> tuple[Any, Any]:
    """Parameters of `init` and standard-normal inputs."""
    heads = {"heads": 2} if "heads" in module.SIZES else {}
    x = np.random.default_rng(0).standard_normal((steps, 2, 6))
    return module.init(6, 6, seed=1, dtype=dtype, **heads), device(x, dtype)


def on_host(*arrays: Any) -> list[np.ndarray]:
    return [array.get() for array in arrays]


def agrees(name: str, folder: Path, shape: tuple[int, int, int], stretches: int | None, ends: bool) -> None:
    """With forward and backward in so many stretches."""
    plain, cuda = modules(name, folder)
    cuda.STRETCHES = stretches
    steps, batch, _ = shape
    lengths = np.linspace(0, steps, batch).astype(int)[::-1] if ends else None
    expected = run(plain, name, np.asarray, shape, lengths)
    actual = run(cuda, name, device, shape, lengths, **PARALLEL)
    filled = {key: value for key, value in expected.items() if value.size}
    error, key = worst(filled, {key: actual[key] for key in filled})
    assert error <= 1e-10, (name, shape, stretches, ends, key, error)


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("name", ["griffin", "paralstm"])  # a first step; two states
def test_stretches_give_what_the_loop_gives_at_any_shape(name: str, tmp_path: Path) -> None:
    """Of which some are empty: 37 steps in 6 stretches of 7, or in 30 of 2."""
    for shape in SHAPES:
        for stretches in (2, 6, 30, None) if shape[0] > 1 else (2,):
            for ends in (False, True):
                agrees(name, tmp_path, shape, stretches, ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*ALL_AT_ONCE.split()} - {"griffin", "paralstm"}))
def test_stretches_of_every_cell_give_what_the_loop_gives(name: str, tmp_path: Path) -> None:
    test_stretches_give_what_the_loop_gives_at_any_shape(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRYWISE)
def test_gradients_of_every_cell_are_right_in_stretches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of the tests too: matrices, masks, states of several sizes; by the complex step of NumPy."""
    right = host.generate

    def files(cell: Cell, backend: str) -> dict[str, str]:
        def cut(text: str) -> str:
            return text.replace("STRETCHES = None", "STRETCHES = 3").replace(*LOOP_UNLESS_ASKED)

        return {file: cut(text) for file, text in right(cell, backend).items()}

    monkeypatch.setattr(host, "generate", files)
    (result,) = verify(CELLS[name], ["cupy"])
    assert result.ok, result


@pytest.mark.parametrize("name", NEWTON)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_a_thousand_steps_take_at_most_six_iterations(
    name: str, dtype: str, tolerance: float, tmp_path: Path
) -> None:
    """Standard-normal inputs, the parameters of `init`; the states of the loop, and its gradients."""
    _, module = modules(name, tmp_path)
    params, x = drawn(module, 1024, dtype)
    module.STRETCHES = 1
    y, _, tape = module.forward(params, x)
    grads = module.backward(params, tape, y)
    module.STRETCHES = None
    found_y, _, found = module.forward(params, x, parallel=True)
    assert tape.iterations == 0 and 1 <= found.iterations <= 6
    found_grads = module.backward(params, found, y, parallel=True)
    states = [getattr(t, field) for t in (found, tape) for field in tape._fields[1 : 1 + len(module.STATES)]]
    half = len(states) // 2
    pairs = [(found_y, y), *zip(states[:half], states[half:], strict=True)]
    pairs += [(found_grads.x, grads.x), *zip(found_grads.params, grads.params, strict=True)]
    for a, b in pairs:
        a, b = on_host(a, b)
        assert np.abs(a - b).max() <= 10 * tolerance * max(np.abs(b).max(), 1e-3)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["sru", "lru"])
def test_stretches_do_not_wait_for_each_other_and_repeat_bit_by_bit(
    name: str, order: tuple[str, int], tmp_path: Path
) -> None:
    _, module = modules(name, tmp_path)
    module.STRETCHES = 5
    shape = 37, 3, 13
    wanted = run(module, name, device, shape, None, **PARALLEL)
    with emulator.thread_order(*order), emulator.residency(1):
        found = run(module, name, device, shape, None, **PARALLEL)
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, key)


@pytest.mark.parametrize("name", ["paralstm", "griffin"])
@pytest.mark.parametrize("ends", [False, True], ids=["whole", "lengths"])
def test_stretches_race_with_nothing(name: str, ends: bool, tmp_path: Path) -> None:
    _, module = modules(name, tmp_path)
    module.STRETCHES = 4
    lengths = np.array([9, 3, 0]) if ends else None
    with emulator.race_detector():
        run(module, name, device, (9, 3, 5), lengths, **PARALLEL)


@pytest.mark.parametrize(
    ("fault", "other"),
    [
        ("if (begin == 0) ", ""),  # every stretch leaves a gradient of the initial state
        ("first + s * count", "first + s / 2 * count"),  # two threads for one stretch
        ("totals[(s * B + b)", "totals[b"),  # sums of all stretches in one row
        ("starts ? starts[own]", "starts && s == 0 ? starts[own]"),  # a state that another stretch writes
    ],
)
def test_a_fault_in_how_stretches_are_cut_is_a_race(fault: str, other: str, tmp_path: Path) -> None:
    modules("sru", tmp_path)
    kernels = tmp_path / "sru_cupy.cu"
    assert fault in kernels.read_text()
    kernels.write_text(kernels.read_text().replace(fault, other))
    module = emulator.load(tmp_path / "sru_cupy.py")
    module.STRETCHES = 4
    with emulator.race_detector(), pytest.raises(EmulatorError, match="race for"):
        run(module, "sru", device, (9, 3, 5), None, **PARALLEL)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("name", ["paralstm", "lru"])
def test_stretches_of_sixteen_bits_start_in_float32(
    name: str, dtype: str, tolerance: float, tmp_path: Path
) -> None:
    """What passes from one to the next is not rounded; beside the loop's, the last digit may differ."""
    _, module = modules(name, tmp_path)
    params, x = drawn(module, 64, dtype)
    module.STRETCHES = 1
    y, final, tape = module.forward(params, x)
    grads = module.backward(params, tape, y)
    module.STRETCHES = 7
    found_y, found_final, found = module.forward(params, x, parallel=True)
    assert found.iterations > 0
    found_grads = module.backward(params, found, y)
    pairs = [(found_y, y), (found_grads.x, grads.x), *zip(found_final, final, strict=True)]
    for a, b in (*pairs, *zip(found_grads.params, grads.params, strict=True)):
        a, b = (array.astype("f4") for array in on_host(a, b))
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-3)


# ---------------------------------------------------------------------------------------------- falling back


def test_where_newton_does_not_end_the_loop_runs(tmp_path: Path) -> None:
    module = own(STEEP, tmp_path)
    params = module.init(3, 4, seed=0, dtype="float64")
    x = device(np.random.default_rng(0).standard_normal((200, 2, 3)))
    initial = module.States(device(np.full((2, 4), 0.3)))
    y, _, _ = module.forward(params, x, initial=initial)
    found, _, tape = module.forward(params, x, initial=initial, parallel=True)
    assert tape.iterations == 0
    np.testing.assert_array_equal(*on_host(found, y))


def test_what_is_not_finite_is_the_loop_s(tmp_path: Path) -> None:
    """An input, and a product of derivatives beyond all numbers: finite is what the loop's is."""
    module = own(EXPLODING, tmp_path)
    params = module.init(3, 4, seed=0, dtype="float32")
    x = np.random.default_rng(0).standard_normal((400, 2, 3)).astype("f4")
    given = np.zeros((400, 2, 4), "f4")
    given[3] = 1  # of the first steps alone: what the others hand on is 0
    for put in (np.zeros_like(x), x):
        for at, value in ((None, 0), ((20, 1, 0), np.nan), ((399, 0, 1), np.inf)):
            steps = put.copy()
            if at is not None:
                steps[at] = value
            module.STRETCHES = 1
            y, final, tape = module.forward(params, device(steps))
            wanted = module.backward(params, tape, device(given))
            for stretches in (4, 25):
                module.STRETCHES = stretches
                found_y, found_final, tape = module.forward(params, device(steps), parallel=True)
                assert tape.iterations == 1
                found = module.backward(params, tape, device(given))
                for a, b in (
                    (found_y, y),
                    *zip(found_final, final, strict=True),
                    (found.x, wanted.x),
                    *zip(found.params, wanted.params, strict=True),
                ):
                    a, b = on_host(a, b)
                    close = np.isclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(b[np.isfinite(b)]).max(initial=0))
                    assert (close | ~np.isfinite(b)).all()
                    assert (np.isfinite(a) == np.isfinite(b)).all()


# ---------------------------------------------------------------------------------------------- launches


def counted(module: ModuleType, name: str, steps: int, **parallel: bool) -> tuple[int, int, int]:
    """Launches of the loop forward and backward, and how often the host reads."""
    params, x = drawn(module, steps, "float64")
    with emulator.tally() as there:
        y, _, tape = module.forward(params, x, **parallel)
    with emulator.tally() as back:
        module.backward(params, tape, y, **parallel)
    source = Path(module.__file__ or "").with_suffix(".cu").read_text()
    looped = {text.split("(")[0] for text in source.split("__global__ void ")[1:]}
    stepping = {
        f"kernel {kernel}"
        for kernel in looped
        if kernel.endswith(("_linearized", "_starts")) or f"{kernel}_starts" in looped
    }
    sums = [sum(n for key, n in run.items() if key in stepping) for run in (there, back)]
    return *sums, (there + back)["to the host"]


@pytest.mark.parametrize("name", ALL_AT_ONCE.split())
def test_three_launches_take_all_steps_however_many(name: str, tmp_path: Path) -> None:
    """Of a linear loop; Newton's method takes two for each iteration beside, and reads once."""
    _, module = modules(name, tmp_path)
    for steps in (70, 300):
        assert counted(module, name, steps) == (3 if name in LINEAR else 1, 3, 0)
        module.STRETCHES = 1
        assert counted(module, name, steps, **PARALLEL) == (1, 1, 0)
        module.STRETCHES = None
        there, back, read = counted(module, name, steps, **PARALLEL)
        assert back == 3 and (there, read) == ((3, 0) if name in LINEAR else (1 + 2 * read, read))


def test_how_many_stretches_run_side_by_side(tmp_path: Path) -> None:
    """As few as are worth it, as many as there are threads for."""
    _, module = modules("sru", tmp_path)
    found = {
        (steps, entries, asked): module.stretches_of(steps, entries, asked)
        for steps, entries, asked in (
            (1024, 64, False),
            (1024, 2**12, False),
            (1024, 2**13, False),
            (1024, 2**13, True),
            (63, 64, False),
            (63, 64, True),
            (3, 64, True),
            (0, 64, True),
            (1024, 0, False),
        )
    }
    assert [*found.values()] == [32, 8, 1, 32, 1, 7, 1, 1, 32]
    module.STRETCHES = 5
    assert [module.stretches_of(steps, 2**20, False) for steps in (0, 3, 9)] == [1, 3, 5]


@pytest.mark.parametrize("name", ALL_AT_ONCE.split())
def test_cells_have_it_whose_steps_are_one_launch(name: str) -> None:
    made = plan(CELLS[name])
    assert made.step.forward.linearized is None and made.step.backward.linearized is None
    step = loops(made).step
    assert step.forward.linearized is not None and step.backward.linearized is not None
    assert step.forward.linearized.linear == (name in LINEAR) and step.backward.linearized.linear
    assert {b.kind for b in step.backward.buffers} & {"row", "stretch"} <= {"stretch"}


def test_what_a_stretch_carries() -> None:
    """Two states, the derivatives of each by both; none where they are 0."""
    found = loops(plan(CELLS["paralstm"])).step.forward.linearized
    assert found is not None and [place for place, _ in found.slopes] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    found = loops(plan(CELLS["highway"])).step.forward.linearized
    assert found is not None and [place for place, _ in found.slopes] == [(0, 0), (0, 1), (1, 1)]
    assert loops(plan(CELLS["gru"])).step.forward.linearized is None


def test_a_state_that_waits_for_none_keeps_the_loop(tmp_path: Path) -> None:
    module = own(SETTLED, tmp_path)
    assert "parallel" not in inspect.signature(module.forward).parameters
    assert "parallel" in inspect.signature(module.backward).parameters
    assert "iterations" not in module.Tape._fields
