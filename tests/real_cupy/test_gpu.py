"""`benchmarks/gpu.py` at tiny sizes on the real CuPy: what it asks of that is there, and works.

The clock of this device says that everything takes a millisecond.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gpu_process
import pytest
from gpu_process import Task, records
from gpu_scale import TINY

from real_cupy import plugin


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_process, "Scale", lambda: TINY)
    monkeypatch.setattr(plugin.CUPY.cuda, "set_allocator", lambda allocator: None)  # the plugin has its own


def run(part: str, items: Any = (), sanitized: bool = False) -> list[dict[str, Any]]:
    """The records of a part, in this process."""
    found = [
        record for record in records(Task(part, False, items, sanitized=sanitized)) if "begins" not in record
    ]
    assert not [record for record in found if "failed" in record or "missing" in record]
    return found


def test_the_device_and_the_versions_are_told() -> None:
    (facts,) = run("facts")
    assert facts["device"]["name"] == "the real CuPy on the host" and facts["device"]["arch"] == 90
    assert facts["versions"]["cupy"] == plugin.CUPY.__version__ and facts["versions"]["nvrtc"]


def test_every_ceiling_is_measured() -> None:
    found = run("ceilings")
    assert [record["what"] for record in found] == ["copy", "launch", *["product"] * 5, *["barrier"] * 3]
    assert found[0]["bytes a second"] == found[0]["bytes"] / 1e-3


def test_barriers_hold() -> None:
    assert len(run("barriers", sanitized=True)) == len(gpu_process.GROUPS)


@pytest.mark.parametrize("name", ["gru_after", "sligru", "matrix_lstm"])
def test_cells_are_right(name: str) -> None:
    dtypes = ("float64", "float32", "float16", "bfloat16")
    found = run("cells", [(name, dtype) for dtype in dtypes])
    assert [record["ok"] for record in found] == [True] * len(dtypes)


def test_shapes_are_timed() -> None:
    cases = [asdict(case) for case in TINY.cases()]
    found = run("times", cases)
    assert len(found) == len(cases)
    assert all(record["gategen"]["training"] == [1e-3] * TINY.turns for record in found)
