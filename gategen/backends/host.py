"""The Python side of a backend: the lines that run the stages of one level of a schedule.

NumPy and CuPy say the same of matrices, fields, views and sums over steps; that is here. What a pointwise
stage and a sum over features become, and what step t of an array is called, is for each backend to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sympy as sp

from gategen.backends.comments import Remark
from gategen.backends.folding import call, commented
from gategen.backends.instructions import Scratch, View, slot_view
from gategen.backends.interface import over_all
from gategen.backends.module import Module, Way
from gategen.backends.names import Scope
from gategen.graph import Carry, Value, length
from gategen.plan import (
    Buffer,
    ColumnSum,
    Contraction,
    Given,
    Home,
    InBuffer,
    InField,
    InGradient,
    Kernel,
    MatMul,
    OuterSum,
    RunningSum,
    Shifted,
    Slot,
    Stage,
    Sum,
    TimeLoop,
    Weight,
    members_between,
)
from gategen.spec.language import Size

PREFIXES = "dot_d_", "dot_k_", "dot_", "d_"  # of names of derivatives
BESIDE = 98  # columns of a line with a comment beside it, in the innermost loop

# Which arrays a level works on: (T, B, width), a few steps of them, step t of them, or (B, width).
ALL, AHEAD, LOOP, ONCE = "all", "ahead", "loop", "once"
STEPPED = ("input", "state", "time")
SUMS = Remark(("The gradients of the parameters: all steps in one product each.",))


@dataclass
class Block:
    """Lines under one remark."""

    remark: Remark
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The remark stands above the lines, a formula beside a single one where there is room."""
        said = self.remark.text
        if len(self.lines) == len(said) == 1 and " = " in said[0]:
            beside = f"{self.lines[0]}  # {said[0]}"
            if "\n" not in beside and len(beside) <= BESIDE:
                return beside
        return "\n".join([*commented(said), *self.lines])


@dataclass(frozen=True)
class Part:
    """The lines of one level, and those that must come before them."""

    prepare: tuple[str, ...] = ()
    text: str = ""

    @property
    def lines(self) -> bool:
        """Whether there are any."""
        return bool(self.prepare or self.text)


NOTHING = Part()


class Host(ABC):
    """The lines of one level of a schedule, and what must be made before them."""

    def __init__(self, module: Module, way: Way, names: Scope, where: str) -> None:
        self.module, self.way, self.names, self.where = module, way, names, where
        self.schedule, self.xp = way.schedule, module.target.xp
        self.weights: dict[str, str] = {}  # made once, by what they are
        self.views: dict[str, str] = {}  # parts of arrays, by what they are
        self.steps: dict[str, str] = {}  # the name of a step's part, by what the loop runs over
        self.known: Mapping[str, str] = {}  # views of a few steps that are there already
        self.blocks: list[Block] = []
        self.said: set[object] = set()
        self.zeroed: set[Value] = set()  # behind the lengths

    def run(self, stages: Sequence[Stage]) -> None:
        sums: list[ColumnSum] = []  # that follow each other
        for stage in stages:
            if isinstance(stage, ColumnSum):
                sums.append(stage)
                continue
            self.column_sums(sums)
            sums = []
            match stage:
                case Kernel():
                    self.kernel(stage)
                case MatMul():
                    self.matmul(stage)
                case Sum():
                    self.row_sum(stage)
                case Contraction():
                    self.contraction(stage)
                case RunningSum():
                    self.running_sum(stage)
                case Shifted():
                    self.shifted(stage)
                case OuterSum():
                    self.outer_sum(stage)
                case TimeLoop():
                    self.time_loop(stage)
        self.column_sums(sums)

    @property
    @abstractmethod
    def prepare(self) -> tuple[str, ...]:
        """The lines that must come before these."""

    @property
    @abstractmethod
    def head(self) -> str:
        """The line of the loop over time that these are in."""

    @abstractmethod
    def kernel(self, kernel: Kernel) -> None:
        """The lines of pointwise ops."""

    @abstractmethod
    def row_sum(self, stage: Sum) -> None:
        """The line of a sum over the features."""

    @abstractmethod
    def contraction(self, stage: Contraction) -> None:
        """The line of a product of two values of every row, summed over some of their axes."""

    @abstractmethod
    def running_sum(self, stage: RunningSum) -> None:
        """The line of a running sum over the features."""

    @abstractmethod
    def shifted(self, stage: Shifted) -> None:
        """The lines that move entries along an axis."""

    @abstractmethod
    def column_sums(self, stages: Sequence[ColumnSum]) -> None:
        """The lines of sums over all steps and rows."""

    def time_loop(self, loop: TimeLoop) -> None:
        """The line that takes all steps; for backends that ask the plan for it (`plan/loops.py`)."""
        raise AssertionError(f"{type(self).__name__} asks for no {type(loop).__name__}")

    def persistent(self) -> str:
        """Say the line that takes all steps in one launch, if there is one; what tells its blocks."""
        return ""

    # ------------------------------------------------------------------------------------------ lengths

    def aside(self) -> tuple[str, ...]:
        """What comes before a step back where sequences have lengths: over ones hand their gradients on."""
        if not self.schedule.graph.backwards:
            return ()
        return tuple(
            line
            for c in self.schedule.graph.states
            if not self.keeps(c)
            for line in (
                f"{self.kept_name(c)} = {self.value(c.current)}.copy()",
                f"{self.xp}.copyto({self.value(c.current)}, 0, where={self.finished(c)})",
            )
        )

    def kept(self) -> tuple[str, ...]:
        """What comes behind a step where sequences have lengths: over ones keep what they carry."""
        back = self.schedule.graph.backwards
        return tuple(
            f"{self.xp}.copyto({self.value(c.current if back else c.next)}, "
            f"{self.kept_name(c) if back else self.value(c.current)}, where={self.finished(c)})"
            for c in self.schedule.graph.states
            if not self.keeps(c)
        )

    def finished(self, carry: Carry) -> str:
        """Where sequences are over, at the step at hand, for all features of a carry."""
        return f"{self.module.target.finished_now}{over_all(carry.current.size)}"

    def keeps(self, carry: Carry) -> bool:
        """Whether the lines of the step itself leave a carry as it is where a sequence is over."""
        return False

    def kept_name(self, carry: Carry) -> str:
        """A carried gradient, set aside."""
        gradient = carry.current.of if carry.current.role == "tangent" else carry.current
        wish = f"dot_{gradient.of}" if gradient is carry.current.of else f"{gradient.of}"
        return self.names.of("kept", wish, f"kept_{wish}")

    # ------------------------------------------------------------------------------------------ text

    def say(self, remark: Remark, *lines: str) -> None:
        """Lines under a remark; what was said before is not said again, parts of gates are named together."""
        new = Remark(
            tuple(line for line in remark.lines if line not in self.said),
            tuple(gate for gate in remark.gates if ("gate", gate) not in self.said),
        )
        self.said.update(new.lines, (("gate", gate) for gate in new.gates))
        last = self.blocks[-1].remark if self.blocks else None
        if last and new.gates and last.gates and not new.lines and not last.lines:
            self.blocks[-1].remark = Remark((), (*last.gates, *new.gates))
        elif new.lines or new.gates or not self.blocks:
            self.blocks.append(Block(new))
        self.blocks[-1].lines.extend(lines)

    @abstractmethod
    def settle(self, *kept: str) -> None:
        """Puts a part that one line mentions into that line, unless the text `kept` mentions it too."""

    @property
    def text(self) -> str:
        """All lines, a blank line around a block of several."""
        whole = ""
        for text in (block.text for block in self.blocks if block.lines):
            last = whole.rpartition("\n\n")[2]
            single = "\n" not in text and not (whole and "\n#" in f"\n{last}")
            whole += ("\n" if single else "\n\n") * bool(whole) + text
        return whole

    @property
    def written(self) -> Part:
        """The lines, and what must come before them."""
        return Part(self.prepare, self.text)

    def comment(self, *values: Value) -> Remark:
        return self.way.comments.of(values, self.where == ONCE)

    # ------------------------------------------------------------------------------------------ places

    def buffer(self, slot: Slot | View) -> Buffer | None:
        """The buffer of this rule's memory that a slot is in; None where it is in another array."""
        return self.way.rule.buffers[slot.home.name] if isinstance(slot.home, InBuffer) else None

    def array(self, home: Home | Scratch) -> str:
        """What a whole array is called here."""
        match home:
            case Scratch():
                raise AssertionError("scratch arrays are called by their views")
            case InBuffer(name):
                return self.names["memory", name]
            case InField(name):
                return self.names["field", name]
            case InGradient(name):
                return self.names["field gradient", name]
            case Given(name):
                return self.names.of("given", name, name)

    def value(self, *values: Value) -> str:
        """Neighbouring values as one array."""
        return self.place(joined([self.schedule.slot[v] for v in values]))

    def place(self, view: View) -> str:
        """What a stretch of memory is called here."""
        match view.home:
            case InBuffer(name):
                return self.buffer_part(view, self.way.rule.buffers[name])
            case InField() | InGradient() as home:
                return self.field_part(view, home)
            case Given() as home:
                return self.array(home)
            case Scratch():
                raise AssertionError("a host that makes scratch arrays says what they are called")

    def buffer_part(self, view: View, buffer: Buffer) -> str:
        """Part of this rule's memory."""
        base = self.names["memory", buffer.name]
        whole = self.same(buffer.width, view.stop - view.start)
        if buffer.kind in STEPPED and self.where in (AHEAD, LOOP, ONCE):
            return self.at_step(buffer, view, base, whole)
        inner = self.span(view.start, view.stop, buffer.width)
        if buffer.kind in STEPPED:
            base += {("state", 0): "[:-1]", ("state", 1): "[1:]"}.get((buffer.kind, view.shift), "")
            return base if whole else self.part(f"{base}[..., {inner}]", f"{self.short(view, buffer)}_all")
        if whole:
            return base
        wish = self.short(view, buffer)
        return self.part(f"{base}[{inner}]" if buffer.kind == "static" else f"{base}[:, {inner}]", wish)

    @abstractmethod
    def at_step(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        """An array of all steps, at the step or steps at hand."""

    @abstractmethod
    def part(self, source: str, wish: str) -> str:
        """A part of an array."""

    def field_part(self, view: View, home: InField | InGradient) -> str:
        """Part of a parameter, or of its gradient."""
        found, base = self.module.fields[home.name], self.array(home)
        if not found.rows or found.columns or self.same(view.stop - view.start, found.height):
            return base
        prefix = "d_" if isinstance(home, InGradient) else ""
        inside = members_between(found, view.start, view.stop)
        return self.part(
            f"{base}[{self.span(view.start, view.stop, found.height)}]", prefix + joint_name(inside)
        )

    def short(self, view: View, buffer: Buffer) -> str:
        return joint_name(members_between(buffer, view.start, view.stop))

    def same(self, a: sp.Expr, b: sp.Expr) -> bool:
        return self.names.size(a) == self.names.size(b)

    def span(self, start: sp.Expr, stop: sp.Expr, whole: sp.Expr) -> str:
        """`H : 2 * H`, without the ends of the whole."""
        low = "" if start == 0 else self.names.size(start)
        high = "" if self.same(stop, whole) else self.names.size(stop)
        return f"{low} : {high}".strip() if " " in low + high else f"{low}:{high}"

    def flat(self, values: Sequence[Value]) -> str:
        """All steps as rows of one matrix."""
        text = self.value(*values)
        if self.where != ALL:
            return text
        slot = joined([self.schedule.slot[v] for v in values])
        if values[0].static:
            return text
        return f"{text}.reshape(T * B, {self.names.size(slot.stop - slot.start)})"

    # ------------------------------------------------------------------------------------------ products

    def weight_part(self, weight: Weight, gradient: bool = False) -> str:
        """Rows and columns of a field, or of its gradient."""
        found = self.module.fields[weight.field]
        base = self.array(InGradient(weight.field) if gradient else InField(weight.field))
        whole = self.same(weight.stop - weight.start, found.height)
        rows = "" if whole else self.span(weight.start, weight.stop, found.height)
        if weight.columns is not None:
            return f"{base}[{rows or ':'}, {self.span(*weight.columns, found.width)}]"
        return f"{base}[{rows}]" if rows else base

    def weight(self, weights: Sequence[Weight], transposed: bool) -> str:
        """The right side of a product; in the loop one that lies as products want it, made once."""
        part, wish = self.gathered(weights)
        if self.where in (ALL, ONCE):
            return part if transposed else f"{part}.T"
        if transposed:
            return part if part == wish else self.made_once(part, wish)
        return self.made_once(self.turned(part), f"{wish}_T")

    def turned(self, part: str) -> str:
        """The transpose of a matrix as products want it, for many of them."""
        return f"{self.xp}.ascontiguousarray({part}.T)"

    def gathered(self, weights: Sequence[Weight]) -> tuple[str, str]:
        """Rows of a field, one stretch below the other, and what to call them."""
        parts = [self.weight_part(weight) for weight in weights]
        part = parts[0] if len(parts) == 1 else f"{self.xp}.concatenate(({', '.join(parts)}))"
        base = self.names["field", weights[0].field]
        told = [member.removeprefix("dot_") for weight in weights for member in weight.members]
        members = [member.split("_", 1)[-1] for member in told]
        return part, base if part == base else f"{base}_{joint_name(members)}"

    def made_once(self, source: str, wish: str) -> str:
        if source not in self.weights:
            self.weights[source] = self.names.of("view", source, wish, self.where)
        return self.weights[source]

    def matmul(self, stage: MatMul) -> None:
        if stage.along:
            self.product_along(stage)
            return
        if stage.blocks != 1:
            self.block_product(stage)
            return
        operand, weight = self.flat(stage.operand), self.weight(stage.weights, stage.transposed)
        self.say(self.comment(*stage.out), self.product(operand, weight, self.flat(stage.out), stage.add))

    def product_along(self, stage: MatMul) -> None:
        """A product with a matrix of every row: with all of its rows at once, or from the left."""
        (operand,), (out,) = stage.operand, stage.out
        if stage.along == operand.axes[-1]:
            weight = self.weight(stage.weights, stage.transposed)
            line = self.product(self.rows(operand), weight, self.rows(out), stage.add)
        else:
            matrix = self.weight(stage.weights, not stage.transposed)
            line = self.from_left(matrix, self.value(operand), self.value(out), stage.add)
        self.say(self.comment(out), line)

    def from_left(self, matrix: str, operand: str, out: str, add: bool) -> str:
        """The line of a product of one matrix with many, into others or added to them."""
        line = f"{self.xp}.matmul({matrix}, {operand})"
        return f"{out}[...] += {line}" if add else f"{out}[...] = {line}"

    def rows(self, value: Value, axis: Size = "") -> str:
        """All matrices as the rows of one; with `axis` that one, which is one of the last two, goes along
        the rows.
        """
        text, last = self.value(value), axis or value.axes[-1]
        lead = "T * B" if self.where == ALL else "B"
        others = self.names.size(length(tuple(a for a in value.axes if a != last)))
        turned = "" if last == value.axes[-1] else ".swapaxes(-2, -1)"
        count = f"{lead} * ({others})" if " + " in others else f"{lead} * {others}"
        return f"{text}{turned}.reshape({count}, {self.names.letter(last)})"

    def block_product(self, stage: MatMul) -> None:
        """A product of block-diagonal matrices; those that each step needs are laid block by block once."""
        part, wish = self.gathered(stage.weights)
        gates = sum(len(weight.members) for weight in stage.weights)
        operand, out = self.flat(stage.operand), self.flat(stage.out)
        name = "blockwise_back" if stage.transposed else "blockwise"
        blocks = f"by_block({part}, {self.names.letter(stage.blocks)}, {gates})"
        once = blocks if stage.transposed else f"{blocks}.swapaxes(2, 3)"
        if self.where == LOOP and stage.transposed:
            once = self.made_once(blocks, f"{wish}_blocks")
        elif self.where == LOOP:
            once = self.made_once(f"{self.xp}.ascontiguousarray({once})", f"{wish}_blocks_T")
        self.module.helpers.update(("by_block", name))
        line = f"{name}({operand}, {once}, {out})"
        if stage.add:
            line = f"{out}[...] += {name}({operand}, {once}, {self.xp}.empty_like({out}))"
        self.say(self.comment(*stage.out), line)

    def product(self, left: str, right: str, out: str, add: bool) -> str:
        """The line of a product of two matrices, into a third one or added to it."""
        if add:
            return f"{out}[...] += {self.xp}.matmul({left}, {right})"
        return call(f"{self.xp}.matmul(", [left, right, f"out={out}"])

    def outer_sum(self, stage: OuterSum) -> None:
        if stage.along:
            left, right = (
                self.rows(v, axis) for (v,), axis in zip((stage.left, stage.right), stage.along, strict=True)
            )
        else:
            left, right = self.flat(stage.left), self.flat(stage.right)
        target = self.weight_part(stage.weight, gradient=True)
        line = self.product(f"{left}.T", right, target, stage.add)
        if stage.blocks != 1:
            self.module.helpers.add("blockwise_sum")
            shape = f"{self.names.letter(stage.blocks)}, {len(stage.weight.members)}"
            line = f"blockwise_sum({left}, {right}, {shape}, {target})"
            if stage.add:
                whole = f"{self.xp}.empty_like({target})"
                line = f"{target}[...] += blockwise_sum({left}, {right}, {shape}, {whole})"
        self.say(self.sums, *self.cleared(stage.left), *self.cleared(stage.right), line)

    @property
    def sums(self) -> Remark:
        """The remark on sums over steps and rows, which are gradients on the way back."""
        return SUMS if self.where == ALL and self.schedule.graph.backwards else Remark()

    def cleared(self, operand: Sequence[Value]) -> Iterable[str]:
        """Zeros behind the lengths, where they do not come of themselves."""
        needed = self.module.clears(self.way, self.schedule.slot[operand[0]])
        if needed and not self.zeroed.issuperset(operand):
            self.zeroed.update(operand)
            name, buffer = self.value(*operand), self.buffer(self.schedule.slot[operand[0]])
            rows = self.module.as_rows(name, buffer, self.where == ONCE) if buffer else name
            yield f"clear(finished, {rows})"


# ---------------------------------------------------------------------------------------------- names


def joined(slots: Sequence[Slot]) -> View:
    """Neighbouring slots as one stretch."""
    first = slot_view(slots[0])
    return View(first.home, first.start, slots[-1].stop, first.shift, first.single)


def joint_name(members: Sequence[str]) -> str:
    """`zr` for z and r, `d_zr` for d_z and d_r, `b_zr` for b_z and b_r."""
    prefix = next((p for p in PREFIXES if all(m.startswith(p) for m in members)), "")
    stems = [m.removeprefix(prefix) for m in members]
    if len(stems) == 1:
        return prefix + stems[0]
    shared = {s.split("_")[0] for s in stems}
    tails = {tuple(s.split("_")[2:]) for s in stems}
    if len(shared) == 1 and len(tails) == 1 and all("_" in s for s in stems):  # U_zr_h for U_z_h and U_r_h
        middle = "".join(s.split("_")[1] for s in stems)
        return prefix + "_".join((shared.pop(), middle, *tails.pop()))
    if len(shared) == 1 and all("_" in s for s in stems):
        return prefix + shared.pop() + "_" + "".join(s.split("_", 1)[1].split("_")[0] for s in stems)
    return prefix + ("".join(stems) if all(len(s) <= 2 for s in stems) else "_".join(stems))
