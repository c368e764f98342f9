"""loops: the loop over time as a stage behind it, where every entry of a row goes through the steps alone.

A GPU then starts all steps at once: a thread keeps its entry of the states in registers, and adds up there
what is summed over the steps. A loop in which entries wait for each other is left as it is.

Stretches of such a loop can run side by side, where it is known what each makes of what it begins with. For
a GPU that has more threads than a batch has entries, the loop says that too (`linearized`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import sympy as sp

from gategen.graph import LOOP, Builder, Pointwise, Value, fresh, length
from gategen.plan.analysis import Analysis
from gategen.plan.data import (
    Buffer,
    ColumnSum,
    InBuffer,
    Kernel,
    Linearized,
    Plan,
    Schedule,
    Slot,
    Stage,
    TimeLoop,
    adjacent,
)
from gategen.plan.newton import is_linear, linearized, reachable, slopes_of
from gategen.plan.stages import alike, size_of


def loops(plan: Plan) -> Plan:
    """The plan with both loops of the step as stages, where they can be."""
    step, *others = plan.rules
    forward, backward = looped(step.forward, step.tape), looped(step.backward)
    if plan.of is None:
        forward, backward = side_by_side(forward), side_by_side(backward)
    step = replace(step, forward=forward, backward=backward)
    return replace(plan, rules=(step, *others), of=None if plan.of is None else loops(plan.of))


def looped(schedule: Schedule, tape: Iterable[Value] = ()) -> Schedule:
    """The schedule with the loop as stages behind it, one for each size of its values."""
    if not alone(schedule):
        return schedule
    graph, ops = schedule.graph, ops_of(schedule)
    totals = totals_of(schedule, {op.out for op in ops})
    placed = totals_placed([*totals.values()], schedule)
    slots = dict(schedule.slots)
    for buffer, some in placed.items():
        for total, at in zip(some, buffer.starts, strict=True):
            slots[total] = Slot(InBuffer(buffer.name), at, total.size)
    after = tuple(behind(schedule.after, totals, slots))
    needed = {*tape, *graph.results, *(v for stage in after for v in stage.reads)}
    needed |= set() if graph.backwards else {*graph.nexts}
    last = {schedule.slot[op.out]: op.out for op in ops if op.out in schedule.slot}
    carries = {c.current: last.get(schedule.slot[c.next], c.next) for c in graph.states}
    stages = tuple(
        TimeLoop(
            own,
            size_of(own) if own else kind.size,
            tuple((now, then) for now, then in carries.items() if alike(now, kind)),
            tuple(op.out for op in own if op.out in needed),
            tuple((value, total) for value, total in totals.items() if alike(value, kind)),
        )
        for kind, own in by_kind(ops, carries)
    )
    lasting = needed | {v for carry in graph.states for v in (carry.current, carry.next)}
    inside = {op.out for op in ops} - lasting
    kept = {v: slot for v, slot in slots.items() if v not in inside}
    homes = {slot.home for slot in kept.values()}
    buffers = (*(b for b in schedule.buffers if InBuffer(b.name) in homes), *placed)
    return replace(schedule, loop=(), after=(*stages, *after), buffers=buffers, slots=tuple(kept.items()))


def alone(schedule: Schedule) -> bool:
    """Whether all that a loop does is pointwise, and reads nothing that the loop makes in another size."""
    ops = ops_of(schedule)
    moving = {*(op.out for op in ops), *(c.current for c in schedule.graph.states)}
    pointwise = all(isinstance(stage, Kernel) for stage in schedule.loop)
    return pointwise and all(alike(v, op.out) for op in ops for v in op.reads if v in moving)


def ops_of(schedule: Schedule) -> list[Pointwise]:
    return [op for stage in schedule.loop if isinstance(stage, Kernel) for op in stage.ops]


def by_kind(
    ops: Sequence[Pointwise], carried: Iterable[Value]
) -> Iterator[tuple[Value, tuple[Pointwise, ...]]]:
    """A value of each size, and the ops of that size."""
    kinds: list[Value] = []
    for value in (*(op.out for op in ops), *carried):
        if not any(alike(value, other) for other in kinds):
            kinds.append(value)
            yield value, tuple(op for op in ops if alike(op.out, value))


# ---------------------------------------------------------------------------------------------- stretches


def side_by_side(schedule: Schedule) -> Schedule:
    """The schedule with loops of which stretches can run side by side, if all can; forward, if it is one."""
    loops = [s for s in schedule.after if isinstance(s, TimeLoop) and s.ops]
    found = {loop: linearized_loop(schedule, loop) for loop in loops}
    if not loops or not all(found.values()) or (len(loops) > 1 and not schedule.graph.backwards):
        return schedule
    after = (
        replace(s, linearized=found[s]) if isinstance(s, TimeLoop) and s in found else s
        for s in schedule.after
    )
    totals = {schedule.slot[total].home for loop in loops for _, total in loop.sums}
    buffers = (replace(b, kind="stretch") if InBuffer(b.name) in totals else b for b in schedule.buffers)
    return replace(schedule, after=tuple(after), buffers=tuple(buffers))


def linearized_loop(schedule: Schedule, loop: TimeLoop) -> Linearized | None:
    """A step of a loop to first order; None where some state that it carries forward waits for none."""
    graph, analysis = schedule.graph, Analysis(schedule.graph)
    states = [c for c in graph.states if c.current in dict(loop.carries)]
    settled = [c for c in states if analysis.level.get(c.next) != LOOP]
    if not states or (settled and not graph.backwards):
        return None
    slopes = slopes_of(analysis, states)
    made, carried = linearized(analysis, states, slopes)
    ops = tuple(op for op in made.ops if isinstance(op, Pointwise))
    pairs = tuple((c.current, c.next) for c in carried)
    numbers = {c.name: k for k, c in enumerate(states)}
    places = tuple((numbers[after], numbers[first]) for after, first in reachable(slopes.entries))
    linear = graph.backwards or is_linear(analysis, states)
    return Linearized(
        ops, pairs[: len(states)], tuple(zip(places, pairs[len(states) :], strict=True)), linear
    )


# ---------------------------------------------------------------------------------------------- sums


def totals_of(schedule: Schedule, made: set[Value]) -> dict[Value, Value]:
    """For each value of the loop that is summed over steps and rows its sum over the steps."""
    summed = (v for stage in schedule.after if isinstance(stage, ColumnSum) for v in stage.operand)
    builder = Builder(v.name for v in schedule.slot)
    return {v: builder.value(f"total_{v.name}", v.shape) for v in dict.fromkeys(summed) if v in made}


def totals_placed(totals: Sequence[Value], schedule: Schedule) -> dict[Buffer, tuple[Value, ...]]:
    """Buffers of these sums, with a row for every sequence: vectors side by side, a matrix by itself."""
    taken = {*schedule.buffer, *(v.name for v in schedule.slot)}
    vectors = tuple(v for v in totals if len(v.shape) < 2)
    made: dict[Buffer, tuple[Value, ...]] = {}
    for some in ([vectors] if vectors else []) + [(v,) for v in totals if v not in vectors]:
        name = some[0].name if len(some) == 1 else fresh("totals", taken)
        *starts, width = accumulate((length(v.size) for v in some), initial=sp.S.Zero)
        along = some[0].axes if some is not vectors else ()
        made[Buffer(name, "row", width, tuple(v.name for v in some), tuple(starts), along)] = some
    return made


def behind(
    stages: Iterable[Stage], totals: Mapping[Value, Value], slots: Mapping[Value, Slot]
) -> Iterator[Stage]:
    """The stages behind the loop, which sum the rows alone of what it sums over the steps itself."""
    for stage in stages:
        if not isinstance(stage, ColumnSum):
            yield stage
            continue
        outs: list[Value] = []  # whose operands lie side by side
        operands: list[Value] = []
        for out, operand in zip(stage.out, (totals.get(v, v) for v in stage.operand), strict=True):
            if operands and not adjacent(slots[operands[-1]], slots[operand]):
                yield ColumnSum(tuple(outs), tuple(operands))
                outs, operands = [], []
            outs.append(out)
            operands.append(operand)
        yield ColumnSum(tuple(outs), tuple(operands))
