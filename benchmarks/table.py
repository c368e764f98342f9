"""Markdown tables of what `cpu.py`, `torch_layers.py`, `host.py`, `registers.py`, `gpu.py` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import click

RESULTS = Path(__file__).resolve().parent / "results" / "cpu.json"
BEGIN, END = "<!-- benchmarks/table.py: begin -->", "<!-- end -->"
REGISTERS = "<!-- benchmarks/table.py, registers: begin -->"  # beside another table
BESIDE = {"gru_after": "`nn.GRU`", "lstm": "`nn.LSTM`"}
SIDES = {"gategen": "NumPy", "c": "C", "torch": "PyTorch", "jax": "JAX", "onnxruntime": "onnxruntime"}
PAIRS = (("gategen", "torch"), ("c", "torch"), ("c", "jax"), ("c", "onnxruntime"))  # how often as fast is
COLON = "`A : B` is the time of B over that of A, so that above 1 A is faster:"
SHORT = {(100, 1, 64), (100, 16, 128), (100, 32, 256), (100, 64, 512), (50, 128, 512)}


def table(document: dict[str, Any], short: bool = False) -> str:
    """Tables for every thread count, where the module of C stands, the small ones, and the conditions."""
    found = []
    for threads, records in by_threads(document).items():
        shown = [r for r in records if not short or shape(r) in SHORT]
        with_threads = f"with {threads} thread{'s' * (threads > 1)}"
        found += [f"A training step, forward and backward, {with_threads}. {COLON}", training_table(shown)]
        if inferences := [inference(r) for r in shown if "inference" in r]:
            found += [f"The forward pass alone, {with_threads}:", sides_table(inferences)]
    if any("c" in r for r in document["results"]):
        found += ["Where the module of C stands, over all shapes measured:", standings(document)]
    if document.get("steps"):
        found += ["A step of one sequence, in microseconds:", steps_table(document["steps"])]
    if document.get("elementwise"):
        found += [elementwise_title(document["elementwise"]), elementwise_table(document["elementwise"])]
    return "\n\n".join([*found, about(document)])


def by_threads(document: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """The records of every thread count, those of a cell together, by H, B and T."""
    counts = sorted({r["threads"] for r in document["results"]})
    order = list(dict.fromkeys(r["cell"] for r in document["results"]))
    rows = sorted(document["results"], key=lambda r: (order.index(r["cell"]), shape(r)[::-1]))
    return {n: [r for r in rows if r["threads"] == n] for n in counts}


def inference(record: dict[str, Any]) -> dict[str, Any]:
    """A record of the forward pass alone, which looks like that of a step."""
    sides = {side: {"forward": seconds} for side, seconds in record["inference"].items()}
    return {**{name: record[name] for name in ("cell", "T", "B", "H")}, **sides}


def training_table(records: Sequence[dict[str, Any]]) -> str:
    """With the share of the NumPy module's time that the products alone take."""
    share = [f"{100 * median(ratios(record, 'products', 'gategen')):.0f} %" for record in records]
    return sides_table(records, {"products": share})


def sides_table(records: Sequence[dict[str, Any]], more: dict[str, list[str]] | None = None) -> str:
    """A row for every cell and shape: the milliseconds of every side, and how they compare."""
    sides = [side for side in SIDES if any(side in r for r in records)]
    pairs = [(ours, other) for ours, other in PAIRS if {ours, other} <= set(sides)]
    header = ["cell", "T", "B", "H", *(f"{SIDES[side]}, ms" for side in sides)]
    header += [f"{SIDES[ours]} : {SIDES[other]}" for ours, other in pairs]
    header += (more or {}).keys()
    lines = [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    for k, record in enumerate(records):
        words = [record["cell"], *map(str, shape(record))]
        words += [
            milliseconds(1e3 * median(totals(record[side]))) if side in record else "" for side in sides
        ]
        words += [
            f"{median(ratios(record, other, ours)):.2f}" if {ours, other} <= set(record) else ""
            for ours, other in pairs
        ]
        lines.append(line([*words, *(column[k] for column in (more or {}).values())]))
    return "\n".join(lines)


def standings(document: dict[str, Any]) -> str:
    """At how many shapes C is faster than another side, and between which bounds."""
    others = [side for side in SIDES if side != "c"]
    header = ["cell", "threads", "what", "beside", "faster at", "times as fast", "least at T, B, H"]
    lines = [line(header), line(["---", "---:", "---", "---", "---", "---", "---"])]
    for threads, records in by_threads(document).items():
        kinds = {"forward and backward": records}
        kinds["forward"] = [inference(r) for r in records if "inference" in r]
        for cell, (what, rows), other in product(
            dict.fromkeys(r["cell"] for r in records), kinds.items(), others
        ):
            found = [
                (median(ratios(r, other, "c")), shape(r))
                for r in rows
                if r["cell"] == cell and {"c", other} <= set(r)
            ]
            if found:
                faster = sum(ratio > 1 for ratio, _ in found)
                (least, where), (most, _) = min(found), max(found)
                words = [cell, str(threads), what, SIDES[other], f"{faster} of {len(found)}"]
                lines.append(line([*words, f"{least:.2f} to {most:.2f}", ", ".join(map(str, where))]))
    return "\n".join(lines)


def steps_table(records: Sequence[dict[str, Any]]) -> str:
    """A row for every cell and size, in microseconds."""
    labels = {
        "gategen": "NumPy",
        "c": "C, from Python",
        "function": "the function of C by ctypes",
        "function, packed": "the same, weights packed",
    }
    sides = [side for side in labels if any(side in r for r in records)]
    header = ["cell", "B", "H", *(labels[side] for side in sides)]
    lines = [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    for r in records:
        times = [milliseconds(1e6 * median(r[side])) if side in r else "" for side in sides]
        lines.append(line([r["cell"], str(r["B"]), str(r["H"]), *times]))
    return "\n".join(lines)


def elementwise_title(records: Sequence[dict[str, Any]]) -> str:
    """With the bandwidth of the copies."""
    speed = median(r["copied"] / 1e9 / seconds for r in records for seconds in totals(r["copy"]))
    T, B, H = shape(records[0])
    return (
        f"Elementwise recurrences, forward and backward, T {T}, B {B}, H {H}, in milliseconds. `bytes` is "
        f"how long it takes to move what the step reads and writes, at the {speed:.0f} GB/s of `np.copyto`; "
        "`products` are its matrix products by `np.matmul`:"
    )


def elementwise_table(records: Sequence[dict[str, Any]]) -> str:
    """A row for every cell, and what our time is in multiples of the bound."""
    sides = [side for side in SIDES if any(side in r for r in records)]
    header = ["cell", *(SIDES[side] for side in sides), "products", "bytes", "MB"]
    lines = [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    for r in records:
        moving = median(seconds * r["bytes"] / r["copied"] for seconds in totals(r["copy"]))
        times = [median(totals(r[side])) if side in r else None for side in (*sides, "products")]
        words = ["" if seconds is None else milliseconds(1e3 * seconds) for seconds in (*times, moving)]
        lines.append(line([r["cell"], *words, f"{r['bytes'] / 1e6:.0f}"]))
    return "\n".join(lines)


def host_table(document: dict[str, Any]) -> str:
    """A row for every cell, columns for every label that was measured."""
    labels = {
        f"{label}{', with lengths' * lengths}": (label, lengths)
        for lengths in (False, True)
        for label in document
    }
    header = ["cell", *(f"{what}, {label}" for label in labels for what in ("operations", "us"))]
    lines = [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    for cell in dict.fromkeys(r["cell"] for made in document.values() for r in made["results"]):
        words = [cell]
        for label, lengths in labels.values():
            (record,) = (
                r for r in document[label]["results"] if (r["cell"], r["lengths"]) == (cell, lengths)
            )
            for what, form in (("operations", "{:.0f}"), ("us", "{:.1f}")):
                words.append(" / ".join(form.format(record[way][what]) for way in ("forward", "backward")))
        lines.append(line(words))
    *_, made = document.values()
    lines += ["", f"A run of {made['T']} steps, of cells whose steps are all in one launch:", ""]
    lines += [line(["cell", "operations", "us", "operations, with lengths", "us, with lengths"])]
    lines += [line(["---", *["---:"] * 4])]
    for cell in dict.fromkeys(r["cell"] for r in made["at_once"]):
        words = [cell]
        for record in (r for r in made["at_once"] if r["cell"] == cell):
            for what in ("operations", "us"):
                words.append(" / ".join(f"{record[way][what]:.0f}" for way in ("forward", "backward")))
        lines.append(line(words))
    versions, processors = (
        made["versions"],
        ", ".join(f"{of['cpu']} ({label})" for label, of in document.items()),
    )
    conditions = (
        f"float32, B {made['B']}, H {made['H']}, processor time, the fastest of many runs. "
        f"CuPy {versions['cupy']}, NumPy {versions['numpy']}, Python {versions['python']}. "
        f"Processors: {processors}."
    )
    return "\n".join([*lines, "", conditions])


def registers_table(document: dict[str, Any]) -> str:
    """A row for every kind of kernel and type: the most registers that a thread has, and in which cell."""
    cells = document["registers"]
    architectures = list(next(iter(cells.values()))["kernels"]["steps"]["float32"])
    header = ["kernels", "type", "cells", *(f"sm_{arch}" for arch in architectures)]
    lines = [line(header), line(["---", "---", *["---:"] * (len(header) - 2)])]
    for kind, what in document["kinds"].items():
        having = {name: cell["kernels"][kind] for name, cell in cells.items() if kind in cell["kernels"]}
        for storage in next(iter(having.values())):
            words = [what if storage == "float32" else "", storage, str(len(having))]
            for arch in architectures:
                found = {name: of[storage][arch][0] for name, of in having.items() if arch in of[storage]}
                most = max(found, key=lambda name: found[name], default="")  # the first of several
                words.append(f"{found[most]} ({most})" if found else "")
            lines.append(line(words))
    types = [of for cell in cells.values() for kind in cell["kernels"].values() for of in kind.values()]
    rows = zip(*(row for of in types for row in of.values()), strict=True)
    _, shared, arrays, spilled = (max(numbers) for numbers in rows)
    told = (
        f"At most {spilled} bytes are spilled in any of them, {shared} bytes are shared memory beside what a "
        f"launch asks for, and {arrays} bytes are arrays that no registers hold. NVRTC {document['nvrtc']}."
    )
    return "\n".join([*lines, "", told])


def layers_table(document: dict[str, Any], short: bool = False) -> str:
    """A row for every cell and shape: a layer of `gategen.torch`, and what PyTorch has beside it.

    `short`: what a call costs, and compilation, are left out.
    """
    ours = [side for side in ("gategen", "c") if any(side in r for r in document["results"])]
    header = ["cell", "T", "B", "H", *(f"{SIDES[side]}, ms" for side in ours), "without gategen", "ms"]
    header += [f"{SIDES[side]}, times as fast" for side in ours]
    header += [] if short else ["more than the module alone, us"]
    lines = [line(header), line("---" if k in (0, 4 + len(ours)) else "---:" for k in range(len(header)))]
    for record in document["results"]:
        words = [record["cell"], *map(str, shape(record))]
        words += [milliseconds(1e3 * median(record[side])) if side in record else "" for side in ours]
        words += [
            BESIDE.get(record["cell"], "a loop in PyTorch"),
            milliseconds(1e3 * median(record["torch"])),
        ]
        words += [f"{median(ratios(record, 'torch', side)):.2f}" if side in record else "" for side in ours]
        if not short:
            more = median(record.get("c", record["gategen"])) - median(record["bare"])
            words += [f"{1e6 * more:.0f}" if record["T"] == 1 else ""]
        if not short or record["T"] > 1:
            lines.append(line(words))
    compiled = document["compile"]
    times = (
        f"`torch.compile` of a layer of mgu, T 50, takes {compiled['gategen']:.1f} s to the first step, of "
        f"the loop {compiled['loop']:.1f} s. "
    )
    return "\n".join(
        [*lines, "", f"{'' if short else times}Forward and backward, one thread. {about(document)}"]
    )


def ratios(record: dict[str, Any], above: str, below: str) -> list[float]:
    """The time of one side over that of another, a number for every turn."""
    return [a / b for a, b in zip(totals(record[above]), totals(record[below]), strict=True)]


def milliseconds(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def totals(side: dict[str, list[float]] | list[float]) -> list[float]:
    """Seconds of all parts together, a number for every turn."""
    return side if isinstance(side, list) else [sum(parts) for parts in zip(*side.values(), strict=True)]


def shape(record: dict[str, Any]) -> tuple[int, int, int]:
    return record["T"], record["B"], record["H"]


def about(document: dict[str, Any]) -> str:
    """The conditions, in a sentence."""
    versions = document["versions"]
    changed = ", with changed modules" if document["changed"] else ""
    names = {"compiler": "C by", "torch": "PyTorch", "jax": "JAX", "onnxruntime": "onnxruntime"}
    others = "".join(f"{name} {versions[key]}, " for key, name in names.items() if versions.get(key))
    return (
        f"float32, input size H; medians of {document['turns']} turns; with one thread "
        "processor time. "
        f"NumPy {versions['numpy']} ({versions['blas']}), {others}Python {versions['python']}, "
        f"{document['cpu']}, {document['cores']} cores; "
        f"commit {document['commit'][:12]}{changed}."
    )


def line(words: Iterable[str]) -> str:
    return f"| {' | '.join(words)} |"


@click.command()
@click.argument("results", default=RESULTS, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--short", is_flag=True, help="The rows that people ask for first.")
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Put the table into this file, between {BEGIN} and {END}; of registers, {REGISTERS}.",
)
def main(results: Path, short: bool, into: Path | None) -> None:
    """Print the table of RESULTS, by default benchmarks/results/cpu.json."""
    document = json.loads(results.read_text())
    begin = REGISTERS if "registers" in document else BEGIN
    if "registers" in document:
        text = registers_table(document)
    elif "ceilings" in document:
        from gpu_table import gpu_table  # the neighbour file

        text = gpu_table(document)
    elif "results" not in document:
        text = host_table(document)
    else:
        text = (layers_table if "compile" in document else table)(document, short)
    if into is None:
        click.echo(text)
        return
    old = into.read_text()
    new, found = re.subn(
        f"({re.escape(begin)}\n).*?({re.escape(END)})",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        old,
        flags=re.S,
    )
    if not found:
        raise click.ClickException(f"{into} has no line {begin}")
    into.write_text(new)


if __name__ == "__main__":
    main()
