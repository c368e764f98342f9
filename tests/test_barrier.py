"""SPIN finds each fault in the barrier of `barrier.pml`, whose lines are those of the kernels."""

import os
import re
import shutil
from pathlib import Path

import barrier
import pytest

KERNELS = Path(__file__).parent.parent / "templates" / "cupy" / "kernels.cu.jinja"
needs_spin = pytest.mark.skipif(shutil.which("spin") is None and "CI" not in os.environ, reason="needs spin")


@pytest.mark.slow
@needs_spin
@pytest.mark.parametrize("what", barrier.RIGHT)
def test_every_order_of_a_right_barrier_ends_and_relies_on_what_blocks_know(what: str) -> None:
    found, states = barrier.checked(*barrier.RIGHT[what])
    assert found == "" and states > 10


@pytest.mark.slow
@needs_spin
@pytest.mark.parametrize("what", barrier.FAULTS)
def test_a_fault_of_the_barrier_is_found_in_some_order(what: str) -> None:
    words, expected = barrier.FAULTS[what]
    found, _ = barrier.checked(*words)
    assert found == expected


def test_the_lines_that_the_model_is_of_stand_in_the_kernels_in_their_order() -> None:
    lines = re.findall(r"//> (.+)", barrier.MODEL.read_text(encoding="utf-8"))
    function = re.search(r"void meet\(.*?^}", KERNELS.read_text(encoding="utf-8"), re.M | re.S)
    assert function and len(lines) == 3
    places = [function[0].index(line) for line in lines]
    assert places == sorted(places)
