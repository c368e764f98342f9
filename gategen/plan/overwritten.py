"""overwritten: the fields whose gradients are written whole before they are read or anything is added.

Memory for them need not be filled with zeros. Blocks of weights, and parts of columns, are not looked at.
"""

from __future__ import annotations

import sympy as sp

from gategen.graph import Value, length
from gategen.plan.data import Field, InGradient, OuterSum, Schedule, Stage

Rows = tuple[sp.Expr, sp.Expr]  # from, to


def overwritten(schedule: Schedule, field: Field) -> bool:
    """Whether the first stage that meets any row of the gradient of a field writes it."""
    made: set[Rows] = set()
    for stage in schedule.stages:
        met, written = rows_of(stage, schedule, field.name)
        if not made.issuperset(met) or (written and stage in schedule.loop):
            return False
        made |= written
    stops, at = dict(made), sp.S.Zero
    while at in stops:
        at = stops.pop(at)
    return bool(len(dict(made)) == len(made) and not stops and at == sp.expand(field.height))


def rows_of(stage: Stage, schedule: Schedule, field: str) -> tuple[set[Rows], set[Rows]]:
    """The rows of a gradient that a stage reads or adds to, and those that it writes."""
    if isinstance(stage, OuterSum):
        weight = stage.weight
        if weight.field != field:
            return set(), set()
        rows = {(sp.expand(weight.start), sp.expand(weight.stop))}
        whole = weight.columns is None and stage.blocks == 1 and not stage.add
        return (set(), rows) if whole else (rows, set())

    def among(values: tuple[Value, ...]) -> set[Rows]:
        slots = (schedule.slot[v] for v in values if v in schedule.slot)
        mine = [slot for slot in slots if slot.home == InGradient(field)]
        return {(sp.expand(s.start), sp.expand(s.start + length(s.size))) for s in mine}

    return among(stage.reads), among(stage.writes)
