"""Markdown tables of what `gpu.py` measured: goals beside figures, ceilings, cells, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from goals import GOALS, Goal  # the neighbour files
from gpu_scale import COMPILED, EAGER, LAYER, OURS, SHAPE, Case
from gpu_times import bound
from table import line, milliseconds

PEERS = (LAYER, EAGER, COMPILED)


def gpu_table(document: Mapping[str, Any]) -> str:
    """All tables, and the conditions."""
    results = [r for r in document["results"] if OURS in r]
    found = ["Goals beside figures. A ratio is the peer's time over ours, forward and backward:"]
    found.append(goals_table(document, results))
    if document["ceilings"]:
        found += ["What the device does at best:", ceilings_table(document["ceilings"])]
    if document["cells"]:
        found += ["Every cell against NumPy, forward and backward:", cells_table(document["cells"])]
    if results:
        found += ["Milliseconds, medians; `A : B` is the time of B over that of A:", times_table(results)]
    return "\n\n".join([*found, about(document)])


def goals_table(document: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """A row a goal: the ratios over the shapes of it that were measured."""
    rows = [line(("goal against", "what", "cells", "dtypes", "H", "B", "T", "at least", "measured", "met"))]
    rows.append(line(("---",) * 7 + ("---:",) * 3))
    for goal in GOALS:
        ratios = [
            ratio for r in results if goal.holds_at(*shape(r)) and (ratio := of_goal(document, goal, r))
        ]
        span = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "not measured"
        met = f"{sum(ratio >= goal.least for ratio in ratios)} of {len(ratios)}" if ratios else ""
        told = (goal.cells, goal.dtypes, goal.hidden, goal.batch, (goal.steps,))
        words = [goal.peer, goal.about, *(", ".join(map(str, some)) for some in told)]
        rows.append(line([*words, f"{goal.least:g}", span, met]))
    return "\n".join(rows)


def of_goal(document: Mapping[str, Any], goal: Goal, record: Mapping[str, Any]) -> float | None:
    """The ratio of a record that a goal is about; None where it was not measured, or sides differ."""
    if record.get("differ"):
        return None
    if goal.peer in record:
        return ratio(record, goal.peer, "training")
    ceilings = document["ceilings"]
    copied = next((c["bytes a second"] for c in ceilings if c["what"] == "copy" and "failed" not in c), None)
    rates = {
        c["dtype"]: c["flops a second"] for c in ceilings if c["what"] == "product" and "failed" not in c
    }
    if goal.peer != "bound" or copied is None or record["dtype"] not in rates:
        return None
    return bound(Case(*shape(record), ()), copied, rates) / float(median(record[OURS]["training"]))


def ratio(record: Mapping[str, Any], peer: str, part: str) -> float:
    """Turn by turn, the median."""
    return float(median(b / a for a, b in zip(record[OURS][part], record[peer][part], strict=True)))


def ceilings_table(records: Iterable[Mapping[str, Any]]) -> str:
    rows = [line(("what", "figure")), line(("---", "---:"))]
    for r in records:
        if "failed" in r:
            rows.append(line((name_of(r), "failed")))
        elif r["what"] == "copy":
            rows.append(line(("copy, read and written", f"{r['bytes a second'] / 1e9:.0f} GB/s")))
        elif r["what"] == "product":
            rows.append(line((f"products, {r['dtype']}", f"{r['flops a second'] / 1e12:.3g} TFLOP/s")))
        elif r["what"] == "launch":
            rows.append(line(("launch, on the device", f"{1e6 * median(r['seconds']):.2f} us")))
            rows.append(line(("launch, the host's time", f"{1e6 * r['seconds of the host']:.2f} us")))
        else:
            words = f"barrier of {r['blocks']} blocks, {r['groups']} groups"
            rows.append(line((words, f"{1e6 * median(r['seconds']):.2f} us")))
    return "\n".join(rows)


def name_of(record: Mapping[str, Any]) -> str:
    return " ".join(str(record[key]) for key in ("what", "dtype", "blocks") if key in record)


def cells_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row a dtype and class of cells; what failed has no class."""
    rows = [line(("dtype", "class", "right", "limit", "worst of the right ones", "wrong"))]
    rows.append(line(("---", "---", "---:", "---:", "---", "---")))
    for dtype, kind in dict.fromkeys((r.get("dtype", ""), r.get("class", "")) for r in records):
        own = [r for r in records if (r.get("dtype", ""), r.get("class", "")) == (dtype, kind)]
        right = [r for r in own if r.get("ok")]
        wrong = dict.fromkeys(r.get("cell", "a process") for r in own if not r.get("ok"))
        worst = max(right, key=lambda r: r["error"], default=None)
        told = f"{worst['error']:.2g}, {worst['cell']}" if worst else ""
        limit = f"{worst['limit']:.2g}" if worst else ""
        rows.append(line((dtype, kind, f"{len(right)} of {len(own)}", limit, told, ", ".join(wrong))))
    return "\n".join(rows)


def times_table(records: Sequence[Mapping[str, Any]]) -> str:
    peers = [peer for peer in PEERS if any(peer in r for r in records)]
    header = [*SHAPE, "gategen forward", "gategen both"]
    header += [words for peer in peers for words in (f"{peer} forward", f"{peer} both", f"gategen : {peer}")]
    rows = [line(header), line("---" if k < 2 else "---:" for k in range(len(header)))]
    for r in sorted(records, key=order):
        words = [str(r[key]) for key in SHAPE]
        words += [milliseconds(1e3 * median(r[OURS][part])) for part in ("forward", "training")]
        for peer in peers:
            if peer not in r:
                words += [""] * 3
                continue
            words += [milliseconds(1e3 * median(r[peer][part])) for part in ("forward", "training")]
            words.append("differs" if peer in r.get("differ", ()) else f"{ratio(r, peer, 'training'):.2f}")
        rows.append(line(words))
    return "\n".join(rows)


def order(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[key] for key in SHAPE)


def shape(record: Mapping[str, Any]) -> tuple[str, str, int, int, int]:
    cell, dtype, T, B, H = (record[key] for key in SHAPE)
    return cell, dtype, T, B, H


def about(document: Mapping[str, Any]) -> str:
    """The conditions, and what the budget left out."""
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items() if value)
    changed = ", with changed files" if document["changed"] else ""
    dropped = document["dropped"]
    left = [f"{len(dropped['shapes'])} shapes" if dropped["shapes"] else ""]
    left.append(f"cells not checked: {', '.join(dropped['cells'])}" if dropped["cells"] else "")
    out = "; ".join(filter(None, left))
    told = f" Left out for want of time: {out}." if out else ""
    start = "EMULATED, no measurement. " if document["emulated"] else ""
    return (
        f"{start}{document['device']['name']}; input size H; CUDA events, cold caches, in turns; "
        "float32 is without TF32, `tf32` with it. "
        f"{versions}; commit {document['commit'][:12]}{changed}.{told}"
    )
