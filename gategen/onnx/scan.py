"""One layer in one direction: nodes for all steps at once, a `Scan` for the rest, nodes for its outputs.

A sequence that is over keeps its states. A direction that runs backwards sees the steps behind the end first,
and keeps its start until the sequence begins, so that nothing is turned around.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gategen.backends.sigmoids import exact
from gategen.graph import AFTER, BEFORE, LOOP, Graph, Value, levels
from gategen.onnx.nodes import Nodes
from gategen.onnx.steps import Steps, extent


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
    alive: str  # (T, B, 1): whether a sequence still runs
    begins: tuple[str, ...]  # the same for each direction: whether it begins by its rule for that


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


def run(nodes: Nodes, rules: Rules, frame: Frame, direction: Direction) -> Run:
    """The nodes of a layer in one direction."""
    step, level, end = rules.step, levels(rules.step), direction.suffix
    at = {part: [op for op in step.ops if level[op.out] == part] for part in (BEFORE, LOOP, AFTER)}
    currents = {carry.current: carry for carry in step.states}
    begins = frame.begins[direction.backwards] if rules.first else ""

    known, strict = dict(direction.given), exact(step)
    everywhere = Steps(nodes, known, direction.sizes, frame.lead, strict)
    everywhere(at[BEFORE], end)
    begun = _first(nodes, rules.first, frame, direction, begins) if rules.first else None

    body = nodes.inside()
    reads = {value for op in at[LOOP] for value in op.reads} | set(step.nexts)
    scanned = [v for v in step.values if v in reads and v in known and not v.static]
    inner = {v: name for v, name in known.items() if v.static}
    inner |= {v: body.name(f"{v.name}_now{end}") for v in (*currents, *scanned)}
    masks = {mask: body.name(f"{mask}_now") for mask in (frame.alive, begins) if mask}
    Steps(body, inner, direction.sizes, frame.batch, strict)(at[LOOP], end)
    nexts = []
    for value, carry in currents.items():
        after = inner[carry.next]
        if begun:
            after = body("Where", masks[begins], begun.final[carry.name], after)
        nexts.append(body("Where", masks[frame.alive], after, inner[value], wish=f"{carry.name}_then{end}"))

    outside = {v for op in at[AFTER] for v in op.reads} | {v for _, v in step.outputs}
    kept = [v for v in (*currents, *(op.out for op in at[LOOP])) if v in outside and not v.static]
    emitted = [body("Identity", inner[v], wish=f"{v.name}_out{end}") for v in kept]

    def told(names: list[str], values: list[Value]) -> list[tuple[str, int]]:
        return [(n, extent(v.size, direction.sizes)) for n, v in zip(names, values, strict=True)]

    final = [nodes.name(f"{carry.name}_last{end}") for carry in step.states]
    histories = [nodes.name(f"{v.name}{end}") for v in kept]
    nodes.scan(
        body,
        told([inner[v] for v in currents], list(currents)) + told([inner[v] for v in scanned], scanned),
        list(masks.values()),
        told(nexts, list(currents)) + told(emitted, kept),
        [*(direction.start[c.name] for c in step.states), *(known[v] for v in scanned), *masks],
        [*final, *histories],
        states=len(currents),
        backwards=direction.backwards,
    )
    known |= zip(kept, histories, strict=True)
    everywhere(at[AFTER], end)
    outputs = []
    for k, (name, value) in enumerate(step.outputs):
        y = known[value]
        if begun:
            y = nodes("Where", begins, begun.outputs[k], y)
        outputs.append(nodes("Where", frame.alive, y, 0.0, wish=f"{name}{end}"))
    return Run(tuple(outputs), dict(zip((c.name for c in step.states), final, strict=True)))


def _first(nodes: Nodes, rule: Graph, frame: Frame, direction: Direction, begins: str) -> Run:
    """What the rule for the first step gives, (B, size) each.

    It reads the first step of each sequence, which is at another place for each that runs backwards.
    """
    reads = {value for op in rule.ops for value in op.reads}
    known = {v: name for v, name in direction.given.items() if v.static}
    for value in (v for v in rule.inputs if v in reads):
        steps = nodes("Where", begins, direction.given[value], 0.0)
        known[value] = nodes("ReduceSum", steps, nodes.integers(0), keepdims=0)
    known |= {carry.current: direction.start[carry.name] for carry in rule.states}
    Steps(nodes, known, direction.sizes, frame.batch, exact(rule))(rule.ops, f"_first{direction.suffix}")
    return Run(tuple(known[v] for _, v in rule.outputs), {c.name: known[c.next] for c in rule.states})
