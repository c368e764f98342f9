"""The records of a plan: slots, buffers, fields of `Params`, stages, schedules.

Frozen, of tuples, and knowing of shapes and memory but of no target language. How they are found is left to
the passes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import sympy as sp

from gategen.callables import method_of
from gategen.graph import Graph, Pointwise, Value, length
from gategen.spec.cell import Cell
from gategen.spec.language import Size


@dataclass(frozen=True)
class InBuffer:
    """Memory of a rule, by the name of the buffer."""

    name: str


@dataclass(frozen=True)
class InField:
    """A field of `Params`."""

    name: str


@dataclass(frozen=True)
class InGradient:
    """The gradient of a field of `Params`, by the name of the field."""

    name: str


@dataclass(frozen=True)
class Given:
    """What `forward` knows of the whole run beside `Params`."""

    name: str


Home = InBuffer | InField | InGradient | Given


@dataclass(frozen=True)
class Slot:
    """Where a value lies: `size` features of an array, from `start` on."""

    home: Home
    start: sp.Expr
    size: Size
    shift: int = 0  # 1: the value after the step, in a buffer of states

    @cached_property
    def stop(self) -> sp.Expr:
        return self.start + length(self.size)

    @cached_property
    def rank(self) -> int:
        """An order of the slots of one array."""
        return offset_rank(self.start)


@dataclass(frozen=True)
class Buffer:
    """Memory of one kind.

    kind      shape          what for
    "input"   (T, B, width)  an input of the step
    "state"   (T+1, B, width)  a state at all times, [t] before step t and [t + 1] after it
    "carry"   (B, width)     a state of which only the latest value is kept
    "time"    (T, B, width)  a value kept for every step
    "row"     (B, width)     a value that lives within one step
    "static"  (width,)       one value for all steps
    """

    name: str
    kind: str
    width: sp.Expr
    members: tuple[str, ...]
    starts: tuple[sp.Expr, ...] = ()

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Where each member begins, as numbers in order."""
        return tuple(map(offset_rank, self.starts))

    @cached_property
    def member_at(self) -> Mapping[int, str]:
        """The members by where they begin."""
        return dict(zip(self.ranks, self.members, strict=True))


@dataclass(frozen=True)
class Weight:
    """Rows and columns of a field of `Params`; `columns` is None where they are all its columns."""

    field: str
    start: sp.Expr
    stop: sp.Expr
    columns: tuple[sp.Expr, sp.Expr] | None
    members: tuple[str, ...]


@dataclass(frozen=True)
class MatMul:
    """`out (+)= operand @ weight.T`, or with `transposed` `operand @ weight`.

    Several weights of one field are gathered, one below the other.
    """

    out: tuple[Value, ...]
    operand: tuple[Value, ...]
    weights: tuple[Weight, ...]
    transposed: bool
    add: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operand

    @property
    def writes(self) -> tuple[Value, ...]:
        return self.out


@dataclass(frozen=True)
class Kernel:
    """Pointwise ops over values of one size that need nothing but each other and what is in memory."""

    ops: tuple[Pointwise, ...]
    size: Size
    static: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return tuple(v for op in self.ops for v in op.reads)

    @property
    def writes(self) -> tuple[Value, ...]:
        return tuple(op.out for op in self.ops)


@dataclass(frozen=True)
class Sum:
    """`out (+)= sum over the features of operand`, for every row."""

    out: Value
    operand: tuple[Value, ...]
    add: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operand

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.out,)


@dataclass(frozen=True)
class OuterSum:
    """Rows of the gradient of a field: `left.T @ right` over all steps and rows."""

    weight: Weight
    left: tuple[Value, ...]
    right: tuple[Value, ...]
    add: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return (*self.left, *self.right)

    @property
    def writes(self) -> tuple[Value, ...]:
        return ()


@dataclass(frozen=True)
class ColumnSum:
    """`out = sum of operand` over all steps and rows."""

    out: tuple[Value, ...]
    operand: tuple[Value, ...]

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operand

    @property
    def writes(self) -> tuple[Value, ...]:
        return self.out


Stage = MatMul | Kernel | Sum | OuterSum | ColumnSum


@dataclass(frozen=True)
class Field:
    """A field of `Params`: stacked rows (and column blocks) of the cell's own parameters.

    `members` stand in the order of their gates, which is the same in all fields (`layout.gate_order`).
    `array` is what the spec itself calls the stack, where it declared one.
    """

    name: str
    members: tuple[str, ...]
    rows: tuple[Size, ...]
    columns: tuple[Size, ...] | None
    trainable: bool
    array: str = ""

    @property
    def packed(self) -> tuple[str, ...]:
        """The arrays that a user packs into the field."""
        return (self.array,) if self.array else self.members

    @cached_property
    def height(self) -> sp.Expr:
        return sp.Add(*map(length, self.rows))

    @cached_property
    def starts(self) -> tuple[sp.Expr, ...]:
        """Where each member begins among the rows."""
        return tuple(accumulate(map(length, self.rows[:-1]), initial=sp.S.Zero)) if self.rows else ()

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The same as numbers in order."""
        return tuple(map(offset_rank, self.starts))

    @cached_property
    def width(self) -> sp.Expr:
        return sp.Add(*map(length, self.columns or ()))


@dataclass(frozen=True)
class Schedule:
    """A graph, cut into stages, with a place for every value that needs one.

    `ahead` is what the loop over time computes for a few steps at once, before it takes them one by one.
    """

    graph: Graph
    before: tuple[Stage, ...]
    ahead: tuple[Stage, ...]
    loop: tuple[Stage, ...]
    after: tuple[Stage, ...]
    buffers: tuple[Buffer, ...]
    slots: tuple[tuple[Value, Slot], ...]

    @cached_property
    def slot(self) -> dict[Value, Slot]:
        return dict(self.slots)

    @cached_property
    def buffer(self) -> dict[str, Buffer]:
        return {buffer.name: buffer for buffer in self.buffers}

    @cached_property
    def passing(self) -> frozenset[str]:
        """The buffers that nothing needs once the loop has done the few steps they were filled for."""
        if not self.ahead:
            return frozenset()
        kept = {v for stage in (*self.before, *self.after) for v in (*stage.reads, *stage.writes)}
        kept |= {v for _, v in (*self.graph.outputs, *self.graph.sums)}
        homes = {self.slot[v].home for v in kept if v in self.slot}
        lasting = {home.name for home in homes if isinstance(home, InBuffer)}
        return frozenset(b.name for b in self.buffers if b.kind == "time") - lasting

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.before, *self.ahead, *self.loop, *self.after)


STEP, FIRST_STEP, START_STATES = "step", "first_step", "start_states"


@dataclass(frozen=True)
class Rule:
    """A forward step, its backward step, and the forward values the backward step reads from the tape.

    name            when it runs
    "step"          at every step
    "first_step"    instead of the first one, where no initial state is given
    "start_states"  before it, to make the initial states of parameters

    Of second derivatives they are the tangents of a step and of its backward step, and `lent` are the buffers
    of the run, which both read.
    """

    name: str
    forward: Schedule
    backward: Schedule
    tape: tuple[Value, ...]
    lent: tuple[Buffer, ...] = ()
    ways: tuple[str, str] = ("forward", "backward")  # what functions of both directions are called

    @property
    def title(self) -> str:
        """What stands before the names of its parts; those of the step go without."""
        return {FIRST_STEP: "first ", START_STATES: "start "}.get(self.name, "")

    @cached_property
    def buffers(self) -> dict[str, Buffer]:
        """The buffers of both directions by name, and those lent to them."""
        return {b.name: b for some in (self.lent, self.forward.buffers, self.backward.buffers) for b in some}

    @property
    def saved(self) -> tuple[Buffer, ...]:
        """The buffers that a run leaves behind: states, and what the backward step reads."""
        held = {self.forward.slot[v].home for v in self.tape}
        return tuple(b for b in self.forward.buffers if b.kind == "state" or InBuffer(b.name) in held)


@dataclass(frozen=True)
class Plan:
    """All a backend needs to know of a cell: of its rules, that of every step comes first.

    A plan of second derivatives knows the plan that it differentiates, and where a direction of the
    parameters lies: `dots` are the fields of `Params` that move, in their order.
    """

    cell: Cell
    kind: str
    fields: tuple[Field, ...]
    rules: tuple[Rule, ...]
    of: Plan | None = None
    dots: tuple[Field, ...] = ()

    @property
    def moving(self) -> tuple[Field | None, ...]:
        """For each field where a direction of it lies, None where it stands still."""
        dots = iter(self.dots)
        return tuple(next(dots, None) if field.trainable else None for field in self.fields)

    @property
    def step(self) -> Rule:
        return self.rules[0]

    def rule(self, name: str) -> Rule | None:
        """The rule of that name, where the cell has one."""
        return next((rule for rule in self.rules if rule.name == name), None)

    _repr_latex_ = method_of("show.notebook", "plan_latex")
    _repr_html_ = method_of("show.notebook", "plan_html")


def members_between(held: Buffer | Field, start: sp.Expr, stop: sp.Expr) -> tuple[str, ...]:
    """The members that a stretch of a buffer or of the rows of a field holds."""
    low, high = (bisect_left(held.ranks, offset_rank(at)) for at in (start, stop))
    return held.members[low:high]


@lru_cache(maxsize=10_000)
def offset_rank(start: sp.Expr) -> int:
    """An order of offsets in one buffer: what they are when every size is 16."""
    return int(start.subs(dict.fromkeys(start.free_symbols, 16)))
