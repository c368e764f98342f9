"""All steps of a recurrent cell in one launch, by blocks that wait for each other, against NumPy."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_cupy_modules import CELLS, LENGTHS, ORDERS, Setting, device, modules, worst
from test_tally import done
from test_time_loops import run

from gategen import emulator
from gategen.plan import persists, plan

PERSISTENT = [
    name
    for name, cell in CELLS.items()
    if all(map(persists, (plan(cell).step.forward, plan(cell).step.backward)))
]
# Two products a step, one, sums, states of two sizes, inputs as states, weights in columns, three products.
SOME = ("gru", "lstm", "ln_lstm", "lstm_sak", "qrnn", "gru_concat", "rhn")
SHAPES = ((0, 3, 5), (1, 1, 1), (3, 11, 13), (2, 0, 3))  # T, B, H


def shared(name: str, folder: Path, blocks: int, room: bool = True) -> tuple[ModuleType, ModuleType]:
    """The modules of a cell: in that of CUDA so many blocks share the units, with room for weights or not."""
    plain, cuda = modules(name, folder)
    cuda.BLOCKS, cuda.THREADS = blocks, 32
    if not room:
        cuda.alive = lambda *_: 0
    return plain, cuda


def test_all_recurrent_cells_without_matrices_in_every_row_and_blocks_of_weights_are_here():
    others = {name for name, cell in CELLS.items() if plan(cell).kind == "recurrent"} - {*PERSISTENT}
    assert others == {
        *(
            "conv_gru",
            "conv_lstm",
            "dcgru",
            "deltanet",
            "gated_deltanet",
            "fast_weights",
            "gla",
            "hgrn2",
            "mamba",
            "mamba2",
        ),
        *("matrix_lstm", "ntm", "retnet", "rwkv6", "rwkv7", "slstm_heads"),
    }


@pytest.mark.parametrize("name", PERSISTENT)
def test_blocks_that_share_the_units_agree_with_numpy(name: str, tmp_path: Path) -> None:
    setting = Setting(name, "float64")
    for k, (order, seed) in enumerate(ORDERS):
        plain, cuda = shared(name, tmp_path, k + 1)
        for given, lengths in ((True, None), (False, LENGTHS)):
            expected = setting.run(plain, np.asarray, given, lengths)
            with emulator.thread_order(order, seed):
                actual = setting.run(cuda, device, given, lengths)
            error, key = worst(expected, actual)
            assert error <= 1e-11, (name, order, given, lengths, key, error)


@pytest.mark.parametrize("name", SOME)
def test_any_shape_is_shared_out(name: str, tmp_path: Path) -> None:
    """More blocks than units, rows that fill no group, shared memory with room for weights and without."""
    for shape in SHAPES:
        for blocks in (1, 2, 3):
            plain, cuda = shared(name, tmp_path, blocks, room=blocks != 2)
            steps, batch, _ = shape
            for lengths in (None, np.linspace(0, steps, batch).astype(int)[::-1]):
                expected, actual = (
                    run(module, name, put, shape, lengths)
                    for module, put in ((plain, np.asarray), (cuda, device))
                )
                filled = {key: value for key, value in expected.items() if value.size}
                error, key = worst(filled, {key: actual[key] for key in filled})
                assert error <= 1e-11, (name, shape, blocks, lengths, key, error)


@pytest.mark.parametrize("name", [*SOME[:3], *(pytest.param(n, marks=pytest.mark.slow) for n in SOME[3:])])
def test_blocks_that_wait_for_each_other_have_no_race(name: str, tmp_path: Path) -> None:
    """In a run of two groups, each of three blocks."""
    _, cuda = shared(name, tmp_path, 3)
    with emulator.race_detector():
        run(cuda, name, device, (2, 9, 7), np.arange(9) % 3)


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", PERSISTENT)
def test_a_run_is_one_launch_however_many_steps_it_has(name: str, lengths: bool, tmp_path: Path) -> None:
    _, cuda = modules(name, tmp_path)
    cuda.THREADS = 32
    few, more = (done(cuda, name, steps, lengths, each=False) for steps in (2, 5))
    assert few == more


def blocks_of(cuda: ModuleType, batch: int, units: int, dtype: str = "float32") -> int:
    """How many blocks of the kernel of gru."""
    return int(cuda.sharing(batch, units, "gru_forward_3", np.dtype(dtype), ((6, units),)))


def test_blocks_are_as_many_as_the_device_holds_and_none_where_there_is_much_to_multiply(
    tmp_path: Path,
) -> None:
    _, cuda = modules("gru", tmp_path)
    shapes = ((1, 16), (1, 17), (16, 256), (64, 256), (8, 2048), (1, 2**14), (2048, 8))
    assert [blocks_of(cuda, *shape) for shape in shapes] == [1, 2, 16, 16, 128, 132, 1]
    assert [blocks_of(cuda, *shape) for shape in ((0, 16), (65, 256), (2200, 7), (1, 2**14 + 1))] == [0] * 4
    cuda.BLOCKS = 0
    assert blocks_of(cuda, 1, 16) == 0
    cuda.BLOCKS = 3
    assert blocks_of(cuda, 512, 512) == 3


def test_blocks_that_shared_memory_does_not_hold_are_none(tmp_path: Path) -> None:
    """On a device of three processors: what 683 units of a block keep of 8 rows is too much in float64."""
    _, cuda = modules("gru", tmp_path)
    with emulator.residency(3):
        assert [blocks_of(cuda, 8, 1024, dtype) for dtype in ("float32", "float64")] == [3, 3]
        assert [blocks_of(cuda, 8, 2048, dtype) for dtype in ("float32", "float64")] == [3, 0]


@pytest.mark.parametrize(("alive", "blocks"), [(1, 0), (2, 1), (5, 2), (20, 2)])
def test_on_a_small_device_blocks_do_not_wait_for_others_that_it_does_not_hold(
    alive: int, blocks: int, tmp_path: Path
) -> None:
    """There are two groups, and each step is launched where it does not hold a block of both."""
    plain, cuda = modules("gru", tmp_path)
    cuda.THREADS, shape = 32, (3, 9, 20)
    expected = run(plain, "gru", np.asarray, shape, None)
    with emulator.residency(alive), emulator.tally() as done_there:
        assert blocks_of(cuda, 9, 20) == blocks
        actual = run(cuda, "gru", device, shape, None)
    assert worst(expected, actual)[0] <= 1e-11
    assert done_there["kernel gru_forward_3"] == (1 if blocks else 0)


def test_weights_are_kept_only_where_all_blocks_still_are_on_the_device(tmp_path: Path) -> None:
    """257 groups, two for each processor: 113 KiB of weights leave no room for the other one."""
    _, cuda = modules("gru", tmp_path)
    given: list[tuple[int, int]] = []
    cuda.cooperative = lambda name, dtype, device: (
        lambda grid, block, arguments, shared_mem: given.append((arguments[2], shared_mem))
    )
    cuda.alive = lambda name, dtype, shared, device: 132 * (233472 // (shared + 1024))
    for batch in (8, 2056):
        for units in (16, 96):
            weights = ((2, units, units), (1, units, units))
            cuda.one_launch("", np.dtype("f4"), 1, batch, 0, ((6, units),), weights)
    assert [kept for kept, _ in given] == [1, 1, 1, 0]
    assert given[1][1] - given[3][1] == 3 * 96 * 96 * 4
