"""One layer in one direction: nodes for all steps at once, a `Scan` for the rest, nodes for its outputs.

A sequence that is over keeps its states. A direction that runs backwards sees the steps behind the end first,
and keeps its start until the sequence begins, so that nothing is turned around.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from gategen.backends.sigmoids import exact
from gategen.graph import AFTER, BEFORE, LOOP, Carry, Graph, Op, Value, levels
from gategen.onnx.axes import ranked, shape_of
from gategen.onnx.nodes import Nodes
from gategen.onnx.steps import Steps


@dataclass(frozen=True)
class Rules:
    """The graphs of a cell: of a step, and of the first one where that has a rule of its own."""

    step: Graph
    first: Graph | None


@dataclass(frozen=True)
class Frame:
    """What all layers share, by the names of values: shapes, and which steps are steps of a sequence."""

    lead: str  # T, B
    batch: str  # B
    alive: str  # (T, B, 1): whether a sequence still runs; empty where all run to the end
    begins: tuple[str, ...]  # (T, B, 1) for each direction: whether a sequence begins, by its rule for that


@dataclass(frozen=True)
class Direction:
    """A layer in one direction: values by name."""

    given: Mapping[Value, str]  # parameters; inputs (T, B, size)
    start: Mapping[str, str]  # states before the first step (B, size)
    sizes: Mapping[str, int]
    backwards: bool
    suffix: str  # of the names of its values


@dataclass(frozen=True)
class Run:
    """What comes out, by the names of values."""

    outputs: tuple[str, ...]  # (T, B, size), 0 behind the end
    final: Mapping[str, str]  # (B, size)


@dataclass(frozen=True)
class Begun:
    """What the rule for the first step gives, by the names of values (B, size)."""

    at: str  # (T, B, 1): where that step is
    outputs: tuple[str, ...]
    final: Mapping[str, str]


def run(nodes: Nodes, rules: Rules, frame: Frame, direction: Direction) -> Run:
    """The nodes of a layer in one direction."""
    step, level = rules.step, levels(rules.step)
    before, loop, after = ([op for op in step.ops if level[op.out] == at] for at in (BEFORE, LOOP, AFTER))

    known = dict(direction.given)
    everywhere = Steps(nodes, known, direction.sizes, frame.lead, 2, exact(step))
    everywhere(before, direction.suffix)
    begun = _first(nodes, rules.first, frame, direction) if rules.first else None
    outside = {v for op in after for v in op.reads} | {v for _, v in step.outputs}
    final, histories = _loop(nodes, step, loop, outside, known, begun, frame, direction)
    known |= histories
    everywhere(after, direction.suffix)

    outputs = []
    for k, (name, value) in enumerate(step.outputs):
        y = known[value]
        if begun:
            y = nodes("Where", ranked(nodes, begun.at, value), begun.outputs[k], y)
        if frame.alive:
            y = nodes("Where", ranked(nodes, frame.alive, value), y, 0.0, wish=f"{name}{direction.suffix}")
        outputs.append(y)
    return Run(tuple(outputs), final)


def _loop(
    nodes: Nodes,
    step: Graph,
    ops: Sequence[Op],
    outside: Set[Value],
    known: Mapping[Value, str],
    begun: Begun | None,
    frame: Frame,
    direction: Direction,
) -> tuple[dict[str, str], dict[Value, str]]:
    """The `Scan` over `ops`: the final states by name, and all steps of what is read outside of it."""
    body, end, states = nodes.inside(), direction.suffix, step.states
    currents = [carry.current for carry in states]
    reads = {value for op in ops for value in op.reads} | set(step.nexts)
    scanned = [v for v in step.values if v in reads and v in known and not v.static]
    inner = {v: name for v, name in known.items() if v.static}
    inner |= {v: body.name(f"{v.name}_now{end}") for v in (*currents, *scanned)}
    masks = {mask: body.name(f"{mask}_now") for mask in (frame.alive, begun.at if begun else "") if mask}
    Steps(body, inner, direction.sizes, frame.batch, 1, exact(step))(ops, end)

    nexts = [_next(body, carry, inner, masks, begun, frame, end) for carry in states]
    kept = [v for v in (*currents, *(op.out for op in ops)) if v in outside and not v.static]
    emitted = [body("Identity", inner[v], wish=f"{v.name}_out{end}") for v in kept]

    def sized(values: Iterable[Value], names: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
        return [(name, shape_of(v, direction.sizes)) for v, name in zip(values, names, strict=True)]

    final = {carry.name: nodes.name(f"{carry.name}_last{end}") for carry in states}
    histories = {v: nodes.name(f"{v.name}{end}") for v in kept}
    nodes.scan(
        body,
        sized((*currents, *scanned), [inner[v] for v in (*currents, *scanned)]),
        [*masks.values()],
        sized((*currents, *kept), (*nexts, *emitted)),
        [*(direction.start[carry.name] for carry in states), *(known[v] for v in scanned), *masks],
        [*final.values(), *histories.values()],
        states=len(states),
        backwards=direction.backwards,
    )
    return final, histories


def _next(
    body: Nodes,
    carry: Carry,
    inner: Mapping[Value, str],
    masks: Mapping[str, str],
    begun: Begun | None,
    frame: Frame,
    end: str,
) -> str:
    """A state after the step: by the rule for the first one where it is that, as before where all is over."""
    value = inner[carry.next]
    if begun:
        value = body("Where", ranked(body, masks[begun.at], carry.next), begun.final[carry.name], value)
    if frame.alive:
        alive = ranked(body, masks[frame.alive], carry.next)
        return body("Where", alive, value, inner[carry.current], wish=f"{carry.name}_then{end}")
    return body("Identity", value, wish=f"{carry.name}_then{end}")


def _first(nodes: Nodes, rule: Graph, frame: Frame, direction: Direction) -> Begun:
    """What the rule for the first step gives.

    It reads the first step of each sequence, which is at another place for each that runs backwards.
    """
    at = frame.begins[direction.backwards]
    reads = {value for op in rule.ops for value in op.reads}
    known = {v: name for v, name in direction.given.items() if v.static}
    for value in (v for v in rule.inputs if v in reads):
        steps = nodes("Where", ranked(nodes, at, value), direction.given[value], 0.0)
        known[value] = nodes("ReduceSum", steps, nodes.integers(0), keepdims=0)
    known |= {carry.current: direction.start[carry.name] for carry in rule.states}
    Steps(nodes, known, direction.sizes, frame.batch, 1, exact(rule))(rule.ops, f"_first{direction.suffix}")
    outputs = tuple(known[value] for _, value in rule.outputs)
    return Begun(at, outputs, {carry.name: known[carry.next] for carry in rule.states})
