"""phases: the loop over time as rounds, each a few products and what is computed of them row by row.

Within a phase no product waits for another, and a row of the batch waits for none but itself: its sums and
its pointwise work can follow while the products of the phase are in registers or close by. Where rows share
their work out, over threads or over blocks of a GPU, they need to meet between two phases at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gategen.graph import Value
from gategen.plan.data import ColumnSum, Kernel, MatMul, Schedule, Stage, Sum


@dataclass(frozen=True)
class Phase:
    """Products that read nothing of each other, and the program of every row behind them."""

    products: tuple[MatMul, ...]
    program: tuple[Kernel | Sum, ...]


def phases(schedule: Schedule) -> tuple[Phase, ...]:
    """The loop of a schedule; what it would compute ahead of time for whole arrays is not among it."""
    return phases_of(schedule.loop)


def phases_of(stages: Sequence[Stage]) -> tuple[Phase, ...]:
    """Stages of one level in their order; a product that reads what its phase has made begins the next."""
    found: list[tuple[list[MatMul], list[Kernel | Sum]]] = [([], [])]
    for stage in stages:
        products, program = found[-1]
        if isinstance(stage, MatMul):
            made = {v for other in (*products, *program) for v in other.writes}
            if program or not made.isdisjoint(stage.reads):
                found.append(([stage], []))
            else:
                products.append(stage)
        else:
            assert isinstance(stage, Kernel | Sum), "sums over the batch lie outside of the loop"
            program.append(stage)
    return tuple(Phase(tuple(products), tuple(program)) for products, program in found if products or program)


@dataclass(frozen=True)
class Parts:
    """The stages of a schedule that do not run with every few steps: before all of them, and behind them."""

    first: tuple[Stage, ...] = ()
    last: tuple[Stage, ...] = ()
    at_once: bool = False  # whether all steps must be there at once


def parts(schedule: Schedule) -> Parts:
    """What is one for all steps is computed once.

    What adds up over steps can do so part by part, unless something of every row needs the whole sum.
    """
    if schedule.graph.mask is not None:
        return Parts(at_once=True)
    first: list[Stage] = []
    last: list[Stage] = []
    summed: set[Value] = set()
    for stage in schedule.stages:
        waits = not summed.isdisjoint(stage.reads)
        if isinstance(stage, ColumnSum):
            summed.update(stage.writes)
        elif isinstance(stage, Kernel | Sum) and all(v.static for v in stage.writes):
            (last if waits else first).append(stage)
            summed.update(stage.writes if waits else ())
        elif waits:
            return Parts(at_once=True)
    return Parts(tuple(first), tuple(last))
