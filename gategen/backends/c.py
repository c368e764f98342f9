"""C99: loops over steps, rows and units, and products of packed matrices; no library but libm.

`files` lowers a plan to a `.c` file, its header, and a Python module that compiles and calls it. Pointwise ops
become a function for one row, a loop over units that compilers turn into vector code. Rows of the batch wait
for nothing but themselves, so threads share them out and go through all steps on their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from gategen.backends import interface
from gategen.backends.comments import Remark, memory_name
from gategen.backends.folding import WIDTH, call, folded
from gategen.backends.host import joined
from gategen.backends.instructions import Scratch, View, slot_view
from gategen.backends.module import Module, OneStep, Target, Way, tape_buffers
from gategen.backends.names import Scope, names_of
from gategen.backends.pointwise import EntryPrinter, arguments_of_functions, filled, grouped, times, unique
from gategen.graph import Value, length
from gategen.plan import (
    FIRST_STEP,
    START_STATES,
    Buffer,
    ColumnSum,
    Given,
    Home,
    InBuffer,
    InField,
    InGradient,
    Kernel,
    MatMul,
    OuterSum,
    Plan,
    Rule,
    Schedule,
    Slot,
    Stage,
    Sum,
    Weight,
)
from gategen.plan.phases import phases
from gategen.render import render
from gategen.spec import c_math
from gategen.spec import language as lang
from gategen.spec.elementwise import Call, Row, called, helpers
from gategen.spec.functions import TABLE

ARRAYS = False

# Which rows a level works on: those of some steps at once, those of one step in the loop over time, or those
# of a single step, for which weights stay as they lie.
ALL, LOOP, ONCE = "all", "loop", "once"
STEPPED = ("input", "state", "time")

# The sums of products of so many rows at once: 6 rows of a panel are 12 registers of AVX-512.
TILES = tuple(tuple("stuvwy"[:rows]) for rows in (6, 4, 2, 1))

# Names that the C text uses for itself, and the words of C and C++.
C_WORDS = frozenset(
    """
    real size_t row at t k first steps most start stop part parts work tape kept lengths params initial final
    d_params d_final d_initial d_first given buffers training count valid seen room rows width pitch panel
    take rounded threads cut pack_rows pack_columns packed panels multiply multiply_all few outer column_sums sum
    copy zero copy_rows clear_rows add_up PANEL DEPTH REAL restrict NULL NAN INFINITY M_PI unix linux
    """.split()
) | (
    KEYWORDS := frozenset(
        """
    auto bool break case catch char class const continue default delete do double else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new operator private protected
    public register return short signed sizeof static struct switch template this throw true try typedef
    typename union unsigned using virtual void volatile while and or not xor main errno
    """.split()
    )
)


def files(plan: Plan) -> dict[str, str]:
    """The C file, the header and the Python module of a cell, by file name."""
    file = CFile(CModule(plan))
    made = file.context()
    name = f"{plan.cell.name}_c"
    source, header = (tidy(render(f"c/module.{end}.jinja", made)) for end in ("c", "h"))
    return {
        f"{name}.py": render("python/ctypes.py.jinja", python_context(CtypesModule(plan))),
        f"{name}.c": source,
        f"{name}.h": header,
    }


def tidy(text: str) -> str:
    """Text of C as people write it: what is used is not called unused, and no line is too long."""
    functions = re.split(r"(?m)(?<=^\}\n)", re.sub(r"(?m)^ +#", "#", text))
    lines = (line for function in functions for line in used_alone(function).rstrip("\n").split("\n"))
    return "\n".join(part for line in lines for part in broken(line)).rstrip() + "\n"


def used_alone(function: str) -> str:
    """A function without `(void)a;` for what it uses."""
    body = function.partition("\n{\n")[2]

    def needed(found: re.Match[str]) -> str:
        return found[0] if len(re.findall(rf"\b{found[1]}\b", body)) == 1 else ""

    return re.sub(r"(?m)^ +\(void\)(\w+);\n", needed, function)


def broken(line: str) -> list[str]:
    """A line in as many as it needs; a comment beside it comes to stand above."""
    margin = line[: len(line) - len(line.lstrip())]
    if len(line) <= WIDTH:
        return [line]
    if line.lstrip().startswith("//"):
        return [f"{margin}// {part}" for part in folded([line.lstrip(" /")], WIDTH - 3 - len(margin))]
    code, beside, comment = line.partition("  // ")
    if beside:
        return [f"{margin}// {part}" for part in folded([comment], 100)] + broken(code)
    at = max(
        code.rfind(mark, len(margin) + 20, WIDTH) + len(mark) - 1 for mark in (", ", " + ", " ? ", " : ", "(")
    )
    rest = margin + "    " + code[at:].lstrip()
    return [code[:at].rstrip(), *broken(rest)] if at > len(margin) + 20 else [line]


# ---------------------------------------------------------------------------------------------- expressions


class CPrinter(EntryPrinter):
    """Expressions as C."""

    def real(self, text: str) -> str:
        return f"(real){text}"

    def call_of(self, row: Row) -> Call | None:
        return row.c

    def choice(self, expr: sp.Basic) -> str:
        return self.real(str(expr)) if isinstance(expr, sp.Integer) else super().choice(expr)

    def general_power(self, base: str, exponent: str) -> str:
        return f"{c_math.POWER.name}({base}, {exponent})"

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        text, tight = super().power(base, exponent)
        return re.sub(r"^sqrt\(", "sqrt_real(", text), tight


# ---------------------------------------------------------------------------------------------- records


@dataclass(frozen=True)
class CKernel:
    """Pointwise ops of one row, as a function."""

    name: str
    comment: tuple[str, ...]
    parameters: tuple[str, ...]  # lines
    count: str  # how many units there are; empty where there is one
    body: tuple[str, ...]


@dataclass(frozen=True)
class Room:
    """Memory: how many entries it has for all steps, for a few of them, and for each step."""

    name: str
    whole: str
    some: str
    each: str  # empty where it is not kept for every step
    comment: str = ""
    state: bool = False  # whether it has an entry for the time behind the last step
    backward: bool = False  # whether the way back reads it
    member: str = ""  # of the tape


@dataclass(frozen=True)
class Pack:
    """A matrix as products want it."""

    name: str
    size: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """An array that the caller gives for all steps; behind the lengths it counts as 0."""

    name: str  # as the caller calls it
    now: str  # that of the steps at hand
    copy: str  # the memory of a copy
    width: str
    forward: bool = False  # whether the way there reads it
    backward: bool = False


@dataclass(frozen=True)
class Copied:
    """What is copied from memory of a run to the caller's."""

    target: str
    source: str
    pitch: str
    width: str


@dataclass(frozen=True)
class Carried:
    """A state, or its gradient on the way back."""

    name: str
    array: str
    width: str
    kept: str = ""
    initial: str = ""  # a number; empty where a rule makes it


@dataclass(frozen=True)
class Statistic:
    """A running statistic of a batch norm."""

    name: str
    array: str
    source: str  # of its new value
    width: str


@dataclass(frozen=True)
class RuleOnce:
    """A rule for a single step, as two functions."""

    forward: CFunction
    backward: CFunction
    held: tuple[Room, ...]  # what is left behind, beside states
    outputs: tuple[Copied, ...]
    seeds: tuple[str, ...]  # gradients of the outputs
    carries: tuple[Carried, ...]
    d_inputs: tuple[Copied, ...]
    clearing: tuple[str, ...]


@dataclass(frozen=True)
class CFunction:
    """One direction of a rule."""

    unpacked: tuple[str, ...] = ()  # lines that name the fields of `params`
    rooms: tuple[Room, ...] = ()
    packs: tuple[Pack, ...] = ()
    zeroed: tuple[str, ...] = ()  # lines that set sums to 0
    first: tuple[str, ...] = ()  # before all steps
    before: tuple[str, ...] = ()
    loop: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    last: tuple[str, ...] = ()  # behind all steps
    at_once: bool = False  # whether all steps are one part
    width: str = "1"  # of all that is kept for every step

    @property
    def opening(self) -> tuple[str, ...]:
        """The lines that name fields and memory, pack matrices, and set sums to 0."""
        rooms = []
        for room in self.rooms:
            said = f"  // {room.comment}" if room.comment else ""
            rooms.append(f"real *const {room.name} = take(&work, {room.some});{said}")
        packs = [f"real *const {pack.name} = take(&work, {pack.size});" for pack in self.packs]
        packed = [line for pack in self.packs for line in pack.lines]
        return (*self.unpacked, *rooms, *packs, *packed, *self.zeroed, *self.first)

    @property
    def packing(self) -> tuple[str, ...]:
        """The lines that pack all matrices."""
        packs = [f"real *const {pack.name} = take(&work, {pack.size});" for pack in self.packs]
        return (*self.fields_packed, *packs, *(line for pack in self.packs for line in pack.lines))

    @property
    def fields_packed(self) -> tuple[str, ...]:
        text = "\n".join(line for pack in self.packs for line in pack.lines)
        return tuple(u for u in self.unpacked if mentions(text, u.split(" = ")[0].split("const ")[-1]))

    @property
    def opening_packed(self) -> tuple[str, ...]:
        """The same where somebody else packs the matrices."""
        bare = replace(self, packs=()).opening
        return (
            *bare,
            *(f"const real *const {p.name} = packed ? find(&packed, {p.size}) : NULL;" for p in self.packs),
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """How many entries of memory it takes."""
        return (*(f"rounded({room.some})" for room in self.rooms), *(pack.size for pack in self.packs))

    @property
    def text(self) -> str:
        lines = (*self.zeroed, *self.first, *self.before, *self.loop, *self.after, *self.last)
        packs = (line for pack in self.packs for line in pack.lines)
        return "\n".join((*lines, *packs))


# ---------------------------------------------------------------------------------------------- lines


class Lines:
    """The lines of one level of a schedule."""

    def __init__(self, file: CFile, way: Way, names: Scope, where: str, ends: Iterable[Value]) -> None:
        self.file, self.way, self.names, self.where = file, way, names, where
        self.module, self.schedule = file.module, way.schedule
        self.lines: list[str] = []
        self.program: list[str] = []  # of a row, not yet among the lines
        self.packs: dict[tuple[tuple[Weight, ...], bool], Pack] = {}
        self.cleared: set[Value] = set()  # behind the lengths
        self.prepacked = False  # whether matrices may be packed already
        graph = way.schedule.graph
        self.ends = {*graph.nexts, *graph.results, *ends}
        self.readers: dict[Value, list[Stage]] = {}
        for stage in way.schedule.stages:
            for value in dict.fromkeys(stage.reads):
                self.readers.setdefault(value, []).append(stage)

    def run(self, stages: Sequence[Stage]) -> Lines:
        for stage in stages:
            match stage:
                case Kernel():
                    self.kernel(stage)
                case Sum():
                    self.row_sum(stage)
                case MatMul():
                    self.flush()
                    self.product(stage)
                case OuterSum():
                    self.flush()
                    self.outer_sum(stage)
                case ColumnSum():
                    self.flush()
                    self.column_sum(stage)
        self.flush()
        return self

    def say(self, remark: Remark, *lines: str) -> None:
        self.lines += commented(remark.text)
        self.lines += lines

    def flush(self) -> None:
        """The rows, each with its program."""
        if not self.program:
            return
        body, text = self.program, "\n".join(self.program)
        self.program = []
        loops = {
            ALL: "for (size_t at = 0; at < steps * B; at++) {",
            LOOP: "for (size_t row = start; row < stop; row++) {",
            ONCE: "for (size_t row = 0; row < B; row++) {",
        }
        if self.where == LOOP and mentions(text, "at"):
            body = ["const size_t at = t * B + row;", *body]
        lines = [loops[self.where], *indented(body), "}"]
        self.lines += parallel("steps * B >= 256", lines) if self.where == ALL else lines

    # ------------------------------------------------------------------------------------------ places

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    def array(self, home: Home | Scratch) -> str:
        """What a whole array is called."""
        match home:
            case InBuffer(name):
                return self.file.now.get(name) or self.names["memory", name]
            case InField(name):
                return self.names["field", name]
            case InGradient(name):
                return self.names["field gradient", name]
            case Given(name):
                return self.names.of("given", name, name)
        raise AssertionError(home)

    def buffer(self, home: Home | Scratch) -> Buffer | None:
        return self.way.rule.buffers[home.name] if isinstance(home, InBuffer) else None

    def row_of(self, view: View, buffer: Buffer | None, product: bool) -> str:
        """Which row of an array is meant: in a product the first one."""
        if buffer is None or buffer.kind == "static":
            return ""
        stepped = buffer.kind in STEPPED
        if self.where == LOOP:
            if not stepped:
                return "start" if product else "row"
            at = "(t * B + start)" if product else "at"
            return f"({at.strip('()')} + B)" if view.shift else at
        at = "" if product else "at" if self.where == ALL else "row"
        if view.shift:
            return f"({at} + B)" if at else "B"
        return at

    def place(self, view: View, product: bool = False) -> tuple[str, str]:
        """An array, and the index of the first entry of a stretch in the row at hand; empty for 0."""
        buffer = self.buffer(view.home)
        row = self.row_of(view, buffer, product)
        terms = []
        if row:
            width = self.size(buffer.width) if buffer else "1"
            terms.append(row if width == "1" else f"{row} * {grouped(width)}")
        if view.start != 0:
            terms.append(self.size(view.start))
        return self.array(view.home), " + ".join(terms)

    def pointer(self, view: View, product: bool = False) -> str:
        base, index = self.place(view, product)
        return f"{base} + {index}" if index else base

    def pitch(self, view: View) -> str:
        """How many entries lie from one row to the next."""
        buffer = self.buffer(view.home)
        assert buffer is not None
        return self.size(buffer.width)

    # ------------------------------------------------------------------------------------------ pointwise

    def scalar(self, value: Value) -> bool:
        """Whether a value is a number that is passed by value."""
        mask = self.schedule.graph.mask
        return mask is not None and value in (mask.count, mask.training)

    def outlives(self, value: Value, kernel: Kernel) -> bool:
        """Whether anything outside of the kernel reads a value."""
        buffer = self.buffer(self.schedule.slot[value].home)
        if value in self.ends or (buffer is not None and buffer.kind == "carry"):
            return True
        return any(stage is not kernel for stage in self.readers.get(value, ()))

    def kernel(self, kernel: Kernel) -> None:
        """A function for one row, and its call."""
        slot, ops = self.schedule.slot, kernel.ops
        made = {op.out for op in ops}
        reads = list(dict.fromkeys(v for op in ops for v in op.reads if v not in made))
        last = {slot[op.out]: op.out for op in ops if op.out in slot}
        stores = [v for v in last.values() if self.outlives(v, kernel)]
        if not stores:
            return
        taken = {*C_WORDS, *lang.RESERVED, *self.names.sizes.values(), *FUNCTIONS}
        written = {slot[v] for v in stores}
        names: dict[Slot, str] = {}
        declared, passed = [], []
        rename: dict[str, str] = {}
        for value in (*reads, *stores):
            if self.scalar(value):
                rename[value.name] = self.names["given", value.name]
                declared.append(f"real {rename[value.name]}")
                passed.append(rename[value.name])
                taken.add(rename[value.name])
            elif slot[value] not in names:
                names[slot[value]] = unique(memory_name(value, self.way.rule, self.schedule), taken)
                const = "" if slot[value] in written else "const "
                declared.append(f"{const}real *restrict {names[slot[value]]}")
                passed.append(self.pointer(slot_view(slot[value])))
        for value in (*reads, *stores):
            if not self.scalar(value):
                rename[value.name] = f"{names[slot[value]]}[{'k' if value.size != 1 else '0'}]"
        inside = arguments_of_functions(ops, stores)
        for op in ops:
            if op.out not in stores and op.out not in inside:
                rename[op.out.name] = unique(op.out.name, taken)
        printer = CPrinter({op.out.name: k for k, op in enumerate(ops)}, rename, self.names.sizes)
        body: list[str] = []
        overwritten = {slot[op.out]: k for k, op in enumerate(ops) if op.out in stores}
        for value in reads:  # what is needed behind the line that puts something else in its place
            at = len(ops) if self.scalar(value) else overwritten.get(slot[value], len(ops))
            if any(value in op.reads for op in ops[at + 1 :]):
                name = unique(value.name, taken)
                body.append(f"const real {name} = {rename[value.name]};")
                rename[value.name] = name
        for op in ops:
            text = printer(op.expr)
            if op.out in inside:
                rename[op.out.name] = text
            elif op.out in stores:
                body += statement(f"{rename[op.out.name]} = {text};")
            else:
                value = f"(real){text}" if op.expr.is_Integer else text
                body += statement(f"const real {rename[op.out.name]} = {value};")
        self.note(kernel, declared, passed, body)

    def note(self, kernel: Kernel, declared: list[str], passed: list[str], body: list[str]) -> None:
        """Note the function of a kernel, and call it."""
        count = "" if kernel.size == 1 else self.size(length(kernel.size))
        text = "\n".join((*body, count))
        sizes = [size for size in self.names.sizes.values() if mentions(text, size)]
        said = [op.out for op in kernel.ops]
        comment = self.way.comments.of(said, self.where == ONCE).text
        if self.schedule.graph.backwards:
            comment = ()  # the lines say it
        made = CKernel(
            self.file.kernel_name(self.way),
            tuple(folded(comment, 104)),
            tuple(filled([*(f"size_t {size}" for size in sizes), *declared], WIDTH - 6)),
            count,
            tuple(body),
        )
        made = self.file.noted(made)
        line = called_with(made.name, [*sizes, *passed], WIDTH - 20)
        if kernel.static:
            self.flush()
            self.lines += line
        else:
            self.program += line

    def row_sum(self, stage: Sum) -> None:
        view = joined([self.schedule.slot[v] for v in stage.operand])
        base, index = self.place(slot_view(self.schedule.slot[stage.out]))
        width = self.size(view.stop - view.start)
        sign = "+=" if stage.add else "="
        line = f"{base}[{index or 0}] {sign} sum({width}, {self.pointer(view)});"
        if stage.out.static:
            self.flush()
            self.lines.append(line)
        else:
            self.program.append(line)
        self.file.helpers.add("sum")

    # ------------------------------------------------------------------------------------------ products

    def matrix(self, weight: Weight) -> tuple[str, str, str, str]:
        """Rows of a field: the first entry, how far one row is from the next, how many rows and columns."""
        found = self.module.fields[weight.field]
        base, width = self.names["field", weight.field], self.size(found.width)
        left, right = weight.columns or (sp.S.Zero, found.width)
        terms = [base]
        if weight.start != 0:
            terms.append(times(self.size(weight.start), width))
        if left != 0:
            terms.append(self.size(left))
        text = " + ".join(terms).replace(
            f"+ {self.size(weight.start)} *", f"+ {grouped(self.size(weight.start))} *"
        )
        return text, width, self.size(weight.stop - weight.start), self.size(right - left)

    def pack(self, stage: MatMul) -> Pack:
        """The right side of a product, packed once."""
        key = stage.weights, stage.transposed
        if key not in self.packs:
            weights = stage.weights
            height = sp.Add(*(w.stop - w.start for w in weights))
            columns = weights[0].columns
            across = (
                self.module.fields[weights[0].field].width if columns is None else columns[1] - columns[0]
            )
            K, N = (height, across) if stage.transposed else (across, height)
            stem = "_".join(dict.fromkeys(w.field for w in weights))
            whole = len(weights) == 1 and weights[0].columns is None
            whole = whole and self.size(height) == self.size(self.module.fields[stem].height)
            members = "" if whole else "_" + "_".join(m.split("_", 1)[-1] for w in weights for m in w.members)
            wish = f"{stem}{members}{'' if stage.transposed else '_T'}"
            name = self.names.of("view", f"{key}", wish, "packed")
            lines, at = [], sp.S.Zero
            for weight in weights:
                text, pitch, rows, columns_ = self.matrix(weight)
                offset = self.size(at)
                verb, more = (
                    ("pack_rows", [rows, columns_, text, pitch, offset, self.size(K), name])
                    if stage.transposed
                    else ("pack_columns", [columns_, rows, text, pitch, offset, name])
                )
                lines += called_with(verb, more, WIDTH - 8)
                at += weight.stop - weight.start
            self.packs[key] = Pack(name, f"panels({self.size(K)}, {self.size(N)})", tuple(lines))
            self.packs[key] = replace(self.packs[key], lines=tuple(lines))
        return self.packs[key]

    def product(self, stage: MatMul) -> None:
        operand = joined([self.schedule.slot[v] for v in stage.operand])
        out = joined([self.schedule.slot[v] for v in stage.out])
        remark = self.way.comments.of(stage.out, self.where == ONCE)
        if not self.schedule.graph.backwards:
            remark = Remark()  # the kernels that read it say more
        K, N = self.size(operand.stop - operand.start), self.size(out.stop - out.start)
        left = [self.pointer(operand, True), self.pitch(operand)]
        result = [self.pointer(out, True), self.pitch(out), "1" if stage.add else "0"]
        if self.where == ONCE:
            self.lines += commented(remark.text)
            self.lines += self.as_it_lies(stage, operand, out, N, K)
            return
        rows = "steps * B" if self.where == ALL else "stop - start"
        verb = "multiply_all" if self.where == ALL else "multiply"
        arguments = [rows, N, K, *left, self.pack(stage).name, *result]
        self.say(remark, *called_with(verb, arguments, WIDTH - 16))

    def as_it_lies(self, stage: MatMul, operand: View, out: View, N: str, K: str) -> list[str]:
        """A product of a few rows, for which packing a matrix does not pay; it may be packed already."""
        lines, at = [], sp.S.Zero
        left, result = self.pitch(operand), [self.pitch(out), "1" if stage.add else "0"]
        for k, weight in enumerate(stage.weights):
            text, pitch, rows, columns = self.matrix(weight)
            if stage.transposed:
                part = self.pointer(replace(operand, start=operand.start + at), True)
                add = "1" if stage.add or k else "0"
                sizes, result[1], target = ["B", columns, rows], add, self.pointer(out, True)
            else:
                part, target = (
                    self.pointer(operand, True),
                    self.pointer(replace(out, start=out.start + at), True),
                )
                sizes = ["B", rows, K]
            verb = "few_rows" if stage.transposed else "few"
            lines += called_with(verb, [*sizes, part, left, text, pitch, target, *result], WIDTH - 8)
            at += weight.stop - weight.start
        if not self.prepacked:
            return lines
        sign = "1" if stage.add else "0"
        arguments = ["B", N, K, self.pointer(operand, True), left, self.pack(stage).name]
        packed = called_with(
            "multiply", [*arguments, self.pointer(out, True), self.pitch(out), sign], WIDTH - 8
        )
        return [f"if ({self.pack(stage).name}) {{", *indented(packed), "} else {", *indented(lines), "}"]

    def outer_sum(self, stage: OuterSum) -> None:
        left, right = (joined([self.schedule.slot[v] for v in vs]) for vs in (stage.left, stage.right))
        found = self.module.fields[stage.weight.field]
        low, high = stage.weight.columns or (sp.S.Zero, found.width)
        width = self.size(found.width)
        terms = [self.names["field gradient", stage.weight.field]]
        if stage.weight.start != 0:
            terms.append(times(grouped(self.size(stage.weight.start)), width))
        if low != 0:
            terms.append(self.size(low))
        M, N = self.size(left.stop - left.start), self.size(high - low)
        rows = "B" if self.where == ONCE else "steps * B"
        arguments = [
            *(rows, M, N, self.pointer(left, True), self.pitch(left)),
            *(self.pointer(right, True), self.pitch(right), " + ".join(terms), width, "room"),
        ]
        self.clear(stage.left)
        self.clear(stage.right)
        self.file.outers.append((M, N))
        self.file.helpers.add("outer")
        self.lines += called_with("outer", arguments, WIDTH - 8)

    def column_sum(self, stage: ColumnSum) -> None:
        source, target = (joined([self.schedule.slot[v] for v in vs]) for vs in (stage.operand, stage.out))
        width = self.size(source.stop - source.start)
        rows = "B" if self.where == ONCE else "steps * B"
        self.clear(stage.operand)
        self.file.helpers.add("column_sums")
        arguments = [rows, width, self.pointer(source, True), self.pitch(source), self.pointer(target, True)]
        self.lines += called_with("column_sums", arguments, WIDTH - 8)

    def clear(self, operand: Sequence[Value]) -> None:
        """Zeros behind the lengths, where they do not come of themselves."""
        slot = self.schedule.slot[operand[0]]
        buffer = self.buffer(slot.home)
        if buffer and self.module.clears(self.way, slot) and not self.cleared.issuperset(operand):
            self.cleared.update(operand)
            self.lines.append(self.clearing(buffer))

    def clearing(self, buffer: Buffer) -> str:
        name, width = self.names["memory", buffer.name], self.size(buffer.width)
        n, first = ("1", "0") if self.where == ONCE else ("steps", "first")
        return f"clear_rows({n}, B, {width}, {first}, lengths, {name});"


def called_with(name: str, arguments: Sequence[str], width: int) -> list[str]:
    """The lines of a call."""
    line = f"{name}({', '.join(arguments)});"
    if len(line) <= width:
        return [line]
    inner = filled(arguments, width - 4)
    return [f"{name}(", *(f"    {part}" for part in inner[:-1]), f"    {inner[-1]});"]


def mentions(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def indented(lines: Iterable[str], by: int = 4) -> list[str]:
    return [line if line.startswith("#") else " " * by + line for line in lines]


def parallel(condition: str, lines: Sequence[str]) -> list[str]:
    """A loop of which threads take turns each, where it is worth it."""
    return ["#ifdef _OPENMP", f"#pragma omp parallel for if ({condition})", "#endif", *lines]


def commented(lines: Sequence[str]) -> list[str]:
    return [f"// {part}" for part in folded(lines, 100)]


def statement(text: str) -> list[str]:
    """A statement, which goes on in the next lines where it is long."""
    first, *others = filled_words(text, WIDTH - 10)
    return [first, *(f"    {line}" for line in others)]


def filled_words(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


FUNCTIONS = {row.c.name for row in TABLE if row.c} | {c_math.POWER.name}


# ---------------------------------------------------------------------------------------------- the file


class CModule(Module):
    """The plan of a cell on its way to C."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.names = names_of(plan, C_WORDS | FUNCTIONS)

    def one_step(self, states: Sequence[str]) -> OneStep:
        raise AssertionError("C has no functions of rules that take arrays as Python does")


@dataclass(frozen=True)
class Parts:
    """The stages of a schedule that do not run with every few steps: before all of them, and behind them."""

    first: tuple[Stage, ...] = ()
    last: tuple[Stage, ...] = ()
    at_once: bool = False  # whether all steps must be there at once


def parts_of(schedule: Schedule) -> Parts:
    """What is one for all steps is computed once.

    What adds up over steps can do so part by part, unless something of every row needs the whole sum.
    """
    if schedule.graph.mask is not None:
        return Parts(at_once=True)
    first: list[Stage] = []
    last: list[Stage] = []
    summed: set[Value] = set()
    for stage in schedule.stages:
        waits = not summed.isdisjoint(stage.reads)
        if isinstance(stage, ColumnSum):
            summed.update(stage.writes)
        elif isinstance(stage, Kernel | Sum) and all(v.static for v in stage.writes):
            (last if waits else first).append(stage)
            summed.update(stage.writes if waits else ())
        elif waits:
            return Parts(at_once=True)
    return Parts(tuple(first), tuple(last))


class CFile:
    """The C text of a cell."""

    def __init__(self, module: CModule) -> None:
        self.module, self.plan, self.cell = module, module.plan, module.cell
        self.names = module.names
        self.kernels: list[CKernel] = []
        self.helpers: set[str] = set()
        self.outers: list[tuple[str, str]] = []
        self.now: dict[str, str] = {}  # arrays of the steps at hand, by the buffer
        self.direct: dict[int, set[str]] = {}  # buffers in the caller's memory, by the schedule

    def kernel_name(self, way: Way) -> str:
        count = sum(1 for kernel in self.kernels if kernel.name.rpartition("_")[0] == way.name)
        return f"{way.name}_{count + 1}"

    def noted(self, made: CKernel) -> CKernel:
        """A kernel, or the same that is there already."""
        for kernel in self.kernels:
            if replace(kernel, name=made.name, comment=made.comment) == made:
                return kernel
        self.kernels.append(made)
        return made

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    # ------------------------------------------------------------------------------------------ functions

    def room(self, buffer: Buffer, steps: str = "most") -> Room:
        name, width = self.names["memory", buffer.name], self.size(buffer.width)
        members = f" {', '.join(buffer.members)}" if len(buffer.members) > 1 else ""
        shapes = {"state": "(T + 1, B, {})", "static": "({},)", "row": "(B, {})"}
        shape = shapes.get(buffer.kind, "(T, B, {})").format(width)
        said = f"{shape} {members}".strip()
        if buffer.kind == "static":
            return Room(name, width, width, "", said)
        each = times("B", width)
        if buffer.kind not in STEPPED:
            return Room(name, each, each, "", said)
        state = buffer.kind == "state"
        more = f" + {each}" if state else ""
        note = "  the initial state first" if state else ""
        return Room(name, f"T * {each}{more}", f"{steps} * {each}{more}", each, f"{said}{note}", state)

    def saved(self, rule: Rule) -> tuple[Buffer, ...]:
        """What a run leaves behind."""
        if not rule.forward.graph.states:
            return ()
        return tuple(b for b in rule.saved if b.kind == "state" or b in tape_buffers(rule))

    def own(self, schedule: Schedule, rule: Rule, text: str, once: bool, alone: bool) -> tuple[Room, ...]:
        """The memory that the lines of a direction need beside what is left behind and what is the caller's.

        once: whether a single step is taken.
        alone: whether nothing of it is left behind.
        """
        states = {b.name for b in self.saved(rule) if b.kind == "state"}
        given = states if alone else {b.name for b in self.saved(rule)}
        given |= self.direct.get(id(schedule), set())
        kinds = ("row", "time", "static")
        rooms = (
            self.room(b, "1" if once else "most")
            for b in schedule.buffers
            if b.kind in kinds and b.name not in given
        )
        return tuple(room for room in rooms if mentions(text, room.name))

    def function(self, way: Way) -> CFunction:
        """One direction of the step, for all steps."""
        schedule, rule = way.schedule, way.rule
        names = self.names.inner()
        parts = parts_of(schedule)
        apart = (*parts.first, *parts.last)
        tape = rule.tape if not schedule.graph.backwards else ()

        def lines(where: str) -> Lines:
            return Lines(self, way, names, where, tape)

        first, before, loop, after, last = lines(ALL), lines(ALL), lines(LOOP), lines(ALL), lines(ALL)
        for other in (loop, after):
            other.packs = before.packs
        after.cleared = before.cleared
        first.run(parts.first)
        before.run([s for s in schedule.before if s not in apart])
        for phase in phases(schedule):
            loop.run((*phase.products, *phase.program))
        after.run([s for s in schedule.after if s not in apart])
        last.run(parts.last)
        made = CFunction(
            packs=tuple(before.packs.values()),
            zeroed=self.zeroed(schedule),
            first=tuple(first.lines),
            before=tuple(before.lines),
            loop=tuple(loop.lines),
            after=tuple(after.lines),
            last=tuple(last.lines),
            at_once=parts.at_once,
        )
        return self.fitted(made, schedule, rule)

    def once(
        self, way: Way, ends: Iterable[Value] = (), alone: bool = True, prepacked: bool = False
    ) -> CFunction:
        """One direction of a rule, for a single step; with `prepacked` matrices may be packed already."""
        lines = Lines(self, way, self.names.inner(), ONCE, ends)
        lines.prepacked = prepacked
        lines.run(way.schedule.stages)
        made = CFunction(
            packs=tuple(lines.packs.values()), zeroed=self.zeroed(way.schedule), loop=tuple(lines.lines)
        )
        return self.fitted(made, way.schedule, way.rule, once=True, alone=alone)

    def with_values(self, made: CFunction, values: CFunction) -> CFunction:
        """A function that computes forward values anew before its own lines."""
        rooms = {room.name: room for room in (*values.rooms, *made.rooms)}
        return replace(
            made,
            unpacked=tuple(dict.fromkeys((*values.unpacked, *made.unpacked))),
            rooms=tuple(rooms.values()),
            packs=(*values.packs, *made.packs),
            loop=(*values.loop, *made.loop),
        )

    def zeroed(self, schedule: Schedule) -> tuple[str, ...]:
        """Sums over steps begin with 0; those of parameters have the caller's memory."""
        found: dict[str, None] = {}
        for stage in schedule.stages:
            if isinstance(stage, ColumnSum):
                home = schedule.slot[stage.out[0]].home
                if isinstance(home, InBuffer):
                    width = self.size(schedule.buffer[home.name].width)
                    found[f"zero({width}, {self.names['memory', home.name]});"] = None
        return tuple(found)

    def fitted(
        self, made: CFunction, schedule: Schedule, rule: Rule, once: bool = False, alone: bool = False
    ) -> CFunction:
        """With the fields and the memory that the lines mention."""
        text = made.text
        rooms = self.own(schedule, rule, text, once, alone)
        names = [f for f in self.plan.fields if mentions(text, self.names["field", f.name])]
        unpacked = [
            f"const real *const {self.names['field', f.name]} = params->{member(f.name)};" for f in names
        ]
        for f in self.plan.fields:
            gradient = self.names["field gradient", f.name]
            if mentions(text, gradient):
                unpacked.append(f"real *const {gradient} = d_params->{member(f.name)};")
        buffers = {b.name: b for b in (*schedule.buffers, *self.saved(rule))}
        widths = [b.width for b in buffers.values() if b.kind in ("time", "state")]
        return replace(
            made,
            unpacked=tuple(unpacked),
            rooms=rooms,
            width=self.size(sp.Add(*widths)) if widths else "1",
        )

    # ------------------------------------------------------------------------------------------ all together

    def copied(self, schedule: Schedule, value: Value, target: str) -> Copied:
        """What is copied to the caller's memory, or lies there."""
        slot = schedule.slot[value]
        buffer = self.buffers_of(schedule)[slot.home.name]
        base = self.now.get(slot.home.name) or self.names["memory", slot.home.name]
        width, own = self.size(buffer.width), self.names.letter(value.size)
        if slot.home.name in self.direct.get(id(schedule), ()):
            return Copied(base, "", width, own)
        terms = [
            base,
            *([times("B", width)] if slot.shift else []),
            *([self.size(slot.start)] * (slot.start != 0)),
        ]
        return Copied(target, " + ".join(terms), width, own)

    def lend(self, rule: Rule, schedule: Schedule, values: Iterable[Value]) -> None:
        """Notes which of these values can lie in the caller's memory from the start."""
        saved = {b.name for b in self.saved(rule)}
        given = {schedule.slot[v].home.name for v in schedule.graph.inputs if v in schedule.slot}
        found = self.direct.setdefault(id(schedule), set())
        for value in values:
            slot = schedule.slot[value]
            buffer = self.buffers_of(schedule)[slot.home.name]
            whole = buffer.kind == "time" and self.size(buffer.width) == self.names.letter(value.size)
            if whole and buffer.name not in saved | given:
                found.add(buffer.name)

    def buffers_of(self, schedule: Schedule) -> dict[str, Buffer]:
        found = {b.name: b for rule in self.plan.rules for b in rule.buffers.values()}
        return found | schedule.buffer

    def rule_once(self, rule: Rule) -> RuleOnce:
        """The rule for the first step, or for the initial states."""
        module, names, step = self.module, self.names, self.plan.step
        there, back = module.ways(rule)
        seeds = module.gradients_of_outputs(rule)
        graph = rule.forward.graph
        if graph.states:
            own = [self.seed_now(v) for v in module.gradients_of_outputs(step)]
            targets = [names.of("first output", o.target, f"first_{o.target}") for o in self.outputs()]
            carries = [module.carry(s.name, rule) for s in self.cell.states]
        else:
            own = [module.carry(s.name, step) for s in self.cell.states]
            targets = [names["memory", s.name] for s in self.cell.states]
            carries = []
        for value, now in zip(seeds, own, strict=True):
            self.now[rule.backward.slot[value].home.name] = now
        forward, backward = self.once(there, rule.tape, alone=not graph.states), self.once(back)
        if not graph.states:
            backward = self.with_values(backward, forward)
        held = tuple(b for b in self.saved(rule) if b.kind != "state")
        cleared = [b for b in held if module.singular and b.kind != "static"]
        lines = Lines(self, there, names, ONCE, ())
        gradient = dict(rule.backward.graph.outputs)
        inputs = [s for s in self.cell.inputs if s.name in gradient]
        return RuleOnce(
            forward,
            backward,
            tuple(replace(self.room(b, steps="1"), member=member(b.name)) for b in held),
            tuple(
                self.copied(rule.forward, v, target)
                for target, (_, v) in zip(targets, graph.outputs, strict=True)
            ),
            tuple(own),
            tuple(
                Carried(
                    member(s.name), carry, names.letter(s.size), names.of("kept", s.name, f"kept_{carry}")
                )
                for s, carry in zip(self.cell.states, carries, strict=False)
            ),
            tuple(
                self.copied(rule.backward, gradient[s.name], f"first_d_{names['memory', s.name]}")
                for s in inputs
            ),
            tuple(lines.clearing(b) for b in cleared),
        )

    def seed_now(self, value: Value) -> str:
        """What the gradient of an output is called at the steps at hand."""
        home = self.plan.step.backward.slot[value].home.name
        if home not in self.now:
            self.now[home] = self.names.of("now", home, f"{self.names['memory', home]}_now")
        return self.now[home]

    def outputs(self) -> tuple[Copied, ...]:
        """The outputs of the step, copied to what the caller calls them."""
        step = self.plan.step
        found = step.forward.graph.outputs
        wishes = ["y"] if len(found) == 1 else [self.names.find("output", name) or name for name, _ in found]
        return tuple(
            self.copied(step.forward, v, self.caller(name, wish))
            for wish, (name, v) in zip(wishes, found, strict=True)
        )

    def taped(self, step: Rule, backward: CFunction, first: RuleOnce | None) -> tuple[Room, ...]:
        """What a run of all steps leaves behind."""
        rooms = (replace(self.room(b), member=member(b.name)) for b in self.saved(step))
        return tuple(
            replace(room, backward=mentions(backward.text, room.name) or (room.state and first is not None))
            for room in rooms
        )

    def caller(self, output: str, wish: str) -> str:
        """What the caller's memory of an output is called."""
        thing = f"{output} of the caller"
        if not self.names.find("output", thing):  # nothing else is called y
            self.names.put("output", thing, wish if wish == "y" else self.names.new(wish))
        return self.names["output", thing]

    def ended(self, name: str, home: str, size: object) -> Ended:
        """An array that the caller gives for all steps."""
        now = self.now.setdefault(home, self.names.of("now", home, f"{name}_now"))
        return Ended(name, now, self.names.of("view", home, f"{name}_copy"), self.names.letter(size))  # type: ignore[arg-type]

    def context(self) -> dict[str, object]:
        """All that the templates of C print."""
        plan, names, module, cell = self.plan, self.names, self.module, self.cell
        step, first_rule, start_rule = plan.step, plan.rule(FIRST_STEP), plan.rule(START_STATES)
        graph = step.forward.graph
        sizes = tuple(interface.size_record(module, size) for size in cell.sizes)
        letters = letters_of(module)
        inputs = tuple(self.ended(names["memory", s.name], s.name, s.size) for s in cell.inputs)
        seeds = []
        for value in module.gradients_of_outputs(step):
            home = step.backward.slot[value].home.name
            seeds.append(self.ended(names["memory", home], home, value.size))
        forward_way, backward_way = module.ways(step)
        gradient = dict(step.backward.graph.outputs)
        self.lend(step, step.forward, [v for _, v in graph.outputs])
        self.lend(step, step.backward, [gradient[s.name] for s in cell.inputs])
        forward, backward = self.function(forward_way), self.function(backward_way)
        lines = Lines(self, forward_way, names, ALL, ())
        taped = [b for b in self.saved(step) if b.kind == "time"] if module.singular else []
        first = self.rule_once(first_rule) if first_rule else None
        start = self.rule_once(start_rule) if start_rule else None
        quick = None if graph.statistics else self.once(forward_way, step.tape, prepacked=True)
        used = [name for kernel in self.kernels for line in kernel.body for name in called(line)]
        statistics = []
        for s in graph.statistics:
            name = str(s.value.name)
            source = self.copied(step.forward, s.update, name).source
            statistics.append(
                Statistic(member(name), names.of("given", name, name), source, names.letter(s.value.size))
            )
        return {
            "cell": interface.cell_record(module),
            "prefix": cell.name,
            "guard": f"{cell.name.upper()}_C_H",
            "sizes_declared": "".join(f", size_t {letter}" for letter in letters),
            "sizes_first": ", ".join(f"size_t {letter}" for letter in letters) or "void",
            "sizes_passed": "".join(f", {letter}" for letter in letters),
            "unused": [f"(void){name};" for name in ("params", *letters)],
            "sizes": sizes,
            "letters": letters,
            "fields": tuple(
                {
                    "member": member(f.name),
                    "array": names["field", f.name],
                    "gradient": names["field gradient", f.name],
                    "entries": entries_of(self, f),
                    "shape": shape_of(self, f),
                    "members": interface.members_of(module, f),
                }
                for f in plan.fields
            ),
            "states": tuple(
                Carried(
                    member(s.name),
                    names["memory", s.name],
                    names.letter(s.size),
                    initial="" if start_rule else CPrinter({}, {}, names.sizes)(s.initial),
                )
                for s in cell.states
            ),
            "carries": tuple(
                Carried(
                    member(s.name),
                    carry := module.carry(s.name, step),
                    names.letter(s.size),
                    names.of("kept", s.name, f"kept_{carry}"),
                )
                for s in cell.states
            ),
            "inputs": tuple(read_by(i, forward, backward) for i in inputs),
            "outputs": self.outputs(),
            "seeds": tuple(read_by(s, forward, backward) for s in seeds),
            "d_inputs": tuple(
                self.copied(step.backward, gradient[s.name], names.of("gradient", s.name, f"d_{i.name}"))
                for s, i in zip(cell.inputs, inputs, strict=True)
            ),
            "tape": (tape := self.taped(step, backward, first)),
            "tape_back": tuple(room for room in tape if room.backward),
            "forward": forward,
            "backward": backward,
            "clearing": tuple(lines.clearing(b) for b in taped),
            "quick": quick,
            "first": first,
            "start": start,
            "statistics": tuple(statistics),
            "mask": graph.mask is not None,
            "kernels": tuple(self.kernels),
            "functions": helpers(used, (*c_math.C_PARTS, *(row.c for row in TABLE), c_math.POWER)),
            "helpers": {name: name in self.helpers for name in ("sum", "outer", "column_sums")},
            **self.needed(quick, (forward, backward, quick, first, start)),
            "tiles": TILES,
            "outers": tuple(dict.fromkeys(n for _, n in self.outers)),
        }

    def needed(
        self, quick: CFunction | None, functions: Sequence[CFunction | RuleOnce | None]
    ) -> dict[str, bool]:
        """Which helpers the lines call."""
        text = "\n".join(self.texts(functions))
        return {
            "packs_columns": "pack_columns(" in text,
            "packs_rows": "pack_rows(" in text or "outer(" in text,
            "tiles_needed": "multiply(" in text or "multiply_all(" in text or "outer(" in text,
            "multiplies": "multiply(" in text or "multiply_all(" in text,
            "multiplies_all": "multiply_all(" in text,
            "finds": bool(quick and quick.packs),
            "few": "few(" in text,
            "few_rows": "few_rows(" in text,
            "in_parts": not all(made.at_once for made in functions[:2] if isinstance(made, CFunction)),
        }

    def texts(self, functions: Sequence[CFunction | RuleOnce | None]) -> Iterator[str]:
        for made in functions:
            if isinstance(made, RuleOnce):
                yield from (made.forward.text, made.backward.text)
            elif made:
                yield made.text


def read_by(given: Ended, forward: CFunction, backward: CFunction) -> Ended:
    """The record, with which directions read the array."""
    return replace(
        given,
        forward=mentions(forward.text, given.now),
        backward=mentions(backward.text, given.now),
    )


def letters_of(module: Module) -> list[str]:
    """The sizes that the arrays of a cell have, in its order."""
    told = {size.name for size in (*interface.measured_sizes(module), *interface.late_sizes(module))}
    return [module.names.sizes[size] for size in module.cell.sizes if size in told]


def member(name: str) -> str:
    """A member of a struct, which no word of the language is."""
    return f"{name}_" if name in KEYWORDS else name


def entries_of(file: CFile, f: object) -> str:
    """How many entries a field of `Params` has."""
    found = file.module.fields[f.name]  # type: ignore[attr-defined]
    if not found.rows:
        return "1"
    height = file.size(found.height)
    return times(grouped(height), file.size(found.width)) if found.columns else height


def shape_of(file: CFile, f: object) -> str:
    found = file.module.fields[f.name]  # type: ignore[attr-defined]
    if not found.rows:
        return "one number"
    height = file.size(found.height)
    return f"({height}, {file.size(found.width)})" if found.columns else f"({height},)"


# ---------------------------------------------------------------------------------------------- Python


class CtypesModule(Module):
    """The Python module that calls the functions of C, with the names of the NumPy module."""

    target = Target(
        title="C",
        numpy=True,
        cupy=False,
        xp="np",
        as_array="np.asarray(value)",
        dtypes="float32 or float64",
        parameters="params",
        finished_now="",
        real="{}",
        real_dtype="dtype",
        init_dtype="dtype",
        init_note="",
        kept_dtype="",
        shape="np.shape({})",
        broadcast="np.broadcast_to({}, {})",
        one_step="(B",
    )

    def one_step(self, states: Sequence[str]) -> OneStep:
        raise AssertionError("the functions of rules are in C")


def tape_of(module: CtypesModule, given: interface.Signature) -> tuple[interface.TapeItem, ...]:
    """What `forward` leaves behind, as Python holds it; what has a shape is C's."""
    item, names, plan = interface.TapeItem, module.names, module.plan
    items = [item(i.name, "np.ndarray", i.shape) for i in given.inputs]
    for state in given.states:
        shape = f"(T + 1, B, {state.size})"
        items.append(item(state.array, "np.ndarray", f"{shape}  the initial state first", shape))
    for buffer in tape_buffers(plan.step):
        shape = module.shape(buffer)
        items.append(item(names["memory", buffer.name], "np.ndarray", said_of(shape, buffer), shape))
    if rule := plan.rule(FIRST_STEP):
        for buffer in tape_buffers(rule):
            shape, name = module.shape(buffer).replace("(T, ", "("), f"first_{names['memory', buffer.name]}"
            items.append(item(name, "np.ndarray", f"{said_of(shape, buffer)}, of the first step", shape))
    items += [
        item("ends", "np.ndarray | None", "(B,) the lengths"),
        item("given", "bool", "whether the caller gave the initial states"),
    ]
    if given.extra:
        items.append(item("constant", "list[str]", "inputs that were (B, size), constant in time"))
    if given.buffers:
        items.append(item("training", "bool", "whether the batch gave the statistics"))
    return tuple(items)


def said_of(shape: str, buffer: Buffer) -> str:
    return f"{shape}  {', '.join(buffer.members)}"


def python_context(module: CtypesModule) -> dict[str, object]:
    """All that the template of the Python module prints."""
    given = interface.signature(module)
    letters = letters_of(module)
    graph = module.plan.step.forward.graph
    sources = [module.at(value, module.plan.step.forward) for _, value in graph.outputs]
    outputs = interface.output_records(module, sources, sources)
    passing = interface.Passing(
        outputs, interface.result_of(outputs, "np.ndarray"), tape_of(module, given), ()
    )
    gradients = [f"{i.argument}={i.result}" for i in given.inputs]
    values = {"given": "initial is not None", "training": "bool(training)"}
    kept = [t for t in passing.tape if t.shape]
    count = len(given.inputs)
    others = [t.name for t in passing.tape if not t.shape]
    order = [*others[:count], "*kept", *(values.get(t, t) for t in others[count:])]
    calls = replace(
        interface.calls_of(module, given, passing),
        memory=call("kept = memory(", ["tape", "dtype", *(f"{t.name}={t.shape}" for t in kept)]),
        grads=call("return Grads(", ["params=d_params", *gradients, "initial=d_initial"]),
        untape=call("(", [*others[:count], "*kept", *others[count:]], ") = tape"),
        tape=f"return {passing.result.value}, final, None if kept is None else Tape({', '.join(order)})",
    )
    size, inputs, results = "s" * len(letters), "p" * len(given.inputs), "p" * len(outputs)
    normed = bool(given.buffers)
    arguments = {
        "workspace": f"ss{size}",
        "forward": f"ss{size}p{inputs}pp{'pi' * normed}{results}ppp",
        "backward": f"ss{size}p{inputs}ip{'i' * normed}p{results}p{inputs}pp",
        "step": f"s{size}p{inputs}{'p' * normed}pp{results}p",
    }
    every = ["T", "B", *letters]
    names = [i.name for i in given.inputs]
    statistics = ["statistics", "bool(training)"] * normed
    ahead = ["dtype", *every, "whole(params)", *names]
    return {
        **vars(given),
        **vars(passing),
        "run_forward": run_line(
            "forward", *ahead, "initial", "ends", *statistics, *(o.name for o in outputs), "[*final]", "kept"
        ),
        "run_backward": run_line(
            "backward",
            *(*ahead, "given", "ends", *(["training"] * normed), "whole(kept)"),
            f"*whole(({', '.join(o.gradient for o in outputs)},))",
            *("[*d_params]", *(i.gradient for i in given.inputs), "[*d_initial]"),
        ),
        "run_step": run_line(
            "step",
            "dtype",
            "B",
            *letters,
            "whole(params)",
            *names,
            "None",
            "[*state]",
            *(o.name for o in outputs),
        ),
        "kept": kept,
        "made_final": call(
            "final = States(", [f"np.empty((B, {state.size}), dtype)" for state in given.states]
        ),
        "arguments": tuple(arguments.items()),
        "alone": True,
        "second": False,
        "singular": False,
        "by_gate": False,
        "params_fields": "Params._fields",
        "params_type": "Params",
        "calls": calls,
        "sizes_all": ", ".join(["T", "B", *letters]),
        "sizes_step": ", ".join(["B", *letters]),
        "step_shapes": [
            (o.name, f"(B, {module.names.letter(value.size)})")
            for o, (_, value) in zip(outputs, graph.outputs, strict=True)
        ],
    }


def run_line(name: str, *arguments: str) -> str:
    """The line of Python that calls a function of C."""
    return call("run(", [f'"{name}"', *arguments])
