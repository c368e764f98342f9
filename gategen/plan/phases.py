"""phases: the loop over time as rounds, each a few products and what is computed of them row by row.

Within a phase no product waits for another, and a row of the batch waits for none but itself: its sums and
its pointwise work can follow while the products of the phase are in registers or close by. Where rows share
their work out, over threads or over blocks of a GPU, they need to meet between two phases at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gategen.graph import Value
from gategen.plan.data import (
    ColumnSum,
    Contraction,
    InBuffer,
    Kernel,
    MatMul,
    RunningSum,
    Schedule,
    Shifted,
    Stage,
    Sum,
)
from gategen.spec.language import Size

Rowwise = Kernel | Sum | RunningSum | Shifted | Contraction


@dataclass(frozen=True)
class Phase:
    """Products that read nothing of each other, and the program of every row behind them."""

    products: tuple[MatMul, ...]
    program: tuple[Rowwise, ...]


def phases(schedule: Schedule) -> tuple[Phase, ...]:
    """The loop of a schedule; what it would compute ahead of time for whole arrays is not among it."""
    return phases_of(schedule.loop)


def phases_of(stages: Sequence[Stage]) -> tuple[Phase, ...]:
    """Stages of one level in their order; a product that reads what its phase has made begins the next."""
    found: list[tuple[list[MatMul], list[Rowwise]]] = [([], [])]
    for stage in stages:
        products, program = found[-1]
        if isinstance(stage, MatMul):
            made = {v for other in (*products, *program) for v in other.writes}
            if program or not made.isdisjoint(stage.reads):
                found.append(([stage], []))
            else:
                products.append(stage)
        else:
            assert isinstance(stage, Rowwise), "sums over the batch lie outside"
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
        elif isinstance(stage, Kernel | Sum | RunningSum | Shifted) and all(v.static for v in stage.writes):
            (last if waits else first).append(stage)
            summed.update(stage.writes if waits else ())
        elif waits:
            return Parts(at_once=True)
    return Parts(tuple(first), tuple(last))


def row_by_row(schedule: Schedule) -> bool:
    """Whether a block of a GPU can take a row of the batch through all steps alone: nothing is multiplied."""
    loop = schedule.loop
    return (
        bool(loop)
        and not persists(schedule)
        and all(isinstance(stage, Kernel | Contraction | Sum) for stage in loop)
        and all(
            stage.how == "sum" and len({v.size for v in stage.operand}) == 1
            for stage in loop
            if isinstance(stage, Sum)
        )
    )


def parted_by(schedule: Schedule) -> Size:
    """The first axis of all that has it, along which blocks of a GPU can share a row; "" where there is none.

    No sum goes over it. What has not got it, each of them computes: it must not replace what others read.
    """
    loop, slot, states = schedule.loop, schedule.slot, [c.current for c in schedule.graph.states]
    made = [v for stage in loop for v in stage.writes]
    sums = [(v, stage.writes[0]) for stage in loop if not isinstance(stage, Kernel) for v in stage.reads]
    written = [*made, *(states if schedule.graph.backwards else ())]
    given = [v for stage in loop for v in stage.reads if v not in made]
    read = {slot[v] for v in (*states, *given) if v in slot}

    def parts(axis: Size) -> bool:
        return (
            all(axis not in v.axes[1:] for v in (*made, *states))
            and all(axis not in v.axes or axis in total.axes for v, total in sums)
            and read.isdisjoint(slot[v] for v in written if axis not in v.axes and v in slot)
        )

    return next((v.axes[0] for v in states if len(v.axes) > 1 and parts(v.axes[0])), "")


def persists(schedule: Schedule) -> bool:
    """Whether blocks of a GPU can share the units of a loop, for all steps in one launch.

    They meet before products and sums alone. So products must read what has memory for every step, to which
    nothing else goes later, and no block may write a number of a row where others read one.
    """
    loop, slot = schedule.loop, schedule.slot
    products = [stage for stage in loop if isinstance(stage, MatMul)]
    sums = [stage for stage in loop if isinstance(stage, Sum)]
    made = [v for stage in loop for v in stage.writes]
    last = {slot[v]: v for v in made if v in slot}
    operands = [v for stage in products for v in stage.operand]
    short = {InBuffer(b.name) for b in schedule.buffers if b.kind in ("row", "carry")}
    given = {v for stage in loop for v in stage.reads if v.size == 1 and not v.static and v not in made}
    return (
        bool(products or sums)
        and all(isinstance(stage, MatMul | Sum | Kernel) for stage in loop)
        and all(len(v.shape) < 2 for stage in loop for v in (*stage.reads, *stage.writes))
        and all(stage.blocks == 1 and len({v.size for v in stage.out}) == 1 for stage in products)
        and all(v.size != 1 for stage in products for v in (*stage.out, *stage.operand))
        and all(stage.how == "sum" and stage.out.size == 1 for stage in sums)
        and all(v in made and v.size != 1 for stage in sums for v in stage.operand)
        and not any(isinstance(stage, Kernel) and isinstance(stage.size, tuple) for stage in loop)
        and all(slot[v].home not in short and last.get(slot[v], v) == v for v in operands)
        and {slot[v] for v in given if v in slot}.isdisjoint(slot[v] for v in made if v in slot)
    )
