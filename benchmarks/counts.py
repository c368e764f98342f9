"""What a run of a cell does on a GPU, counted from the stages of its plan: flops, bytes, barriers, launches.

Two schemes are counted. `stepwise` is a launch for every stage of every step, with all that a stage reads
and writes moved at each. `whole` is one launch for all steps: what lives within a step stays where it is
computed, so that arrays of all steps are read and written once, and what blocks make for each other costs a
barrier.

    flops      as `gategen.summary` counts operations: a product of an (m, n) matrix with a vector is 2*m*n
    bytes      to and from memory, by entries of the dtype; caches are not counted
    barriers   between the blocks that share a row of the batch: before a product that reads what has been
               made since the last one, and before a sum over features is known
    launches   kernels, products of cuBLAS, and what fills and copies the states and outputs that are
               returned; neither what makes computed parameters, nor the buffers of batch norms

A sum over steps and rows is two launches, however many follow each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import sympy as sp
from gpus import ITEMSIZE  # the neighbour file

from gategen.backends.cupy.kernels import only_copies
from gategen.graph import Value, common_size, length
from gategen.plan import (
    FIRST_STEP,
    ColumnSum,
    Contraction,
    InBuffer,
    Kernel,
    MatMul,
    OuterSum,
    Plan,
    Rule,
    RunningSum,
    Schedule,
    Stage,
    Sum,
    loops,
)
from gategen.plan.phases import phases
from gategen.spec.cell import Cell
from gategen.spec.names import extent_of
from gategen.summary import columns, operations

Way = Literal["forward", "backward"]
Scheme = Literal["stepwise", "whole"]
WAYS: tuple[Way, Way] = ("forward", "backward")
HEADS = 4
STEPPED = ("input", "state", "time")  # buffers that have every step
INSIDE = ("row", "carry")  # buffers that one kernel for all steps needs no memory for


@dataclass(frozen=True)
class Shape:
    """T steps of B sequences; a cell with heads has 4, further sizes are as H.

    `tf32` is float32 with products of TF32.
    """

    T: int
    B: int
    I: int  # noqa: E741, the letter of the spec
    H: int
    dtype: str = "float32"

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class Work:
    """Flops, those of products among them, and bytes."""

    flops: int = 0
    products: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.products + other.products, self.bytes + other.bytes)

    def __mul__(self, times: int) -> Work:
        return Work(self.flops * times, self.products * times, self.bytes * times)


@dataclass(frozen=True)
class Counted:
    """One direction of a run. `launches` are by kind: kernel, product, copy."""

    at_once: Work  # what serves all steps
    loop: Work  # what waits for the state
    barriers: int
    launches: Mapping[str, int]

    @property
    def all(self) -> Work:
        return self.at_once + self.loop


@dataclass(frozen=True)
class Direction:
    """One direction of a rule of a plan, at a shape: what counting goes by."""

    plan: Plan
    rule: Rule
    schedule: Schedule
    shape: Shape

    def number(self, expr: sp.Expr) -> int:
        """A formula of sizes at this shape."""
        formula = sp.sympify(expr)
        return int(formula.subs({size: extent_of(size.name, self.sizes) for size in formula.free_symbols}))

    @cached_property
    def sizes(self) -> dict[str, int]:
        return sizes_of(self.plan.cell, self.shape)

    @property
    def rows(self) -> int:
        """Of all steps."""
        return self.shape.T * self.shape.B


def sizes_of(cell: Cell, shape: Shape) -> dict[str, int]:
    known = {"input": shape.I, "heads": HEADS}
    return cell.fitting({size: known.get(size, shape.H) for size in cell.sizes})


def direction(plan: Plan, way: Way, shape: Shape, rule: Rule | None = None) -> Direction:
    chosen = rule or plan.step
    return Direction(plan, chosen, getattr(chosen, way), shape)


def counted(plan: Plan, way: Way, shape: Shape, scheme: Scheme) -> Counted:
    """What one direction does under a scheme."""
    d = direction(plan, way, shape)
    around = (*d.schedule.before, *d.schedule.after)
    at_once = sum((work(d, stage, d.rows) for stage in around), Work())
    if scheme == "stepwise":
        loop = sum((work(d, stage, shape.B) for stage in d.schedule.loop), Work()) * shape.T
    else:
        loop = kept_inside(d)
    barriers = exchanges(d.schedule) * shape.T if scheme == "whole" else 0
    return Counted(at_once, loop, barriers, launches(plan, way, shape.T, scheme))


# ------------------------------------------------------------------------------------------ flops and bytes


def work(d: Direction, stage: Stage, rows: int) -> Work:
    """One launch of a stage over so many rows."""
    fields = {field.name: field for field in d.plan.every_field}
    flops = d.number(operations(stage, fields)) * rows
    return Work(
        flops,
        flops if isinstance(stage, MatMul | OuterSum) else 0,
        d.shape.itemsize * entries(d, stage, rows),
    )


def entries(d: Direction, stage: Stage, rows: int) -> int:
    """How many entries a stage reads and writes."""
    reads = [v for v in dict.fromkeys(stage.reads) if v not in stage.writes]
    moved = [*values(d, reads, rows), *values(d, lasting(d, stage), rows)]
    if isinstance(stage, OuterSum):
        left, right = (sum(d.number(length(v.size)) for v in side) for side in (stage.left, stage.right))
        moved.append(left * right // d.number(length(stage.blocks)))
    return sum(moved) + weights(d, [stage])


def values(d: Direction, some: Iterable[Value], rows: int) -> Iterator[int]:
    """The entries of values that lie in memory."""
    for value in some:
        if value in d.schedule.slot:
            yield d.number(length(value.size)) * (1 if value.static else rows)


def lasting(d: Direction, stage: Stage) -> list[Value]:
    """What a stage makes that something else reads; a kernel keeps the rest in registers."""
    if not isinstance(stage, Kernel):
        return list(stage.writes)
    graph = d.schedule.graph
    wanted = {*graph.nexts, *graph.results, *d.rule.tape}
    wanted |= {v for other in d.schedule.stages if other is not stage for v in other.reads}
    return [v for v in stage.writes if v in wanted]


def weights(d: Direction, stages: Iterable[Stage]) -> int:
    """The entries of the matrices that products of these stages read, each once."""
    fields = {field.name: field for field in d.plan.every_field}
    read = dict.fromkeys(w for stage in stages if isinstance(stage, MatMul) for w in stage.weights)
    return sum(d.number((w.stop - w.start) * columns(w, fields)) for w in read)


def kept_inside(d: Direction) -> Work:
    """The loop as one launch: arrays of all steps once, and nothing that lives within a step."""
    loop = d.schedule.loop
    one = sum((work(d, stage, d.rows) for stage in loop), Work())
    made = {v for stage in loop for v in stage.writes} | {c.current for c in d.schedule.graph.states}
    reads = [v for stage in loop for v in stage.reads if v not in made]
    writes = [v for stage in loop for v in lasting(d, stage) if v in behind(d)]
    moved = sum(extent for some in (reads, writes) for extent in arrays(d, some).values())
    return Work(one.flops, one.products, d.shape.itemsize * (moved + weights(d, loop)))


def behind(d: Direction) -> set[Value]:
    """What outlives the loop."""
    graph = d.schedule.graph
    outside = {v for stage in (*d.schedule.before, *d.schedule.after) for v in stage.reads}
    return {*graph.nexts, *graph.results, *d.rule.tape, *outside}


def arrays(d: Direction, some: Iterable[Value]) -> dict[object, int]:
    """The entries of the stretches of memory that values lie in; a state is one array at all its times."""
    found: dict[object, int] = {}
    for value in some:
        slot = d.schedule.slot.get(value)
        if slot is None:
            continue
        buffer = d.rule.buffers.get(slot.home.name) if isinstance(slot.home, InBuffer) else None
        if buffer is None or buffer.kind not in INSIDE:
            times = d.rows if buffer is not None and buffer.kind in STEPPED else 1
            found[slot.home, slot.start] = d.number(length(value.size)) * times
    return found


# ------------------------------------------------------------------------------------------ barriers


def exchanges(schedule: Schedule) -> int:
    """How often a step waits for what other blocks have made: states before it, and what it makes itself.

    Without a product in the loop a row of the batch is one block's.
    """
    if not any(isinstance(stage, MatMul) for stage in schedule.loop):
        return 0
    fresh: set[Value] = {c.current for c in schedule.graph.states}
    if schedule.graph.backwards:  # a carried gradient belongs to whoever owns the unit
        fresh = set()
    count = 0
    for phase in phases(schedule):
        if any(fresh.intersection(product.reads) for product in phase.products):
            count, fresh = count + 1, set()
        waiting: set[Value] = set()  # sums whose parts are there, and what is made of them
        for stage in phase.program:
            if shares_features(stage):
                if waiting.intersection(stage.reads) or not waiting:
                    count, fresh, waiting = count + 1, set(), set()
                waiting.update(stage.writes)
            elif waiting.intersection(stage.reads):
                waiting.update(stage.writes)
            fresh.update(stage.writes)
    return count


def shares_features(stage: Stage) -> bool:
    """Whether a stage adds up what the owners of different units have; matrices belong to one block."""
    if isinstance(stage, Sum):
        return len(stage.operand[0].shape) == 1
    return isinstance(stage, RunningSum)


# ------------------------------------------------------------------------------------------ launches


def launches(plan: Plan, way: Way, T: int, scheme: Scheme) -> Counter[str]:
    """What the device is given to do in a run without given states and without lengths, by kind.

    The one place that knows how stages become launches. A product in blocks counts as one.
    """
    found: Counter[str] = Counter()
    for rule in plan.rules:
        schedule = getattr(rule, way)
        around = launched(schedule, schedule.before) + launched(schedule, schedule.after)
        loop = launched(schedule, schedule.loop)
        if rule is not plan.step:
            found += around + loop
            if way == "backward" and not rule.forward.graph.states:  # it computes its forward values anew
                found += launched(rule.forward, rule.forward.stages)
            continue
        steps = T - 1 if plan.rule(FIRST_STEP) else T
        found += around
        if scheme == "stepwise":
            found += Counter({kind: n * steps for kind, n in loop.items()})
        elif schedule.loop:
            found["kernel"] += 2 if plan.kind == "linear" else 1  # a scan has a second one for its carries
    found["copy"] += ends(plan) if way == "forward" else 0
    return found


def generated_launches(plan: Plan, way: Way, T: int) -> Counter[str]:
    """The same of the generated modules: a loop of nothing but kernels is a launch for each size in it."""
    return launches(loops(plan), way, T, "stepwise")


def launched(schedule: Schedule, stages: Sequence[Stage]) -> Counter[str]:
    """The kernels and products of these stages, each launched once."""
    found: Counter[str] = Counter()
    after_sum = False
    over: set[object] = set()  # the sums of matrices that one launch serves
    for stage in stages:
        of_matrices = sums_matrices(stage)
        over = over if of_matrices else set()
        if isinstance(stage, MatMul | OuterSum):
            found["product"] += 1
        elif isinstance(stage, ColumnSum):
            found["kernel"] += 0 if after_sum else 2
        elif of_matrices:
            found["kernel"] += (key := going_over(schedule, stage)) not in over
            over.add(key)
        elif isinstance(stage, Kernel) and only_copies(stage, schedule):
            pass  # to itself, or a copy of CuPy's
        else:
            found["kernel"] += 1
        after_sum = isinstance(stage, ColumnSum)
    return found


def sums_matrices(stage: Stage) -> bool:
    if isinstance(stage, Sum):
        return len(stage.operand[0].shape) > 1 or bool(stage.out.axes)
    return isinstance(stage, Contraction)


def going_over(schedule: Schedule, stage: Stage) -> object:
    """Which axes a sum of matrices keeps and goes over."""
    every = common_size(stage.reads, schedule.graph.orders)
    return every, stage.writes[0].axes, stage.writes[0].static


def ends(plan: Plan) -> int:
    """The first states, which are filled, and the copies of the final ones and of outputs that are states."""
    schedule = plan.step.forward
    states = {schedule.slot[c.next].home for c in schedule.graph.states}
    outputs = sum(schedule.slot[v].home in states for _, v in schedule.graph.outputs)
    return 2 * len(states) + outputs
