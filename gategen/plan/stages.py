"""stages: cut each level (before, loop, after) into groups of products, sums, and pointwise kernels.

The result is a `Draft`: what runs in which order, over values that have no place in memory yet. Two products
of one level are separate stages only where one waits for the other; pointwise ops between them form one
kernel a size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gategen.graph import (
    AFTER,
    BEFORE,
    LOOP,
    BatchSum,
    Builder,
    Contract,
    CumSum,
    Graph,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Shift,
    Value,
)
from gategen.plan.analysis import Analysis
from gategen.plan.data import Kernel
from gategen.plan.groups import Group, merge
from gategen.plan.share import share
from gategen.spec.language import Extent

LEVELS = (BEFORE, LOOP, AFTER)

Step = Group | Kernel | Reduce | CumSum | Shift | Contract | Outer | BatchSum


@dataclass(frozen=True)
class Draft:
    """A graph as stages by level. `copies` stand in for next values of states that are there too early."""

    graph: Graph
    groups: tuple[Group, ...]
    stages: Mapping[str, tuple[Step, ...]]
    copies: Mapping[Value, Value]

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """All ops in the order in which they run."""
        return tuple(op for which in LEVELS for stage in self.stages[which] for op in stage_ops(stage))

    @cached_property
    def home(self) -> dict[Value, tuple[str, int]]:
        """The level of each value, and the stage in it that computes it."""
        return {
            op.out: (which, k)
            for which in LEVELS
            for k, stage in enumerate(self.stages[which])
            for op in stage_ops(stage)
        }

    @cached_property
    def at(self) -> Mapping[Value, int]:
        """The place of the op that makes each value, among `ops`; of several, the first one."""
        return {op.out: k for k, op in reversed([*enumerate(self.ops)])}

    @cached_property
    def readers(self) -> Mapping[Value, Sequence[int]]:
        """The places of the ops that read each value."""
        found: dict[Value, list[int]] = {}
        for k, op in enumerate(self.ops):
            for read in dict.fromkeys(op.reads):
                found.setdefault(read, []).append(k)
        return found

    def level(self, value: Value) -> str:
        return self.home[value][0]

    @cached_property
    def in_fields(self) -> frozenset[Value]:
        """Outer products and their sums, which add up in the fields of a gradient and have no memory; the sum
        of none is what these begin with.
        """
        found: set[Value] = set()
        for op in self.ops:
            matrix = op.out.static and len(op.out.shape) > 1
            summed = isinstance(op, Pointwise) and matrix and found.issuperset(op.reads)
            if isinstance(op, Outer) or summed:
                found.add(op.out)
        return frozenset(found)


def stage_ops(stage: Step) -> tuple[Op, ...]:
    match stage:
        case Group(products):
            return products
        case Kernel(ops):
            return ops
    return (stage,)


def draft(analysis: Analysis) -> Draft:
    """The graph as stages."""
    graph, level = analysis.graph, analysis.level
    merged = merge(graph, analysis.groups)
    builder = Builder(v.name for v in graph.values)
    stages = {
        which: cut([op for op in merged.ops if level[op.out] == which], graph, merged.groups)
        for which in LEVELS
    }
    shared = {
        which: tuple(share(stage, builder) if isinstance(stage, Kernel) else stage for stage in stages[which])
        for which in LEVELS
    }
    return with_copies(Draft(graph, merged.groups, shared, {}), builder)


def with_copies(made: Draft, builder: Builder) -> Draft:
    """The draft with a copy of each state's next value that is there before the current one was last read."""
    if not made.graph.backwards:
        return made
    at = {op.out: k for k, op in enumerate(made.ops)}
    last = {read: k for k, op in enumerate(made.ops) for read in op.reads}
    copies = {
        carry.next: builder.copy(carry.next)
        for carry in made.graph.states
        if last.get(carry.current, -1) > at[carry.next] or made.level(carry.next) != LOOP
    }
    kernels = [Kernel((Pointwise(copy, value),), copy.size) for value, copy in copies.items()]
    return Draft(made.graph, made.groups, {**made.stages, LOOP: (*made.stages[LOOP], *kernels)}, copies)


# ---------------------------------------------------------------------------------------------- one level


def cut(ops: Sequence[Op], graph: Graph, groups: Iterable[Group]) -> tuple[Step, ...]:
    """The ops of one level as stages: at each depth the products and sums, then one kernel per size.

    A pointwise op runs as early as its operands allow, and backwards as late as its readers allow: forward,
    gates of one stacked product are then computed side by side, backward their gradients are.
    """
    inside = {op.out for op in ops}
    group_of = {op.out: group for group in groups for op in group.products if op.out in inside}
    depth = earliest(ops, group_of)
    if graph.backwards:
        postpone(ops, depth)
    by_depth: dict[int, list[Op]] = {}
    for op in ops:
        by_depth.setdefault(depth[op.out], []).append(op)
    stages: list[Step] = []
    for _, here in sorted(by_depth.items()):
        found = (group_of[op.out] for op in here if isinstance(op, Product))
        stages += {group.first.out: group for group in found}.values()
        stages += [op for op in here if isinstance(op, (Reduce, CumSum, Shift, Contract, Outer, BatchSum))]
        stages += kernels([op for op in here if isinstance(op, Pointwise)])
    return tuple(stages)


def earliest(ops: Sequence[Op], group_of: Mapping[Value, Group]) -> dict[Value, int]:
    """How many products and sums must be done, one after the other, before each value is there."""
    inside = {op.out: op for op in ops}
    depth: dict[Value, int] = {}

    def find(value: Value) -> int:
        if value not in depth:
            members = group_of[value].products if value in group_of else (inside[value],)
            waits = max((find(v) for op in members for v in op.reads if v in inside), default=0)
            found = waits + (not isinstance(inside[value], Pointwise))
            depth.update(dict.fromkeys((op.out for op in members), found))
        return depth[value]

    for op in ops:
        find(op.out)
    return depth


def postpone(ops: Sequence[Op], depth: dict[Value, int]) -> None:
    """Move each pointwise op to the last kernel that still serves all its readers."""
    latest: dict[Value, int] = {}
    for op in reversed(ops):
        limit = latest.get(op.out)
        if isinstance(op, Pointwise) and limit is not None:
            depth[op.out] = max(depth[op.out], limit)
        for read in op.reads:
            own = depth[op.out] - (not isinstance(op, Pointwise))
            latest[read] = min(latest.get(read, own), own)


def kernels(ops: Sequence[Pointwise]) -> list[Kernel]:
    """Pointwise ops as kernels of one size, in an order in which each finds what it reads."""
    made: list[Kernel] = []
    waiting = list(ops)
    while waiting:
        missing = {op.out for op in waiting}
        head = next(op for op in waiting if missing.isdisjoint(op.reads))
        taken = together(head, waiting)
        made.append(Kernel(tuple(taken), size_of(taken), head.out.static))
        done = {op.out for op in taken}
        waiting = [op for op in waiting if op.out not in done]
    return made


def size_of(ops: Sequence[Pointwise]) -> Extent:
    """The size of what these ops compute; its axes, where some of what they read has some of these alone."""
    out = ops[0].out
    mixed = any(v.axes and v.axes != out.axes for op in ops for v in op.reads)
    return out.axes if len(out.axes) > 1 and (mixed or len(out.shape) > 1) else out.size


def together(head: Pointwise, waiting: Sequence[Pointwise]) -> list[Pointwise]:
    """The ops like `head` that can run with it: all that read nothing of those left behind."""
    taken: list[Pointwise] = []
    blocked: set[Value] = set()
    for op in waiting:
        if alike(op.out, head.out) and blocked.isdisjoint(op.reads):
            taken.append(op)
        else:
            blocked.add(op.out)
    return taken


def alike(a: Value, b: Value) -> bool:
    """Whether two values are of one size and kind, for one kernel to compute or one memory to hold both."""
    return (a.size, a.static, len(a.shape)) == (b.size, b.static, len(b.shape))
