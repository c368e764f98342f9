"""The time that the host takes for a step of the generated CuPy modules, without a GPU.

The real CuPy runs on host memory (`tests/real_cupy`), and its device is told to do nothing: what is left is
the time of Python and of CuPy, without the driver's. A step is the difference of a long and of a short run,
divided by the steps between; of many runs the fastest counts, since other programs only add to it.

Of cells whose steps are all in one launch the whole run is measured.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from real_cupy import plugin  # noqa: E402

CELLS = ("gru", "gru_after", "lstm", "ln_lstm")
# Griffin's is not among them: its products in blocks are not cuBLAS's on host memory.
AT_ONCE = (
    *("brc", "gilr", "indrnn", "indygru", "lru", "mingru", "mingru_log", "minlstm", "paragru", "paralstm"),
    *("rglru", "sru", "t_rnn"),
)
B, H, SHORT, LONG, WHOLE, TURNS = 16, 128, 32, 160, 1024, 60
cp = plugin.CUPY


def module_of(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_cupy", folder / f"{name}_cupy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs(module: ModuleType, steps: int, lengths: bool) -> dict[str, Callable[[], Any]]:
    """Forward and backward over so many steps, in float32."""
    params = module.init(H, H, seed=0)
    x = cp.zeros((steps, B, H), "float32")
    ends = steps - np.arange(B) if lengths else None
    _, _, tape = module.forward(params, x, lengths=ends)
    d_y = cp.zeros((steps, B, H), "float32")
    return {
        "forward": lambda: module.forward(params, x, lengths=ends, tape=tape),
        "backward": lambda: module.backward(params, tape, d_y),
    }


def fastest(run: Callable[[], Any]) -> float:
    """Seconds of the fastest of many runs."""
    return min(once(run) for _ in range(TURNS))


def once(run: Callable[[], Any]) -> float:
    """Seconds of one run."""
    plugin.DEVICE.on_host_forget()
    began = time.process_time()
    run()
    return time.process_time() - began


def operations(run: Callable[[], Any]) -> Counter[str]:
    with plugin.tally() as counted:
        run()
    return counted


def measured(module: ModuleType, lengths: bool) -> dict[str, Any]:
    """Operations and microseconds of a step, forward and backward, where each step is launched."""
    module.BLOCKS = 0
    short, long = (runs(module, steps, lengths) for steps in (SHORT, LONG))
    record: dict[str, Any] = {"lengths": lengths}
    for way in ("forward", "backward"):
        more = operations(long[way]) - operations(short[way])
        seconds = fastest(long[way]) - fastest(short[way])
        record[way] = {
            "operations": more.total() / (LONG - SHORT),
            "copies": more["copy"] / (LONG - SHORT),
            "us": 1e6 * seconds / (LONG - SHORT),
        }
    return record


def whole(module: ModuleType, lengths: bool) -> dict[str, Any]:
    """Operations and microseconds of a run, forward and backward, whose steps are all in one launch."""
    return {
        way: {"operations": operations(run).total(), "us": 1e6 * fastest(run)}
        for way, run in runs(module, WHOLE, lengths).items()
    }


@click.command()
@click.option("--modules", default=ROOT / "generated", type=click.Path(path_type=Path), help="Their folder.")
@click.option("--output", default=ROOT / "benchmarks/results/host.json", type=click.Path(path_type=Path))
@click.option("--label", default="now", help="The results of one label replace those of the same label.")
def main(modules: Path, output: Path, label: str) -> None:
    """Measure the modules in a folder, and add the results to a JSON file."""
    for library in (plugin.DEVICE, plugin.BLAS):
        library.on_host_execute(0)
    cp.cuda.set_allocator(cp.get_default_memory_pool().malloc)
    results = []
    for name in CELLS:
        module = module_of(name, modules)
        for lengths in (False, True):
            results.append({"cell": name, **measured(module, lengths)})
            ways = (results[-1][way] for way in ("forward", "backward"))
            click.echo(f"{name:10} {'lengths' if lengths else '':8}{[*ways]}")
    at_once = [
        {"cell": name, "lengths": lengths, **whole(module_of(name, modules), lengths)}
        for name in (*AT_ONCE, *CELLS)
        for lengths in (False, True)
    ]
    for record in at_once:
        click.echo(f"{record}")
    versions = {"cupy": cp.__version__, "numpy": np.__version__, "python": platform.python_version()}
    made = {"versions": versions, "B": B, "H": H, "cpu": cpu(), "results": results}
    made |= {"T": WHOLE, "at_once": at_once}
    known = json.loads(output.read_text()) if output.exists() else {}
    output.write_text(json.dumps(known | {label: made}, indent=1) + "\n")


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
