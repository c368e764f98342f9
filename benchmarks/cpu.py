"""Training steps and forward passes on the CPU: generated modules, NumPy and C, beside PyTorch and others.

The others are torch.nn.GRU and torch.nn.LSTM, where they are installed also JAX (`jax_cells.py`) and
onnxruntime; all in float32. All sides compute the same outputs and gradients, which is checked first. They
run in the same process in turns, so that a busy moment hits all; between two turns lies a pause, in which the
threads of one library go to sleep, and before short steps an untimed call. Every thread count has a process
of its own, which is held to as many cores; with one thread processor time is measured, to which other
programs add little, with more the time that passes. Beside them run the matrix products of the step alone, as
`np.matmul` on arrays of the same shapes: the bound for a module that computes with NumPy.

With one thread it also measures a step of one sequence, and elementwise cells beside the time that it takes
to move their bytes (`small.py`).

Writes every sample to a JSON file, of which `benchmarks/table.py` makes tables.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
TORCH = {"gru_after": "GRU", "lstm": "LSTM"}
FURTHER = ("mgu", "ligru_nobn", "indrnn", "mingru", "sru")  # cells that torch.nn does not have
ELEMENTWISE = ("indrnn", "mingru", "sru")
FEW = ((100, 1, 64), (100, 16, 128), (100, 32, 256), (100, 64, 512), (50, 128, 512))  # T, B, H; I = H
MANY = tuple((100, b, h) for h, b in product((64, 128, 256, 512), (1, 16, 64, 128)))
SMALL = FEW[:3]  # for the further cells
STEPS = (64, 256)  # H, B 1
LONG = (1000, 16, 256)  # for the elementwise cells
TURNS = 7
SAMPLE = 0.04  # a sample is the mean of as many calls as take this long


# ------------------------------------------------------------------------------------------ one process


def measure(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A record for every cell and shape, which says in what list it belongs."""
    from sides import all_modules  # the neighbour files; they load NumPy
    from small import elementwise, step

    threads = asked["threads"]
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    found = all_modules()
    for name, shapes in asked["cells"].items():
        for T, B, H in shapes:
            made = samples(found[name], T, B, H, threads, asked["jax"], asked["onnxruntime"])
            yield {"list": "results", "cell": name, "T": T, "B": B, "H": H, "threads": threads, **made}
    if threads == 1:
        for name, H in product(TORCH, STEPS):
            yield {"list": "steps", **step(found[name], H)}
        for name in asked["elementwise"]:
            yield {"list": "elementwise", **elementwise(found[name], *LONG, asked["jax"])}


def samples(
    found: Mapping[str, ModuleType], T: int, B: int, H: int, threads: int, jax: bool, onnx: bool
) -> dict[str, Any]:
    """Seconds of forward and backward on every side, and under `inference` those of forward alone."""
    from sides import from_torch, in_turns, inference, parameters, torch_layer, training
    from small import flat

    module = found["gategen"]
    layer = torch_layer(module.NAME, H)
    params = module.pack(from_torch(module.NAME, layer)) if layer is not None else parameters(module, H)
    steps = in_turns(training(found, T, B, H, layer, params, jax))
    return {
        **steps,
        "inference": flat(in_turns(inference(found, T, B, H, layer, params, threads, jax, onnx))),
    }


# ------------------------------------------------------------------------------------------ what is measured


def module_path(name: str) -> Path:
    return ROOT / "generated" / f"{name}_numpy.py"


def loaded(path: Path) -> ModuleType:
    """The module in this file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(packages: Iterable[str] = ("torch",)) -> dict[str, Any]:
    """What the numbers depend on, the versions of these packages too."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    cells = (*TORCH, *FURTHER)
    paths = ("gategen", "templates", *(str(module_path(name)) for name in cells))
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": git("status", "--porcelain", "--", *paths) != "",
        "modules": {name: sha256(module_path(name).read_bytes()).hexdigest() for name in cells},
        "modules of C": {name: sha256(c_source(name).encode()).hexdigest() for name in cells},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "blas": f"{blas['name']} {blas['version']}",
            **{name: version(name) for name in packages if installed(name)},
            "compiler": compiler(),
        },
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # before the benchmark adds to it
        "system": f"{platform.system()} {platform.machine()}",
        "dtype": "float32",
        "turns": TURNS,
    }


def c_source(name: str) -> str:
    """What gategen writes in C for a cell."""
    from gategen.build import generate
    from gategen.spec.load import find_builtin

    cell = find_builtin(name)
    assert cell
    return generate(cell, "c")[f"{name}_c.c"]


def compiler() -> str:
    """The compiler that the modules of C take, and its version; empty without one."""
    known = map(shlex.split, (os.environ.get("CC", ""), "cc", "gcc", "clang"))
    words = next((words for words in known if words and shutil.which(words[0])), None)
    if words is None:
        return ""
    said = subprocess.run([words[0], "--version"], capture_output=True, text=True, check=False).stdout
    name = "clang" if "clang" in said else "gcc" if "Free Software Foundation" in said else words[0]
    number = re.search(r"\d+(\.\d+)+", said)
    return f"{name} {number[0]}" if number else name


def installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def cpu() -> str:
    """The processor by name and, where Linux tells, its SIMD width."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    told: Mapping[str, str] = dict(
        (word.strip() for word in line.split(":", 1)) for line in lines if ":" in line
    )
    wide = next((w for w in ("avx512f", "avx2") if w in told.get("flags", "").split()), "")
    return " ".join(filter(None, (told.get("model name", "unknown"), wide)))


# ------------------------------------------------------------------------------------------ all processes


def processes(asked: Mapping[str, Any], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The records of one process for every thread count, each held to as many cores."""
    for threads in counts:
        own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        own |= {"JAX_PLATFORMS": "cpu"}
        if threads == 1:
            own |= {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
        command = [sys.executable, __file__, "--process", json.dumps({**asked, "threads": threads})]
        with subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout
            yield from map(json.loads, run.stdout)
        if run.returncode:
            raise click.ClickException(f"the process with {threads} threads ended with {run.returncode}")


def hold(threads: int) -> None:
    """Keep this process, and all threads that it will start, to so many of its cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def written(document: Mapping[str, Any]) -> str:
    """As JSON, a fact or a record a line."""
    lines = []
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            records = ",\n".join(f"  {json.dumps(record)}" for record in value)
            lines.append(f" {json.dumps(name)}: [\n{records}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """Call it when one of `total` is done; a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda: bar.advance(task)


@click.command()
@click.option("--quick", is_flag=True, help="Five shapes instead of the grid as well.")
@click.option("--threads", default="1,2", show_default=True, help="Thread counts, comma-separated.")
@click.option("--jax/--no-jax", default=None, help="Measure JAX too.  [default: where it is installed]")
@click.option(
    "--onnxruntime/--no-onnxruntime",
    default=None,
    help="Measure onnxruntime too.  [default: where it is installed]",
)
@click.option(
    "--out",
    default=ROOT / "benchmarks" / "results" / "cpu.json",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The JSON file.  [default: benchmarks/results/cpu.json]",
)
@click.option("--process", hidden=True, help="JSON: measure this in this process, a record a line.")
def main(
    quick: bool, threads: str, jax: bool | None, onnxruntime: bool | None, out: Path, process: str | None
) -> None:
    """Measure the generated modules, NumPy and C, beside PyTorch, JAX and onnxruntime."""
    if process is not None:
        asked = json.loads(process)
        hold(asked["threads"])
        for record in measure(asked):
            print(json.dumps(record), flush=True)
        return
    counts = [int(count) for count in threads.split(",")]
    chosen = FEW if quick else tuple(dict.fromkeys((*FEW, *MANY)))
    asked = {
        "cells": {**dict.fromkeys(TORCH, chosen), **dict.fromkeys(FURTHER, SMALL)},
        "elementwise": ELEMENTWISE,
        "jax": installed("jax") if jax is None else jax,
        "onnxruntime": installed("onnxruntime") and installed("onnx") if onnxruntime is None else onnxruntime,
    }
    others = ("torch", *(name for name in ("jax", "onnxruntime") if asked[name]))
    document = {**facts(others), "results": [], "steps": [], "elementwise": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    total = len(counts) * sum(map(len, asked["cells"].values()))
    total += (len(TORCH) * len(STEPS) + len(ELEMENTWISE)) * counts.count(1)
    with progress(total) as advance:
        for record in processes(asked, counts):
            document[record.pop("list")].append(record)
            advance()
    out.write_text(written(document))
    from table import table  # the neighbour file

    click.echo(table(document))
    click.echo(f"\nsamples: {out}")


if __name__ == "__main__":
    main()
