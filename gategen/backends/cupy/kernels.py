"""Kernels and launches of the stages of a schedule.

A kernel has one thread for every unit of every sequence; it reads what it needs, computes in registers, and
writes what outlives it. Sums over the features, over axes of matrices, and over steps and rows are kernels of
their own with a fixed order of summation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import groupby

import sympy as sp

from gategen.backends.comments import Remark, listed, memory_name
from gategen.backends.cupy.module import CupyModule
from gategen.backends.cupy.sums import (
    BLOCKS,
    COLUMNS,
    ROWS,
    SUM_WORDS,
    Adding,
    apart,
    goes_along,
    said,
    sums_matrices,
    terms,
)
from gategen.backends.cupy.text import (
    CUDA_WORDS,
    Argument,
    CudaKernel,
    CudaPrinter,
    Names,
    Use,
    as_it_lies,
    in_cuda,
    in_loop,
    itself,
    lines_of,
    mentions,
    neighbours,
    pointwise_index,
    row_index,
)
from gategen.backends.folding import WIDTH, call, folded, listing
from gategen.backends.host import ALL, LOOP, ONCE, Host, joined
from gategen.backends.instructions import Scratch, View
from gategen.backends.module import Module, Way
from gategen.backends.names import Scope
from gategen.backends.pointwise import (
    Space,
    arguments_of_functions,
    entry_number,
    filled,
    grouped,
    times,
    unique,
)
from gategen.graph import Carry, Pointwise, Value, axes, common_size, length
from gategen.plan import (
    Buffer,
    ColumnSum,
    Contraction,
    Home,
    Kernel,
    MatMul,
    RunningSum,
    Schedule,
    Shifted,
    Slot,
    Stage,
    Sum,
    TimeLoop,
    persists,
    row_by_row,
)
from gategen.spec import language as lang
from gategen.spec.elementwise import called
from gategen.spec.language import Axes


def self_kept(
    schedule: Schedule, loop: Sequence[Stage], pointwise: Sequence[Kernel]
) -> dict[Home, Kernel | None]:
    """The memory of carries that kernels, of these stages, leave as it is where a sequence is over.

    A product writes whole rows. One that gives a carried gradient adds to it instead: a sequence that is over
    adds 0, and the kernel before it, which is told here, empties the rows of the others.
    """
    found: dict[Home, Kernel | None] = {}

    def homes(values: Sequence[Value]) -> set[Home]:
        return {schedule.slot[v].home for v in values if v in schedule.slot}

    meeting: dict[Home, list[Stage]] = {}
    for stage in loop:
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
        others = [s for s in meets if s not in pointwise and not sums_matrices(s)]
        before = dict(zip(meets[1:], meets, strict=False))
        empties = [before.get(s) for s in others if not (isinstance(s, MatMul) and s.add)]
        products = all(isinstance(s, MatMul) and home not in homes(s.reads) for s in others)
        kernels = all(
            isinstance(k, Kernel) and k in pointwise and axes(k.size) == c.current.axes for k in empties
        )
        if products and kernels and len(empties) < 2:
            found[home] = next((k for k in empties if isinstance(k, Kernel)), None)
    return found


def only_copies(kernel: Kernel, schedule: Schedule) -> bool:
    """Whether a kernel does nothing but copy arrays as they lie, or set them to a number: CuPy's lines do.

    A carried sum over matrices is copied by a kernel, which leaves the rows of sequences that are over.
    """
    slot = schedule.slot
    as_they_lie = all(
        op.out in slot
        and isinstance(op.expr, Value | sp.Integer)
        and (len(op.out.axes) < 2 or as_it_lies(op))
        for op in kernel.ops
    )
    if not as_they_lie:
        return False
    carried = {slot[c.current].home for c in schedule.graph.states}
    sums = {v for stage in schedule.loop if sums_matrices(stage) for v in stage.writes}
    return not any(op.expr in sums and slot[op.out].home in carried for op in kernel.ops)


class Kernels(Host):
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
        self.carries = self.kept_by_kernels() if where == LOOP else {}
        whole = persists(way.schedule) or row_by_row(way.schedule)
        beside = where == LOOP and whole  # a loop beside one launch of all steps
        self.room = WIDTH - 12 if beside else WIDTH - 8  # for a line
        self.loops = tuple(stage for stage in way.schedule.stages if isinstance(stage, TimeLoop))
        self.spaces: tuple[Space, ...] = ()  # in which the features of the kernel at hand are counted
        self.places: dict[Axes, str] = {}  # what an entry along some of its axes is called
        self.taken: set[str] = set()  # names in it

    def run(self, stages: Sequence[Stage]) -> None:
        for kind, some in groupby(stages, lambda stage: sums_matrices(stage) and not goes_along(stage)):
            if kind:
                self.matrix_sums([stage for stage in some if isinstance(stage, Contraction | Sum)])
            else:
                super().run([*some])

    @property
    def prepare(self) -> tuple[str, ...]:
        return tuple(f"{wish} = {source}" for source, wish in self.weights.items())

    @property
    def head(self) -> str:
        ruled = self.module.plan.opens
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
        row = "(at + B)" if slot.shift else "at"
        row = {"row": "b", "carry": "b", "stretch": "(s * B + b)"}.get(buffer.kind, row)
        width = self.size(buffer.width)
        if width == "1":
            return row
        return f"{row} * {grouped(width)} + {offset}{feature}"

    def offset(self, slot: Slot | View) -> str:
        """What stands before a feature's own number, in an array that others are in too."""
        return "" if slot.start == 0 else f"{self.size(slot.start)} + "

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    def pitch(self, slot: Slot | View) -> str:
        """How far it is from one row of an array to the next."""
        buffer = self.buffer(slot)
        return self.size(slot.stop if buffer is None else buffer.width)

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

    def kept_by_kernels(self) -> dict[Home, Kernel | None]:
        """The memory of carries that kernels leave as it is where a sequence is over."""
        copies = {s: self.copies(s) for s in self.schedule.loop if isinstance(s, Kernel)}
        idle = {s for s, lines in copies.items() if lines and all(map(itself, lines))}
        kernels = [s for s, lines in copies.items() if not lines]
        return self_kept(self.schedule, [s for s in self.schedule.loop if s not in idle], kernels)

    def copies(self, kernel: Kernel) -> list[str]:
        """The lines of a kernel that does nothing but copy, or set to 0; none for another."""
        slot, lines = self.schedule.slot, []
        if not only_copies(kernel, self.schedule):
            return []
        for ops in neighbours(kernel.ops, slot):
            target, source = self.value(*(op.out for op in ops)), str(ops[0].expr)
            if isinstance(ops[0].expr, Value):
                source = self.value(*(op.expr for op in ops))
            lines.append(f"{target} = {source}" if target.endswith("]") else f"{target}[...] = {source}")
        return lines

    def kernel(self, kernel: Kernel) -> None:
        slot = self.schedule.slot
        if copies := self.copies(kernel):
            if lines := [line for line in copies if self.where == ALL or not itself(line)]:
                self.say(self.comment(*(op.out for op in kernel.ops)), *lines)
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
        self.enter(taken, *([Space("k", kernel.size)] if isinstance(kernel.size, tuple) else []))
        arguments, buffers = self.gather(reads, [*stores, *emptied.values()], taken)
        rename = self.renamed((*reads, *(op.out for op in kernel.ops)), taken)
        loads = self.loads([v for v in reads if not self.scalar(v)], buffers, rename)
        uses = {v: [partial(self.store, v, buffers=buffers, rename=rename)] for v in stores}
        computed, stored = self.computed(kernel.ops, uses, rename)
        stored += [f"if (!over) {self.entry(v, buffers)} = 0;" for v in emptied.values()]
        computes = (*computed, *stored)
        width = self.size(length(kernel.size)) if kernel.ops[0].out.shape != () else "1"
        rows = "" if kernel.static else "rows" if self.where == ALL else "B"
        text = "\n".join([*loads, *computes])
        ends = ("const bool over = finished && finished[at];",) if mentions(text, "over") else ()
        places = self.along_axes()
        index = (*pointwise_index(rows, width, "\n".join([text, *ends, *places])), *ends)
        index = (*index, f"const Index {', '.join(places)};") if places else index
        comment = self.comment(*(op.out for op in kernel.ops))
        above = comment.text
        if self.schedule.graph.backwards:  # the kernel says how
            above = (f"Computes {listed([v.name for v in stores])}.",) * (len(stores) > 1)
            targets = list(dict.fromkeys(line.split()[0] for line in comment.text))
            comment = comment if len(comment.text) == 1 else Remark((f"{listed(targets)}.",) * bool(targets))
        self.emit(above, comment, index, loads, computes, arguments, "launch", (times(rows, width),))

    def renamed(self, values: Sequence[Value], taken: set[str]) -> dict[str, str]:
        """What values are called in a kernel, by their names."""
        return {v.name: unique(v.name, taken) for v in values if not self.scalar(v)}

    def computed(
        self,
        ops: Sequence[Pointwise],
        uses: Mapping[Value, Sequence[Use]],
        rename: dict[str, str],
        named: Set[Value] = frozenset(),
    ) -> tuple[list[str], list[str]]:
        """The lines that compute, and those that use it. What is used once has no name, but for `named`."""
        printer = CudaPrinter({op.out.name: k for k, op in enumerate(ops)}, rename, self.names.sizes)
        inside = arguments_of_functions(ops, [*uses, *named])
        read = {v for op in ops for v in op.reads} | named
        computed: list[str] = []
        used: list[str] = []
        for op in ops:
            text, own = printer(op.expr), uses.get(op.out, ())
            value = f"real({text})" if op.expr.is_number else text
            if op.out in inside:
                rename[op.out.name] = text
            elif len(own) == 1 and op.out not in read:
                used += lines_of(own[0](value), op.out.name)
            else:
                computed += lines_of(f"const real {rename[op.out.name]} = {value};")
                used += [use(rename[op.out.name]) for use in own]
        return computed, used

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
        index = self.address(self.schedule.slot[value], self.feature(value))
        return f"{buffers[self.schedule.slot[value].home]}[{index.removesuffix(' + 0')}]"

    def enter(self, taken: set[str], *spaces: Space) -> None:
        """Begin a kernel whose features are counted in these spaces; without any they are vectors."""
        self.spaces, self.places, self.taken = spaces, {}, taken

    def feature(self, value: Value) -> str:
        """Which feature of a value a thread works on."""
        if value.size == 1:
            return "0"
        return entry_number(value.axes, self.spaces, self.size, self.place_along) if self.spaces else "k"

    def place_along(self, space: Space, part: Axes) -> str:
        """The number of an entry along some axes; in a kernel without sums it has a name."""
        if part == space.axes:
            return space.index
        if len(self.spaces) > 1:
            return space.along(part, self.size)
        if part not in self.places:
            self.places[part] = unique(
                re.sub(r"\W+", "_", f"k_{''.join(map(self.names.letter, part))}"), self.taken
            )
        return self.places[part]

    def along_axes(self) -> list[str]:
        """What those names stand for, in the order of the axes: `k_H = k / K`."""
        return [
            f"{self.places[part]} = {space.along(part, self.size)}"
            for space in self.spaces
            for part in sorted(self.places, key=lambda part: (space.axes.index(part[0]), len(part)))
        ]

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
        own = self.schedule.slot[carry.current].home in self.carries
        return own or any(carry.current in dict(loop.carries) for loop in self.loops)

    def cleared(self, operand: Sequence[Value]) -> Iterable[str]:
        zero = {v for loop in self.loops for v in loop.writes}  # behind the lengths, already
        return () if zero.issuperset(operand) else super().cleared(operand)

    def outlives(self, value: Value, kernel: Kernel) -> bool:
        """Whether anything outside the kernel reads a value."""
        buffer = self.buffer(self.schedule.slot[value])
        if value in self.ends or (buffer is not None and buffer.kind == "carry"):
            return True
        return any(stage is not kernel for stage in self.readers.get(value, ()))

    def emit(
        self,
        above: Sequence[str],
        remark: Remark,
        index: tuple[str, ...],
        loads: tuple[str, ...],
        computes: tuple[str, ...],
        arguments: Sequence[Argument],
        launch: str,
        extent: Sequence[str],
        further: tuple[str, ...] = ("rows", "B", "t"),
        given: tuple[str, ...] = (),
    ) -> None:
        """Note a kernel, and the line that launches it: a helper of the host, told how much is to be done."""
        name = f"{self.module.cell.name}_{self.way.name}_{len(self.kernels) + 1}"
        passed = self.note(name, above, index, loads, computes, arguments, further, given)
        much = [re.sub(r"\brows\b", "T * B", each) for each in extent]
        self.say(remark, call(f"{launch}(", [f'"{name}"', "dtype", *much, *passed], width=self.room))

    def note(
        self,
        name: str,
        above: Sequence[str],
        index: tuple[str, ...],
        loads: tuple[str, ...],
        computes: tuple[str, ...],
        arguments: Sequence[Argument],
        further: tuple[str, ...],
        given: tuple[str, ...] = (),
    ) -> list[str]:
        """Note a kernel; what the host passes to it.

        `further` are the numbers that it is given beside sizes, where it mentions them, and `given` are the
        parameters that the helper of the host knows of.
        """
        index, loads, computes = (tuple(map(in_cuda, lines)) for lines in (index, loads, computes))
        text = "\n".join([*loads, *computes, *index])
        if mentions(text, "finished"):
            arguments = (*arguments, Argument("const bool* __restrict__ finished", "finished"))
        sizes = [word for word in (*further, *self.names.sizes.values()) if mentions(text, word)]
        declared = [*given, *(f"const Index {word}" for word in sizes), *(a.declaration for a in arguments)]
        parameters = tuple(filled(declared, WIDTH - 11))
        self.kernels.append(CudaKernel(name, tuple(folded(above, 104)), parameters, index, loads, computes))
        told = {"t": self.time, "rows": "T * B", "first": "start"}
        return [*(told.get(word, word) for word in sizes), *(a.host for a in arguments)]

    # ------------------------------------------------------------------------------------------ all steps

    def turned(self, part: str) -> str:
        return f"{part}.T"  # cuBLAS reads it as it lies

    def product(self, left: str, right: str, out: str, add: bool) -> str:
        self.module.helpers.add("product")
        return call("product(", [left, right, out, *(["add=True"] if add else [])], width=self.room)

    def row_sum(self, stage: Sum) -> None:
        if goes_along(stage):
            self.along_kernel(stage)
            return
        operand, out = self.value(*stage.operand), self.value(stage.out)
        if stage.how != "sum":
            self.module.helpers.add("row_max")
            also = ", also=True" if stage.add else ""
            self.say(self.comment(stage.out), f"row_max({operand}, {out}, dtype{also})")
        elif stage.add:
            self.say(
                self.comment(stage.out),
                f"{out}[...] += cp.sum({operand}, axis=-1, dtype={out}.dtype, keepdims=True)",
            )
        else:
            self.module.helpers.add("row_sum")
            self.say(self.comment(stage.out), f"row_sum({operand}, {out}, dtype)")

    def running_sum(self, stage: RunningSum) -> None:
        if stage.axis:
            self.along_kernel(stage)
            return
        self.module.helpers.add("running_sum")
        arguments = [self.value(stage.operand), self.value(stage.out), "dtype"]
        arguments += ["backwards=True"] if stage.backwards else []
        self.say(self.comment(stage.out), f"running_sum({', '.join(arguments)})")

    def shifted(self, stage: Shifted) -> None:
        """A kernel that moves entries along an axis: a thread for each that is written."""
        operand, out, by = stage.operand, stage.out, stage.by
        at = out.axes.index(stage.axis)
        count, width = self.size(length(out.axes)), self.size(length(stage.axis))
        pitch = grouped(self.size(length(out.axes[at + 1 :])))
        taken = self.words() | {"j"}
        self.enter(taken, Space("k", out.axes))
        arguments, buffers = self.gather([operand], [out], taken)
        step = " * ".join([str(abs(by))] * (abs(by) > 1 or pitch == "1") + [pitch] * (pitch != "1"))
        place = Space("k", out.axes).along((stage.axis,), self.size)
        slot, sign = self.schedule.slot[operand], "-" if by > 0 else "+"
        read = f"{buffers[slot.home]}[{self.address(slot, f'k {sign} {step}')}]"
        outside = f"j < {by}" if by > 0 else f"j >= {width} - {-by}"
        value = f"{outside} ? real(0) : real({read})"
        computes = (f"const Index j = {place};", *lines_of(self.store(out, value, buffers, {})))
        rows = "" if out.static else "rows" if self.where == ALL else "B"
        text = "\n".join(computes)
        ends = ("const bool over = finished && finished[at];",) if mentions(text, "over") else ()
        index = (*pointwise_index(rows, count, "\n".join([text, *ends])), *ends)
        told = self.comment(out)
        if not told.text:
            name = memory_name(out, self.way.rule, self.schedule)
            told = Remark((f"{name} = {operand}, shifted by {by} along {stage.axis}",))
        self.emit(told.text, told, index, (), computes, arguments, "launch", (times(rows, count),))

    # ------------------------------------------------------------------------------------------ sums

    def contraction(self, stage: Contraction) -> None:
        self.matrix_sums([stage])

    def matrix_sums(self, stages: Sequence[Contraction | Sum]) -> None:
        """Contractions and sums of matrices, all that go over the same axes in one launch."""
        for run in apart(stages, self.schedule.slot):
            groups: dict[tuple[Axes, Axes, Adding, bool], list[Contraction | Sum]] = {}
            for stage in run:
                groups.setdefault((*self.going_over(stage), stage.out.static), []).append(stage)
            for (kept, summed, adding, _), alike in groups.items():
                self.sum_kernel(alike, kept, summed, adding)

    def going_over(self, stage: Contraction | Sum) -> tuple[Axes, Axes, Adding]:
        """The axes that a sum keeps, those that it goes over, and how threads share the work."""
        every = axes(common_size(stage.reads, self.schedule.graph.orders))
        kept = tuple(axis for axis in every if axis in stage.out.axes)
        summed = tuple(axis for axis in every if axis not in kept)
        if kept[-1:] == every[-1:]:
            return kept, summed, COLUMNS
        return kept, summed, ROWS if kept and len(summed) == 1 else BLOCKS

    def sum_kernel(
        self, stages: Sequence[Contraction | Sum], kept: Axes, summed: Axes, adding: Adding
    ) -> None:
        """A kernel of sums over the same axes, and the line that launches it."""
        outs, taken = [stage.out for stage in stages], self.words() | SUM_WORDS
        self.enter(taken, Space("k", kept), Space("j", summed))
        reads = list(dict.fromkeys(v for stage in stages for v in stage.reads))
        arguments, buffers = self.gather(reads, outs, taken)
        rename = {v.name: unique(v.name, taken) for v in (*reads, *outs)}
        totals = [rename[v.name] for v in outs]
        body = [*self.loads(reads, buffers, rename)]
        stores: list[str] = []
        for stage, total in zip(stages, totals, strict=True):
            body += [f"{total} += {' * '.join(rename[v.name] for v in term)};" for term in terms(stage)]
            more = isinstance(stage, Sum) and stage.add
            value = f"real({self.entry(stage.out, buffers)}) + {total}" if more else total
            stores.append(self.store(stage.out, value, buffers, rename))
        count, width = self.size(length(kept)), self.size(length(summed))
        rows = "" if outs[0].static else "rows" if self.where == ALL else "B"
        entries = times(rows, count)
        inside = "" if adding is BLOCKS else "inside && "
        joined_up = f"{adding.between}\n".join(f"{t} = {adding.joined.format(t)};\n" for t in totals)
        computes = (
            *(
                f"real {line.rstrip(',')};"
                for line in filled([f"{total} = 0" for total in totals], WIDTH - 20)
            ),
            f"for (Index j = {adding.first}; {inside}j < {width}; j += {adding.step}) {{",
            *(f"    {line}" for statement in body for line in lines_of(statement)),
            "}",
            *filter(None, joined_up.split("\n")),
            f"if ({adding.others}) return;",
            *(line for store in stores for line in lines_of(store)),
        )
        text = "\n".join(computes)
        ends = (f"const bool over = {inside}finished && finished[at];",) if mentions(text, "over") else ()
        index = (
            *((f"const bool inside = i < {entries};",) if inside else ()),
            *row_index(rows, count, "\n".join([text, *ends])),
            *ends,
        )
        if mentions("\n".join(index), "i"):
            index = (f"const Index i = {adding.entry};", *index)
        self.module.helpers.update((adding.launch, *({"over_lanes", "over_threads"} & {*called(text)})))
        told = self.comment(*outs)
        if not told.text:
            names = [memory_name(stage.out, self.way.rule, self.schedule) for stage in stages]
            told = Remark(tuple(f"{n} = {said(s, summed)}" for n, s in zip(names, stages, strict=True)))
        extent = (entries, width) if adding is ROWS else (entries,)
        self.emit(told.text, told, index, (), computes, arguments, adding.launch, extent)

    def along_kernel(self, stage: Sum | RunningSum) -> None:
        """A kernel of the largest entries along an axis, or of running sums: a thread for each line."""
        operand, out = stage.reads[0], stage.out
        running = stage if isinstance(stage, RunningSum) else None
        axis = running.axis if running else next(axis for axis in operand.axes if axis not in out.axes)
        others = tuple(other for other in operand.axes if other != axis)
        taken = self.words() | SUM_WORDS
        self.enter(taken, Space("k", others), Space("j", (axis,)))
        arguments, buffers = self.gather([operand], [out], taken)
        rename = {v.name: unique(v.name, taken) for v in (operand, out)}
        count, width = self.size(length(others)), self.size(length(axis))
        total, read = rename[out.name], rename[operand.name]
        rows = "" if out.static else "rows" if self.where == ALL else "B"
        loads = self.loads([operand], buffers, rename)
        if running:
            back = f"Index j = {width} - 1; j >= 0; j--"
            head = back if running.backwards else f"Index j = 0; j < {width}; j++"
            body = [*loads, f"{total} += {read};", self.store(out, total, buffers, rename)]
            computes = [f"real {total} = 0;", *in_loop(head, body)]
        else:
            body = [*loads, f"if (j == 0 || {read} > {total} || {read} != {read}) {total} = {read};"]
            computes = [f"real {total} = 0;", *in_loop(f"Index j = 0; j < {width}; j++", body)]
            computes += lines_of(self.store(out, total, buffers, rename))
        text = "\n".join(computes)
        ends = ("const bool over = finished && finished[at];",) if mentions(text, "over") else ()
        index = (*pointwise_index(rows, count, "\n".join([text, *ends])), *ends)
        told = self.comment(out)
        if not told.text:
            what = "running sum" if running else "largest"
            name = memory_name(out, self.way.rule, self.schedule)
            told = Remark((f"{name} = {what} of {operand} along {axis}",))
        self.emit(told.text, told, index, (), tuple(computes), arguments, "launch", (times(rows, count),))

    def column_sums(self, stages: Sequence[ColumnSum]) -> None:
        """All over the same rows in two launches: of what is there for every step, and of sums over these."""
        totals = {total for loop in self.loops for _, total in loop.sums}
        summed = [stage for stage in stages if totals.issuperset(stage.operand)]
        others = [stage for stage in stages if stage not in summed]
        self.sum_rows(others, "T * B" if self.where == ALL else "B")
        self.sum_rows(summed, "stretches * B" if self.schedule.linearized else "B")

    def sum_rows(self, stages: Sequence[ColumnSum], rows: str) -> None:
        """In two launches: sums over 256 rows each, and the sums of these."""
        if not stages:
            return
        self.module.helpers.update(("column_sums", "over_threads"))
        name, end = f"{self.module.cell.name}_{self.way.name}_{len(self.kernels) + 1}", sp.S.Zero
        reads, writes = Names(self.words()), Names(self.words())
        adds: list[str] = []
        stores: list[str] = []
        for stage in stages:
            source, target = (
                joined([self.schedule.slot[v] for v in vs]) for vs in (stage.operand, stage.out)
            )
            before = self.size(end)
            end += source.stop - source.start
            pitch = self.pitch(source)
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
