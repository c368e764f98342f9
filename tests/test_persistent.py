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
        processors, most = cuda.limits(0)
        found = cuda.cooperative
        cuda.limits = lambda device: (processors, 0)
        cuda.cooperative = lambda name, dtype, room: found(name, dtype, most)
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


def test_blocks_are_as_many_as_the_device_holds_and_none_where_there_is_much_to_multiply(
    tmp_path: Path,
) -> None:
    _, cuda = modules("gru", tmp_path)
    assert [cuda.sharing(*shape) for shape in ((1, 16), (1, 17), (16, 256), (64, 256), (8, 2048))] == [
        1,
        2,
        16,
        16,
        128,
    ]
    assert [cuda.sharing(*shape) for shape in ((0, 16), (65, 256), (2048, 8), (1, 2**14 + 1))] == [0, 0, 0, 0]
    cuda.BLOCKS = 0
    assert cuda.sharing(1, 16) == 0
    cuda.BLOCKS = 3
    assert cuda.sharing(512, 512) == 3
