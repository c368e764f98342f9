"""All steps of cells with matrices in every row in one launch, by a block for each row, against NumPy."""

import re
from pathlib import Path

import numpy as np
import pytest
from points import EXTRA, LENGTHS, point_of
from test_cupy_matrices import CELLS as MATRICES
from test_cupy_matrices import on_device, on_host
from test_cupy_modules import CELLS, ORDERS, device, modules, worst
from test_persistent import PERSISTENT
from test_second_cupy import assert_alike
from test_tally import ALL_AT_ONCE, done
from test_time_loops import run

from gategen import emulator
from gategen.backends.cupy import files
from gategen.emulator import EmulatorError
from gategen.judge.host import imported, written
from gategen.judge.verify import verify
from gategen.plan import MatMul, loops, parted_by, plan, row_by_row
from gategen.spec.cell import Cell, Size

ALONE = "deltanet fast_weights gated_deltanet gla hgrn2 mamba mamba2 matrix_lstm retnet".split()
SHAPES = ((0, 3, 5), (1, 1, 1), (2, 0, 3), (3, 5, 37), (9, 2, 6))  # T, B, H


def by_rows(cell: Cell) -> bool:
    """Whether blocks of rows take the steps of a cell in some direction."""
    step = loops(plan(cell)).step
    return row_by_row(step.forward) or row_by_row(step.backward)


def test_all_cells_whose_loop_multiplies_nothing_are_one_launch_of_some_kind() -> None:
    for name in {*CELLS} - {*PERSISTENT} - {*ALL_AT_ONCE.split()}:
        step = plan(CELLS[name]).step
        loop = (*step.forward.loop, *step.backward.loop)
        assert (name in ALONE) == by_rows(CELLS[name]) != any(isinstance(s, MatMul) for s in loop), name


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
    for cuda.BLOCKS in (0, 1, 3):
        found.append(run(cuda, name, device, (3, 3, 35), np.array([3, 0, 2])))
    for key, value in found[0].items():
        for other in found[1:]:
            if name == "matrix_lstm":
                np.testing.assert_allclose(value, other[key], rtol=1e-12, atol=1e-12)
            else:
                np.testing.assert_array_equal(value, other[key])


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


def test_blocks_are_as_many_as_the_device_holds_and_none_where_there_is_no_room(tmp_path: Path) -> None:
    plain, cuda = modules("gla", tmp_path)
    float32 = np.dtype(np.float32)
    shapes = (
        (1, (64, 64, 64)),
        (16, (64, 64, 64)),
        (1, (4096, 64, 0)),
        (200, (64, 64, 64)),
        (1, (1, 4096, 0)),
    )
    assert [cuda.row_blocks(B, held, float32) for B, held in shapes] == [4, 4, 132, 1, 1]
    assert cuda.row_blocks(0, (64, 64, 0), float32) == 0

    def limited(device: int) -> tuple[int, int]:
        return 1, 32 * 1024

    cuda.limits = limited
    numbers = 30 * 1024 // 4  # that have room, beside 2 KiB of sums
    assert [cuda.row_blocks(1, (4, numbers // 4 + more, 0), float32) for more in (0, 1)] == [1, 2]
    assert [cuda.row_blocks(1, (4, 8, numbers - 8 + more), float32) for more in (0, 1)] == [4, 0]
    for dtype, each in (("float32", 4), ("float16", 4), ("float64", 8)):
        for more in (0, 1):
            held = (1, numbers * 4 // each + more, 0)
            assert cuda.row_blocks(3, held, np.dtype(dtype)) == 1 - more
    cuda.BLOCKS = 3
    assert [cuda.row_blocks(1, (axis, 8, 0), float32) for axis in (2, 3, 9)] == [2, 3, 3]
    cuda.BLOCKS = 0
    assert cuda.row_blocks(3, (1, 1, 0), float32) == 0
    cuda.limits, cuda.BLOCKS, shape = lambda device: (1, 0), None, (3, 2, 5)
    with emulator.tally() as tallied:
        actual = run(cuda, "gla", device, shape, None)
    assert tallied["kernel gla_backward_2"] == 3
    error, key = worst(run(plain, "gla", np.asarray, shape, None), actual)
    assert error <= 1e-11, (key, error)


# ------------------------------------------------------------------------------------------ parts of a row

OTHERS = MATRICES | {
    name: EXTRA[name]
    for name in """
        vanishing by_rows_at_once of_three_heads delta_rule static_matrix many_heads beside_once shared_part
        two_memories started_matrices opened_matrices told_by_inputs shared_heads
    """.split()
}
del OTHERS["averaged"]  # multiplies


def test_all_other_cells_whose_loop_multiplies_nothing_are_here() -> None:
    found = {name for cells in (MATRICES, EXTRA) for name, cell in cells.items() if by_rows(cell)}
    assert found == {*OTHERS}


def parted(cell: Cell) -> tuple[Size, Size]:
    step = plan(cell).step
    return parted_by(step.forward), parted_by(step.backward)


def test_the_axis_that_blocks_share_is_one_that_no_sum_goes_over() -> None:
    """Rows of a matrix, until gradients sum over its columns; heads both ways."""
    for name in ALONE:
        assert parted(CELLS[name]) == ("" if name == "matrix_lstm" else "hidden", "")
    for name in ("shared_heads", "many_heads"):
        assert parted(EXTRA[name]) == ("heads", "heads")
    assert parted(MATRICES["two"]) == ("", "")  # S.T @ u


@pytest.mark.parametrize("name", OTHERS)
def test_blocks_that_share_a_row_agree_with_numpy(name: str, tmp_path: Path) -> None:
    """Also where some of them have nothing."""
    cell = OTHERS[name]
    plain = imported(written(cell, "numpy", tmp_path))
    cuda = emulator.load(written(cell, "cupy", tmp_path))
    for k, (order, seed) in enumerate(ORDERS):
        cuda.BLOCKS = (1, 2, 5)[k]
        for initial, lengths in ((True, None), (False, LENGTHS)):
            point = point_of(cell, plain, initial=initial, lengths=lengths)
            with emulator.thread_order(order, seed):
                assert_alike(on_host(point), on_device(point, cuda), 1e-11)


@pytest.mark.parametrize("name", ["mamba", *(pytest.param(n, marks=pytest.mark.slow) for n in ALONE)])
def test_rows_have_no_race(name: str, tmp_path: Path) -> None:
    _, cuda = modules(name, tmp_path)
    for cuda.BLOCKS in (1, 3):
        with emulator.race_detector():
            run(cuda, name, device, (2, 3, 34), np.array([2, 0, 1]))


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r"(s_S_next_q\[k\] = S_next_q;\s*}\s*}\s*)__syncthreads\(\);", r"\1"),  # before the sum is read
        (r"inside && thread % lanes == 0", "inside"),  # all threads of a sum write it
        (r"const Index b = blockIdx\.x,", "const Index b = 0,"),  # every block takes the first row
        (r"begin = blockIdx\.y \* own", "begin = 0"),  # or the first part of it
    ],
)
def test_a_fault_in_a_kernel_of_rows_is_a_race(pattern: str, other: str, tmp_path: Path) -> None:
    """Of two blocks for every row."""
    modules("gla", tmp_path)
    kernels, count = re.subn(pattern, other, (tmp_path / "gla_cupy.cu").read_text(), count=1)
    assert count
    (tmp_path / "gla_cupy.cu").write_text(kernels)
    cuda = emulator.load(tmp_path / "gla_cupy.py")
    cuda.BLOCKS = 2
    with emulator.race_detector(), pytest.raises(EmulatorError, match=r"kernel gla_\w+, race for"):
        run(cuda, "gla", device, (2, 2, 5), None)


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
