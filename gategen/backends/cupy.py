"""CuPy: one CUDA kernel for the pointwise ops of each phase, launched between stacked matrix products.

`files` lowers a plan to a `.cu` file with the kernels and a module that launches them. A kernel has one
thread for every unit of every sequence; it reads what it needs, computes in registers, and writes what
outlives it. Sums over the features, and over steps and rows, are kernels of their own with a fixed order of
summation.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import sympy as sp

from gategen.backends.comments import Remark, listed
from gategen.backends.folding import WIDTH, call, folded, listing
from gategen.backends.functions import context
from gategen.backends.host import ALL, LOOP, ONCE, Host, joined
from gategen.backends.instructions import Scratch, View
from gategen.backends.module import Module, OneStep, Target, Way
from gategen.backends.names import Scope
from gategen.backends.pointwise import (
    EntryPrinter,
    arguments_of_functions,
    filled,
    grouped,
    times,
    unique,
)
from gategen.backends.second import context as second_context
from gategen.graph import Carry, Pointwise, Value, length
from gategen.plan import (
    FIRST_STEP,
    Buffer,
    ColumnSum,
    Given,
    Home,
    InBuffer,
    Kernel,
    MatMul,
    OuterSum,
    Plan,
    Schedule,
    Slot,
    Stage,
    Sum,
    second,
)
from gategen.render import module_text, render
from gategen.spec import language as lang
from gategen.spec.elementwise import Call, Row, called, helpers
from gategen.spec.functions import TABLE

ARRAYS = False

# Names that the CUDA text uses for itself.
CUDA_WORDS = frozenset(
    """
    real storage Index Read Write ReadReal WriteReal rows B T t i b k at clip fmax fmin floor pow abs min max
    total part REAL over finished first count parts every_8th over_threads STORAGE HALF NULL INFINITY NAN M_PI
    unix linux float double half
    """.split()
) | {row.cuda.name for row in TABLE if row.cuda}


def files(plan: Plan) -> dict[str, str]:
    """The module and the kernels of a cell, by file name."""
    kernels: dict[str, list[CudaKernel]] = {}  # by function
    made = context(CupyModule(plan), partial(Emitter, kernels))
    name = f"{plan.cell.name}_cupy"
    return {f"{name}.py": module_text(made), f"{name}.cu": kernels_text(name, made, kernels)}


def second_files(plan: Plan) -> dict[str, str]:
    """The module and the kernels of the second derivatives of a cell, by file name."""
    kernels: dict[str, list[CudaKernel]] = {}
    made = second_context(CupyModule(second(plan, ARRAYS)), partial(Emitter, kernels))
    name = f"{plan.cell.name}_cupy_jvp"
    return {f"{name}.py": module_text(made, "second"), f"{name}.cu": kernels_text(name, made, kernels)}


def kernels_text(name: str, made: Mapping[str, object], kernels: Mapping[str, list[CudaKernel]]) -> str:
    """The text of the kernels that the module of this name launches."""
    listed = [kernel for some in kernels.values() for kernel in some]
    cuda = {**made, "module": name, "kernels": listed, "functions": used_functions(listed)}
    return render("cupy/kernels.cu.jinja", cuda).rstrip() + "\n"


# ---------------------------------------------------------------------------------------------- expressions


class CudaPrinter(EntryPrinter):
    """Expressions as CUDA."""

    def real(self, text: str) -> str:
        return f"real({text})"

    def call_of(self, row: Row) -> Call | None:
        return row.cuda


# ---------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Argument:
    """A parameter of a kernel, and what the host passes for it."""

    declaration: str
    host: str


@dataclass(frozen=True)
class CudaKernel:
    """The text of a pointwise kernel, ready for the template."""

    name: str
    comment: tuple[str, ...]
    parameters: tuple[str, ...]  # lines
    index: tuple[str, ...]
    reads: tuple[str, ...]
    computes: tuple[str, ...]


def mentions(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def self_kept(schedule: Schedule, pointwise: Sequence[Kernel]) -> dict[Home, Kernel | None]:
    """The memory of carries that kernels leave as it is where a sequence is over.

    A product writes whole rows. One that gives a carried gradient adds to it instead: a sequence that is over
    adds 0, and the kernel before it, which is told here, empties the rows of the others.
    """
    found: dict[Home, Kernel | None] = {}

    def homes(values: Sequence[Value]) -> set[Home]:
        return {schedule.slot[v].home for v in values if v in schedule.slot}

    meeting: dict[Home, list[Stage]] = {}
    for stage in schedule.loop:
        for home in homes((*stage.reads, *stage.writes)):
            meeting.setdefault(home, []).append(stage)
    computed = {v for kernel in pointwise for v in kernel.writes}
    for c in schedule.graph.states:
        home = schedule.slot[c.current].home
        meets = meeting.get(home, [])
        if not schedule.graph.backwards:
            if c.next in computed and schedule.slot[c.next].home == home:
                found[home] = None
            continue
        others = [s for s in meets if s not in pointwise]
        before = dict(zip(meets[1:], meets, strict=False))
        empties = [before.get(s) for s in others if not (isinstance(s, MatMul) and s.add)]
        products = all(isinstance(s, MatMul) and home not in homes(s.reads) for s in others)
        kernels = all(isinstance(k, Kernel) and k in pointwise and k.size == c.current.size for k in empties)
        if products and kernels and len(empties) < 2:
            found[home] = next((k for k in empties if isinstance(k, Kernel)), None)
    return found


class Emitter(Host):
    """Kernels and launches of one level of a schedule."""

    def __init__(
        self, kernels: dict[str, list[CudaKernel]], module: Module, way: Way, names: Scope, where: str
    ) -> None:
        super().__init__(module, way, names, where)
        assert isinstance(module, CupyModule)
        self.precise = module.precise
        self.kernels = kernels.setdefault(way.name, [])
        self.time = "0" if where == ONCE else "t"
        graph = way.schedule.graph
        self.ends = {*graph.nexts, *graph.results, *way.rule.tape}
        self.current = {c.next: c.current for c in graph.states}
        self.readers: dict[Value, list[Stage]] = {}
        for stage in way.schedule.stages:
            for value in dict.fromkeys(stage.reads):
                self.readers.setdefault(value, []).append(stage)
        kernels_here = [s for s in way.schedule.loop if isinstance(s, Kernel) and not self.copies(s)]
        self.carries = self_kept(way.schedule, kernels_here) if where == LOOP else {}

    @property
    def prepare(self) -> tuple[str, ...]:
        return tuple(f"{wish} = {source}" for source, wish in self.weights.items())

    @property
    def head(self) -> str:
        ruled = self.module.plan.rule(FIRST_STEP) is not None and not self.module.plan.of
        first = "start, T" if ruled else "T"
        return f"for t in {'reversed(range(T))' if self.schedule.graph.backwards else f'range({first})'}:"

    def settle(self, *kept: str) -> None:
        """Nothing: parts have no names."""

    def part(self, source: str, wish: str) -> str:
        return source

    def at_step(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        inner = "" if whole else f", :, {self.span(view.start, view.stop, buffer.width)}"
        if buffer.kind == "input" and not self.way.rule.forward.graph.states:  # of trained starts: (B, width)
            return f"{base}[{inner[2:]}]" if inner else base
        at = self.time if not view.shift else "1" if self.where == ONCE else f"{self.time} + 1"
        return f"{base}[{at}{inner}]"

    # ------------------------------------------------------------------------------------------ kernels

    def address(self, slot: Slot, feature: str) -> str:
        """The index of feature `feature` of a slot, within its buffer."""
        buffer = self.buffer(slot)
        offset = self.offset(slot)
        if buffer is None or buffer.kind == "static":
            return f"{offset}{feature}".removesuffix(" + 0")
        row = "b" if buffer.kind in ("row", "carry") else "(at + B)" if slot.shift else "at"
        width = self.size(buffer.width)
        if width == "1":
            return row
        return f"{row} * {grouped(width)} + {offset}{feature}"

    def offset(self, slot: Slot | View) -> str:
        """What stands before a feature's own number, in an array that others are in too."""
        return "" if slot.start == 0 else f"{self.size(slot.start)} + "

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    def scalar(self, value: Value) -> bool:
        """Whether a value is a number that the host passes by value."""
        mask = self.schedule.graph.mask
        return mask is not None and value in (mask.count, mask.training)

    def words(self) -> set[str]:
        """The names that no buffer and no value of a kernel can have."""
        return {*CUDA_WORDS, *lang.RESERVED, *self.names.sizes.values()}

    def gather(
        self, reads: Sequence[Value], writes: Sequence[Value], taken: set[str]
    ) -> tuple[tuple[Argument, ...], dict[Home, str]]:
        """The kernel's parameters for these values, and the C name of each array."""
        made: dict[Home | Value, Argument] = {}
        names: dict[Home, str] = {}
        out = {self.schedule.slot[v].home for v in writes}
        for value in (*reads, *writes):
            if self.scalar(value):
                word = self.names["given", value.name]
                made[value] = Argument(f"const real {value.name}", f"arithmetic(dtype).type({word})")
                continue
            home = self.schedule.slot[value].home
            if home not in names:
                host = self.array(home)
                names[home] = unique(host, taken)
                made[home] = Argument(f"{self.way_of(home, home in out)} {names[home]}", host)
        return tuple(made.values()), names

    def way_of(self, home: Home | Scratch, written: bool) -> str:
        """The type of a kernel's pointer to an array."""
        return f"{'Write' if written else 'Read'}{'Real' * (home in self.precise)}"

    def copies(self, kernel: Kernel) -> list[str]:
        """The lines of a kernel that does nothing but copy, or set to 0; none for another."""
        slot, lines = self.schedule.slot, []
        for ops in neighbours(kernel.ops, slot):
            if any(op.out not in slot for op in ops) or not isinstance(ops[0].expr, Value | sp.Integer):
                return []
            target, source = self.value(*(op.out for op in ops)), str(ops[0].expr)
            if isinstance(ops[0].expr, Value):
                source = self.value(*(op.expr for op in ops))
            lines.append(f"{target} = {source}" if target.endswith("]") else f"{target}[...] = {source}")
        return lines

    def kernel(self, kernel: Kernel) -> None:
        slot = self.schedule.slot
        if copies := self.copies(kernel):
            self.say(self.comment(*(op.out for op in kernel.ops)), *copies)
            return
        made = {op.out for op in kernel.ops}
        reads = list(dict.fromkeys(v for op in kernel.ops for v in op.reads if v not in made))
        last: dict[Slot, Value] = {}
        for op in kernel.ops:
            if op.out in slot:
                last[slot[op.out]] = op.out
        emptied = {
            slot[v].home: v
            for v in (*reads, *last.values())
            if v in slot and self.carries.get(slot[v].home) == kernel
        }
        stores = [v for v in last.values() if self.outlives(v, kernel) and slot[v].home not in emptied]
        taken = self.words()
        arguments, buffers = self.gather(reads, [*stores, *emptied.values()], taken)
        ordered = [*reads, *(op.out for op in kernel.ops)]
        rename = {v.name: unique(v.name, taken) for v in ordered if not self.scalar(v)}
        printer = CudaPrinter({op.out.name: k for k, op in enumerate(kernel.ops)}, rename, self.names.sizes)
        loads = self.loads([v for v in reads if not self.scalar(v)], buffers, rename)
        inside, computed, stored = arguments_of_functions(kernel.ops, stores), [], []
        kept = set(stores)
        read = {v for op in kernel.ops for v in op.reads}
        for op in kernel.ops:
            text = printer(op.expr)
            value = f"real({text})" if op.expr.is_number else text
            if op.out in inside:
                rename[op.out.name] = text
            elif op.out in kept and op.out not in read:
                stored += lines_of(self.store(op.out, value, buffers, rename), op.out.name)
            else:
                computed += lines_of(f"const real {rename[op.out.name]} = {value};")
                if op.out in kept:
                    stored += [self.store(op.out, rename[op.out.name], buffers, rename)]
        stored += [f"if (!over) {self.entry(v, buffers)} = 0;" for v in emptied.values()]
        computes = (*computed, *stored)
        width = self.size(length(kernel.size)) if kernel.ops[0].out.shape != () else "1"
        rows = "" if kernel.static else "rows" if self.where == ALL else "B"
        text = "\n".join([*loads, *computes])
        ends = ("const bool over = finished && finished[at];",) if mentions(text, "over") else ()
        index = (*pointwise_index(rows, width, "\n".join([text, *ends])), *ends)
        if ends:
            arguments = (*arguments, Argument("const bool* __restrict__ finished", "finished"))
        text = "\n".join([text, *index])
        sizes = [word for word in ("rows", "B", "t", *self.names.sizes.values()) if mentions(text, word)]
        declared = [*(f"const Index {word}" for word in sizes), *(a.declaration for a in arguments)]
        name = f"{self.module.cell.name}_{self.way.name}_{len(self.kernels) + 1}"
        comment = self.comment(*(op.out for op in kernel.ops))
        above = comment.text
        if self.schedule.graph.backwards:  # the kernel says how
            above = (f"Computes {listed([v.name for v in stores])}.",) * (len(stores) > 1)
            targets = list(dict.fromkeys(line.split()[0] for line in comment.text))
            comment = comment if len(comment.text) == 1 else Remark((f"{listed(targets)}.",) * bool(targets))
        made_here = CudaKernel(
            name, tuple(folded(above, 104)), tuple(filled(declared, WIDTH - 11)), index, loads, computes
        )
        told = {"t": self.time, "rows": "T * B"}
        passed = [*(told.get(word, word) for word in sizes), *(a.host for a in arguments)]
        self.launch(made_here, comment, times(told.get(rows, rows), width), passed)

    def loads(
        self, values: Sequence[Value], buffers: dict[Home, str], rename: dict[str, str]
    ) -> tuple[str, ...]:
        """The lines that read some values, those of one array together."""
        lines: list[str] = []
        by_buffer: dict[Home, list[str]] = {}
        for v in values:
            read = self.entry(v, buffers)
            held = self.schedule.graph.backwards and self.schedule.slot[v].home in self.carries
            text = f"{rename[v.name]} = {f'over ? 0 : real({read})' if held else read}"
            by_buffer.setdefault(self.schedule.slot[v].home, []).append(text)
        for texts in by_buffer.values():
            lines += (f"const real {line.rstrip(',')};" for line in filled(texts, WIDTH - 20))
        return tuple(lines)

    def entry(self, value: Value, buffers: dict[Home, str]) -> str:
        """Where a value lies in memory."""
        feature = "0" if value.size == 1 else "k"
        index = self.address(self.schedule.slot[value], feature)
        return f"{buffers[self.schedule.slot[value].home]}[{index.removesuffix(' + 0')}]"

    def store(self, value: Value, text: str, buffers: dict[Home, str], rename: dict[str, str]) -> str:
        """The line that writes a value; where a sequence is over, a carry stays what it is."""
        graph, entry = self.schedule.graph, self.entry(value, buffers)
        if self.schedule.slot[value].home in self.carries:
            if graph.backwards:
                return f"if (!over) {entry} = {text};"
            current = self.current[value]
            old = rename.get(current.name) or f"real({self.entry(current, buffers)})"
            return f"{entry} = over ? {old} : {text};"
        if graph.backwards and self.where == LOOP and self.carries and self.module.singular:
            return f"{entry} = over ? 0 : {text};"  # which need not be finite
        return f"{entry} = {text};"

    def matmul(self, stage: MatMul) -> None:
        home = self.schedule.slot[stage.out[0]].home
        super().matmul(replace(stage, add=stage.add or home in self.carries))

    def keeps(self, carry: Carry) -> bool:
        return self.schedule.slot[carry.current].home in self.carries

    def outlives(self, value: Value, kernel: Kernel) -> bool:
        """Whether anything outside the kernel reads a value."""
        buffer = self.buffer(self.schedule.slot[value])
        if value in self.ends or (buffer is not None and buffer.kind == "carry"):
            return True
        return any(stage is not kernel for stage in self.readers.get(value, ()))

    def launch(self, kernel: CudaKernel, comment: Remark, threads: str, passed: Sequence[str]) -> None:
        """Note the kernel, and the line that launches it."""
        self.kernels.append(kernel)
        self.say(comment, call("launch(", [f'"{kernel.name}"', "dtype", threads, *passed]))

    def turned(self, part: str) -> str:
        return f"{part}.T"  # cuBLAS reads it as it lies

    def product(self, left: str, right: str, out: str, add: bool) -> str:
        self.module.helpers.add("product")
        return call("product(", [left, right, out, *(["add=True"] if add else [])])

    def row_sum(self, stage: Sum) -> None:
        operand, out = self.value(*stage.operand), self.value(stage.out)
        if stage.add:
            self.say(
                self.comment(stage.out),
                f"{out}[...] += cp.sum({operand}, axis=-1, dtype={out}.dtype, keepdims=True)",
            )
        else:
            self.module.helpers.add("row_sum")
            self.say(self.comment(stage.out), f"row_sum({operand}, {out}, dtype)")

    def column_sums(self, stages: Sequence[ColumnSum]) -> None:
        """All of them in two launches: sums over 256 rows each, and the sums of these."""
        if not stages:
            return
        self.module.helpers.add("column_sums")
        name, end = f"{self.module.cell.name}_{self.way.name}_{len(self.kernels) + 1}", sp.S.Zero
        reads, writes = Names(self.words()), Names(self.words())
        adds: list[str] = []
        stores: list[str] = []
        for stage in stages:
            source, target = (
                joined([self.schedule.slot[v] for v in vs]) for vs in (stage.operand, stage.out)
            )
            before, buffer = self.size(end), self.buffer(source)
            end += source.stop - source.start
            pitch = self.size(source.stop if buffer is None else buffer.width)
            feature = "k" if before == "0" else f"k - ({before})" if " + " in before else f"k - {before}"
            array = reads.of(self.array(source.home), self.way_of(source.home, False))
            row = "(first + B)" if source.shift else "first"
            column = f"{array} + {row} * {grouped(pitch)} + {self.offset(source)}{feature}"
            case = f"{'else ' * bool(adds)}if (k < {self.size(end)})"
            adds.append(f"{case} total = every_8th({column}, count, {pitch});")
            sums = writes.of(self.array(target.home), self.way_of(target.home, True))
            stores.append(f"{case} {sums}[{self.offset(target)}{feature}] = total;")
        width, what = self.size(end), listed([v.name for stage in stages for v in stage.operand])
        arrays = self.summing(
            f"{name}_parts",
            f"The sums of {what} over 256 rows each.",
            ("const Index rows", "WriteReal parts"),
            reads,
            (
                "const Index k = (Index)blockIdx.y * 32 + threadIdx.x, first = (Index)blockIdx.x * 256;",
                "const Index count = rows - first < 256 ? rows - first : 256;",
            ),
            (
                "real total = 0;",
                *adds,
                "total = over_threads(total);",
                f"if (threadIdx.y == 0 && k < {width}) parts[blockIdx.x * {grouped(width)} + k] = total;",
            ),
        )
        results = self.summing(
            name,
            f"The sums of {what} over all rows, from those over 256.",
            ("const Index count", "ReadReal parts"),
            writes,
            ("const Index k = (Index)blockIdx.x * 32 + threadIdx.x;",),
            (
                f"const real total = over_threads(k < {width} ? every_8th(parts + k, count, {width}) : 0);",
                "if (threadIdx.y > 0) return;",
                *stores,
            ),
        )
        rows = "T * B" if self.where == ALL else "B"
        line = call("column_sums(", [f'"{name}"', "dtype", rows, width, arrays, results])
        self.say(self.sums, *(line for stage in stages for line in self.cleared(stage.operand)), line)

    def summing(
        self,
        name: str,
        what: str,
        told: tuple[str, ...],
        arrays: Names,
        index: tuple[str, ...],
        lines: tuple[str, ...],
    ) -> str:
        """Note a kernel of a sum of columns; what the host passes beside rows and parts, as a tuple."""
        sizes = [word for word in ("B", *self.names.sizes.values()) if mentions("\n".join(lines), word)]
        own = [f"const Index {size}" for size in sizes] + arrays.declared
        parameters = tuple(filled([*told, *own], WIDTH - 11))
        self.kernels.append(CudaKernel(name, tuple(folded((what,), 104)), parameters, index, (), lines))
        return f"({listing([*sizes, *arrays.known])})"


class Names:
    """What arrays are called in a kernel, by what the host calls them."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken
        self.known: dict[str, str] = {}
        self.declared: list[str] = []

    def of(self, host: str, way: str) -> str:
        if host not in self.known:
            self.known[host] = unique(host, self.taken)
            self.declared.append(f"{way} {self.known[host]}")
        return self.known[host]


def neighbours(ops: Sequence[Pointwise], slot: dict[Value, Slot]) -> list[list[Pointwise]]:
    """Ops that copy neighbours to neighbours, or one number to neighbours, together."""

    def follows(one: Value, other: Value) -> bool:
        first, second = slot.get(one), slot.get(other)
        return (
            first is not None
            and second is not None
            and (first.home, first.shift, first.stop) == (second.home, second.shift, second.start)
        )

    found: list[list[Pointwise]] = []
    for op in ops:
        last = found[-1][-1] if found else None
        if last and follows(last.out, op.out) and (last.expr == op.expr or follows(last.expr, op.expr)):
            found[-1].append(op)
        else:
            found.append([op])
    return found


def lines_of(statement: str, name: str = "") -> list[str]:
    """A statement, which goes on in the next lines where it is long, with the name of what it computes."""
    lines = textwrap.wrap(statement, WIDTH - 8, subsequent_indent="    ", break_long_words=False)
    told = not name or re.match(rf"(if \(!over\) )?{name}\[", statement)
    return lines if told else [*lines[:-1], f"{lines[-1]}  // {name}"]


def pointwise_index(rows: str, width: str, text: str) -> tuple[str, ...]:
    """Which unit of which sequence a thread works for; without `rows` there are no sequences.

    `at` is its row in an array of all steps, `b` in one of a single step; if `rows` are those of all steps,
    both are one.
    """
    lines = [
        "const Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;",
        f"if (i >= {times(rows, width)}) return;",
    ]
    if not rows:
        return (*lines, "const Index k = i;") if mentions(text, "k") else tuple(lines)
    factor = grouped(width)
    row = "i" if width == "1" else f"i / {factor}"
    made = [f"k = i % {factor}"] if mentions(text, "k") and width != "1" else []
    if rows == "rows":
        made += [f"{at} = {row}" for at in ("at", "b") if mentions(text, at)]
    else:
        made += [f"b = {row}"] if mentions(text, "b") or mentions(text, "at") else []
        made += ["at = t * B + b"] if mentions(text, "at") else []
    return (*lines, f"const Index {', '.join(made)};") if made else tuple(lines)


# ---------------------------------------------------------------------------------------------- the module


class CupyModule(Module):
    """A module for CuPy, whose functions for one step take the arrays of all steps and work at t = 0.

    What sums over features, or over steps and rows, read and give is kept in the type that is computed with:
    in 16 bits a square, or a sum of many, is soon too large.
    """

    target = Target(
        title="CuPy",
        numpy=False,
        cupy=True,
        xp="cp",
        as_array="cp.ascontiguousarray(here(name, value))",
        dtypes="float32, float64, float16 or bfloat16",
        parameters='(cp.asarray(array, order="C") for array in params)',
        finished_now="finished[t]",
        real="{}",
        real_dtype="arithmetic(dtype)",
        init_dtype="arithmetic(dtype)",
        init_note="; float32 for dtypes of 16 bits",
        kept_dtype=".astype(dtype, copy=False)",
        shape="{}.shape",  # an array on the device, or an error of its own
        broadcast="cp.ascontiguousarray(cp.broadcast_to({}, {}))",
        one_step="(1, B",
    )

    @cached_property
    def precise(self) -> frozenset[Home]:
        """Memory in the type that is computed with: of sums, and of one number a row or for all rows,
        unless others than kernels and sums use it.
        """
        found: set[Home] = {Given(str(s.value.name)) for s in self.plan.step.forward.graph.statistics}
        for rule in self.plan.rules:
            for schedule in (rule.forward, rule.backward):
                found |= precise(schedule) - {InBuffer(b.name) for b in schedule.buffers if b.kind in FIXED}
        for rule in self.plan.rules:
            for schedule in (rule.forward, rule.backward):
                found -= outside(schedule)
        if self.plan.of is None:
            return frozenset(found)
        lent = {InBuffer(b.name) for rule in self.plan.rules for b in rule.lent}  # as the run left them
        return frozenset((found - lent) | (CupyModule(self.plan.of).precise & lent))

    def dtype(self, buffer: str) -> str:
        return "arithmetic(dtype)" if InBuffer(buffer) in self.precise else "dtype"

    def one_step(self, states: Sequence[str]) -> OneStep:
        arrays = tuple(self.names["memory", s] for s in states)
        return OneStep(
            states=arrays,
            both=arrays,
            made=(),
            passed=arrays,
            saved=arrays,
            results=(),
            at="",
            further=("dtype",),
            measured="B = x.shape[1]",
            measured_back=f"B, dtype = x.shape[1], {arrays[0]}.dtype" if arrays else "",
        )


FIXED = ("input", "state", "carry")  # the caller's arrays, and what they become


def precise(schedule: Schedule) -> set[Home]:
    """The memory of sums, and of one number a row or of all rows."""
    summed = [s for s in schedule.stages if isinstance(s, Sum | ColumnSum)]
    values = {v for stage in summed for v in (*stage.reads, *stage.writes)}
    values |= {v for s in schedule.stages for v in s.writes if v.static or v.size == 1}
    return {
        home for v in values if v in schedule.slot and isinstance(home := schedule.slot[v].home, InBuffer)
    }


def outside(schedule: Schedule) -> set[Home]:
    """The memory of what products read and give, and of results."""
    products = [s for s in schedule.stages if isinstance(s, MatMul | OuterSum)]
    values = {v for stage in products for v in (*stage.reads, *stage.writes)}
    values |= {v for _, v in schedule.graph.outputs}
    return {schedule.slot[v].home for v in values if v in schedule.slot}


def used_functions(kernels: Sequence[CudaKernel]) -> tuple[str, ...]:
    """The device functions that the kernels call."""
    lines = (line for kernel in kernels for line in kernel.computes)
    return helpers((name for line in lines for name in called(line)), (row.cuda for row in TABLE))
