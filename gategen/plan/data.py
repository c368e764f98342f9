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
from gategen.graph import Carry, Graph, How, Pointwise, Value, length
from gategen.spec.cell import Cell
from gategen.spec.language import Axes, Extent, Size


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
    """Where a value lies: `size` features of an array, from `start` on; all of it, where it is a matrix."""

    home: Home
    start: sp.Expr
    size: Extent
    shift: int = 0  # 1: the value after the step, in a buffer of states

    @cached_property
    def stop(self) -> sp.Expr:
        return self.start + length(self.size)

    @cached_property
    def rank(self) -> int:
        """An order of the slots of one array."""
        return offset_rank(self.start)


def adjacent(first: Slot, second: Slot) -> bool:
    """Whether one slot lies directly behind another."""
    return (first.home, first.shift, first.stop) == (second.home, second.shift, second.start)


@dataclass(frozen=True)
class Buffer:
    """Memory of one kind.

    kind      shape          what for
    "input"   (T, B, width)  an input of the step
    "state"   (T+1, B, width)  a state at all times, [t] before step t and [t + 1] after it
    "carry"   (B, width)     a state of which only the latest value is kept
    "time"    (T, B, width)  a value kept for every step
    "row"     (B, width)     a value that lives within one step
    "stretch" (stretches * B, width)  the same for each of the stretches that a loop is cut into
    "static"  (width,)       one value for all steps

    A matrix of every row has a buffer for itself, with its `axes` in the place of the width.
    """

    name: str
    kind: str
    width: sp.Expr
    members: tuple[str, ...]
    starts: tuple[sp.Expr, ...] = ()
    axes: Axes = ()

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

    Several weights of one field are gathered, one below the other. With `blocks` each of them is as many
    blocks, one below the other, and each block multiplies its share of what meets it. An operand that is a
    matrix is multiplied `along` one of its axes.
    """

    out: tuple[Value, ...]
    operand: tuple[Value, ...]
    weights: tuple[Weight, ...]
    transposed: bool
    add: bool = False
    blocks: Size = 1
    along: Size = ""

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
    size: Extent
    static: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return tuple(v for op in self.ops for v in op.reads)

    @property
    def writes(self) -> tuple[Value, ...]:
        return tuple(op.out for op in self.ops)


@dataclass(frozen=True)
class Sum:
    """`out = sum over the features of operand`, for every row, or the largest of them (`graph.ops.Reduce`).

    With `add` it is added to `out`; a maximum is the larger of both. Of one operand it goes over the axes
    that `out` does not have.
    """

    out: Value
    operand: tuple[Value, ...]
    add: bool = False
    how: How = "sum"

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operand

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.out,)


@dataclass(frozen=True)
class Contraction:
    """`out = left * right`, summed over the axes that `out` does not have, for every row."""

    out: Value
    left: Value
    right: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.left, self.right

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.out,)


@dataclass(frozen=True)
class RunningSum:
    """`out = the running sum of operand` over its features, for every row; `backwards`, from the last on.

    With `axis` along that one of several axes.
    """

    out: Value
    operand: Value
    backwards: bool = False
    axis: Size = ""

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.out,)


@dataclass(frozen=True)
class Shifted:
    """`out[k] = operand[k - by]` along one axis, for every row, and 0 where nothing comes from."""

    out: Value
    operand: Value
    by: int
    axis: Size

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.out,)


@dataclass(frozen=True)
class OuterSum:
    """Rows of the gradient of a field: `left.T @ right` over all steps and rows.

    Of matrices it is over all axes but those that are named in `along`, one of each side.
    """

    weight: Weight
    left: tuple[Value, ...]
    right: tuple[Value, ...]
    add: bool = False
    blocks: Size = 1
    along: Axes = ()

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


@dataclass(frozen=True)
class Linearized:
    """A step of a loop to first order (`newton.py`): its states, and derivatives of them by those that a
    stretch of the sequence begins with.

    A carry is a value at the beginning of a step, and what takes its place for the next one. `slopes` has the
    numbers of two states, of the later and of the earlier one, and the carry of that derivative. Where the
    step is `linear`, this is all of it.
    """

    ops: tuple[Pointwise, ...]
    states: tuple[tuple[Value, Value], ...]
    slopes: tuple[tuple[tuple[int, int], tuple[Value, Value]], ...]
    linear: bool


@dataclass(frozen=True)
class TimeLoop:
    """All steps of a loop of pointwise ops on values of one size, every entry of a row by itself.

    A carry is a value at the beginning of a step, and what takes its place for the next one. `stores` are
    kept for every step; `sums` are values with their sums over the steps, a row for every sequence. Where it
    is `linearized`, stretches of it can run side by side.
    """

    ops: tuple[Pointwise, ...]
    size: Extent
    carries: tuple[tuple[Value, Value], ...]
    stores: tuple[Value, ...]
    sums: tuple[tuple[Value, Value], ...]
    linearized: Linearized | None = None

    @property
    def reads(self) -> tuple[Value, ...]:
        made = {op.out for op in self.ops}
        read = (*(v for op in self.ops for v in op.reads), *(v for carry in self.carries for v in carry))
        return tuple(v for v in dict.fromkeys(read) if v not in made)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (*self.stores, *(total for _, total in self.sums))


Stage = MatMul | Kernel | Sum | RunningSum | Shifted | Contraction | OuterSum | ColumnSum | TimeLoop


@dataclass(frozen=True)
class Field:
    """A field of `Params`: stacked rows (and column blocks) of the cell's own parameters.

    `members` stand in the order of their gates, which is the same in all fields (`layout.gate_order`).
    `array` is what the spec itself calls the stack, where it declared one. A field that is `computed` is made
    of others at every call, and no part of `Params`.
    """

    name: str
    members: tuple[str, ...]
    rows: tuple[Size, ...]
    columns: tuple[Size, ...] | None
    trainable: bool
    array: str = ""
    computed: bool = False

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

    @property
    def linearized(self) -> Linearized | None:
        """How stretches of its loop run side by side, of the first one that can (`loops.py`)."""
        return next((s.linearized for s in self.after if isinstance(s, TimeLoop) and s.linearized), None)


STEP, FIRST_STEP, START_STATES = "step", "first_step", "start_states"
# no rules of a plan: two programs each for all steps at once, which share memory as a rule's do
NEWTON, NEWTON_BACK = "newton", "newton_back"


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
class Newton:
    """How the states of all steps are found at once (`newton.py`).

    Of the two programs in `rule` the first one is the loop's step, for many stretches of a sequence side by
    side, and the second one carries the states, and their derivatives by those at the beginning of the
    stretch: `carried` are these, behind the states in the order of `entries`, the names of the state after
    and of the one before. States that wait for none are `settled` before. Where the step is `linear`, one
    iteration is all.

    Of steps back the states are the gradients that they carry, and `later` are states of the forward step as
    they are behind it, by the names of their arrays.
    """

    rule: Rule
    carried: tuple[Carry, ...]
    settled: tuple[Carry, ...]
    entries: tuple[tuple[str, str], ...]
    linear: bool
    later: tuple[tuple[str, str], ...] = ()

    @property
    def states(self) -> tuple[Carry, ...]:
        return self.carried[: len(self.carried) - len(self.entries)]

    @property
    def derivatives(self) -> Mapping[tuple[str, str], Carry]:
        return dict(zip(self.entries, self.carried[len(self.states) :], strict=True))


@dataclass(frozen=True)
class Weights:
    """How computed parameters are made, and their gradients become those of what they are made of.

    Both graphs are of static values, of which the sums are wanted. In a plan of second derivatives they are
    the tangents of these. `parameters` tells where the parameters of the cell lie that they read.
    """

    forward: Graph
    backward: Graph
    parameters: Mapping[str, Weight | Slot]


@dataclass(frozen=True)
class Plan:
    """All a backend needs to know of a cell: of its rules, that of every step comes first.

    A plan of second derivatives knows the plan that it differentiates, and where a direction of the
    parameters lies: `dots` are the fields of `Params` that move, in their order.

    `computed` are further fields, which `weights` says how to make; of second derivatives `computed_dots` are
    their tangents, and `gradients` those fields whose gradients are needed beside their tangents.

    `newton` says how all states can be found at once, where that is possible and was asked for, and
    `newton_back` the same of the gradients that steps back carry.
    """

    cell: Cell
    kind: str
    fields: tuple[Field, ...]
    rules: tuple[Rule, ...]
    of: Plan | None = None
    dots: tuple[Field, ...] = ()
    weights: Weights | None = None
    computed: tuple[Field, ...] = ()
    computed_dots: tuple[Field, ...] = ()
    gradients: tuple[Field, ...] = ()
    newton: Newton | None = None
    newton_back: Newton | None = None

    @property
    def every_field(self) -> tuple[Field, ...]:
        """All fields that some line may name."""
        return (*self.fields, *self.dots, *self.computed, *self.computed_dots, *self.gradients)

    @property
    def moving(self) -> tuple[Field | None, ...]:
        """For each field where a direction of it lies, None where it stands still."""
        dots = iter(self.dots)
        return tuple(next(dots, None) if field.trainable else None for field in self.fields)

    @property
    def step(self) -> Rule:
        return self.rules[0]

    @property
    def opens(self) -> bool:
        """Whether a rule for the first step may take it; a tangent goes through that in its own loop."""
        return self.rule(FIRST_STEP) is not None and not self.of

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
