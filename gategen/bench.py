"""How fast the modules of NumPy and C are: forward and backward, in turns with torch.nn where it has a cell.

The numbers are for this machine, these sizes and these threads, by default those that both sides take by
themselves. The measurements that are reported are in `benchmarks/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from types import ModuleType

import numpy as np

from gategen.build import Progress
from gategen.compiled import compile
from gategen.graph import shape_of
from gategen.judge.problem import buffer_arguments, init_arguments
from gategen.spec.cell import Cell
from gategen.spec.contents import lengths

RUNS = 7
HEADER = ("cell", "NumPy ms", "C ms", "torch.nn ms", "NumPy times as fast", "C times as fast", "sizes")
TORCH = {"gru_after": "GRU", "lstm": "LSTM", "rnn": "RNN"}


@dataclass(frozen=True)
class Run:
    """What is measured: T steps of B sequences; further sizes of a cell are as `hidden`."""

    steps: int = 100
    batch: int = 32
    input: int = 64
    hidden: int = 128
    threads: int | None = None  # of torch.nn, and of ours where the command line set it; None: their own

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
    c = _in_c(cell)
    runs = (_ours(cell, compile(cell), of), _ours(cell, c, of) if c else None, _theirs(cell, of))
    taken = iter(_interleaved([run for run in runs if run]))
    numpy, in_c, theirs = (next(taken) if run else None for run in runs)
    faster = [theirs / ours if ours and theirs else None for ours in (numpy, in_c)]
    times = [f"{time:.1f}" if time else "-" for time in (numpy, in_c, theirs)]
    return cell.name, *times, *(f"{ratio:.2f}" if ratio else "-" for ratio in faster), str(of)


def _in_c(cell: Cell) -> ModuleType | None:
    """The module of C, compiled; None where there is no compiler."""
    module = compile(cell, "c")
    try:
        module.library("float32")
    except RuntimeError:
        return None
    return module


def _interleaved(runs: Sequence[Callable[[], object]]) -> list[float]:
    """The median milliseconds of each, measured in turns so that a busy moment hits all."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(RUNS + 1):
        for run, taken in zip(runs, times, strict=True):
            began = time.perf_counter()
            run()
            taken += [1e3 * (time.perf_counter() - began)] if turn else []  # the first warms up
    return [median(taken) for taken in times]


def _ours(cell: Cell, module: ModuleType, of: Run) -> Callable[[], object]:
    """Forward and backward of a generated module."""
    rng = np.random.default_rng(0)
    sizes = cell.fitting({size: of.input if size == "input" else of.hidden for size in cell.sizes})
    params = module.init(**init_arguments(cell, module, sizes), seed=0)
    x, *others = (
        rng.standard_normal((of.steps, of.batch, *lengths(shape_of(i.size), sizes)), np.float32)
        for i in cell.inputs
    )
    options = dict(zip(list(module.INPUTS)[1:], others, strict=True))
    if hasattr(module, "init_buffers"):
        options["buffers"] = module.init_buffers(**buffer_arguments(cell, module, sizes))

    def run() -> object:
        y, _, tape = module.forward(params, x, **options)
        return module.backward(params, tape, y)

    return run


def _theirs(cell: Cell, of: Run) -> Callable[[], object] | None:
    """The same of torch.nn; None where it has no such cell, as with heads, or is not installed."""
    if cell.name not in TORCH or cell.shares or find_spec("torch") is None:
        return None
    import torch

    if of.threads:
        torch.set_num_threads(of.threads)
    torch.manual_seed(0)
    layer = getattr(torch.nn, TORCH[cell.name])(of.input, of.hidden)
    x = torch.randn(of.steps, of.batch, of.input, requires_grad=True)

    def run() -> object:
        y = layer(x)[0]
        return torch.autograd.grad(y, [x, *layer.parameters()], y.detach())

    return run
