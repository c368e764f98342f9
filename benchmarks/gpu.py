"""The generated CuPy modules on an NVIDIA GPU, in one command of under ten minutes.

In this order, each part in processes of its own, so that a fault of one loses nothing of the others:

    ceilings   copies, products by dtype, launches, barriers by group size (`gpu_ceilings.py`)
    cells      every cell forward and backward against NumPy, in four dtypes (`gpu_cells.py`)
    times      forward, and forward and backward, beside PyTorch (`gpu_times.py`), what matters most first

`--seconds` is a budget: the shapes that it leaves no time for are dropped, the least important ones, and
listed. A process that says nothing for two minutes is ended; what it was at is noted, and the rest goes on.
PyTorch missing, our modules are measured alone; CuPy or a GPU missing, it says so.

`--emulate` goes through the same at tiny sizes on the project's stand-in for CuPy, without a GPU. Its times
mean nothing and are not kept: it writes no file. `--sanitize` runs NVIDIA's compute-sanitizer instead.

The results are JSON, every sample in it; `benchmarks/table.py` makes tables of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from cpu import ROOT, git, written  # the neighbour files
from gpu_process import Ended, Record, Task, command, done, said, work_on
from gpu_scale import SHAPE, TINY, Scale
from gpu_table import gpu_table

from gategen.spec.load import builtins, find_builtin

OUT = ROOT / "benchmarks" / "results" / "gpu.json"
DTYPES = ("float64", "float32", "float16", "bfloat16")
PARTS = ("ceilings", "cells", "times")
CELLS_SHARE = 0.35  # of what is left of the budget, for the cells at most
QUICK = ("gru_after", "lstm", "indrnn", "mingru")  # cells of the emulated run
SOURCES = ("gategen", "templates", "generated", "benchmarks/*.py")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
TOOL_PATIENCE = 1800.0  # seconds: under these tools kernels are slow
# What they run: a cell of every kind of kernel, forward and backward, at sizes of a few units.
SANITIZED = tuple("gru gru_after lstm ln_lstm sligru indrnn mingru lru matrix_lstm rwkv7".split())
SANITIZED_DTYPES = ("float32", "bfloat16")


# ------------------------------------------------------------------------------------------ measuring


def measured(
    emulate: bool, parts: Sequence[str], seconds: float, cells: Sequence[str], processes: int
) -> Iterator[dict[str, Any]]:
    """The document again and again, as it grows: what comes later must not lose what is there."""
    began, end = time.time(), time.time() + seconds
    made = beginning(emulate, seconds)
    if "ceilings" in parts:
        click.echo("ceilings", err=True)
        yield from growing(made, "ceilings", done(Task("ceilings", emulate, until=end)))
    if "cells" in parts:
        click.echo(f"{len(cells)} cells in {len(DTYPES)} dtypes by {processes} processes", err=True)
        share = CELLS_SHARE if "times" in parts else 1
        pairs = [(name, dtype) for dtype in DTYPES for name in cells]
        found = checks(emulate, pairs, time.time() + share * (end - time.time()), processes)
        reached = {(r.get("cell"), r.get("dtype")) for r in found}
        made["dropped"]["cells"] = [" ".join(pair) for pair in pairs if pair not in reached]
        yield from growing(made, "cells", found)
    if "times" in parts:
        cases = (TINY if emulate else Scale()).cases()
        left = made["dropped"]["shapes"] = {case.shape: str(case) for case in cases}
        click.echo(f"{len(cases)} shapes, as many as {end - time.time():.0f} seconds allow", err=True)
        task = Task("times", emulate, [asdict(case) for case in cases], end)
        for _ in growing(made, "results", done(task)):
            left.pop(tuple(made["results"][-1].get(key) for key in SHAPE), None)
            yield made | {"dropped": made["dropped"] | {"shapes": [*left.values()]}}
        made["dropped"]["shapes"] = [*left.values()]
    made["seconds"] = round(time.time() - began)
    yield made


def growing(made: dict[str, Any], part: str, records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """The document after each further record."""
    for record in records:
        made[part].append(record)
        yield made


def beginning(emulate: bool, seconds: float) -> dict[str, Any]:
    """What the numbers depend on, and nothing measured yet."""
    facts = next(iter([*done(Task("facts", emulate))]))
    if "failed" in facts:
        raise click.ClickException(facts["failed"])
    return {
        "benchmark": "gpu",
        "emulated": emulate,
        "commit": git("rev-parse", "HEAD"),
        "changed": git("status", "--porcelain", "--", *SOURCES) != "",
        **facts,
        "budget": seconds,
        "ceilings": [],
        "cells": [],
        "results": [],
        "dropped": {"cells": [], "shapes": []},
    }


def checks(emulate: bool, pairs: Sequence[tuple[str, str]], until: float, processes: int) -> list[Record]:
    """Cells in dtypes against NumPy, shared out: most of the time goes into compiling kernels."""
    names = list(dict.fromkeys(name for name, _ in pairs))
    shares = [{*names[k::processes]} for k in range(processes)]  # a cell is planned once a process
    own = ([pair for pair in pairs if pair[0] in share] for share in shares)
    tasks = [Task("cells", emulate, items, until) for items in own if items]
    with ThreadPoolExecutor(processes) as pool:
        found = [r for some in pool.map(lambda task: [*done(task)], tasks) for r in some]
    known: dict[Any, int] = {pair: k for k, pair in enumerate(pairs)}
    return sorted(found, key=lambda r: known.get((r.get("cell"), r.get("dtype")), -1))


def save(document: Mapping[str, Any], out: Path) -> None:
    """Write what was measured; what was emulated is no result."""
    if document["emulated"]:
        raise ValueError("emulated times are not results")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(written(document))
    os.replace(part, out)  # all of it, whenever this is ended


def faults(document: Mapping[str, Any]) -> list[str]:
    """What went wrong, a line each."""
    found = []
    for part in ("ceilings", "cells", "results"):
        for record in document[part]:
            keys = ("part", "what", "cell", "dtype", "blocks", "T", "B", "H")
            name = f"{part}: " + " ".join(str(record[key]) for key in keys if key in record)
            if "failed" in record:
                found.append(f"{name}: failed: {record['failed']}")
            if record.get("ok") is False:
                off = record["error"] if record["error"] is not None else "no number"
                found.append(f"{name}: off by {off} in {record['worst']}")
            if record.get("differ"):
                found.append(f"{name}: gategen differs from {', '.join(record['differ'])}")
    return found


# ------------------------------------------------------------------------------------------ sanitizer


def sanitized(emulate: bool, cells: Sequence[str]) -> bool:
    """Run the four tools over barriers and cells, and say what each found; whether that is nothing."""
    if shutil.which("compute-sanitizer") is None:
        raise click.ClickException("compute-sanitizer is not on PATH: NVIDIA's CUDA toolkit has it")
    dtypes = ", ".join(SANITIZED_DTYPES)
    click.echo(f"barriers of groups of 1, 2 and 3 blocks; {', '.join(cells)}, forward and backward, {dtypes}")
    pairs = [(name, dtype) for name in cells for dtype in SANITIZED_DTYPES]
    tasks = (Task("barriers", emulate, sanitized=True), Task("cells", emulate, pairs, sanitized=True))
    wrong = [(tool, task.part, told) for tool in TOOLS for task in tasks if (told := judged(tool, task))]
    return not wrong


def judged(tool: str, task: Task) -> str:
    """What a tool found in the process of a task, which is also said; empty where that is nothing."""
    try:
        found = [record for record in said(sanitizer_command(tool, task), TOOL_PATIENCE)]
    except Ended as ended:
        click.echo(f"{tool}, {task.part}: the process {ended}\n{ended.heard}")
        return str(ended)
    runs = [record for record in found if "begins" not in record]
    wrong = [r for r in runs if {"missing", "failed", "restart"} & set(r) or r.get("ok") is False]
    told = "\n".join(map(json.dumps, wrong)) or ("" if runs else "nothing was run")
    click.echo(f"{tool}, {task.part}: {told or f'nothing found in {len(runs)} runs'}")
    return told


def sanitizer_command(tool: str, task: Task) -> list[str]:
    """compute-sanitizer on that process, which ends with 9 where the tool found anything."""
    return ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *command(task)]


# ------------------------------------------------------------------------------------------ command line


@click.command()
@click.option("--emulate", is_flag=True, help="On the stand-in for CuPy, tiny; writes nothing.")
@click.option("--sanitize", is_flag=True, help="Run compute-sanitizer's four tools instead.")
@click.option("--seconds", default=540.0, show_default=True, help="The budget of it all.")
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Comma-separated.")
@click.option("--cells", help="Those to be checked, comma-separated.  [default: all; emulated, four]")
@click.option("--processes", type=int, help="That check cells at once.  [default: one a core, at most 8]")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/gpu.json]",
)
@click.option("--process", hidden=True, help="JSON: do this task in this process, a record a line.")
def main(
    emulate: bool,
    sanitize: bool,
    seconds: float,
    parts: str,
    cells: str | None,
    processes: int | None,
    out: Path | None,
    process: str | None,
) -> None:
    """Measure the generated CuPy modules on a GPU."""
    if process is not None:
        work_on(Task(**json.loads(process)))
        return
    if emulate and out:
        raise click.UsageError("--emulate writes no results: its times mean nothing")
    if unknown := set(parts.split(",")) - set(PARTS):
        raise click.UsageError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if sanitize:
        few = QUICK[:1] if emulate else SANITIZED
        sys.exit(0 if sanitized(emulate, chosen_cells(cells, few)) else 1)
    names = chosen_cells(cells, QUICK if emulate else [*builtins()])
    at_once = processes or (1 if emulate else min(8, os.cpu_count() or 1))
    document: dict[str, Any] = {}
    for document in measured(emulate, parts.split(","), seconds, names, at_once):
        if not emulate:
            save(document, out or OUT)
    report(document, out or OUT)


def chosen_cells(asked: str | None, usual: Sequence[str]) -> Sequence[str]:
    """Those that are asked for, which must be there."""
    chosen = asked.split(",") if asked else usual
    if unknown := [name for name in chosen if not find_builtin(name)]:
        raise click.UsageError(f"no cell {', '.join(unknown)}")
    return chosen


def report(document: Mapping[str, Any], out: Path) -> None:
    """The tables, and what went wrong; of an emulated run that alone."""
    table, wrong = gpu_table(document), faults(document)
    if document["emulated"]:
        counts = ", ".join(f"{len(document[part])} {part}" for part in ("ceilings", "cells", "results"))
        click.echo(f"emulated: {counts}; no times are kept")
    else:
        click.echo(f"{table}\n\nsamples: {out}")
    for each in wrong:
        click.echo(each, err=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
