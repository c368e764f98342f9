"""What all functions of a generated module share: the plan, the words of the target, names, buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import sympy as sp

from gategen.backends.comments import Comments, comments
from gategen.backends.names import names_of
from gategen.graph import Pointwise, Value, length
from gategen.plan import START_STATES, Buffer, InBuffer, Plan, Rule, Schedule, Slot
from gategen.spec.functions import TABLE
from gategen.spec.language import Extent


@dataclass(frozen=True)
class Target:
    """A library of arrays, in the words of Python that templates and lines need."""

    title: str
    numpy: bool
    cupy: bool
    xp: str  # the library
    as_array: str  # `value`, which is called `name`, as an array of this library without gaps
    dtypes: str  # those of parameters, for people
    parameters: str  # the arrays of `params`
    finished_now: str  # where sequences are over, at the step at hand
    real: str  # the real part of an array
    real_dtype: str  # that of the statistics of batch norms
    init_dtype: str  # the same, where they are made
    init_note: str  # what people should know of it
    kept_dtype: str  # what makes `where` of arrays keep their dtype
    shape: str  # of what the caller gave, which need not be an array yet
    broadcast: str  # an input that may be constant in time, at every step
    one_step: str  # how the shape of an array of all steps begins in a function for one step


@dataclass(frozen=True)
class Way:
    """One direction of a rule, which becomes a function of the module."""

    rule: Rule
    schedule: Schedule
    comments: Comments

    @property
    def name(self) -> str:
        """`forward`, `backward`, `first_forward` ..."""
        there, back = self.rule.ways
        return f"{self.rule.title}{there if self.schedule is self.rule.forward else back}".replace(" ", "_")


@dataclass(frozen=True)
class OneStep:
    """How the two functions of a rule for one step take arrays and return them."""

    states: tuple[str, ...]  # the states that the forward function takes
    both: tuple[str, ...]  # those that the backward function takes
    made: tuple[str, ...]  # the next states, where the forward function makes the arrays
    passed: tuple[str, ...]  # what `forward` passes for `states`
    saved: tuple[str, ...]  # what `backward` passes for `both`
    results: tuple[str, ...]  # what `forward` calls the next states that it gets back
    at: str  # which step of the arrays of all steps it takes
    further: tuple[str, ...]  # what the forward function takes beside arrays
    measured: str  # the line that finds B, and the dtype where that is not passed
    measured_back: str  # the same in the backward function


class Module(ABC):
    """The plan of a cell on its way to a module, with the names of things and the helpers that are needed."""

    target: ClassVar[Target]

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cell = plan.cell
        self.helpers: set[str] = set()
        self.fields = {f.name: f for f in plan.every_field}
        self.names = names_of(plan)
        self.known_ways: dict[str, tuple[Way, Way]] = {}  # by rule

    @cached_property
    def overwrites(self) -> bool:
        """Whether memory of the gradients of parameters may hold anything before `backward` writes it."""
        return False

    @abstractmethod
    def one_step(self, states: Sequence[str]) -> OneStep:
        """How functions for one step pass arrays, and those of these states."""

    def states_of(self, rule: Rule) -> tuple[str, ...]:
        """The states that the functions of a rule take: none, where it makes the initial ones."""
        return tuple(s.name for s in self.cell.states if rule.forward.graph.states)

    def carried(self, rule: Rule) -> tuple[str, ...]:
        """The memory of what the forward step of a rule carries."""
        return tuple(rule.forward.slot[c.current].home.name for c in rule.forward.graph.states)

    def ways(self, rule: Rule) -> tuple[Way, Way]:
        """Both directions of a rule."""
        if rule.name not in self.known_ways:
            there, back = comments(self.plan, rule)
            self.known_ways[rule.name] = Way(rule, rule.forward, there), Way(rule, rule.backward, back)
        return self.known_ways[rule.name]

    @property
    def parallel(self) -> bool:
        """Whether `forward` can find the states of all steps at once."""
        return self.plan.newton is not None

    @property
    def parallel_back(self) -> bool:
        """Whether `backward` can find the gradients that it carries so."""
        return self.plan.newton_back is not None

    def stretches(self, way: Way) -> str:
        """The line that says how many stretches of the steps run side by side, in one loop."""
        return ""

    def few_steps(self, way: Way) -> bool:
        """Whether the loop goes over a few steps at once: some lines come before them, or some are done."""
        back = self.plan.newton_back is not None and way.schedule is self.plan.step.backward
        return back or bool(way.schedule.ahead)

    def carry(self, state: str, rule: Rule) -> str:
        """The name of the carried gradient of a state."""
        return self.carry_of(f"d_{state}", rule)

    def carry_of(self, name: str, rule: Rule) -> str:
        """What the memory of a state of the backward step is called."""
        schedule = rule.backward
        found = next((c.current for c in schedule.graph.states if c.name == name), None)
        return name if found is None else self.names["memory", schedule.slot[found].home.name]

    def seeds(self, rule: Rule) -> tuple[str, ...]:
        """The names of the gradients of the outputs."""
        return tuple(self.at(v, rule.backward) for v in self.gradients_of_outputs(rule))

    def gradients_of_outputs(self, rule: Rule) -> tuple[Value, ...]:
        """What the backward step of a rule is given of its outputs."""
        return rule.backward.graph.inputs[: len(rule.forward.graph.outputs)]

    def at(self, value: Value, schedule: Schedule) -> str:
        """What the memory of a value is called."""
        return self.names["memory", schedule.slot[value].home.name]

    def input_gradient(self, name: str) -> str:
        """The name of the gradient of an input: that of its buffer, where it has one for itself."""
        rule = self.plan.step
        slot = rule.backward.slot[dict(rule.backward.graph.outputs)[name]]
        if rule.buffers[slot.home.name].width == length(slot.size):
            return self.names["memory", slot.home.name]
        return self.names.of("gradient", name, f"d_{name}")

    def number(self, expr: sp.Expr) -> str:
        """A number, or arithmetic of sizes, as Python text."""
        if expr.is_number:
            value = float(expr)
            return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
        roots = {
            e: sp.Float(float(e)) for e in expr.atoms(sp.Pow, sp.NumberSymbol, sp.Function) if e.is_number
        }
        text = self.names.size(expr.xreplace(roots))
        return text if text.isidentifier() else f"({text})"

    @cached_property
    def singular(self) -> bool:
        """Whether a step may give inf or NaN behind the end of a sequence: the input is 0 there."""
        rules = [rule for rule in self.plan.rules if rule.name != START_STATES]
        ops = [
            op for rule in rules for graph in (rule.forward.graph, rule.backward.graph) for op in graph.ops
        ]
        return any(singular(op.expr) for op in ops if isinstance(op, Pointwise) and not op.out.static)

    def clears(self, way: Way, slot: Slot) -> bool:
        """Whether what is summed over all rows must be set to 0 behind the lengths: 0 * inf is not 0.

        What a run computes itself; inputs are 0 there, states finite, and `forward` clears the tape.
        """
        made = (b for b in way.schedule.buffers if b.kind not in ("input", "state"))
        own = slot.home in {InBuffer(b.name) for b in made}
        return own and self.singular and way.rule.name != START_STATES

    def in_rows(self, array: str, size: Extent) -> str:
        """An array of one step with all features in one axis."""
        return f"{array}.reshape(B, {self.names.size(length(size))})"

    def as_rows(self, array: str, buffer: Buffer, once: bool = False) -> str:
        """An array of a buffer, of all steps or of one, whose last axis holds all features."""
        stepped = {"state": "T + 1, B", "time": "T, B", "input": "T, B"}
        lead = "B" if once else stepped.get(buffer.kind, "B")
        return f"{array}.reshape({lead}, {self.names.size(buffer.width)})" if buffer.axes else array

    def dtype(self, buffer: str) -> str:
        """The expression for the dtype of a buffer."""
        return "dtype"

    @property
    def by_gate(self) -> Mapping[str, int]:
        """The buffers of the step that are (T, n, B, H) or (n, B, H): gate by gate, with how many gates."""
        return {}

    def shape(self, buffer: Buffer, rows: bool = False) -> str:
        """The shape of a buffer as text: `(T, B, 3 * H)`, or gate by gate unless it must be in `rows`."""
        lead = {"state": "T + 1, ", "time": "T, ", "input": "T, ", "stretch": "stretches * "}.get(
            buffer.kind, ""
        )
        width = self.names.letter(buffer.axes) if buffer.axes else self.names.size(buffer.width)
        if buffer.kind == "static":
            return f"({width})" if buffer.axes else f"({width},)"
        n = 0 if rows else self.by_gate.get(buffer.name, 0)
        return f"({lead}{n}, B, {self.names.size(buffer.width / n)})" if n else f"({lead}B, {width})"


def singular(expr: sp.Expr) -> bool:
    """Whether `expr` divides, or takes a logarithm, a root or an exponential."""
    powers = any(not (p.exp.is_Integer and p.exp > 0) for p in expr.atoms(sp.Pow))
    return powers or expr.has(*(row.apply for row in TABLE if not row.finite))


def tape_buffers(rule: Rule) -> list[Buffer]:
    """The buffers that the backward step reads, beside inputs and states."""
    return [b for b in rule.saved if b.kind in ("time", "row", "static")]
