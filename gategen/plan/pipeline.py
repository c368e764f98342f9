"""The passes in order, from a cell to its plan; what each decides stands in its own module."""

from __future__ import annotations

from gategen.graph import Graph, flatten, start
from gategen.graph.adjoint import adjoint
from gategen.plan.ahead import ahead
from gategen.plan.analysis import Analysis
from gategen.plan.classify import classify
from gategen.plan.compose import compose
from gategen.plan.data import FIRST_STEP, START_STATES, STEP, Plan, Rule
from gategen.plan.ends import alive, distinct_ends, kept_carries
from gategen.plan.hoist import hoist
from gategen.plan.layout import Layout, lay_out
from gategen.plan.narrow import narrow
from gategen.plan.newton import newton, newton_back
from gategen.plan.place import place
from gategen.plan.retape import retape
from gategen.plan.stages import draft
from gategen.plan.weights import weights_of
from gategen.plan.write import write
from gategen.spec.cell import Cell


def plan(cell: Cell, arrays: bool = False) -> Plan:
    """What runs when and where, for a cell and its gradient.

    With `arrays` for backends that work on whole arrays, to which a call is dear and memory cheap.
    """
    forward = Analysis(distinct_ends(alive(narrow(hoist(flatten(cell), arrays)))))
    layout = lay_out(cell, forward)
    rules = [rule(STEP, forward, layout, arrays)]
    if cell.first:
        opening = Analysis(distinct_ends(alive(narrow(flatten(cell, first=True)))))
        rules.append(rule(FIRST_STEP, opening, layout))
    if beginning := start(cell):
        rules.append(rule(START_STATES, Analysis(beginning), layout))
    kind, taken = classify(forward), {field.name for field in layout.fields}
    at_once = newton(kind, forward, layout, rules[0], taken) if arrays else None
    return Plan(
        cell,
        kind,
        layout.given,
        tuple(rules),
        weights=weights_of(cell, layout),
        computed=layout.computed,
        newton=at_once,
        newton_back=newton_back(layout, rules[0], taken) if at_once else None,
    )


def derive(analysis: Analysis) -> Graph:
    """The backward step of a forward one, as a person would write it."""
    forward = analysis.graph
    return narrow(compose(analysis, Analysis(retape(forward, adjoint(forward)))))


def rule(name: str, analysis: Analysis, layout: Layout, arrays: bool = False) -> Rule:
    """Both directions, sharing the tape."""
    forward, derived = analysis.graph, derive(analysis)
    backward = distinct_ends(alive(kept_carries(ahead(derived) if arrays else derived)))
    made = {op.out for op in forward.ops}
    reads = (*backward.inputs, *backward.parameters)
    tape = tuple(v for v in reads if v in made)
    fields = {field.name for field in layout.fields}
    states = {carry.name for carry in forward.states}
    names = {*fields, *(v.name for v in forward.given if v.name not in states)}
    names |= {v.name for v in backward.inputs} - {v.name for v in forward.values}  # d_y

    steps = draft(analysis)
    schedule = write(steps, layout, place(steps, layout, tape, {}, names))

    known = {v: schedule.slot[v] for v in reads if v in schedule.slot}
    taken = {*names, *(f"d_{name}" for name in fields), *(buffer.name for buffer in schedule.buffers)}
    steps = draft(Analysis(backward))
    back = write(steps, layout, place(steps, layout, (), known, taken, arrays), arrays)
    return Rule(name, schedule, back, tape)
