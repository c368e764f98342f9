"""The C of one level of a schedule: pointwise ops as functions of one row, products, sums.

Nothing here knows which functions the lines stand in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from gategen.backends.c.matrices import (
    Along,
    Inner,
    index,
    innermost,
    loops,
    nested,
    numbered,
    offset,
    reach,
)
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
from gategen.graph import Value, axes, length
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
    Plan,
    RunningSum,
    Shifted,
    Slot,
    Stage,
    Sum,
    Weight,
)
from gategen.spec import c_math
from gategen.spec import language as lang
from gategen.spec.elementwise import Call, Row
from gategen.spec.functions import TABLE
from gategen.spec.language import Axes, Size

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
    packed panels multiply multiply_all strip put tile tile_rows few few_rows from_left outer column_sums sum
    copy largest largest_down larger_or_nan running_sum running_sum_back running_sum_down
    running_sum_back_down shift_on shift_back zero copy_rows clear_rows add_up larger_of take_first_step
    take_first_step_back make_states make_states_back part_of_params matrices quick PANEL DEPTH
    LINE SPAN LANES REAL restrict NULL NAN INFINITY M_PI unix linux transpose make_unit product_of invert
    exponential make_weights make_weights_back dot dots dots_by_row add_multiples add_products
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
        self.names.divided = "{} / {}"

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
class Blocks:
    """Blocks of a matrix, one below the other."""

    text: str  # where the first one begins
    count: str  # how many there are, of all gates
    each: str  # how many a gate has
    rows: str  # of a block
    columns: str

    @property
    def entries(self) -> str:
        """How many entries a block has."""
        return f"{grouped(self.rows)} * {grouped(self.columns)}"

    def panels(self, transposed: bool) -> str:
        """The same of a packed one."""
        sides = (self.rows, self.columns) if transposed else (self.columns, self.rows)
        return f"panels({', '.join(sides)})"


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
                case Contraction():
                    self.contraction(stage)
                case Sum() if stage.how == "sum" and (stage.operand[0].shape[1:] or stage.out.axes):
                    self.contraction(stage)
                case Sum() if stage.out.axes:
                    self.largest(stage)
                case Sum():
                    self.row_sum(stage)
                case RunningSum():
                    self.running_sum(stage)
                case Shifted():
                    self.shifted(stage)
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
            width = self.pitch(view)
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
        return self.names.width(buffer.width, buffer.axes)

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
        counters = numbered(loops(axes(kernel.size), (*reads, *stores)), ("k",))
        taken = {*C_WORDS, *lang.RESERVED, *self.names.sizes.values(), *FUNCTIONS, *counters.values()}
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
                passed.append(self.entry(value))
        for value in (*reads, *stores):
            if not self.scalar(value):
                entry = index(value, counters, self.count).replace(" ", "\0")  # stays in one line
                rename[value.name] = f"{names[slot[value]]}[{entry}]"
        inside = arguments_of_functions(ops, stores)
        for op in ops:
            if op.out not in stores and op.out not in inside:
                rename[op.out.name] = unique(c_name(op.out.name), taken)
        printer = CPrinter({op.out.name: k for k, op in enumerate(ops)}, rename, self.names.sizes)
        body: list[str] = []
        width = WIDTH - 6 - 4 * max(1, len(counters))
        overwritten = {slot[op.out]: k for k, op in enumerate(ops) if op.out in stores}
        for value in reads:  # memory is given on by the op that reads it last, and not before
            at = len(ops) if self.scalar(value) else overwritten.get(slot[value], len(ops))
            assert not any(value in op.reads for op in ops[at + 1 :]), f"{value} is read when it is gone"
        for op in ops:
            text = printer(op.expr)
            if op.out in inside:
                rename[op.out.name] = text
            elif op.out in stores:
                body += statement(f"{rename[op.out.name]} = {text};", width)
            else:
                cast = "(real)" if op.expr.is_Integer else ""
                body += statement(f"const real {rename[op.out.name]} = {cast}{text};", width)
        heads = [(counter, self.count(along.axes)) for along, counter in counters.items()]
        count = heads[0][1] if len(heads) == 1 else ""
        body = nested(heads, body) if len(heads) > 1 else body
        said = [op.out for op in kernel.ops]
        self.note(said, count, declared, passed, body)

    def note(
        self, said: Sequence[Value], count: str, declared: list[str], passed: list[str], body: list[str]
    ) -> None:
        """Note the function of a kernel, and call it.

        said: what the kernel makes.
        count: how many units there are; empty where there is one, or where its body counts them.
        """
        text = "\n".join((*body, count))
        sizes = [size for size in self.names.sizes.values() if mentions(text, size)]
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
        self.call(said[0], called_with(made.name, [*sizes, *passed], WIDTH - 20))

    def call(self, out: Value, lines: Sequence[str]) -> None:
        """Lines that make a value, of every row or once."""
        if out.static:
            self.flush()
            self.lines += lines
        else:
            self.program += lines

    def row_sum(self, stage: Sum) -> None:
        view = joined([self.schedule.slot[v] for v in stage.operand])
        base, at = self.place(slot_view(self.schedule.slot[stage.out]))
        width = self.size(view.stop - view.start)
        target, entries = f"{base}[{at or 0}]", f"{width}, {self.pointer(view)}"
        line = f"{target} {'+=' if stage.add else '='} sum({entries});"
        if stage.how != "sum":
            top = f"largest({entries})"
            line = f"{target} = {f'larger_or_nan({target}, {top})' if stage.add else top};"
        self.call(stage.out, [line])
        self.file.helpers.add("sum" if stage.how == "sum" else "largest")

    def largest(self, stage: Sum) -> None:
        """The largest entries of a value along one of its axes."""
        (operand,), out = stage.operand, stage.out
        (axis,) = (axis for axis in operand.axes if axis not in out.axes)
        self.down(operand, out, axis, "largest", "largest_down")

    def down(self, operand: Value, out: Value, axis: Size, verb: str, verb_down: str) -> None:
        """What goes along one axis: for all that lies behind that at once, and so for all before it."""
        at = operand.axes.index(axis)
        before, behind = self.count(operand.axes[:at]), self.count(operand.axes[at + 1 :])
        length_of = self.count((axis,))
        source, target = self.entry(operand), self.entry(out)
        verb = verb_down if behind else verb
        self.file.helpers.add(verb)
        if before:
            step = " * ".join(filter(None, (length_of, behind)))
            over = axis in out.axes
            source += f" + k * {step}"
            target += f" + k{f' * {step}' if over else f' * {behind}' if behind else ''}"
        if verb == "largest":
            base, _, index = target.partition(" + ")
            lines = [f"{base}[{index or 0}] = largest({length_of}, {source});"]
        else:
            counts = [length_of, *([behind] if behind else [])]
            lines = called_with(verb, [*counts, source, target], WIDTH - 24)
        self.call(out, nested([("k", before)], lines) if before else lines)

    def running_sum(self, stage: RunningSum) -> None:
        verb = f"running_sum{'_back' if stage.backwards else ''}"
        if stage.axis:
            self.down(stage.operand, stage.out, stage.axis, verb, f"{verb}_down")
            return
        source, target = (slot_view(self.schedule.slot[v]) for v in (stage.operand, stage.out))
        arguments = [self.size(source.stop - source.start), self.pointer(source), self.pointer(target)]
        self.call(stage.out, called_with(verb, arguments, WIDTH - 20))
        self.file.helpers.add(verb)

    def shifted(self, stage: Shifted) -> None:
        axes, verb = stage.out.axes, "shift_on" if stage.by > 0 else "shift_back"
        at = axes.index(stage.axis)
        before, behind = self.count(axes[:at]), self.count(axes[at + 1 :])
        length_of = self.count((stage.axis,))
        ends = [self.entry(v) for v in (stage.operand, stage.out)]
        if before:
            step = " * ".join(filter(None, (length_of, behind)))
            ends = [f"{end} + k * {step}" for end in ends]
        self.file.helpers.add(verb)
        lines = called_with(verb, [length_of, behind or "1", str(abs(stage.by)), *ends], WIDTH - 24)
        self.call(stage.out, nested([("k", before)], lines) if before else lines)

    # ------------------------------------------------------------------------------------------ matrices

    def entry(self, value: Value) -> str:
        """Where the entries of a value begin, in the row at hand."""
        return self.pointer(slot_view(self.schedule.slot[value]))

    def count(self, along: Axes) -> str:
        """How many entries some axes have; nothing where there are none."""
        return " * ".join(grouped(self.size(length(axis))) for axis in along)

    def contraction(self, stage: Contraction | Sum) -> None:
        """Products of two values, or one value, summed over some axes."""
        values, out = tuple(stage.reads), stage.out
        found = loops(reach(stage, self.schedule), (*values, out))
        inner = innermost(found, values, out)
        add = isinstance(stage, Sum) and stage.add
        outer = found[: len(found) - inner.loops] if inner else found
        zeros = not add and (inner is None or inner.adds or not all(along.of(out) for along in outer))
        if inner is None or outer:
            self.wrapped(stage, found, inner, add, zeros)
            return
        self.file.helpers.add(inner.name)
        pointers = {v: self.entry(v) for v in (*values, out)}
        counts = [self.count(along.axes) for along in found]
        clears = called_with("zero", [self.count(out.axes), pointers[out]], WIDTH - 20) if zeros else []
        self.call(out, [*clears, *called(inner, counts, pointers, out, add or zeros)])

    def wrapped(
        self, stage: Contraction | Sum, found: Sequence[Along], inner: Inner | None, add: bool, zeros: bool
    ) -> None:
        """A sum in loops of its own, as a function."""
        values, out = tuple(stage.reads), stage.out
        outer = found[: len(found) - inner.loops] if inner else found
        counters = numbered(outer, () if inner else ("k",))
        taken = {*C_WORDS, *lang.RESERVED, *self.names.sizes.values(), *FUNCTIONS, *counters.values()}
        names: dict[Value, str] = {}
        for value in dict.fromkeys((*values, out)):
            wish = memory_name(value, self.way.rule, self.schedule)
            names[value] = unique(c_name(wish), taken)
        heads = [(counter, self.count(along.axes)) for along, counter in counters.items()]
        if inner:
            self.file.helpers.add(inner.name)
            rest = found[len(outer) :]
            starts = {v: offset(v, counters, rest, self.count) for v in names}
            pointers = {v: f"{name} + {starts[v]}" if starts[v] else name for v, name in names.items()}
            lines = called(inner, [self.count(a.axes) for a in rest], pointers, out, add or zeros)
        else:
            entries = [f"{names[v]}[{index(v, counters, self.count)}]" for v in (out, *values)]
            lines = [f"{entries[0]} += {' * '.join(entries[1:])};"]
        clears = [f"zero({self.count(out.axes) or 1}, {names[out]});"] if zeros else []
        declared = [f"{'' if v == out else 'const '}real *restrict {name}" for v, name in names.items()]
        passed = [self.entry(v) for v in names]
        self.note([out], "", declared, passed, [*clears, *nested(heads, lines)])

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
        if stage.blocks != 1:
            self.say(remark, *self.block_products(stage, operand, out))
            return
        if stage.along and stage.along != stage.operand[0].axes[-1]:
            self.say(remark, *self.from_left(stage))
            return
        if stage.along:
            self.product_of_rows(stage, remark)
            return
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

    def product_of_rows(self, stage: MatMul, remark: Remark) -> None:
        """A product with all rows of the matrices of every row."""
        (operand,), (out,), (weight,) = stage.operand, stage.out, stage.weights
        K, N = (self.count(v.axes[-1:]) for v in (operand, out))
        each = self.count(operand.axes[:-1])
        rows = {ALL: f"steps * B * {each}", LOOP: f"(stop - start) * {each}", ONCE: f"B * {each}"}[self.where]
        left, target = (self.pointer(slot_view(self.schedule.slot[v]), True) for v in (operand, out))
        ends, add = [target, N], "1" if stage.add else "0"
        text, pitch, height, width = self.matrix(weight)
        verb, sizes = ("few_rows", [width, height]) if stage.transposed else ("few", [height, width])
        lines = called_with(verb, [rows, *sizes, left, K, text, pitch, *ends, add], WIDTH - 16)
        if self.where != ONCE or self.prepacked:
            verb, name = "multiply_all" if self.where == ALL else "multiply", self.pack(stage).name
            packed = called_with(verb, [rows, N, K, left, K, name, *ends, add], WIDTH - 16)
            either = [f"if ({name}) {{", *indented(packed), "} else {", *indented(lines), "}"]
            lines = either if self.where == ONCE else packed
        self.say(remark, *lines)

    def from_left(self, stage: MatMul) -> list[str]:
        """A product of a weight with the matrix of every row, and of every head."""
        (operand,), (out,), (weight,) = stage.operand, stage.out, stage.weights
        text, pitch, height, width = self.matrix(weight)
        M, K, down, right = (width, height, "1", pitch) if stage.transposed else (height, width, pitch, "1")
        N = self.count(operand.axes[-1:])
        lead = {ALL: "steps * B", LOOP: "(stop - start)", ONCE: "B"}[self.where]
        many = " * ".join(filter(None, [lead, self.count(operand.axes[:-2])]))
        many = many.strip("()") if many == lead else many
        source, target = (self.pointer(slot_view(self.schedule.slot[v]), True) for v in (operand, out))
        ends = [f"{source} + k * {grouped(K)} * {N}", f"{target} + k * {grouped(M)} * {N}"]
        self.file.helpers.add("from_left")
        arguments = [M, N, K, text, down, right, *ends, "1" if stage.add else "0"]
        return nested([("k", many)], called_with("from_left", arguments, WIDTH - 20))

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

    def blocks(self, weight: Weight, blocks: Size) -> Blocks:
        """A matrix of blocks, one below the other, those of several gates as well."""
        text, _, _, columns = self.matrix(weight)
        gates, each = len(weight.members), self.names.letter(blocks)
        rows = self.size((weight.stop - weight.start) / gates)
        return Blocks(
            text, f"{gates} * {each}" if gates > 1 else each, each, f"{grouped(rows)} / {each}", columns
        )

    def packed_blocks(self, stage: MatMul) -> Pack:
        """Blocks as products want them, one behind the other."""
        key = stage.weights, stage.transposed
        if key not in self.packs:
            names = dict.fromkeys(m for w in stage.weights for m in w.members)
            wish = f"packed_{'_'.join(names)}{'' if stage.transposed else '_T'}"
            name = self.names.of("view", f"{key}", wish, "packed")
            lines, sizes = list[str](), list[str]()
            for found in (self.blocks(weight, stage.blocks) for weight in stage.weights):
                source = f"{found.text} + k * {found.entries}"
                target = f"{name} + {' + '.join((*sizes, f'k * {found.panels(stage.transposed)}'))}"
                M, K = found.rows, found.columns
                verb, more = "pack_columns", [K, M, source, K, "0", target]
                if stage.transposed:
                    verb, more = "pack_rows", [M, K, source, K, "0", M, target]
                lines += nested([("k", found.count)], called_with(verb, more, WIDTH - 12))
                sizes.append(f"{found.count} * {found.panels(stage.transposed)}")
            self.packs[key] = Pack(name, " + ".join(sizes), tuple(lines))
        return self.packs[key]

    def block_products(self, stage: MatMul, operand: View, out: View) -> list[str]:
        """Every block times its share of the operand, for every gate."""
        rows = {ALL: "steps * B", LOOP: "stop - start", ONCE: "B"}[self.where]
        pitches, at = (self.pitch(operand), self.pitch(out)), sp.S.Zero
        packed, bare, sizes = list[str](), list[str](), list[str]()
        for n, weight in enumerate(stage.weights):
            found = self.blocks(weight, stage.blocks)
            M, K, many = found.rows, found.columns, len(weight.members) > 1
            gate = {"start": (operand if stage.transposed else out).start + at}
            share = "k % " + found.each if many else "k"
            share = f"({share})" if many else share
            if stage.transposed:
                a = f"{self.pointer(replace(operand, **gate), True)} + k * {grouped(M)}"
                y = f"{self.pointer(out, True)} + {share} * {grouped(K)}"
                add = "1" if stage.add or n else f"k >= {found.each}" if many else "0"
            else:
                a = f"{self.pointer(operand, True)} + {share} * {grouped(K)}"
                y = f"{self.pointer(replace(out, **gate), True)} + k * {grouped(M)}"
                add = "1" if stage.add else "0"
            inner, outer = (M, K) if stage.transposed else (K, M)
            at += weight.stop - weight.start
            head = [("k", found.count)]
            if self.where != ONCE or self.prepacked:
                verb = "multiply_all" if self.where == ALL else "multiply"
                matrix = " + ".join(
                    (self.packed_blocks(stage).name, *sizes, f"k * {found.panels(stage.transposed)}")
                )
                sizes.append(f"{found.count} * {found.panels(stage.transposed)}")
                arguments = [rows, outer, inner, a, pitches[0], matrix, y, pitches[1], add]
                packed += nested(head, called_with(verb, arguments, WIDTH - 24))
            if self.where == ONCE:
                matrix = f"{found.text} + k * {found.entries}"
                arguments = [rows, outer, inner, a, pitches[0], matrix, K, y, pitches[1], add]
                verb = "few_rows" if stage.transposed else "few"
                bare += nested(head, called_with(verb, arguments, WIDTH - 16))
        if packed and bare:
            name = self.packed_blocks(stage).name
            return [f"if ({name}) {{", *indented(packed), "} else {", *indented(bare), "}"]
        return packed or bare

    def outer_sum_of_matrices(self, stage: OuterSum) -> None:
        """The gradient of a weight that multiplies matrices of every row."""
        (left,), (right,) = stage.left, stage.right
        found = self.module.fields[stage.weight.field]
        width = self.size(found.width)
        target = self.names["field gradient", stage.weight.field]
        if stage.weight.start != 0:
            target += f" + {times(grouped(self.size(stage.weight.start)), width)}"
        M, N = (self.count((axis,)) for axis in stage.along)
        self.clear(stage.left)
        self.clear(stage.right)
        lead = "B" if self.where == ONCE else "steps * B"
        ends = [self.pointer(slot_view(self.schedule.slot[v]), True) for v in (left, right)]
        if stage.along[0] == left.axes[-1]:
            self.file.outers.append(N)
            self.file.helpers.add("outer")
            rows = f"{lead} * {self.count(left.axes[:-1])}"
            arguments = [rows, M, N, ends[0], M, ends[1], N, target, width, "room"]
            self.lines += called_with("outer", arguments, WIDTH - 8)
            return
        K = self.count(left.axes[-1:])
        rows = " * ".join(filter(None, [lead, self.count(left.axes[:-2])]))
        ends = [f"{end} + k * {grouped(n)} * {K}" for end, n in zip(ends, (M, N), strict=True)]
        arguments = [M, N, K, ends[0], K, ends[1], K, target, width, "1"]
        self.lines += nested([("k", rows)], called_with("few", arguments, WIDTH - 12))

    def outer_sum(self, stage: OuterSum) -> None:
        if stage.along:
            self.outer_sum_of_matrices(stage)
            return
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
        ends = [self.pointer(left, True), self.pointer(right, True), " + ".join(terms)]
        heads: list[tuple[str, str]] = []
        if stage.blocks != 1:
            blocks = self.blocks(stage.weight, stage.blocks)
            share = f"(k % {blocks.each})" if len(stage.weight.members) > 1 else "k"
            M, heads = blocks.rows, [("k", blocks.count)]
            shares = f"k * {grouped(M)}", f"{share} * {grouped(N)}", f"k * {blocks.entries}"
            ends = [f"{end} + {part}" for end, part in zip(ends, shares, strict=True)]
        arguments = [
            rows,
            M,
            N,
            ends[0],
            self.pitch(left),
            ends[1],
            self.pitch(right),
            ends[2],
            width,
            "room",
        ]
        self.clear(stage.left)
        self.clear(stage.right)
        self.file.outers.append(N)
        self.file.helpers.add("outer")
        self.lines += nested(heads, called_with("outer", arguments, WIDTH - 8 - 4 * len(heads)))

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
        name, width = self.names["memory", buffer.name], self.names.width(buffer.width, buffer.axes)
        n, first = ("1", "0") if self.where == ONCE else ("steps", "first")
        return f"clear_rows({n}, B, {width}, {first}, lengths, {name});"


def called(
    inner: Inner, counts: Sequence[str], pointers: Mapping[Value, str], out: Value, add: bool
) -> list[str]:
    """The innermost loops of a sum as a call."""
    values = [pointers[v] for v in inner.order]
    if inner.loops == 1:
        base, _, at = pointers[out].partition(" + ")
        return [f"{base}[{at or 0}] {'+=' if add else '='} {inner.name}({', '.join([*counts, *values])});"]
    if inner.name == "column_sums":
        return called_with(inner.name, [*counts, *values, counts[1], pointers[out]], WIDTH - 20)
    sign = [] if inner.adds else ["1" if add else "0"]
    return called_with(inner.name, [*counts, *values, pointers[out], *sign], WIDTH - 20)
