"""The host's time for runs whose steps are all in one launch, with the real CuPy and an idle device."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from real_cupy import plugin

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import host  # noqa: E402

LAUNCHES = {
    "lru": 130,
    "rglru": 130,
}  # lru calls for 37 operations of the device, rglru for 40, the others for 20 at most
cp = plugin.CUPY
NOTHING = 'extern "C" __global__ void nothing(float* a, float* b, long long n) {}'


@pytest.fixture
def idle() -> Iterator[None]:
    """The device does nothing, and memory is kept."""
    for library in (plugin.DEVICE, plugin.BLAS):
        library.on_host_execute(0)
    allocator = cp.cuda.get_allocator()
    cp.cuda.set_allocator(cp.get_default_memory_pool().malloc)
    yield
    cp.cuda.set_allocator(allocator)
    for library in (plugin.DEVICE, plugin.BLAS):
        library.on_host_execute(1)


def ten_launches() -> Callable[[], None]:
    """A kernel that does nothing, ten times, each on a new array: what CuPy itself takes here and now."""
    kernel = cp.RawModule(code=NOTHING).get_function("nothing")
    a = cp.zeros((64, 64), "float32")

    def run() -> None:
        for _ in range(10):
            kernel((8,), (128,), (a, cp.empty((64, 64), "float32"), np.int64(3)))

    return run


@pytest.mark.parametrize("name", [*host.AT_ONCE, "gru", "gru_after", "lstm"])
@pytest.mark.usefixtures("idle")
def test_a_run_of_1024_steps_takes_the_host_no_longer_than_some_ninety_launches(name: str) -> None:
    """Forward and backward, against bare launches of CuPy in turns; several times while others disturb."""
    module: ModuleType = host.module_of(name, ROOT / "generated")
    ways, yardstick = host.runs(module, host.WHOLE, lengths=False), ten_launches()
    measured = []
    for _ in range(5):
        rounds = [(host.once(yardstick), *map(host.once, ways.values())) for _ in range(host.TURNS)]
        measured.append(statistics.median(10 * sum(runs) / launches for launches, *runs in rounds))
        if measured[-1] < LAUNCHES.get(name, 90):
            return
    raise AssertionError(f"{name}: as long as {measured} launches")
