"""How long every command takes on large cells: processor seconds, by the size of the cell.

The cells are those of `tests/test_large_cells.py`, which counts calls instead. Each sample is a process of
its own, without the start of Python.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import sys
import time
from pathlib import Path
from typing import Any

import click
import sympy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import test_large_cells as large  # noqa: E402


def choices(count: int) -> str:
    """Maxima and minima, in equations of 50 each."""
    terms = [f"{'maximum' if k % 2 else 'minimum'}(p_a, {k} * h)" for k in range(count)]
    parts = [" + ".join(terms[k : k + 50]) for k in range(0, count, 50)]
    lines = [f"a{k} = {part}" for k, part in enumerate(parts)]
    return "\n".join([*lines, "h' = W_h @ x + " + " + ".join(f"a{k}" for k in range(len(parts)))])


CELLS = {
    "independent GRUs": (large.blocks, (2, 4, 8)),
    "factors of one product": (large.factors, (10, 20, 40)),
    "max and min in sums": (choices, (50, 100, 200)),
    "gates that can change places": (large.twins, (10, 20, 40)),
    "equations that each read the last one twice": (large.layers, (60, 120, 250, 500)),
    "gates, multiplied two by two": (large.pairs, (60, 120, 250, 500)),
}
COMMANDS = {
    "build": ("numpy", "cupy"),
    "show": ("show", "plan"),
    "diff, the same": ("same",),
    "diff, another": ("changed",),
}


def seconds(text: str, stages: tuple[str, ...], results: Any) -> None:
    sys.setrecursionlimit(10_000)
    began = time.process_time()
    for stage in stages:
        large.STAGES[stage](text)
    results.put(time.process_time() - began)


def sample(text: str, stages: tuple[str, ...]) -> float:
    results: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=seconds, args=(text, stages, results))
    process.start()
    process.join()
    if process.exitcode:
        raise click.ClickException("a command failed, and said above why")
    return float(results.get())


def row(what: str, size: int, found: dict[str, float]) -> str:
    return f"| {size} {what} | {' | '.join(f'{value:.2f}' for value in found.values())} |"


@click.command()
@click.option("--out", default=ROOT / "benchmarks/results/large.json", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Measure all, print a Markdown table and write the samples to a JSON file."""
    click.echo(f"| a cell of | {' | '.join(COMMANDS)} |\n| --- |{' ---: |' * len(COMMANDS)}")
    made = []
    for what, (text, sizes) in CELLS.items():
        for size in sizes:
            found = {name: sample(text(size), stages) for name, stages in COMMANDS.items()}
            click.echo(row(what, size, found))
            made.append({"cell": what, "size": size, "seconds": found})
    versions = {"python": platform.python_version(), "sympy": sympy.__version__}
    out.write_text(json.dumps({"versions": versions, "results": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
