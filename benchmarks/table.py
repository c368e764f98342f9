"""Markdown tables of what `cpu.py`, `torch_layers.py` and `host.py` wrote, printed or put into documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

RESULTS = Path(__file__).resolve().parent / "results" / "cpu.json"
BEGIN, END = "<!-- benchmarks/table.py: begin -->", "<!-- end -->"
BESIDE = {"gru_after": "`nn.GRU`", "lstm": "`nn.LSTM`"}
SHORT = {(100, 1, 64), (100, 16, 128), (100, 32, 256), (100, 64, 512), (50, 128, 512)}


def table(document: dict[str, Any], short: bool = False) -> str:
    """A row for every cell and shape, columns for every thread count, and what was measured on what."""
    records = [r for r in document["results"] if not short or shape(r) in SHORT]
    counts = sorted({r["threads"] for r in records})
    by_key = {(r["cell"], shape(r), r["threads"]): r for r in records}
    rows = sorted({(r["cell"], shape(r)) for r in records}, key=lambda row: (row[0], row[1][::-1]))
    header = ["cell", "T", "B", "H"]
    for n in counts:
        header += [f"ms, {n} thread{'s' * (n > 1)}", "times as fast as PyTorch", "products"]
    lines = [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    for cell, sizes in rows:
        words = [cell, *map(str, sizes)]
        for n in counts:
            record = by_key.get((cell, sizes, n))
            words += columns(record) if record else ["", "", ""]
        lines.append(line(words))
    return "\n".join([*lines, "", about(document)])


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
    versions = made["versions"]
    conditions = (
        f"float32, B {made['B']}, H {made['H']}, processor time, the fastest of many runs. "
        f"CuPy {versions['cupy']}, NumPy {versions['numpy']}, Python {versions['python']}, {made['cpu']}."
    )
    return "\n".join([*lines, "", conditions])


def layers_table(document: dict[str, Any], short: bool = False) -> str:
    """A row for every cell and shape: a layer of `gategen.torch`, and what PyTorch has beside it.

    `short`: what a call costs, and compilation, are left out.
    """
    header = ["cell", "T", "B", "H", "ms", "without gategen", "ms", "times as fast"]
    header += [] if short else ["more than the module alone, us"]
    lines = [
        line(header),
        line(["---", "---:", "---:", "---:", "---:", "---", *["---:"] * (len(header) - 6)]),
    ]
    for record in document["results"]:
        ours, theirs, bare = (record[side] for side in ("gategen", "torch", "bare"))
        words = [record["cell"], *map(str, shape(record)), milliseconds(1e3 * median(ours))]
        words += [BESIDE.get(record["cell"], "a loop in PyTorch"), milliseconds(1e3 * median(theirs))]
        words += [f"{median(t / o for t, o in zip(theirs, ours, strict=True)):.2f}"]
        if not short:
            words += [f"{1e6 * (median(ours) - median(bare)):.0f}" if record["T"] == 1 else ""]
        if not short or record["T"] > 1:
            lines.append(line(words))
    compiled = document["compile"]
    times = (
        f"`torch.compile` of a layer of mgu, T 50, takes {compiled['gategen']:.1f} s to the first step, of "
        f"the loop {compiled['loop']:.1f} s. "
    )
    return "\n".join([*lines, "", f"{'' if short else times}One thread. {about(document)}"])


def columns(record: dict[str, Any]) -> list[str]:
    """Our milliseconds; PyTorch's time over ours; the share of the time that the products alone take."""
    ours, theirs, products = (totals(record[side]) for side in ("gategen", "torch", "products"))
    return [
        milliseconds(1e3 * median(ours)),
        f"{median(t / o for t, o in zip(theirs, ours, strict=True)):.2f}",
        f"{100 * median(p / o for p, o in zip(products, ours, strict=True)):.0f} %",
    ]


def milliseconds(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def totals(side: dict[str, Sequence[float]]) -> list[float]:
    """Seconds of forward and backward together, a number for every turn."""
    return [sum(both) for both in zip(side["forward"], side["backward"], strict=True)]


def shape(record: dict[str, Any]) -> tuple[int, int, int]:
    return record["T"], record["B"], record["H"]


def about(document: dict[str, Any]) -> str:
    """The conditions, in a sentence."""
    versions = document["versions"]
    changed = ", with changed modules" if document["changed"] else ""
    return (
        f"float32, forward and backward, input size H; medians of {document['turns']} turns; with one thread "
        "processor time. "
        f"NumPy {versions['numpy']} ({versions['blas']}), PyTorch {versions['torch']}, "
        f"Python {versions['python']}, {document['cpu']}, {document['cores']} cores; "
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
    help=f"Put the table into this file, between {BEGIN} and {END}.",
)
def main(results: Path, short: bool, into: Path | None) -> None:
    """Print the table of RESULTS, by default benchmarks/results/cpu.json."""
    document = json.loads(results.read_text())
    if "results" not in document:
        text = host_table(document)
    else:
        text = (layers_table if "compile" in document else table)(document, short)
    if into is None:
        click.echo(text)
        return
    old = into.read_text()
    new, found = re.subn(
        f"({re.escape(BEGIN)}\n).*?({re.escape(END)})",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        old,
        flags=re.S,
    )
    if not found:
        raise click.ClickException(f"{into} has no line {BEGIN}")
    into.write_text(new)


if __name__ == "__main__":
    main()
