"""The C of one level of a schedule: pointwise ops as functions of one row, products, sums.

Nothing here knows which functions the lines stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from gategen.backends.c.text import (
    called_with,
    commented,
    indented,
    mentions,
    parallel,
    statement,
)
from gategen.backends.comments import Remark, memory_name
from gategen.backends.folding import WIDTH, folded
from gategen.backends.host import joined
from gategen.backends.instructions import Scratch, View, slot_view
from gategen.backends.module import Module, OneStep, Way
from gategen.backends.names import WORDS, Scope, names_of
from gategen.backends.pointwise import EntryPrinter, arguments_of_functions, filled, grouped, times, unique
from gategen.graph import Value, length
from gategen.plan import (
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
    Slot,
    Stage,
    Sum,
    Weight,
)
from gategen.spec import c_math
from gategen.spec import language as lang
from gategen.spec.elementwise import Call, Row
from gategen.spec.functions import TABLE

# Which rows a level works on: those of some steps at once, those of one step in the loop over time, or those
# of a single step, for which weights stay as they lie.
ALL, LOOP, ONCE = "all", "loop", "once"
STEPPED = ("input", "state", "time")

# Names that the C text uses for itself, and the words of C and C++.
C_WORDS = frozenset(
    """
    real MOST_ROWS size_t row at t k first steps most start stop part parts work tape kept lengths params
    initial final begin states d_states x_t d_params d_final d_initial d_first given buffers training count
    valid seen room rows width pitch panel take find rounded at_most threads cut mark pack_rows pack_columns
    packed panels multiply multiply_all strip put tile tile_rows few few_rows outer column_sums sum copy
    zero copy_rows clear_rows add_up larger_of take_first_step take_first_step_back make_states
    make_states_back part_of_params matrices quick PANEL DEPTH REAL restrict NULL NAN INFINITY M_PI unix
    linux
    """.split()
) | (
    KEYWORDS := frozenset(
        """
    auto bool break case catch char class const continue default delete do double else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new operator private protected
    public register return short signed sizeof static struct switch template this throw true try typedef
    typename union unsigned using virtual void volatile while and or not xor main errno linux unix
    """.split()
    )
)

CALLS = (*c_math.C_PARTS, *(row.c for row in TABLE if row.c), c_math.POWER)
FUNCTIONS = {name for call in CALLS for name in re.findall(r"static inline \w+ (\w+)\(", call.text)}


class Reserved(frozenset[str]):
    """Names that nothing of a cell has in C: words, those of the templates, what may be a macro."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or bool(OWN.fullmatch(str(name)) or MACRO.fullmatch(str(name)))


OWN = re.compile(r"(first_|start_)?(forward|backward)_\d+|\w+_at_first")  # functions of one row, arrays
MACRO = re.compile(r"_*[A-Z][A-Z0-9_]{2,}|M_\w+")


def c_name(name: str) -> str:
    """A name of a cell as C has it."""
    return f"{name}_" if name in Reserved(C_WORDS | FUNCTIONS) else name


class CModule(Module):
    """The plan of a cell on its way to C."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.names = names_of(plan, Reserved(C_WORDS | FUNCTIONS | WORDS))

    def one_step(self, states: Sequence[str]) -> OneStep:
        raise AssertionError("C has no functions of rules that take arrays as Python does")


@dataclass(frozen=True)
class CKernel:
    """Pointwise ops of one row, as a function."""

    name: str
    comment: tuple[str, ...]
    parameters: tuple[str, ...]  # lines
    count: str  # how many units there are; empty where there is one
    body: tuple[str, ...]


@dataclass(frozen=True)
class Pack:
    """A matrix as products want it."""

    name: str
    size: str
    lines: tuple[str, ...]


class Notes:
    """What the lines of all functions of a file add to it."""

    def __init__(self, module: CModule) -> None:
        self.module = module
        self.kernels: list[CKernel] = []
        self.helpers: set[str] = set()
        self.outers: list[str] = []  # how wide the right sides of outer products are
        self.now: dict[tuple[str, str], str] = {}  # arrays of the steps at hand, by rule and buffer

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


# ---------------------------------------------------------------------------------------------- lines


class Lines:
    """The lines of one level of a schedule."""

    def __init__(self, file: Notes, way: Way, names: Scope, where: str, ends: Iterable[Value]) -> None:
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
                return self.file.now.get((self.way.rule.name, name)) or self.names["memory", name]
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
                wish = memory_name(value, self.way.rule, self.schedule)
                names[slot[value]] = unique(c_name(wish), taken)
                const = "" if slot[value] in written else "const "
                declared.append(f"{const}real *restrict {names[slot[value]]}")
                passed.append(self.pointer(slot_view(slot[value])))
        for value in (*reads, *stores):
            if not self.scalar(value):
                rename[value.name] = f"{names[slot[value]]}[{'k' if value.size != 1 else '0'}]"
        inside = arguments_of_functions(ops, stores)
        for op in ops:
            if op.out not in stores and op.out not in inside:
                rename[op.out.name] = unique(c_name(op.out.name), taken)
        printer = CPrinter({op.out.name: k for k, op in enumerate(ops)}, rename, self.names.sizes)
        body: list[str] = []
        overwritten = {slot[op.out]: k for k, op in enumerate(ops) if op.out in stores}
        for value in reads:  # memory is given on by the op that reads it last, and not before
            at = len(ops) if self.scalar(value) else overwritten.get(slot[value], len(ops))
            assert not any(value in op.reads for op in ops[at + 1 :]), f"{value} is read when it is gone"
        for op in ops:
            text = printer(op.expr)
            if op.out in inside:
                rename[op.out.name] = text
            elif op.out in stores:
                body += statement(f"{rename[op.out.name]} = {text};")
            else:
                cast = "(real)" if op.expr.is_Integer else ""
                body += statement(f"const real {rename[op.out.name]} = {cast}{text};")
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
            wish = f"packed_{stem}{members}{'' if stage.transposed else '_T'}"
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
        self.file.outers.append(N)
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
