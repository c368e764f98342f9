"""All steps of cells with matrices in every row in one launch, by a block for each row, against NumPy."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_cupy_modules import CELLS, device, modules, worst
from test_persistent import PERSISTENT
from test_races import searched
from test_tally import ALL_AT_ONCE, done
from test_time_loops import run

from gategen import emulator
from gategen.backends.cupy import files
from gategen.judge import host
from gategen.judge.verify import verify
from gategen.plan import MatMul, plan, row_by_row
from gategen.spec.cell import Cell

ALONE = [
    name
    for name, cell in CELLS.items()
    if all(map(row_by_row, (plan(cell).step.forward, plan(cell).step.backward)))
    and name not in ALL_AT_ONCE.split()
]
SHAPES = ((0, 3, 5), (1, 1, 1), (2, 0, 3), (3, 5, 37), (9, 2, 6))  # T, B, H


def test_all_cells_whose_loop_multiplies_nothing_are_one_launch_of_some_kind() -> None:
    others = {*CELLS} - {*ALONE} - {*PERSISTENT} - {*ALL_AT_ONCE.split()}
    for name in others:
        step = plan(CELLS[name]).step
        assert any(isinstance(stage, MatMul) for stage in (*step.forward.loop, *step.backward.loop)), name
    assert {*ALONE} == {
        *("deltanet", "fast_weights", "gated_deltanet", "gla", "hgrn2", "mamba", "mamba2"),
        *("matrix_lstm", "retnet"),
    }


@pytest.mark.parametrize("name", ALONE)
def test_blocks_of_rows_agree_with_numpy_at_any_shape(name: str, tmp_path: Path) -> None:
    plain, cuda = modules(name, tmp_path)
    for shape in SHAPES:
        steps, batch, _ = shape
        for lengths in (None, np.linspace(0, steps, batch).astype(int)[::-1]):
            expected, actual = (
                run(module, name, put, shape, lengths)
                for module, put in ((plain, np.asarray), (cuda, device))
            )
            filled = {key: value for key, value in expected.items() if value.size}
            error, key = worst(filled, {key: actual[key] for key in filled})
            assert error <= 1e-11, (name, shape, lengths, key, error)


@pytest.mark.parametrize("name", ALONE)
def test_sums_are_added_as_where_each_step_is_launched(name: str, tmp_path: Path) -> None:
    """Bit by bit, but for sums of all features of a vector, which `matrix_lstm` has."""
    _, cuda = modules(name, tmp_path)
    found = []
    for blocks in (None, 0):
        cuda.BLOCKS = blocks
        found.append(run(cuda, name, device, (3, 3, 35), np.array([3, 0, 2])))
    for key, value in found[0].items():
        if name == "matrix_lstm":
            np.testing.assert_allclose(value, found[1][key], rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(value, found[1][key])


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", ALONE)
def test_a_run_is_one_launch_of_the_loop_however_many_steps_it_has(
    name: str, lengths: bool, tmp_path: Path
) -> None:
    _, cuda = modules(name, tmp_path)
    source = (tmp_path / f"{name}_cupy.cu").read_text()
    kernels = re.findall(r"__global__ void (\w+)\((.*?)\n}", source, re.S)
    stepping = {f"kernel {kernel}" for kernel, text in kernels if "for (Index t = " in text}
    assert len(stepping) == 2
    few, more = (done(cuda, name, steps, lengths, each=False) for steps in (3, 40))
    assert few == more
    for way in more:
        assert sum(n for key, n in way.items() if key in stepping) == 1


def test_what_has_no_room_is_launched_step_by_step(tmp_path: Path) -> None:
    plain, cuda = modules("gla", tmp_path)
    assert cuda.row_blocks(3, 100, np.dtype(np.float32)) == 3
    held = 30 * 1024 // 4  # beside 2 KiB of sums

    def limited(device: int) -> tuple[int, int]:
        return 1, 32 * 1024

    cuda.limits = limited
    for dtype, each in (("float32", 4), ("float16", 4), ("float64", 8)):
        assert cuda.row_blocks(3, held * 4 // each, np.dtype(dtype)) == 3
        assert cuda.row_blocks(3, held * 4 // each + 1, np.dtype(dtype)) == 0
    cuda.limits = lambda device: (1, 0)
    shape = (3, 2, 5)
    with emulator.tally() as tallied:
        actual = run(cuda, "gla", device, shape, None)
    assert tallied["kernel gla_backward_2"] == 3
    error, key = worst(run(plain, "gla", np.asarray, shape, None), actual)
    assert error <= 1e-11, (key, error)
    cuda.limits, cuda.BLOCKS = limited, 0
    assert cuda.row_blocks(3, 1, np.dtype(np.float32)) == 0


@pytest.mark.parametrize("name", ["mamba", *(pytest.param(n, marks=pytest.mark.slow) for n in ALONE)])
def test_rows_have_no_race(name: str, tmp_path: Path) -> None:
    _, cuda = modules(name, tmp_path)
    with emulator.race_detector():
        run(cuda, name, device, (2, 3, 34), np.array([2, 0, 1]))


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r"(s_S_next_q\[k\] = S_next_q;\s*}\s*}\s*)__syncthreads\(\);", r"\1"),  # before the sum is read
        (r"inside && thread % lanes == 0", "inside"),  # all threads of a sum write it
        (r"const Index b = blockIdx\.x,", "const Index b = 0,"),  # every block takes the first row
    ],
)
def test_a_fault_in_a_kernel_of_rows_is_a_race(pattern: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(host.ModuleError, match=r"EmulatorError: kernel gla_\w+, race for"):
        searched("gla", tmp_path, pattern=pattern, other=other)


# ------------------------------------------------------------------------------------------ what blocks keep


def kept(cell: Cell) -> list[str]:
    """What blocks keep in shared memory, forward and then backward."""
    return re.findall(r"real\* const (s_\w+) = ", files(plan(cell))[f"{cell.name}_cupy.cu"])


def test_a_state_takes_the_place_of_the_one_before_it() -> None:
    assert kept(CELLS["gla"]) == ["s_S", "s_S_next_q", "s_d_S", "s_d_S_next", "s_S_d_S_next"]
    assert kept(CELLS["retnet"]) == ["s_S", "s_S_next_q", "s_d_S", "s_d_S_next"]


READ_AGAIN = """
    states: S[hidden, keys], n[hidden]
    matrices: W_k[keys, input], W_u[hidden, input]
    output: y
    k = W_k @ x
    S' = S * sigmoid(k) + outer(W_u @ x, k)
    y = S' @ k
    n' = n / 2 + S @ tanh(sum_(y) * k)"""


def test_a_state_that_is_read_behind_its_next_one_has_a_place_of_its_own() -> None:
    cell = Cell.parse("again", READ_AGAIN, file="again.gate")
    names = kept(cell)
    assert "s_S" in names and "s_S_next" in names
    for result in verify(cell, ["cupy"]):
        assert result.ok, result
