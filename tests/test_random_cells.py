"""Random cells in every run, and the smallest forms of those that were once wrong."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import along, directions, forward_derivative, gradients, loss, random_case
from hunt import assert_cuda_is_right, findings, judged, singular
from hypothesis import HealthCheck, assume, given, settings
from points import by_graph, point_of
from random_cells import Drawn, cells, rolled, spec
from test_second_modules import (
    assert_backward_jvp_is_right,
    assert_jvp_is_right,
    direction_of,
    with_complex_backward,
)

from gategen import emulator
from gategen.build import generate
from gategen.graph import flatten
from gategen.judge.host import imported, written
from gategen.spec.load import load

SEED, COUNT, BATCH = 0, 200, 20
ONCE_WRONG = {cell.name: cell for cell in load(Path(__file__).parent / "specs" / "drawn.py")}

needs_a_compiler = pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")


@needs_a_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "first",
    [pytest.param(k, marks=pytest.mark.slow if k >= 3 * BATCH else ()) for k in range(0, COUNT, BATCH)],
)
def test_random_cells_are_right_on_numpy_and_on_cuda(first: int) -> None:
    """`python tests/hunt.py` says what it does, and makes a cell that is wrong smaller."""
    found, unfit = findings([rolled(SEED, k) for k in range(first, first + BATCH)])
    assert not found, "\n\n".join(f"{one.message}\n{one.drawn}" for one in found)
    assert unfit <= BATCH // 5


@needs_a_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "first", [0, pytest.param(10, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)]
)
def test_random_cells_with_heads_are_right_on_numpy_and_on_cuda(first: int) -> None:
    """`python tests/hunt.py --heads` goes on."""
    found, unfit = findings([rolled(SEED, k, heads=True) for k in range(first, first + 10)])
    assert not found, "\n\n".join(f"{one.message}\n{one.drawn}" for one in found)
    assert unfit <= 2


@needs_a_compiler
@pytest.mark.parametrize("name", ONCE_WRONG)
def test_the_cuda_of_cells_that_were_once_wrong_agrees_with_numpy(name: str, tmp_path: Path) -> None:
    assert_cuda_is_right(judged(ONCE_WRONG[name], tmp_path))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nth", range(20))
def test_a_random_cell_is_the_same_as_a_file(nth: int, tmp_path: Path) -> None:
    cell = rolled(SEED, nth).cell()
    (tmp_path / "drawn.py").write_text(spec(rolled(SEED, nth)), "utf-8")
    (same,) = load(tmp_path / "drawn.py")
    (tmp_path / "module.py").write_text(next(iter(generate(cell, "numpy").values())), "utf-8")
    point = point_of(cell, imported(tmp_path / "module.py"))
    other = point_of(same, point.module)
    assert list(point.values) == list(other.values)
    for one, two in zip(by_graph(point), by_graph(other), strict=True):
        for found, wanted in zip(two, one, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@needs_a_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "nth", [pytest.param(k, marks=pytest.mark.slow if k >= 12 else ()) for k in range(36) if k != 29]
)  # the cell of that number is finite nowhere
def test_random_cells_have_second_derivatives(nth: int, tmp_path: Path) -> None:
    """Where `hunt.py` finds a point to judge them at."""
    cell = rolled(SEED, nth).cell()
    for name in ("complex", "first"):
        (tmp_path / name).mkdir()
    complex_module = with_complex_backward(cell, tmp_path / "complex")
    first, second = (imported(written(cell, b, tmp_path / "first")) for b in ("numpy", "numpy_jvp"))
    with np.errstate(all="ignore"):
        for found, _ in judged(cell, tmp_path).points:
            if singular(found):  # a logarithm of what was shifted in: its gradient goes nowhere, but it moves
                continue
            point = replace(found, module=first)
            by = direction_of(point, 1)
            assert_jvp_is_right(point, second, by)
            assert_backward_jvp_is_right(point, complex_module, second, by, 1e-9)


def test_a_number_draws_the_same_cell_in_every_process() -> None:
    """Counterexamples are told by their numbers."""
    command = "from random_cells import rolled, spec; print(*(spec(rolled(7, k)) for k in range(30, 40)))"
    printed = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", command],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    ]
    assert printed[0] == printed[1] == printed[2] != ""


drawn_by_hypothesis = settings(
    max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@drawn_by_hypothesis
@given(cells())
def test_the_adjoint_of_a_random_graph_is_the_transpose_of_its_tangent(drawn: Drawn) -> None:
    cell = drawn.cell()
    sizes = {size: 2 + k for k, size in enumerate(cell.sizes)}
    case = random_case(flatten(cell), sizes=sizes, lengths=(4, 0, 2), scale=0.3)
    by = directions(case)
    with np.errstate(all="ignore"):
        done, pulled, wanted = forward_derivative(case, by), gradients(case), along(loss, case, by)
        assume(abs(wanted) < 1e5)
    pushed = sum(
        (case.weights[f"d_{name}"] * done.outputs[f"dot_{name}"]).sum() for name, _ in case.graph.outputs
    )
    pushed += sum(
        (case.weights[f"final_d_{c.name}"] * done.final[f"dot_{c.name}"]).sum() for c in case.graph.states
    )
    terms = [pulled[name] * d for name, d in by.items()]
    share = 1e-10 * max(sum(np.abs(term).sum() for term in terms), 1)
    assert abs(sum(term.sum() for term in terms) - wanted) <= share
    assert abs(pushed - wanted) <= share
