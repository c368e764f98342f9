"""Registers, shared memory and spills of the generated CUDA, for every architecture, without a GPU.

NVIDIA's compiler (`tests/nvrtc.py`) takes every file of `generated/` as CuPy has it compiled: float32 for all
architectures, the other types for one. The JSON keeps for each kind of kernel of a cell the most that any
takes: registers of a thread; bytes of shared memory, without what a launch asks for; bytes of arrays that no
registers hold; bytes that are spilled. A file that is as it was the last time is not compiled again.

    python benchmarks/registers.py
    python benchmarks/table.py benchmarks/results/registers.json --into docs/cuda.md
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import nvrtc  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "registers.json"
GENERATED = ROOT / "generated"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
FIRST = 90  # for which all types are compiled
STORAGES = {
    "float32": ("-DREAL=float", "-DSTORAGE=float"),
    "float64": ("-DREAL=double", "-DSTORAGE=double"),
    "float16": ("-DREAL=float", "-DSTORAGE=__half", "-DHALF"),
    "bfloat16": ("-DREAL=float", "-DSTORAGE=__nv_bfloat16", "-DHALF"),
}
KINDS = {
    "entries": "all steps in one launch, entry by entry",
    "blocks": "all steps in one launch, by blocks that wait for each other",
    "rows": "all steps in one launch, by blocks that take a row each",
    "steps": "the others, for a step or beside the steps",
}
KERNEL = re.compile(r'^extern "C" __global__ void (\w+)\((.*?)^}', re.M | re.S)


# What is in the text of a kernel of each kind, the first that fits.
SIGNS = {"blocks": "unsigned* arrived", "rows": "extern __shared__", "entries": "steps_of(", "steps": ""}


def kinds(source: str) -> dict[str, str]:
    """What kind each kernel of a file is."""
    return {
        name: next(kind for kind, sign in SIGNS.items() if sign in text)
        for name, text in KERNEL.findall(source)
    }


def worst(source: str, report: nvrtc.Report) -> dict[str, list[int]]:
    """Of each kind of kernel the most registers, bytes of shared memory, of arrays, and spilled."""
    found: dict[str, list[int]] = {}
    for name, kind in kinds(source).items():
        told = (report.registers, report.shared_bytes, report.stack_bytes, report.spill_bytes)
        found[kind] = [max(n, of[name]) for n, of in zip(found.get(kind, [0] * 4), told, strict=True)]
    return found


def targets() -> Iterator[tuple[str, int]]:
    """The types and architectures that a file is compiled for."""
    yield from (("float32", arch) for arch in ARCHITECTURES)
    yield from ((storage, FIRST) for storage in STORAGES if storage != "float32")


def compiled(file: Path) -> dict[str, Any]:
    """What is known of a file: its checksum, and the kernels by kind, type and architecture."""
    source = file.read_text(encoding="utf-8")
    kernels: dict[str, dict[str, dict[str, list[int]]]] = {}
    for storage, arch in targets():
        report = nvrtc.compile(source, arch, STORAGES[storage])
        for kind, numbers in worst(source, report).items():
            kernels.setdefault(kind, {}).setdefault(storage, {})[str(arch)] = numbers
    return {"source": checksum(source), "kernels": kernels}


def checksum(source: str) -> str:
    """Of all but the comments."""
    return sha256(re.sub(r"\s*//.*", "", source).encode()).hexdigest()[:16]


def written(document: dict[str, Any]) -> str:
    """As JSON, with a line for every kind of kernel and type."""
    text = json.dumps(document, indent=1)
    text = re.sub(r"\[\s+(\d+),\s+(\d+),\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2, \3, \4]", text)
    return re.sub(r'\{\s+("\d+": [^{}]*?)\s+\}', lambda m: f"{{{' '.join(m[1].split())}}}", text) + "\n"


@click.command()
@click.option("--write", "output", default=RESULTS, type=click.Path(path_type=Path), help="The JSON file.")
@click.option("--jobs", default=None, type=int, help="Processes; by default one for every core.")
def main(output: Path, jobs: int | None) -> None:
    """Compile what has changed in `generated/`, and write the table."""
    known = json.loads(output.read_text()) if output.exists() else {}
    cells = known.get("registers", {}) if known.get("nvrtc") == nvrtc.version() else {}
    files = {file.stem.removesuffix("_cupy"): file for file in sorted(GENERATED.glob("*_cupy.cu"))}
    sums = {name: checksum(file.read_text(encoding="utf-8")) for name, file in files.items()}
    changed = [name for name in files if cells.get(name, {}).get("source") != sums[name]]
    with ProcessPoolExecutor(jobs) as pool:
        for name, made in zip(changed, pool.map(compiled, map(files.get, changed)), strict=True):
            cells[name] = made
            click.echo(
                f"{name:16}{ {kind: of['float32'][str(FIRST)] for kind, of in made['kernels'].items()} }"
            )
    document = {
        "nvrtc": nvrtc.version(),
        "kinds": KINDS,
        "numbers": ["registers", "shared bytes", "bytes of arrays", "bytes spilled"],
        "registers": {name: cells[name] for name in files},
    }
    output.write_text(written(document))


if __name__ == "__main__":
    main()
