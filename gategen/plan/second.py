"""second: the plan of second derivatives, from that of a cell: both steps in a direction.

The forward step in a direction reads what the run left on its tape, so that nothing runs again, and carries
the tangents of the states. The backward step in a direction runs the backward step beside its tangent; what
it reads of the forward one is that tape and the tangents of what lies there. Its sums are the tangents of the
gradients, by the names of the parameters. Nothing is derived here but by `tangent`, and what is planned goes
through the passes of a first derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gategen.graph import BEFORE, Graph, Product, Value, check, fresh
from gategen.graph.tangent import tangent, tangents_in
from gategen.plan.analysis import Analysis
from gategen.plan.compose import WIDE, in_lines, renamed
from gategen.plan.data import START_STATES, Field, InBuffer, InField, Plan, Rule, Slot, Weight
from gategen.plan.ends import alive, distinct_ends
from gategen.plan.hoist import hoist
from gategen.plan.layout import Layout, lay_out
from gategen.plan.narrow import narrow
from gategen.plan.place import place
from gategen.plan.stages import draft
from gategen.plan.weights import moved, seeds
from gategen.plan.write import write

WAYS = "jvp", "backward_jvp"
TWICE = 2 * WIDE  # a tangent has two terms for one


def second(first: Plan, arrays: bool = False) -> Plan:
    """The plan of the second derivatives of what `first` plans; `arrays` as that was made with."""
    layout = moving(first, lay_out(first.cell, Analysis(first.step.forward.graph)))
    rules = tuple(second_rule(rule, layout, arrays and rule is first.step) for rule in first.rules)
    computed = tuple(f for f in layout.dots if f.computed)
    return Plan(
        first.cell,
        first.kind,
        first.fields,
        rules,
        first,
        tuple(f for f in layout.dots if not f.computed),
        moved(first.weights) if first.weights else None,
        first.computed,
        computed,
        layout.gradients,
    )


# ---------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Moving(Layout):
    """A layout with the tangents of parameters, which lie in fields of their own as the parameters do."""

    dots: tuple[Field, ...]
    names: Mapping[str, str]  # of the tangent of each parameter that moves
    gradients: tuple[Field, ...] = ()  # those of computed fields, beside their tangents
    wanted: tuple[str, ...] = ()  # the members of these


def moving(first: Plan, layout: Layout) -> Moving:
    """The layout with a field for the tangent of each field that is trained."""
    taken = {field.name for field in layout.fields}
    taken |= {v.name for rule in first.rules for s in (rule.forward, rule.backward) for v in s.graph.values}
    fields = {f.name: fresh(f"dot_{f.name}", taken) for f in layout.fields if f.trainable}
    dots = tuple(
        replace(f, name=fields[f.name], members=tuple(f"dot_{m}" for m in f.members), array="")
        for f in layout.fields
        if f.trainable
    )
    names: dict[str, str] = {}
    weights: dict[str, Weight] = {}
    slots: dict[str, Slot] = {}
    for name, weight in layout.weights.items():
        if weight.field in fields:
            names[name] = fresh(f"dot_{name}", {*taken, *names.values()})
            members = tuple(f"dot_{m}" for m in weight.members)
            weights[names[name]] = replace(weight, field=fields[weight.field], members=members)
    for name, slot in layout.slots.items():
        if slot.home.name in fields:
            names[name] = fresh(f"dot_{name}", {*taken, *names.values()})
            slots[names[name]] = replace(slot, home=InField(fields[slot.home.name]))
    fields = {f.name: fresh(f"whole_{f.name}", taken) for f in read_gradients(first)}
    gradients = tuple(replace(f, name=fields[f.name]) for f in layout.fields if f.name in fields)
    wanted = tuple(member for f in gradients for member in f.members)
    for name in wanted:
        if name in layout.weights:
            weight = layout.weights[name]
            weights[whole(name)] = replace(weight, field=fields[weight.field])
        else:
            slot = layout.slots[name]
            slots[whole(name)] = replace(slot, home=InField(fields[slot.home.name]))
    return Moving(
        (*layout.fields, *dots, *gradients),
        {**layout.weights, **weights},
        {**layout.slots, **slots},
        dots,
        names,
        gradients,
        wanted,
    )


def whole(name: str) -> str:
    """What the gradient of a computed parameter is called among sums that are tangents of gradients."""
    return f"gradient of {name}"


def read_gradients(first: Plan) -> tuple[Field, ...]:
    """The computed fields whose gradients take part in how those of their parameters move."""
    if first.weights is None:
        return ()
    read = seeds(moved(first.weights).backward)
    return tuple(f for f in first.computed if not read.keys().isdisjoint(f.members))


# ---------------------------------------------------------------------------------------------- rules


def second_rule(rule: Rule, layout: Moving, arrays: bool) -> Rule:
    """Both directions of a rule in a direction, sharing a tape of tangents."""
    push, pulled = derived(rule, layout, arrays)
    made = {op.out for op in push.ops}
    tape = tuple(v for v in given(pulled) if v in made)
    held = slots_of((*given(push), *given(pulled)), rule.forward.slot if runs(rule) else {})
    homes = {slot.home for slot in held.values()}
    lent = tuple(b for b in rule.forward.buffers if InBuffer(b.name) in homes)
    fields = {field.name for field in layout.fields}
    names = fields | {b.name for b in lent} | {v.name for v in given(push)}
    names |= {v.name for v in pulled.inputs} - {v.name for v in push.values}  # d_y

    steps = draft(Analysis(push))
    schedule = write(steps, layout, place(steps, layout, tape, held, names))

    known = slots_of(given(pulled), {**held, **schedule.slot})
    taken = {*names, *(f"d_{name}" for name in fields), *(buffer.name for buffer in schedule.buffers)}
    steps = draft(Analysis(pulled))
    back = write(steps, layout, place(steps, layout, (), known, taken, arrays), arrays)
    return Rule(rule.name, schedule, back, tape, lent, WAYS)


def runs(rule: Rule) -> bool:
    """Whether a run leaves a tape of the rule; trained initial states are computed anew."""
    return rule.name != START_STATES


def derived(rule: Rule, layout: Moving, arrays: bool) -> tuple[Graph, Graph]:
    """The tangents of both steps of a rule."""
    forward, backward = rule.forward.graph, rule.backward.graph
    moves = {
        v: Value(layout.names[v.name], v.shape, True, "tangent", v) if v.name in layout.names else None
        for v in forward.parameters
    }
    pushed = tangent(forward, moves)
    pulled = tangents_alone(backward, tangents_in(pushed), forward, layout.wanted)
    saved = {*rule.tape, *forward.nexts} if runs(rule) else set()
    return lines(from_tape(forward, pushed, saved, given(pulled)), given(pulled), arrays), pulled


def given(graph: Graph) -> tuple[Value, ...]:
    """What a step is given beside its states."""
    return (*graph.inputs, *graph.parameters)


def tangents_alone(
    backward: Graph, dots: Mapping[Value, Value], forward: Graph, wanted: Iterable[str] = ()
) -> Graph:
    """The backward step beside its tangent, of which the tangent alone is wanted, and some sums."""
    known = {v: dots.get(v) for v in given(backward) if v in forward.values}
    both = tangent(backward, known)
    n, m = len(backward.outputs), len(backward.sums)
    outputs = zip((name for name, _ in backward.outputs), (v for _, v in both.outputs[n:]), strict=True)
    sums = zip((name for name, _ in backward.sums), (v for _, v in both.sums[m:]), strict=True)
    own = tuple((whole(name), v) for name, v in both.sums[:m] if name in {*wanted})
    left = alive(replace(both, outputs=tuple(outputs), sums=(*sums, *own)))
    seeds = {v for v in both.inputs if v not in known and v not in known.values()}
    return distinct_ends(named_anew(narrow(in_lines(Analysis(reading_only(left, seeds)), wide=TWICE))))


def named_anew(graph: Graph) -> Graph:
    """The graph with other names for products that are terms of a tangent, where these are free now.

    `U_dot_h` and `dot_U_h` by what they are made of; on the way back `dot_d_h` by what they are terms of.
    """
    taken = {value.name for value in graph.values}
    names: dict[Value, Value] = {}
    for op in graph.ops:
        if isinstance(op, Product) and op.out.role == "term":
            name = f"dot_{op.out.of}" if op.transposed else f"{op.matrix}_{op.operand}"
            if name not in taken:
                names[op.out] = Value(name, op.out.shape, op.out.static, "term", op.out.of)
                taken.add(name)
    return renamed(graph, names)


def from_tape(forward: Graph, pushed: Graph, saved: set[Value], kept: Iterable[Value]) -> Graph:
    """The tangent of a step, which reads the `saved` values of the step and makes the tangents `kept`."""
    ops = tuple(op for op in pushed.ops if op.out not in saved)
    states = pushed.states[len(forward.states) :]
    outputs = zip(
        (name for name, _ in forward.outputs),
        (v for _, v in pushed.outputs[len(forward.outputs) :]),
        strict=True,
    )
    held = (*(c.current for c in forward.states), *(v for v in forward.values if v in saved))
    graph = replace(
        pushed,
        inputs=(*pushed.inputs, *(v for v in dict.fromkeys(held) if not v.static)),
        parameters=(*pushed.parameters, *(v for v in held if v.static)),
        states=states,
        ops=ops,
        outputs=tuple(outputs),
        statistics=(),
    )
    return reading_only(alive(graph, kept), pushed.inputs[len(forward.inputs) :])


def lines(graph: Graph, kept: Iterable[Value], arrays: bool) -> Graph:
    """The tangent of a step as a person would write it, with all that waits for no state before the loop."""
    made = {op.out for op in graph.ops}
    ends = [v for v in kept if v in made]
    hoisted = hoist(in_lines(Analysis(graph), ends, TWICE), arrays)
    written = largest_first(Analysis(in_lines(Analysis(hoisted), ends, TWICE)))
    return distinct_ends(named_anew(narrow(alive(written, ends))))


def largest_first(analysis: Analysis) -> Graph:
    """The graph that begins with its products of what is given, the largest stacks first: what is added to a
    product takes its memory, and gates are to lie in one stack.
    """
    graph = analysis.graph
    groups = sorted(analysis.groups, key=lambda group: len(group.products), reverse=True)
    early = [op for group in groups for op in group.products if op.operand in graph.given]
    early = [op for op in early if analysis.level[op.out] == BEFORE]
    return check(replace(graph, ops=(*early, *(op for op in graph.ops if op not in early))))


def reading_only(graph: Graph, seeds: Iterable[Value] = ()) -> Graph:
    """The graph without what is given and not read, but for `seeds`."""
    reads = {v for op in graph.ops for v in op.reads} | {*graph.nexts, *graph.results, *seeds}
    return check(
        replace(
            graph,
            inputs=tuple(v for v in graph.inputs if v in reads),
            parameters=tuple(v for v in graph.parameters if v in reads),
        )
    )


def slots_of(values: Iterable[Value], slots: Mapping[Value, Slot]) -> dict[Value, Slot]:
    """The slots of those values that have one."""
    return {v: slots[v] for v in values if v in slots}
