"""`benchmarks/gpu.py` without a GPU: it runs through, keeps nothing emulated, and survives what fails."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import gpu
import gpu_ceilings
import gpu_cells
import gpu_process
import nvrtc
import pytest
from click.testing import CliRunner
from goals import GOALS
from gpu_device import Device, Missing, device, real_cupy
from gpu_process import Ended, Task, done, said
from gpu_scale import EAGER, LAYER, OURS, TINY, Case, Scale, has_goal
from gpu_table import gpu_table

from gategen import emulator

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


FOUND = (emulator.EmulatorError, AssertionError)  # a race, or blocks that did not wait


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in RESULTS.iterdir()}


# ------------------------------------------------------------------------------------------ the whole of it


def test_the_emulated_run_goes_from_end_to_end_and_writes_nothing() -> None:
    """With PyTorch where that is installed; then its loops are compiled, which takes the most time."""
    before = files()
    ran = CliRunner().invoke(gpu.main, ["--emulate", "--cells", "gru_after,indrnn"])
    assert ran.exit_code == 0, ran.output
    assert "emulated: 10 ceilings, 8 cells, 20 results; no times are kept" in ran.output
    assert files() == before


def test_emulated_times_are_never_results(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    ran = CliRunner().invoke(gpu.main, ["--emulate", "--out", str(out)])
    assert ran.exit_code != 0 and "writes no results" in ran.output
    with pytest.raises(ValueError, match="not results"):
        gpu.save({"emulated": True}, out)
    assert not out.exists()


def test_a_run_that_is_ended_early_has_written_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(task: Task) -> Iterator[dict[str, Any]]:
        yield {"what": "copy", "seconds": [1.0], "bytes a second": 1e9}
        raise KeyboardInterrupt

    empty = {**invented(), "ceilings": [], "cells": [], "results": []}
    monkeypatch.setattr(gpu, "beginning", lambda emulate, seconds: empty)
    monkeypatch.setattr(gpu, "done", ended)
    CliRunner().invoke(gpu.main, ["--out", str(tmp_path / "gpu.json")])
    (copy,) = json.loads((tmp_path / "gpu.json").read_text())["ceilings"]
    assert copy["what"] == "copy" and [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_every_case_that_is_timed_says_how_sides_differ_and_has_all_samples() -> None:
    from gpu_times import timed

    on = device(True)
    for case in (
        Case("gru_after", "bfloat16", 3, 2, 5, (OURS, LAYER)),
        Case("mgu", "tf32", 3, 2, 4, (OURS,)),
    ):
        found = timed(on, case, TINY)  # without PyTorch ours alone
        assert set(found) == {OURS, "differences"} and set(found[OURS]) == {"forward", "training"}
        assert all(len(taken) == TINY.turns for taken in found[OURS].values())


def test_a_wrong_kernel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("gru_after_cupy.py", "gru_after_cupy.cu"):
        text = (ROOT / "generated" / file).read_text()
        (tmp_path / file).write_text(text.replace("tanh(W_h_x", "tanh(2 * W_h_x"))
    on, sizes = device(True), {"input": 3, "hidden": 7}
    assert gpu_cells.checked(on, "gru_after", "float16", sizes)["ok"]
    monkeypatch.setattr(Device, "module", lambda self, cell: self.load(tmp_path / f"{cell}_cupy.py"))
    for dtype, draws in gpu_cells.DRAWS.items():
        found = gpu_cells.checked(on, "gru_after", dtype, sizes)
        assert not found["ok"] and len(found["draws"]) == draws and found["error"] > found["limit"]


# ------------------------------------------------------------------------------------------ what is missing


def test_without_cupy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Missing, match="CuPy is not installed: pip install"):
        real_cupy()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulator.installed() as stand_in:  # whose runtime has no device
        monkeypatch.setattr(stand_in.cuda.runtime, "CUDARuntimeError", RuntimeError, raising=False)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        with pytest.raises(Missing, match="CuPy finds no GPU"):
            real_cupy()


def test_what_is_missing_ends_the_run_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    prints(monkeypatch, """print('{"missing": "no CuPy here"}')""")
    with pytest.raises(click.ClickException, match="no CuPy here"):
        list(done(Task("cells", False)))


# ------------------------------------------------------------------------------------------ processes


def prints(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Processes are this program, which is told how many items to skip."""
    monkeypatch.setattr(
        gpu_process, "command", lambda task: [sys.executable, "-c", f"skip = {task.skip}\n{program}"]
    )


def items(fault: str) -> str:
    """A program that works on three items, and does something else at the second one."""
    return (
        "import json, os, time\n"
        "for k in range(skip, 3):\n"
        "    print(json.dumps({'begins': {'item': k}}), flush=True)\n"
        f"    if k == 1: {fault}\n"
        "    print(json.dumps({'item': k}), flush=True)\n"
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [("os._exit(7)", "ended with 7"), ("os.abort()", "ended with -6"), ("time.sleep(60)", "said")],
)
def test_a_process_that_dies_or_hangs_loses_the_item_it_was_at(
    fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints(monkeypatch, items(fault))
    first, lost, last = done(Task("times", False), patience=3)
    assert first == {"item": 0} and last == {"item": 2}
    assert lost["item"] == 1 and f"the process {said}" in lost["failed"]


def test_a_process_that_hangs_when_time_is_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    prints(monkeypatch, items("time.sleep(60)"))
    began = time.time()
    *_, last = done(Task("times", False, until=began - gpu_process.OVERTIME))
    assert time.time() - began < 30 and last == {"item": 2}


def test_a_process_that_wants_to_be_replaced_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fault of a kernel nothing works in it."""
    prints(
        monkeypatch,
        items("""print('{"item": 1}'); print('{"restart": true}', flush=True); os._exit(0)"""),
    )
    assert [record["item"] for record in done(Task("times", False))] == [0, 1, 2]


def test_a_process_that_cannot_begin_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    prints(monkeypatch, "raise SystemExit('nothing works')")
    (lost,) = done(Task("cells", False))
    assert lost["part"] == "cells" and "nothing works" in lost["failed"]


def test_what_a_process_says_beside_records_is_kept_for_when_it_fails() -> None:
    with pytest.raises(Ended) as caught:
        list(said([sys.executable, "-c", "print('=== an error'); raise SystemExit(9)"]))
    assert "ended with 9" in str(caught.value) and "=== an error" in caught.value.heard


# ------------------------------------------------------------------------------------------ what is timed


def test_the_most_important_shapes_come_first_and_none_is_missing() -> None:
    cases = Scale().cases()
    shapes = [case.shape for case in cases]
    assert len(set(shapes)) == len(shapes)
    for goal in GOALS:
        assert any(goal.holds_at(*case.shape) for case in cases), goal
    with_goals = [k for k, case in enumerate(cases) if has_goal(case)]
    assert max(with_goals) < len(cases) / 4
    rest = [case.T for case in cases[max(with_goals) + 1 :] if EAGER not in case.sides]
    assert rest == sorted(rest, reverse=True)  # then long sequences before short ones
    for cell in ("gru_after", "lstm"):
        for dtype in ("float16", "bfloat16", "tf32", "float32"):
            for T in (128, 1024):
                for B in (1, 16, 64, 128):
                    for H in (128, 129, 256, 512, 768, 1024):
                        assert (cell, dtype, T, B, H) in shapes


def test_what_the_budget_drops_is_told() -> None:
    *_, made = gpu.measured(True, ["cells", "times"], 0.0, ["gru_after"], 1)
    assert made["cells"] == made["results"] == []
    assert made["dropped"]["cells"] == [f"gru_after {dtype}" for dtype in gpu.DTYPES]
    assert made["dropped"]["shapes"] == [str(case) for case in TINY.cases()]
    assert f"{len(TINY.cases())} shapes; cells not checked: gru_after float64" in gpu_table(made)


# ------------------------------------------------------------------------------------------ the table


def invented(**changes: Any) -> dict[str, Any]:
    """A document of round numbers, none of which was measured."""
    shape = {"cell": "gru_after", "dtype": "bfloat16", "T": 1024, "B": 16, "H": 256}
    sides = {
        OURS: {"forward": [1.0] * 3, "training": [2.0] * 3},
        LAYER: {"forward": [4.0] * 3, "training": [8.0] * 3},
    }
    bound = {**shape, "cell": "indrnn", "H": 1024, OURS: {"forward": [1.0] * 3, "training": [2.0] * 3}}
    cell = {"class": "recurrent", "dtype": "float32", "limit": 1e-4, "worst": "y"}
    return {
        "emulated": False,
        "device": {"name": "a device"},
        "versions": {"cupy": "0"},
        "commit": "0" * 40,
        "changed": False,
        "ceilings": [
            {"what": "copy", "bytes a second": 1e9, "seconds": [1.0]},
            {"what": "product", "dtype": "bfloat16", "flops a second": 1e12, "seconds": [1.0]},
            {"what": "product", "dtype": "float16", "failed": "no such product"},
            {"what": "barrier", "blocks": 4, "groups": 2, "seconds": [1e-6]},
            {"what": "launch", "seconds": [2e-6], "seconds of the host": 3e-6},
        ],
        "cells": [
            {**cell, "cell": "gru", "ok": True, "error": 1e-6},
            {**cell, "cell": "lstm", "ok": False, "error": 1.0},
        ],
        "results": [{**shape, **sides, **changes}, bound],
        "dropped": {"cells": [], "shapes": []},
    }


def test_goals_stand_beside_the_figures() -> None:
    table = gpu_table(invented())
    goal = "a launch a step in cuDNN | gru_after | bfloat16, tf32, float32 | 256 | 16, 64 | 1024 | 3 |"
    assert f"| torch.nn | {goal}" in table
    assert "4.00 to 4.00 | 1 of 1 |" in table and "not measured" in table
    assert "| float32 | recurrent | 1 of 2 | 0.0001 | 1e-06, gru | lstm |" in table
    assert "barrier of 4 blocks, 2 groups | 1.00 us" in table and "| product float16 | failed |" in table
    assert table.count("EMULATED") == 0 and gpu_table({**invented(), "emulated": True}).count("EMULATED") == 1


def test_sides_that_differ_meet_no_goal() -> None:
    made = invented(differ=[LAYER])
    table = gpu_table(made)
    assert "4.00 to 4.00" not in table and "| differs |" in table
    assert any("gategen differs from torch.nn" in fault for fault in gpu.faults(made))


def test_what_failed_is_told_at_the_end() -> None:
    told = gpu.faults(invented())
    assert told == [
        "ceilings: product float16: failed: no such product",
        "cells: lstm float32: off by 1.0 in y",
    ]


def test_the_table_program_makes_the_table(tmp_path: Path) -> None:
    import table

    (tmp_path / "gpu.json").write_text(json.dumps(invented()))
    ran = CliRunner().invoke(table.main, [str(tmp_path / "gpu.json")])
    assert ran.exit_code == 0 and ran.output.strip() == gpu_table(invented())


# ------------------------------------------------------------------------------------------ the barrier


@pytest.mark.parametrize("arch", [75, 80, 89, 90, 100, 120])
def test_the_kernels_of_the_ceilings_compile(arch: int) -> None:
    report = nvrtc.compile(gpu_ceilings.SOURCE.read_text(), arch, ("-std=c++17",))
    assert set(report.registers) == {"nothing", "barriers", "checked_barriers"}
    assert not any(report.spill_bytes.values()) and not report.warnings


@pytest.mark.parametrize(("blocks", "groups"), [(1, 2), (2, 2), (3, 1)])
def test_the_barrier_of_the_ceilings_is_free_of_races(blocks: int, groups: int) -> None:
    with emulator.race_detector():
        for order in ("forward", "reverse", "shuffle"):
            with emulator.thread_order(order, 3):
                assert gpu_ceilings.checked_barriers(device(True), blocks, groups, 3) == {}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("__NV_ATOMIC_RELEASE", "__NV_ATOMIC_RELAXED"),
        ("__NV_ATOMIC_ACQUIRE", "__NV_ATOMIC_RELAXED"),
        ("2 * round * gridDim.y", "(2 * round - 1) * gridDim.y"),
    ],
    ids=["release", "acquire", "goal"],
)
def test_a_planted_fault_of_the_barrier_is_caught(
    right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = gpu_ceilings.SOURCE.read_text()
    assert text.count(right) == 1
    (tmp_path / "broken.cu").write_text(text.replace(right, wrong))
    monkeypatch.setattr(gpu_ceilings, "SOURCE", tmp_path / "broken.cu")
    with emulator.race_detector(), pytest.raises(FOUND):
        gpu_ceilings.checked_barriers(device(True), 3, 1, 3)


# ------------------------------------------------------------------------------------------ the sanitizer


def tool(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of compute-sanitizer: it is called with 4 words of its own."""
    path = folder / "compute-sanitizer"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/called\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_the_sanitizer_runs_its_four_tools_over_barriers_and_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, 'shift 4; exec "$@"', monkeypatch)
    ran = CliRunner().invoke(gpu.main, ["--sanitize", "--emulate", "--cells", "indrnn"])
    assert ran.exit_code == 0, ran.output
    for name in gpu.TOOLS:
        assert f"{name}, barriers: nothing found in 3 runs" in ran.output
        assert f"{name}, cells: nothing found in 2 runs" in ran.output
    called = (tmp_path / "called").read_text().splitlines()
    assert len(called) == 8 and all("--error-exitcode 9" in line for line in called)


def test_what_a_tool_finds_is_shown_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "echo '========= Invalid __global__ write'; exit 9", monkeypatch)
    ran = CliRunner().invoke(gpu.main, ["--sanitize", "--emulate", "--cells", "indrnn"])
    assert ran.exit_code == 1 and "========= Invalid __global__ write" in ran.output
    assert "memcheck, cells: the process ended with 9" in ran.output


def test_without_the_sanitizer_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = CliRunner().invoke(gpu.main, ["--sanitize"])
    assert ran.exit_code != 0 and "compute-sanitizer is not on PATH" in ran.output
