"""How long the commands of the documentation take, and what no test may judge by a clock.

Every command runs in a process of its own, start of Python and imports included, in a new folder and with a
new cache of compiled kernels. A generated module is imported in a new process too, without the start of
Python. Prints a table and writes every sample to a JSON file. Other programs disturb these numbers: they say
seconds or minutes, and no more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
from cpu import ROOT, cpu, git, written  # the neighbour file

TURNS = 3
SOURCES = ("gategen", "templates")
MYCELL = str(ROOT / "examples" / "mycell.py")
COMMANDS = (  # after `gategen`
    ("--help",),
    ("list",),
    ("show", "gru"),
    ("show", "gru", "--stage", "adjoint"),
    ("diff", "gru", "gru_after"),
    ("new", "mine.gate", "--from", "caru"),
    ("verify", "gru"),
    ("verify", "gru", "--backend", "numpy"),
    ("build", "gru"),
    ("build", MYCELL),
    ("verify", MYCELL),
)
LONG = (("build",), ("verify",))  # every cell
FRESH = (  # in a new environment, from a copy of the checkout
    ("pip install -e '.[examples]' in a new environment", "python -m pip install -q -e '.[examples]'"),
    ("python examples/digits.py", "python examples/digits.py"),
    ("pytest -n auto", "python -m pip install -q -e '.[test]'", "python -m pytest -n auto"),
)
IMPORT = """
import sys, time, importlib.util, typing, numpy
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("module", path)
    module = importlib.util.module_from_spec(spec)
    began = time.perf_counter()
    spec.loader.exec_module(module)
    print(time.perf_counter() - began)
"""
TEXT = """
import sys, time, warnings
from gategen import Cell
from gategen.spec.load import load
warnings.simplefilter("ignore")
lines = [f"z{k} = sigmoid(W_{k} @ x + U_{k} @ h + b_{k})" for k in range(19)]
source = "\\n".join([*lines, "h' = z0 * h"])
Cell.parse("first", source)
began = time.perf_counter()
Cell.parse("second", source)
print(time.perf_counter() - began)
"""


def timed(*words: str) -> float:
    """Seconds of one run of gategen in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"GATEGEN_CACHE": str(Path(folder) / "cache"), "PYTHONWARNINGS": "ignore"}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "gategen", *words],
            cwd=folder,
            env={**os.environ, **own},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr  # 1 where the answer is no
        return time.perf_counter() - began


def printed(program: str, *words: str) -> list[float]:
    """The numbers that a program prints in a process of its own."""
    command = [sys.executable, "-B", "-c", program, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return list(map(float, done.stdout.split()))


def fresh() -> Iterator[dict[str, Any]]:
    """What README tells a reader to do in a new environment; the last of several commands is timed."""
    with tempfile.TemporaryDirectory() as folder:
        copy, own = Path(folder) / "checkout", Path(folder) / "own"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
        venv.create(own, with_pip=True)
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env |= {"PATH": f"{own / 'bin'}{os.pathsep}{os.environ['PATH']}", "GATEGEN_CACHE": f"{folder}/cache"}
        for what, *commands in FRESH:
            for command in commands:
                began = time.perf_counter()
                done = subprocess.run(
                    ["bash", "-c", command], cwd=copy, env=env, stdout=subprocess.DEVNULL, check=False
                )
                assert done.returncode == 0 or "pytest" in command, f"{command}: {done.returncode}"
            yield record(what, [time.perf_counter() - began])


def record(what: str, seconds: Sequence[float]) -> dict[str, Any]:
    return {"what": what, "seconds": [round(s, 4) for s in seconds]}


def records(long: bool) -> list[dict[str, Any]]:
    """What was measured, in the order of the table."""
    found = []
    for words in COMMANDS:
        said = " ".join(word.replace(f"{ROOT}/", "") for word in ("gategen", *words))
        found.append(record(said, [timed(*words) for _ in range(TURNS)]))
    for words in LONG if long else ():
        found.append(record(f"gategen {' '.join(words)} (every cell)", [timed(*words)]))
    found += fresh() if long else []
    modules = sorted(map(str, (ROOT / "generated").glob("*_numpy.py")))
    imports = [printed(IMPORT, *modules) for _ in range(TURNS)]
    slowest = max(range(len(modules)), key=lambda k: median(turn[k] for turn in imports))
    found.append(record("import of gru_numpy", [turn[modules.index(gru())] for turn in imports]))
    found.append(
        record(f"import of {Path(modules[slowest]).stem}, the slowest", [turn[slowest] for turn in imports])
    )
    found.append(record("a cell of twenty lines read from text", [printed(TEXT)[0] for _ in range(TURNS)]))
    return found


def gru() -> str:
    return str(ROOT / "generated" / "gru_numpy.py")


def facts() -> dict[str, Any]:
    """What the numbers depend on."""
    import platform
    from importlib.metadata import version

    return {
        "commit": git("log", "-1", "--format=%H", "--", *SOURCES),  # of what is measured
        "changed": git("status", "--porcelain", "--", *SOURCES) != "",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "sympy", "jinja2")},
        },
        "compiler": shutil.which("c++") is not None,
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # before the benchmark adds to it
    }


@click.command()
@click.option("--long", is_flag=True, help="Every cell, and README's installations, as well: minutes.")
@click.option(
    "--out",
    default=ROOT / "benchmarks" / "results" / "build.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/build.json]",
)
def main(long: bool, out: Path) -> None:
    """Measure how long the commands of the documentation take."""
    document = {**facts(), "results": records(long)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(written(document))
    for one in document["results"]:
        click.echo(f"{median(one['seconds']):8.3f} s  {one['what']}")
    click.echo(f"\nsamples: {out}")


if __name__ == "__main__":
    main()
