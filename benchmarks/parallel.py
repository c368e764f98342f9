"""`forward(..., parallel=True)` beside the loop over the steps, for every cell of the catalogue that has it.

The NumPy modules in `generated/`, float32, T 1024, one thread, standard-normal inputs, the parameters of
`init`. Both sides compute the same outputs, which is checked first, and run in one process in turns, with the
memory of their tape reused; processor time is measured.

Writes every sample, and how many iterations Newton's method took, to a JSON file, and prints the medians or
puts them into a document.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import click
from cpu import ROOT, TURNS, cpu, git, hold, loaded, written  # the neighbour file

T = 1024
SHAPES = tuple(product((1, 16), (64, 256)))  # B and H; the input is as wide as the state
ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
BEGIN, END = "<!-- benchmarks/parallel.py: begin -->", "<!-- end -->"
RESULTS = ROOT / "benchmarks" / "results" / "parallel.json"


def modules() -> dict[str, ModuleType]:
    """Those that find all states at once, by the name of the cell."""
    found = {path.stem: loaded(path) for path in sorted((ROOT / "generated").glob("*_numpy.py"))}
    return {m.NAME: m for m in found.values() if "iterations" in m.Tape._fields}


def measure() -> Iterator[dict[str, Any]]:
    """A record for every cell and shape: seconds of both sides, a number a turn."""
    import numpy as np
    from sides import in_turns, same

    for name, module in modules().items():
        for B, H in SHAPES:
            params = module.init(H, H, seed=0, **({"heads": 4} if "heads" in module.SIZES else {}))
            x = np.random.default_rng(0).standard_normal((T, B, H), np.float32)
            sides = {"loop": side(module, params, x, False), "parallel": side(module, params, x, True)}
            same({key: made.results() for key, made in sides.items()})
            _, _, tape = module.forward(params, x, parallel=True)
            record = {"cell": name, "T": T, "B": B, "H": H, "iterations": tape.iterations}
            yield record | {key: parts["forward"] for key, parts in in_turns(sides).items()}


def side(module: ModuleType, params: Any, x: Any, parallel: bool) -> Any:
    """One way to run a module, into the memory of a tape of its own."""
    from sides import Side

    _, _, tape = module.forward(params, x, parallel=parallel)

    def forward() -> Any:
        return module.forward(params, x, tape=tape, parallel=parallel)[0]

    return Side({"forward": forward}, lambda: [forward()])


def facts() -> dict[str, Any]:
    """What the numbers depend on."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    found = {name: Path(str(module.__file__)) for name, module in modules().items()}
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": git("status", "--porcelain", "--", *map(str, found.values())) != "",
        "modules": {name: sha256(path.read_bytes()).hexdigest() for name, path in found.items()},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "blas": f"{blas['name']} {blas['version']}",
        },
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # before the benchmark adds to it
        "system": f"{platform.system()} {platform.machine()}",
        "dtype": "float32",
        "threads": 1,
        "turns": TURNS,
    }


def table(document: Mapping[str, Any]) -> str:
    """A row a cell: milliseconds of the loop and of all steps at once, how often as fast, iterations."""
    records: dict[str, list[dict[str, Any]]] = {}
    for record in document["results"]:
        records.setdefault(record["cell"], []).append(record)
    lines = [line(["cell", *(f"B {B}, H {H}" for B, H in SHAPES), "iterations"])]
    lines.append(line(["---", *["---:"] * (len(SHAPES) + 1)]))
    for name, rows in records.items():
        counts = sorted({row["iterations"] for row in rows})
        spread = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        lines.append(line([name, *map(beside, rows), spread]))
    versions = document["versions"]
    return "\n".join([
        *lines,
        "",
        f"A forward pass, T {T}, float32, input size H, one thread: milliseconds of the loop, those of all "
        "steps at once, and in brackets how many times as fast that is; below 1 the loop is faster. "
        f"Processor time, medians of {document['turns']} turns. NumPy {versions['numpy']} "
        f"({versions['blas']}), Python "
        f"{versions['python']}, {document['cpu']}, commit {document['commit'][:12]}"
        f"{', with changed modules' if document['changed'] else ''}.",
    ])  # fmt: skip


def beside(record: Mapping[str, Any]) -> str:
    loop, parallel = (1e3 * median(record[side]) for side in ("loop", "parallel"))
    times = median(a / b for a, b in zip(record["loop"], record["parallel"], strict=True))
    return f"{loop:.3g}, {parallel:.3g} ({times:.2f})"


def line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def put(text: str, into: Path) -> None:
    """The table between its marks in a document."""
    pattern = f"({re.escape(BEGIN)}\n).*?({re.escape(END)})"
    new, found = re.subn(pattern, lambda m: f"{m[1]}{text}\n{m[2]}", into.read_text(), flags=re.S)
    if not found:
        raise click.ClickException(f"{into} has no line {BEGIN}")
    into.write_text(new)


@click.command()
@click.option(
    "--out", default=RESULTS, type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/parallel.json]",
)  # fmt: skip
@click.option(
    "--into", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put the table of the JSON file into this document, and measure nothing.",
)  # fmt: skip
@click.option("--process", is_flag=True, hidden=True, help="Measure in this process, a record a line.")
def main(out: Path, into: Path | None, process: bool) -> None:
    """Measure all steps at once beside the loop."""
    if process:
        hold(1)
        for record in measure():
            print(json.dumps(record), flush=True)
        return
    if into is not None:
        put(table(json.loads(out.read_text())), into)
        return
    document: dict[str, Any] = {**facts(), "results": []}
    command = [sys.executable, __file__, "--process"]
    with subprocess.Popen(command, env={**os.environ, **ONE}, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        document["results"] += map(json.loads, run.stdout)
    if run.returncode:
        raise click.ClickException(f"the process that measures ended with {run.returncode}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(written(document))
    click.echo(table(document))
    click.echo(f"\nsamples: {out}")


if __name__ == "__main__":
    main()
