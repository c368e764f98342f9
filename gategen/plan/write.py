"""write: the stages of a draft over the slots of its values, neighbours in one call.

Products of a group whose weights and results lie side by side become one `MatMul`, gradients beside each
other one `OuterSum`, sums of or into neighbours one `Sum` or `ColumnSum`. Where things lie was decided before
(`layout.py`, `place.py`) and is only looked up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import sympy as sp

from gategen.graph import (
    AFTER,
    BEFORE,
    LOOP,
    BatchSum,
    Contract,
    CumSum,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Shift,
    Value,
)
from gategen.plan.data import (
    ColumnSum,
    Contraction,
    Kernel,
    MatMul,
    OuterSum,
    RunningSum,
    Schedule,
    Shifted,
    Slot,
    Stage,
    Sum,
    Weight,
    adjacent,
)
from gategen.plan.groups import Group
from gategen.plan.layout import Layout
from gategen.plan.place import Memory
from gategen.plan.stages import Draft, Step


def write(draft: Draft, layout: Layout, memory: Memory, arrays: bool = False) -> Schedule:
    """The schedule of a draft whose values are placed; with `arrays` the loop computes ahead what it can."""
    writer = Writer(draft, layout, memory.slots)
    before, loop, after = (tuple(writer.stages(draft.stages[which])) for which in (BEFORE, LOOP, AFTER))
    before, ahead = parted(before, memory.slots) if arrays and draft.graph.backwards else (before, ())
    buffers, slots = tuple(memory.buffers), tuple(memory.slots.items())
    return Schedule(draft.graph, before, ahead, loop, after, buffers, slots)


def parted(
    stages: Sequence[Stage], slots: Mapping[Value, Slot]
) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """What must be done for all steps at once, and the arithmetic that only the loop waits for.

    What reads memory that an earlier stage gives to another value cannot wait.
    """
    early: list[Stage] = []  # the last one first
    ahead: list[Stage] = []
    needed: set[Value] = set()
    taken: set[Slot | None] = set()  # by what is done at once, behind the op at hand
    for stage in reversed(stages):
        if not isinstance(stage, Kernel) or stage.static:
            early.append(stage)
            needed.update(stage.reads)
            taken.update(slots[v] for v in stage.writes if v in slots)
            continue
        for op in reversed(stage.ops):
            if op.out in needed or not taken.isdisjoint(slots.get(v) for v in op.reads):
                needed.update((op.out, *op.reads))
                taken.update([slots[op.out]] if op.out in slots else ())
        now = tuple(op for op in stage.ops if op.out in needed)
        later = tuple(op for op in stage.ops if op.out not in needed)
        passing = {op.out for op in now if op.out not in slots}
        if any(not passing.isdisjoint(op.reads) for op in later):
            now, later = stage.ops, ()  # what both need has no memory between them
            needed.update(stage.reads)
            taken.update(slots[op.out] for op in now if op.out in slots)
        if now:
            early.append(replace(stage, ops=now))
        if later:
            ahead.append(replace(stage, ops=later))
    return tuple(reversed(early)), tuple(reversed(ahead))


class Writer:
    """Writes the stages of one draft, level by level."""

    def __init__(self, draft: Draft, layout: Layout, slots: Mapping[Value, Slot]) -> None:
        self.draft = draft
        self.layout = layout
        self.slots = slots
        # Members of each field (of its columns) whose gradient an outer product went to already.
        self.written: dict[object, set[str]] = defaultdict(set)

    def stages(self, steps: Iterable[Step]) -> Iterator[Stage]:
        """The steps of one level, with outer products and sums that follow each other collected."""
        outers: list[Outer] = []
        sums: list[BatchSum] = []
        for step in steps:
            if isinstance(step, Outer):
                outers.append(step)
            elif isinstance(step, BatchSum):
                sums.append(step)
            else:
                yield from self.outer_sums(outers)
                yield from self.column_sums(sums)
                outers, sums = [], []
                yield from self.stage(step)
        yield from self.outer_sums(outers)
        yield from self.column_sums(sums)

    def stage(self, step: Group | Kernel | Reduce | CumSum | Shift | Contract) -> Iterator[Stage]:
        match step:
            case Group():
                yield from self.products(step)
            case Reduce(out, operands, how):
                for k, run in enumerate(self.runs(operands)):
                    yield Sum(out, run, k > 0, how)
            case CumSum(out, operand, backwards, axis):
                yield RunningSum(out, operand, backwards, axis)
            case Shift(out, operand, by, axis):
                yield Shifted(out, operand, by, axis)
            case Contract(out, left, right):
                yield Contraction(out, left, right)
            case Kernel(ops):
                # Outer products of one gradient add up in place.
                if kept := tuple(op for op in ops if op.out not in self.draft.in_fields):
                    yield replace(step, ops=kept)

    def runs(self, values: Sequence[Value]) -> list[tuple[Value, ...]]:
        """The values, those that lie side by side together."""
        slots = self.slots
        made: list[tuple[Value, ...]] = []
        for value in sorted(values, key=lambda v: order(slots[v])):
            if made and self.adjacent(made[-1][-1], value):
                made[-1] += (value,)
            else:
                made.append((value,))
        return made

    def adjacent(self, a: Value, b: Value) -> bool:
        """Whether `b` lies directly behind `a`."""
        return adjacent(self.slots[a], self.slots[b])

    # ------------------------------------------------------------------------------------------ products

    def products(self, group: Group) -> Iterator[MatMul]:
        """A group as few products: of one operand into neighbours, or of neighbours into one sum."""
        summed = group.summed
        for k, run in enumerate(self.product_runs(group)):
            out = (group.first.out,) if summed else tuple(op.out for op in run)
            operand = tuple(op.operand for op in run) if summed else (run[0].operand,)
            weights = stretches([self.layout.weight(op.matrix) for op in run])
            first = run[0]
            yield MatMul(out, operand, weights, first.transposed, summed and k > 0, first.blocks, first.along)

    def product_runs(self, group: Group) -> list[list[Product]]:
        """The products whose operands (`summed`) or results lie side by side together.

        In the loop operands may lie in another order than the rows of their weights in a field: these are
        gathered once, and that is one product less in every step.
        """
        gathered = group.summed and self.draft.level(group.first.out) == LOOP

        def place(op: Product) -> tuple[object, ...]:
            slot = self.slots[op.operand]
            row = self.layout.row(op.matrix)
            return (row[0], *order(slot)) if gathered else row

        runs: list[list[Product]] = []
        for op in sorted(group.products, key=place):
            if runs and self.continues(runs[-1][-1], op, group.summed, gathered):
                runs[-1].append(op)
            else:
                runs.append([op])
        return runs

    def continues(self, a: Product, b: Product, summed: bool, gathered: bool) -> bool:
        first, second = self.layout.weight(a.matrix), self.layout.weight(b.matrix)
        alike = (first.field, first.columns) == (second.field, second.columns)
        if not (below(first, second) or (gathered and alike)):
            return False
        return self.adjacent(a.operand, b.operand) if summed else self.adjacent(a.out, b.out)

    # ------------------------------------------------------------------------------------------ gradients

    def outer_sums(self, outers: Sequence[Outer]) -> Iterator[OuterSum]:
        """Outer products into the fields of the gradient, those that lie side by side as one."""
        made: list[tuple[Weight, list[Outer]]] = []
        for weight, op in self.by_target(outers):
            if made and below(made[-1][0], weight) and self.meets(made[-1][1][-1], op):
                last, ops = made[-1]
                made[-1] = joined([last, weight]), [*ops, op]
            else:
                made.append((weight, [op]))
        for weight, ops in made:
            written = self.written[weight.field, weight.columns]
            add = not written.isdisjoint(weight.members)
            written.update(weight.members)
            left, first = tuple(op.left for op in ops), ops[0]
            yield OuterSum(weight, left, (first.right,), add, first.blocks, first.along)

    def meets(self, a: Outer, b: Outer) -> bool:
        return a.right == b.right and self.adjacent(a.left, b.left)

    def by_target(self, outers: Sequence[Outer]) -> list[tuple[Weight, Outer]]:
        """Each outer product with the weight whose gradient it adds to, field by field, down its rows."""
        targets = self.targets()
        weights = self.layout.weights

        def place(pair: tuple[Weight, Outer]) -> tuple[int, str, str, int]:
            weight, op = pair
            field, member = self.layout.place(weight)
            return field, str(weight.columns), op.right.name, member

        return sorted(((weights[name], op) for op in outers for name in targets[op.out]), key=place)

    def targets(self) -> dict[Value, list[str]]:
        """The matrices whose gradient each outer product is, or is a term of."""
        terms: dict[Value, sp.Expr] = {}
        for op in self.draft.ops:
            if op.out in self.draft.in_fields and isinstance(op, Pointwise):
                terms[op.out] = op.expr.xreplace(terms)
        found: dict[Value, list[str]] = defaultdict(list)
        for name, value in self.draft.graph.sums:
            for term in sp.Add.make_args(terms.get(value, value)):
                found[term].append(name)
        return found

    def column_sums(self, sums: Sequence[BatchSum]) -> Iterator[ColumnSum]:
        def place(op: BatchSum) -> tuple[str, str, int, str]:
            return *order(self.slots[op.out]), op.out.name

        made: list[list[BatchSum]] = []
        for op in sorted(sums, key=place):
            last = made[-1][-1] if made else None
            if last and self.adjacent(last.out, op.out) and self.adjacent(last.operand, op.operand):
                made[-1].append(op)
            else:
                made.append([op])
        for run in made:
            yield ColumnSum(tuple(op.out for op in run), tuple(op.operand for op in run))


def order(slot: Slot) -> tuple[str, str, int]:
    """The place of a slot among all: array by array."""
    return type(slot.home).__name__, slot.home.name, slot.rank


def below(a: Weight, b: Weight) -> bool:
    """Whether the rows of `b` follow those of `a`."""
    return (a.field, a.stop, a.columns) == (b.field, b.start, b.columns)


def stretches(weights: Sequence[Weight]) -> tuple[Weight, ...]:
    """The weights, those that follow each other as one."""
    made: list[Weight] = []
    for weight in weights:
        made[-1:] = [joined([made[-1], weight])] if made and below(made[-1], weight) else [*made[-1:], weight]
    return tuple(made)


def joined(weights: Sequence[Weight]) -> Weight:
    first, last = weights[0], weights[-1]
    return replace(first, stop=last.stop, members=tuple(m for w in weights for m in w.members))
