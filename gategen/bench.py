"""How fast the NumPy modules are: forward and backward, interleaved with torch.nn where it has the same cell.

The numbers are for this machine, these sizes and these threads, by default those that both sides take by
themselves. The measurements that are reported are in `benchmarks/`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

from gategen.build import Progress
from gategen.judge.host import imported, written
from gategen.judge.problem import buffer_arguments, init_arguments
from gategen.spec.cell import Cell

RUNS = 7
HEADER = ("cell", "gategen ms", "torch.nn ms", "times as fast", "sizes")
TORCH = {"gru_after": "GRU", "lstm": "LSTM", "rnn": "RNN"}


@dataclass(frozen=True)
class Run:
    """What is measured: T steps of B sequences; further sizes of a cell are as `hidden`."""

    steps: int = 100
    batch: int = 32
    input: int = 64
    hidden: int = 128
    threads: int | None = None  # of torch.nn, and of NumPy where the command line set it; None: their own

    def __str__(self) -> str:
        threads = f" threads={self.threads}" if self.threads else ""
        return f"T={self.steps} B={self.batch} I={self.input} H={self.hidden} float32{threads}"


def bench(
    cells: Sequence[Cell], sizes: Run | None = None, progress: Progress | None = None
) -> list[tuple[str, ...]]:
    """A row for every cell."""
    sizes = sizes or Run()
    rows = []
    for k, cell in enumerate(cells):
        if progress:
            progress(cell.name, k, len(cells))
        rows.append(_row(cell, sizes))
    return rows


def _row(cell: Cell, of: Run) -> tuple[str, ...]:
    ours, theirs = _ours(cell, of), _theirs(cell.name, of)
    times = _interleaved([run for run in (ours, theirs) if run])
    other = (f"{times[1]:.1f}", f"{times[1] / times[0]:.2f}") if theirs else ("-", "-")
    return cell.name, f"{times[0]:.1f}", *other, str(of)


def _interleaved(runs: Sequence[Callable[[], object]]) -> list[float]:
    """The median milliseconds of each, measured in turns so that a busy moment hits all."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(RUNS + 1):
        for run, taken in zip(runs, times, strict=True):
            began = time.perf_counter()
            run()
            taken += [1e3 * (time.perf_counter() - began)] if turn else []  # the first warms up
    return [median(taken) for taken in times]


def _ours(cell: Cell, of: Run) -> Callable[[], object]:
    """Forward and backward of the generated module."""
    with tempfile.TemporaryDirectory(prefix="gategen-") as folder:
        module = imported(written(cell, "numpy", Path(folder)))
    rng = np.random.default_rng(0)
    sizes = cell.fitting({size: of.input if size == "input" else of.hidden for size in cell.sizes})
    params = module.init(**init_arguments(cell, module, sizes), seed=0)
    x, *others = (
        rng.standard_normal((of.steps, of.batch, sizes.get(i.size, i.size)), np.float32) for i in cell.inputs
    )
    options = dict(zip(list(module.INPUTS)[1:], others, strict=True))
    if hasattr(module, "init_buffers"):
        options["buffers"] = module.init_buffers(**buffer_arguments(cell, module, sizes))

    def run() -> object:
        y, _, tape = module.forward(params, x, **options)
        return module.backward(params, tape, y)

    return run


def _theirs(name: str, of: Run) -> Callable[[], object] | None:
    """The same of torch.nn; None where it has no such cell or is not installed."""
    if name not in TORCH or find_spec("torch") is None:
        return None
    import torch

    if of.threads:
        torch.set_num_threads(of.threads)
    torch.manual_seed(0)
    layer = getattr(torch.nn, TORCH[name])(of.input, of.hidden)
    x = torch.randn(of.steps, of.batch, of.input, requires_grad=True)

    def run() -> object:
        y = layer(x)[0]
        return torch.autograd.grad(y, [x, *layer.parameters()], y.detach())

    return run
