"""newton: the states of all steps at once, where nothing but arithmetic, entry by entry, waits for the state.

Such a step reads of each state the same unit alone, so its derivative by the states is a number a unit, or a
block of k x k numbers for k states. Newton's method on the whole trajectory asks for no more: with states
h[t] at hand, the changes d[t] that the steps want of them, to first order, are a linear recurrence

    d[t + 1] = (f(h[t]) - h[t + 1]) + J[t] d[t],      J = df/dh

which a scan can solve (DEER: Lim et al. 2024, arXiv:2309.12252; ParaRNN: Danieli et al. 2025,
arXiv:2510.21450). A step of it may as well be a stretch of the sequence, of which f is the last state and J
the product of the derivatives on the way: the states within are no unknowns then, and the fewer there are the
sooner the method ends.

Here are the two programs that this takes, of one step for many stretches side by side: `linearized` carries
the states on, and their derivatives by those at the beginning of the stretch, and `every_step` is the loop's
own step. The derivatives are taken op by op, as `tangent` does, of what is computed: `stop_gradient` and
`surrogate` say otherwise of gradients alone. What stretches there are and how a scan is done is left to
backends.

A step back is linear in the gradients that it carries, whatever the cell: the same two programs of it find
these in one iteration, from 0.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

import sympy as sp

from gategen.graph import LOOP, Builder, Carry, Graph, Op, Pointwise, Value, check, fresh, length
from gategen.graph.adjoint import partial
from gategen.graph.tangent import factored
from gategen.plan.analysis import Analysis
from gategen.plan.classify import affine, as_computed
from gategen.plan.compose import in_lines
from gategen.plan.data import NEWTON, NEWTON_BACK, Buffer, InBuffer, Newton, Rule, Schedule, Slot
from gategen.plan.layout import Layout
from gategen.plan.place import place
from gategen.plan.stages import draft
from gategen.plan.write import write

WAYS = "every_step", "linearized"
WAYS_BACK = "every_step_back", "linearized_back"
Some = TypeVar("Some", bound=Op)
Entry = tuple[str, str]  # of a derivative: the names of the state after and of the one before


def newton(kind: str, analysis: Analysis, layout: Layout, step: Rule, taken: Iterable[str]) -> Newton | None:
    """How the states of all steps are found at once; None where more than arithmetic waits for the state."""
    if kind == "recurrent":
        return None
    waiting = [c for c in analysis.graph.states if analysis.level.get(c.next) == LOOP]
    if not waiting or not arithmetic(analysis, waiting):
        return None
    slopes = slopes_of(analysis, waiting)
    graph, carried = linearized(analysis, waiting, slopes)
    names = {*taken, *(buffer.name for buffer in step.buffers.values())}
    held = step.forward.slot
    known = {
        v: held[v] for v in (*graph.inputs, *graph.parameters, *(c.current for c in carried)) if v in held
    }
    settled = tuple(c for c in analysis.graph.states if c not in waiting)
    own: list[Buffer] = []
    for value in (*(c.next for c in settled), *apart(graph, {*step.tape}, held, carried, slopes)):
        own.append(alone(value, {*names, *(buffer.name for buffer in own)}))
        known[value] = Slot(InBuffer(own[-1].name), sp.S.Zero, value.size)
    lent = (*map(at_once, step.forward.buffers), *own[: len(settled)])
    steps = draft(Analysis(graph))
    linear = write(steps, layout, place(steps, layout, (), known, {*names, *(buffer.name for buffer in own)}))
    linear = replace(linear, buffers=(*own[len(settled) :], *linear.buffers))
    after = {c.next: known[c.next] for c in analysis.graph.states}
    rule = Rule(NEWTON, every_step(step.forward, lent, after), linear, (), lent, WAYS)
    return Newton(rule, carried, settled, reachable(slopes.entries), is_linear(analysis, waiting))


def newton_back(layout: Layout, step: Rule, taken: Iterable[str]) -> Newton | None:
    """How the gradients that steps back carry are found at once, of a cell that has `newton`.

    None where a state is of another size than one that it waits for: its gradient is a sum then.
    """
    schedule, states = step.backward, step.backward.graph.states
    analysis = Analysis(schedule.graph)
    if not arithmetic(analysis, states):
        return None
    slopes = slopes_of(analysis, states)
    ahead = {v for stage in schedule.ahead for v in stage.writes}
    graph, carried = linearized(analysis, states, slopes, ahead)
    names = {*taken, *step.buffers}
    later: dict[str, Buffer] = {}  # states behind the step, as arrays of their own
    for slot in schedule.slot.values():
        if isinstance(slot.home, InBuffer) and slot.shift and slot.home.name not in later:
            name = fresh(f"{slot.home.name}_next", {*names, *(buffer.name for buffer in later.values())})
            held = step.buffers[slot.home.name]
            later[slot.home.name] = replace(held, name=name, kind="time", members=(name,))

    def moved(slot: Slot) -> Slot:
        return replace(slot, home=InBuffer(later[slot.home.name].name), shift=0) if slot.shift else slot

    places = {v: moved(slot) for v, slot in schedule.slots}
    known = {
        v: places[v] for v in (*graph.inputs, *graph.parameters, *(c.current for c in carried)) if v in places
    }
    names |= {buffer.name for buffer in later.values()}
    own: list[Buffer] = []
    for value in apart(graph, set(), places, carried, slopes):
        own.append(alone(value, {*names, *(buffer.name for buffer in own)}))
        known[value] = Slot(InBuffer(own[-1].name), sp.S.Zero, value.size)
    steps = draft(Analysis(graph))
    linear = write(steps, layout, place(steps, layout, (), known, {*names, *(buffer.name for buffer in own)}))
    linear = replace(linear, buffers=(*own, *linear.buffers))
    lent = (*map(at_once, step.buffers.values()), *later.values())
    whole = replace(schedule, before=(*schedule.ahead, *schedule.loop), ahead=(), loop=(), after=())
    whole = replace(whole, buffers=lent, slots=tuple(places.items()))
    rule = Rule(NEWTON_BACK, whole, linear, (), lent, WAYS_BACK)
    shifted = tuple((name, buffer.name) for name, buffer in later.items())
    return Newton(rule, carried, (), reachable(slopes.entries), True, shifted)


# ---------------------------------------------------------------------------------------------- derivatives


@dataclass(frozen=True)
class Slopes:
    """The derivatives of next states by states, by the names of both, of all that are not 0 or stand in the
    diagonal; `ops` compute what they are made of.
    """

    ops: tuple[Pointwise, ...]
    entries: Mapping[Entry, sp.Expr]


def slopes_of(analysis: Analysis, states: Sequence[Carry]) -> Slopes:
    """The derivatives of a step by some of its states, forwards through its ops from each of them."""
    graph = analysis.graph
    builder = Builder((v.name for v in graph.values), graph.orders)
    after = {carry.next: carry.name for carry in states}
    entries: dict[Entry, sp.Expr] = {}
    for carry in states:
        slope: dict[Value, sp.Expr] = {carry.current: sp.S.One}
        for op in graph.ops:
            moving = [v for v in op.reads if v in slope]
            if not moving or not isinstance(op, Pointwise) or analysis.level[op.out] != LOOP:
                continue
            told = Pointwise(op.out, as_computed(op.expr))
            total = sp.Add(*(factored(partial(told, v)) * slope[v] for v in moving))
            if total != 0:
                slope[op.out] = named(
                    builder, total, op.out, f"{after.get(op.out, op.out)}_by_{carry.name}_now"
                )
        for other in states:
            if other.next in slope or other is carry:
                entries[other.name, carry.name] = slope.get(other.next, sp.S.Zero)
    order = [c.name for c in states]
    ranked = sorted(entries, key=lambda pair: (order.index(pair[0]), order.index(pair[1])))
    ops = tuple(op for op in builder.ops if isinstance(op, Pointwise))
    return Slopes(ops, {pair: entries[pair] for pair in ranked})


def arithmetic(analysis: Analysis, states: Sequence[Carry]) -> bool:
    """Whether all that these states wait for at a step is arithmetic; products of matrices stay there too."""
    loop = [op for op in analysis.graph.ops if analysis.level[op.out] == LOOP]
    return all(isinstance(op, Pointwise) for op in reached(loop, (carry.next for carry in states)))


def is_linear(analysis: Analysis, states: Sequence[Carry]) -> bool:
    """Whether the states after a step are affine in those before."""
    moving = {carry.current for carry in states}
    loop = [op for op in analysis.graph.ops if analysis.level[op.out] == LOOP]
    for op in reached(loop, (carry.next for carry in states)):
        if not moving.isdisjoint(op.reads):
            moving.add(op.out)
            if not isinstance(op, Pointwise) or not affine(as_computed(op.expr), moving - {op.out}):
                return False
    return True


def named(builder: Builder, total: sp.Expr, of: Value, wish: str) -> sp.Expr:
    """The derivative of a value as one, unless it is one already, or the same for all steps."""
    if isinstance(total, Value) or all(v.static for v in total.atoms(Value)):
        return total
    return builder.add(Pointwise(builder.value(wish, of.shape), total))


# ---------------------------------------------------------------------------------------------- programs


def linearized(
    analysis: Analysis, states: Sequence[Carry], slopes: Slopes, ahead: Set[Value] = frozenset()
) -> tuple[Graph, tuple[Carry, ...]]:
    """A step, and what it carries: the states, and their derivatives by those at the beginning.

    Of what waits for no state it computes what is there for a few steps alone (`ahead`).
    """
    graph = analysis.graph
    builder = Builder({v.name for v in graph.values} | {op.out.name for op in slopes.ops})
    shapes = {carry.name: carry.next.shape for carry in states}
    since = {
        (after, first): builder.value(f"{after}_by_{first}", shapes[after])
        for after, first in reachable(slopes.entries)
    }
    loop = [op for op in graph.ops if analysis.level[op.out] == LOOP or op.out in ahead]
    carried, made_here = [*states], {op.out for op in loop}
    for k, carry in enumerate(states):
        if carry.next not in made_here:  # it waits for none, and is in the memory of another
            copied = builder.add(Pointwise(builder.copy(carry.next), carry.next))
            carried[k] = replace(carry, next=copied)
    for (after, first), now in since.items():
        terms = (
            slopes.entries[after, via] * since[via, first]
            for via in shapes
            if (after, via) in slopes.entries and (via, first) in since
        )
        value = builder.value(f"{now}_next", now.shape)
        carried.append(Carry(now.name, now, builder.add(Pointwise(value, sp.Add(*terms)))))
    wanted = [carry.next for carry in carried]
    ops = reached((*loop, *slopes.ops, *builder.ops), wanted)
    made = {op.out for op in ops}
    read = dict.fromkeys(v for op in ops for v in op.reads if v not in made)
    whole = Graph(
        f"{graph.name}_linearized",
        tuple(v for v in read if not v.static),
        tuple(v for v in read if v.static),
        (),
        ops,
        tuple((v.name, v) for v in wanted),
    )
    return check(in_lines(Analysis(check(whole)), wanted)), tuple(carried)


def reachable(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The derivatives over several steps that are not 0, where those over one step are `entries`."""
    found = dict.fromkeys(entries)
    states = dict.fromkeys(state for pair in found for state in pair)
    for via in states:
        found |= dict.fromkeys(
            (a, b) for a in states for b in states if (a, via) in found and (via, b) in found
        )
    return tuple((a, b) for a in states for b in states if (a, b) in found)


def apart(
    graph: Graph, tape: Set[Value], given: Container[Value], carried: Sequence[Carry], slopes: Slopes
) -> list[Value]:
    """What has an array of its own: what is carried, beside the states before, derivatives of the step, and
    what a tape would hold.
    """
    ends = [carry.next for carry in carried]
    wanted = {*tape, *slopes.entries.values()} - {*ends}
    kept = [op.out for op in graph.ops if not op.out.static and op.out in wanted]
    return [*kept, *ends, *(carry.current for carry in carried if carry.current not in given)]


def every_step(forward: Schedule, lent: Sequence[Buffer], after: Mapping[Value, Slot]) -> Schedule:
    """The loop's step for many stretches at once, of which it is given the states before and after."""
    slots = tuple({**forward.slot, **after}.items())
    return replace(forward, before=forward.loop, loop=(), after=(), buffers=tuple(lent), slots=slots)


def alone(value: Value, taken: Iterable[str]) -> Buffer:
    """An array of many stretches for one value."""
    along = value.axes if value.wide else ()
    name = fresh(value.name, taken)
    return Buffer(name, "time", length(value.size), (value.name,), (sp.S.Zero,), along)


def at_once(buffer: Buffer) -> Buffer:
    """Memory of one step as that of many stretches, which take the place of steps."""
    return replace(buffer, kind="time") if buffer.kind in ("row", "state") else buffer


def reached(ops: Sequence[Some], wanted: Iterable[Value]) -> tuple[Some, ...]:
    """Those of some ops that `wanted` values are made by."""
    needed = {*wanted}
    found: list[Some] = []
    for op in reversed(ops):
        if op.out in needed:
            needed.update(op.reads)
            found.append(op)
    return tuple(reversed(found))
