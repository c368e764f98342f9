"""A MODEL of the time that a run takes on a GPU, beside the goals (`goals.py`). It measures nothing.

What a run does is counted from the plan of the cell (`counts.py`): flops, bytes, barriers, launches. How long
that takes follows from the public figures of a GPU and from assumptions (`gpus.py`). Two schemes are
modelled: the launches of every step, and one launch for all steps, in which

* a cell with products in its loop has its weights spread over the registers of as few blocks as hold them; as
  many groups of such blocks as the GPU has room for take the rows of the batch. A step then is the products
  of a block, one load of what other blocks made and one barrier an exchange, and the pointwise rest;
* any other cell moves its bytes, but no faster than a step's chain of dependent operations allows.

What serves all steps at once takes as long as its flops or its bytes, whatever is more, and its launches.
`gpu.py` measures; where it has not, these numbers are all there is, and each of them is a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import click
from counts import WAYS, Counted, Direction, Scheme, Shape, Way, counted, direction, weights, work
from goals import EXPECTED_ON, GOALS, Goal  # the neighbour files
from gpus import ASSUMED, GPUS, ITEMSIZE, TENSOR, Assumptions, Gpu
from table import line, milliseconds

from gategen.graph import length
from gategen.plan import MatMul, Plan, plan
from gategen.plan.phases import phases
from gategen.spec.load import find_builtin

TITLE = "MODEL, nothing here was measured"
SCHEMES: tuple[Scheme, Scheme] = ("whole", "stepwise")
NO_GOAL = Goal("", "", 0.0, (), (), (), ())


@dataclass(frozen=True)
class Spread:
    """How one launch for all steps shares a layer out: groups of blocks, each with its rows of the batch."""

    blocks: int  # of a group
    groups: int
    rows: int  # of a group
    streamed: float = 0.0  # bytes of weights that a block has no room for, and reads at every step


@dataclass(frozen=True)
class Modelled:
    """Seconds of one direction, by the model."""

    at_once: float
    step: float  # one step, under one launch for all of them
    clustered: float | None  # one step, where a group is a cluster of blocks
    whole: float
    whole_clustered: float | None
    stepwise: float


@lru_cache(maxsize=64)
def plan_of(cell: str) -> Plan:
    found = find_builtin(cell)
    assert found, f"no cell {cell}"
    return plan(found)


def modelled(made: Plan, way: Way, shape: Shape, gpu: Gpu, assumed: Assumptions = ASSUMED) -> Modelled:
    """One direction of a run."""
    d = direction(made, way, shape)
    whole = counted(made, way, shape, "whole")
    at_once = parallel(d, whole, gpu, assumed)
    step, clustered = 0.0, None
    if d.schedule.loop:
        step = a_step(d, whole, gpu, assumed, assumed.barrier)
        spread = spread_of(d, gpu, assumed)
        fits = gpu.clusters and spread.blocks <= assumed.cluster
        clustered = a_step(d, whole, gpu, assumed, assumed.cluster_barrier) if fits else None
    return Modelled(
        at_once,
        step,
        clustered,
        at_once + shape.T * step,
        None if clustered is None else at_once + shape.T * clustered,
        at_once + shape.T * launched_step(d, gpu, assumed),
    )


def parallel(d: Direction, run: Counted, gpu: Gpu, assumed: Assumptions) -> float:
    """What serves all steps at once, stage by stage, and the launches."""
    seconds = 0.0
    for stage in (*d.schedule.before, *d.schedule.after):
        done = work(d, stage, d.rows)
        seconds += max(
            done.products / (gpu.products[d.shape.dtype] * assumed.products_reached),
            (done.flops - done.products) / (gpu.vector * assumed.vector_reached),
            done.bytes / (gpu.bandwidth * assumed.bandwidth_reached),
        )
    return seconds + assumed.launch * sum(run.launches.values())


# ------------------------------------------------------------------------------------------ one launch


def a_step(d: Direction, run: Counted, gpu: Gpu, assumed: Assumptions, barrier: float) -> float:
    """One step of a loop that is one launch."""
    moving = run.loop.bytes / d.shape.T / (gpu.bandwidth * assumed.bandwidth_reached)
    if not any(isinstance(stage, MatMul) for stage in d.schedule.loop):
        scan = 0.0 if d.plan.kind == "linear" else assumed.chain / gpu.clock  # a scan has no chain of T steps
        computing = run.loop.flops / d.shape.T / (gpu.vector * assumed.vector_reached)
        return max(moving, computing, scan)
    spread = spread_of(d, gpu, assumed)
    exchanged = run.barriers // d.shape.T
    waiting = exchanged * (assumed.block_barrier if spread.blocks == 1 else barrier)
    rounds = len(phases(d.schedule))
    return max(moving, products(d, spread, gpu, assumed) + loads(d, spread, gpu, assumed) + waiting
               + rounds * assumed.pointwise)  # fmt: skip


def spread_of(d: Direction, gpu: Gpu, assumed: Assumptions) -> Spread:
    """The fewest blocks of which each holds its share of the weights; all there are where no number does.

    Where registers do not hold it, shared memory takes the rest.
    """
    if not any(isinstance(stage, MatMul) for stage in d.schedule.loop):
        return Spread(1, gpu.sms, ceil(d.shape.B / gpu.sms))
    needed = weights(d, d.schedule.loop) * d.shape.itemsize
    shared = assumed.overflow if gpu.arch >= 80 else 0
    for room in (assumed.resident, assumed.resident + shared):
        for blocks in range(1, gpu.sms + 1):
            if needed * units(d, blocks, assumed) / d.shape.H <= room:
                groups = min(d.shape.B, gpu.sms // blocks)
                return Spread(blocks, groups, ceil(d.shape.B / groups))
    held = assumed.resident + shared
    return Spread(gpu.sms, 1, d.shape.B, needed * units(d, gpu.sms, assumed) / d.shape.H - held)


def units(d: Direction, blocks: int, assumed: Assumptions) -> int:
    """Hidden units of a block, as many as products come in."""
    grain = assumed.units if d.shape.dtype in TENSOR else 4
    return ceil(d.shape.H / blocks / grain) * grain


def products(d: Direction, spread: Spread, gpu: Gpu, assumed: Assumptions) -> float:
    """The products of a step within a block."""
    tensor = d.shape.dtype in TENSOR
    rows = ceil(spread.rows / assumed.rows) * assumed.rows if tensor else spread.rows
    share = units(d, spread.blocks, assumed) / d.shape.H
    rate = gpu.products[d.shape.dtype] * (assumed.mma_of_wgmma if tensor and gpu.arch == 90 else 1)
    return 2 * rows * weights(d, d.schedule.loop) * share / (rate / gpu.sms)


def loads(d: Direction, spread: Spread, gpu: Gpu, assumed: Assumptions) -> float:
    """What a block loads of the others' at every step, through L2."""
    if spread.blocks == 1:
        return assumed.block_barrier
    multiplied = (stage for stage in d.schedule.loop if isinstance(stage, MatMul))
    operands = {v for stage in multiplied for v in stage.operand}
    entries = sum(d.number(length(v.size)) for v in operands) * spread.rows
    waits = sum(1 for phase in phases(d.schedule) if phase.products)
    moved = entries * d.shape.itemsize + spread.streamed
    return waits * assumed.l2_latency + moved / assumed.l2_of_sm


# ------------------------------------------------------------------------------------------ a launch a step


def launched_step(d: Direction, gpu: Gpu, assumed: Assumptions) -> float:
    """One step of a loop of launches: each takes the host's time, or the device's where that is longer.

    What one step moves stays in L2, if it fits, and is read from there.
    """
    done = [work(d, stage, d.shape.B) for stage in d.schedule.loop]
    near = sum(each.bytes for each in done) <= gpu.l2
    moving = assumed.l2_of_sm * gpu.sms if near else gpu.bandwidth * assumed.bandwidth_reached
    computing = gpu.products[d.shape.dtype] * assumed.products_reached
    return sum(max(assumed.host, each.products / computing, each.bytes / moving) for each in done)


# ------------------------------------------------------------------------------------------ the listing


def rows_of(goal: Goal) -> Iterator[tuple[str, Shape]]:
    """The cells and shapes of a goal."""
    for cell in goal.cells:
        for dtype in goal.dtypes:
            for H in goal.hidden:
                for B in goal.batch:
                    yield cell, Shape(goal.steps, B, H, H, dtype)


def of_both_ways(cell: str, shape: Shape, gpu: Gpu) -> dict[str, Any]:
    """Forward and backward together: what is counted, and what is modelled of it."""
    made = plan_of(cell)
    ways = [modelled(made, way, shape, gpu) for way in WAYS]
    whole, stepwise = ([counted(made, way, shape, scheme) for way in WAYS] for scheme in SCHEMES)
    clustered = [w.whole_clustered for w in ways if w.whole_clustered is not None]
    return {
        "cell": cell,
        **asdict(shape),
        "counted flops": sum(run.all.flops for run in whole),
        "counted bytes": sum(run.all.bytes for run in whole),
        "counted barriers": sum(run.barriers for run in whole),
        "counted launches": sum(sum(run.launches.values()) for run in whole),
        "counted launches, every step": sum(sum(run.launches.values()) for run in stepwise),
        "model seconds": sum(w.whole for w in ways),
        "model seconds, clusters": sum(clustered) if len(clustered) == len(ways) else None,
        "model seconds, every step": sum(w.stepwise for w in ways),
    }


def beside(goal: Goal, found: dict[str, Any], gpu: Gpu) -> dict[str, Any]:
    """A line of the table: the model beside the goal. What is expected of peers is so of one GPU alone."""
    least = found["model seconds, clusters"] or found["model seconds"]
    known = goal.expected is not None and gpu.name == EXPECTED_ON
    expected = [1e-3 * ms for ms in goal.expected or ()] if known else None
    return {
        "goal": goal.about,
        "peer": goal.peer,
        **found,
        "estimated seconds of the peer": expected,
        "model ratio": None if expected is None else [seconds / least for seconds in expected],
        "goal ratio": goal.least,
    }


def document(gpu: Gpu, given: Sequence[tuple[str, Shape]] = ()) -> dict[str, Any]:
    """All goals beside the model, or cells and shapes that are given; without dtypes that the GPU lacks."""
    asked = [(NO_GOAL, cell, shape) for cell, shape in given]
    asked = asked or [(goal, cell, shape) for goal in GOALS for cell, shape in rows_of(goal)]
    able = [each for each in asked if each[2].dtype in gpu.products]
    return {
        "model": True,
        "title": f"{TITLE}: forward and backward on a {gpu.name}",
        "gpu": {**asdict(gpu), "products": dict(gpu.products)},
        "assumptions": asdict(ASSUMED),
        "rows": [beside(goal, of_both_ways(cell, shape, gpu), gpu) for goal, cell, shape in able],
    }


HEADER = (
    "goal against", "cell", "dtype", "T", "B", "H", "GFLOP", "MB", "barriers", "launches",
    "launches, every step", "MODEL ms", "MODEL ms, clusters", "MODEL ms, every step", "peer ms, estimated",
    "MODEL ratio", "GOAL ratio",
)  # fmt: skip


def listing(made: dict[str, Any]) -> str:
    """As a Markdown table under its title."""
    lines = [made["title"], "", line(HEADER), line("---" if k < 3 else "---:" for k in range(len(HEADER)))]
    for r in made["rows"]:
        times = (r["model seconds"], r["model seconds, clusters"], r["model seconds, every step"])
        counts = ("barriers", "launches", "launches, every step")
        words = [r["peer"], r["cell"], r["dtype"], *(str(r[size]) for size in "TBH")]
        words += [milliseconds(r["counted flops"] / 1e9), milliseconds(r["counted bytes"] / 1e6)]
        words += [str(r[f"counted {what}"]) for what in counts]
        words += ["" if seconds is None else milliseconds(1e3 * seconds) for seconds in times]
        words += [
            span(r["estimated seconds of the peer"], 1e3),
            span(r["model ratio"]),
            ratio(r["goal ratio"]),
        ]
        lines.append(line(words))
    notes = (
        "MODEL columns follow from the plan's counts, the public figures of the GPU and assumptions "
        "(`benchmarks/gpus.py`); the peer's times are estimates from what others published. The MODEL ratio "
        f"is that of clusters where there are any. Source of the figures: {made['gpu']['source']}."
    )
    return "\n".join([*lines, "", notes])


def ratio(goal: float) -> str:
    return f"{goal:g}" if goal else ""


def span(both: list[float] | None, times: float = 1) -> str:
    return "" if both is None else " to ".join(milliseconds(times * value) for value in both)


@click.command()
@click.option("--gpu", "name", default="H200", show_default=True, type=click.Choice([*GPUS]))
@click.option("--cell", help="One cell instead of the goals.")
@click.option("--shape", default="1024,16,256,256", show_default=True, help="T,B,I,H of it.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice([*ITEMSIZE]))
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="A file for the rows.")
def main(name: str, cell: str | None, shape: str, dtype: str, out: Path | None) -> None:
    """Print the goals beside a model of time on a GPU. Nothing is measured."""
    if cell and not find_builtin(cell):
        raise click.ClickException(f"there is no cell {cell}")
    T, B, I, H = map(int, shape.split(","))  # noqa: E741
    made = document(GPUS[name], [(cell, Shape(T, B, I, H, dtype))] if cell else [])
    if not made["rows"]:
        raise click.ClickException(f"a {name} has no products of {dtype}")
    click.echo(listing(made))
    if out:
        out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
