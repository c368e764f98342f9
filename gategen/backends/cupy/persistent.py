"""A kernel whose blocks share the units of a layer through all steps."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import sympy as sp

from gategen.backends.cupy.kernels import Kernels
from gategen.backends.cupy.text import (
    Use,
    in_braces,
    mentions,
)
from gategen.backends.folding import WIDTH
from gategen.backends.host import joined
from gategen.backends.instructions import View
from gategen.backends.pointwise import (
    grouped,
    unique,
)
from gategen.graph import Value, length
from gategen.plan import (
    Home,
    InBuffer,
    InField,
    Kernel,
    MatMul,
    Sum,
    offset_rank,
)
from gategen.spec.language import Extent

MOST_UNITS = 2**14  # in all rows: for more, cuBLAS is worth a launch a step (a model says so, no measurement)
PERSISTENT_WORDS = frozenset(
    """
    shared row rows room next ends last arrived parts goal r q j meet product Columns Exchanged units_of ROWS
    CHUNK weights kept keep
    """.split()
)


@dataclass(frozen=True)
class Factor:
    """A stretch of a weight in a product: what it and its columns are called, and where it lies."""

    name: str
    by: str
    array: str
    begin: sp.Expr  # where in the array
    width: sp.Expr  # of a row of that
    gates: int  # how many results
    size: Extent  # of each
    out: Value  # the first
    offset: sp.Expr  # in the operand
    inner: sp.Expr  # how much of it
    transposed: bool
    add: bool


class Persistent:
    """The text of a kernel that takes all steps of a loop, by groups of blocks.

    A group takes some rows of the batch, and each of its blocks some units of every size. A block keeps in
    shared memory what passes from one stage to the next; what others read it writes, and all meet before.
    """

    words = PERSISTENT_WORDS

    def __init__(self, host: Kernels) -> None:
        self.host, self.loop, self.slot = host, host.schedule.loop, host.schedule.slot
        graph = host.schedule.graph
        self.back, ruled = graph.backwards, host.module.plan.opens
        self.first = "first" if ruled and not self.back else "0"  # the number of the first step
        self.made = {v: k for k, stage in enumerate(self.loop) for v in stage.writes}  # and by which stage
        last = {self.slot[v]: v for v in self.made if v in self.slot}
        self.carries = {c.current: last.get(self.slot[c.next], c.next) for c in graph.states}
        self.nexts = {} if self.back else {then: now for now, then in self.carries.items()}
        self.sums = [stage.out for stage in self.loop if isinstance(stage, Sum)]
        self.stores = self.stored_values()
        tiles = [*self.carries, *self.crossing()]
        sizes = dict.fromkeys(v.size for v in (*tiles, *self.made) if v.size != 1)
        reads = self.given()
        self.taken = host.words() | self.words
        host.enter(self.taken)
        self.arrays, self.buffers = self.gathered(reads)
        self.weights = {f: unique(host.array(InField(f)), self.taken) for f in self.fields()}
        self.arrays += [(f"Read {name}", host.array(InField(f))) for f, name in self.weights.items()]
        self.name = host.renamed((*reads, *self.carries, *self.made), self.taken)
        letters = {size: re.sub(r"\W+", "_", host.size(length(size))) for size in sizes}
        self.own = {size: unique(f"own_{text}", self.taken) for size, text in letters.items()}
        self.tile = self.tiles(tiles)
        self.held = Counter(host.size(length(v.size)) for v in tiles)
        self.widest = host.size(length(max(sizes, key=lambda size: offset_rank(length(size)))))
        self.products = [*self.factors()]
        self.computes = (*self.begin(), *self.steps(), *self.end())

    def operands(self) -> list[Value]:
        return [v for stage in self.loop if isinstance(stage, MatMul) for v in stage.operand]

    def fields(self) -> dict[str, None]:
        """The fields of `Params` whose weights are in products."""
        products = (stage for stage in self.loop if isinstance(stage, MatMul))
        return dict.fromkeys(weight.field for stage in products for weight in stage.weights)

    def stored_values(self) -> dict[Value, None]:
        """What is kept for every step: others read it, or it is the next state."""
        schedule = self.host.schedule
        outside = {v for stage in (*schedule.before, *schedule.after) for v in stage.reads}
        needed = outside | {*schedule.graph.results, *self.operands(), *self.nexts}
        needed |= set() if self.back else {*self.host.way.rule.tape}
        return dict.fromkeys(v for v in self.made if v in needed)

    def crossing(self) -> list[Value]:
        """What passes from one stage to another within a block: products read memory, and sums all units."""
        found = {*self.carries.values()}
        for k, stage in enumerate(self.loop):
            if not isinstance(stage, MatMul):
                found |= {v for v in stage.reads if self.made.get(v, k) != k}
            if not isinstance(stage, Kernel):
                found |= {*stage.writes}
            if isinstance(stage, Sum):
                found |= {*stage.operand}
        return [v for v in self.made if v in found]

    def tiles(self, values: Sequence[Value]) -> dict[Value, str]:
        """What each is called in shared memory."""
        return {v: unique(f"s_{v.name}", self.taken) for v in values}

    def given(self) -> list[Value]:
        """What the loop reads from memory entry by entry, and does not make."""
        reads = [v for stage in self.loop if not isinstance(stage, MatMul) for v in stage.reads]
        known = {*self.made, *self.carries}
        return [v for v in dict.fromkeys((*reads, *self.carries.values())) if v not in known]

    def gathered(self, reads: Sequence[Value]) -> tuple[list[tuple[str, str]], dict[Home, str]]:
        """The arrays as they are declared, with what the host passes; what the kernel calls them."""
        exchanged = (*self.stores, *self.carries, *self.carries.values(), *self.operands())
        written = {self.slot[v].home for v in exchanged}
        arrays: list[tuple[str, str]] = []
        names: dict[Home, str] = {}
        for v in (*reads, *exchanged):
            if self.host.scalar(v):
                word = self.host.names["given", v.name]
                arrays.append((f"const real {v.name}", f"arithmetic(dtype).type({word})"))
            elif (home := self.slot[v].home) not in names:
                array = self.host.array(home)
                names[home] = unique(array, self.taken)
                arrays.append((f"{self.way_of(home, home in written)} {names[home]}", array))
        return list(dict.fromkeys(arrays)), names

    def way_of(self, home: Home, written: bool) -> str:
        """The type of the pointer to an array; what is written others read."""
        if not written:
            return self.host.way_of(home, False)
        return "real*" if home in self.host.precise else "Exchanged"

    def entry(self, value: Value) -> str:
        return self.host.entry(value, self.buffers)

    def cell(self, value: Value) -> str:
        """Where a block keeps its entry of a value."""
        at = "r" if value.size == 1 else f"r * {self.own[value.size]} + q"
        return f"{self.tile[value]}[{at}]"

    def each(self, size: Extent, lines: Iterable[str]) -> Iterator[str]:
        """Lines for every entry of a size that the block has."""
        body = [*lines]  # of which those of matrices ask where they are
        text = "\n".join(body)
        row = ["b = row + r"] if mentions(text, "b") or mentions(text, "at") else []
        row += ["at = t * B + b"] if mentions(text, "at") else []
        if size == 1:
            head = "for (Index r = threadIdx.x; r < rows; r += blockDim.x) {"
            where = [f"const Index {', '.join(row)};"] if row else []
        else:
            own, width = self.own[size], self.host.size(length(size))
            head = f"for (Index j = threadIdx.x; j < rows * {own}; j += blockDim.x) {{"
            place = [f"r = j / {own}", f"q = j % {own}", f"k = blockIdx.y * {own} + q", *row]
            where = [f"const Index {', '.join(place)};", f"if (k >= {grouped(width)}) continue;"]
        where += ["const bool over = t >= ends[r];"] if mentions(text, "over") else []
        yield head
        yield from (f"    {line}" for line in (*where, *body))
        yield "}"

    def sizes(self, values: Iterable[Value]) -> list[Extent]:
        return list(dict.fromkeys(v.size for v in values))

    @property
    def index(self) -> tuple[str, ...]:
        """The rows of the group and the units of the block."""
        owned = (
            f"const Index {own} = ({self.host.size(length(size))} + gridDim.y - 1) / gridDim.y;"
            for size, own in self.own.items()
        )
        return (
            "extern __shared__ real shared[];",
            "const Index row = blockIdx.z * ROWS, rows = B - row < ROWS ? B - row : ROWS;",
            *owned,
            "arrived += blockIdx.z * 32;",
            "unsigned goal = 0;",
        )

    @property
    def loads(self) -> tuple[str, ...]:
        """The shared memory."""
        lines = ["real* room = shared;  // of products"]
        lines += ["real* next = room + ROWS * (CHUNK + blockDim.x);"]
        for v, tile in self.tile.items():
            size = "" if v.size == 1 else f" * {self.own[v.size]}"
            lines += [f"real* const {tile} = next;", f"next += ROWS{size};"]
        return (
            *lines,
            "__shared__ Index ends[ROWS];",
            "if (threadIdx.x < rows) ends[threadIdx.x] = "
            f"steps_of(finished, B, row + threadIdx.x, {self.first}, T);",
            "__syncthreads();",
            f"Index last = {self.first};",
            "for (Index r = 0; r < rows; r++) last = ends[r] > last ? ends[r] : last;",
            "storage* weights = (storage*)next;",
            *self.pointers(),
        )

    def begin(self) -> Iterator[str]:
        lines = [
            line
            for size in self.sizes(self.carries)
            for line in self.each(
                size, (f"{self.cell(v)} = {self.entry(v)};" for v in self.carries if v.size == size)
            )
        ]
        yield from in_braces("", [f"const Index t = {self.first};", *lines]) if not self.back else lines
        yield "__syncthreads();"
        if self.back:
            yield from self.behind()

    def behind(self) -> Iterator[str]:
        """What the steps behind all sequences of the group leave."""
        lines: list[str] = []
        given = [v for v in self.nexts if v not in self.stores]
        for size in self.sizes([*self.stores, *given]):
            own = [v for v in (*self.stores, *given) if v.size == size]
            lines += self.each(size, map(self.left, own))
        if lines:
            yield from in_braces("for (Index t = last; t < T; t++)", lines)

    def left(self, value: Value) -> str:
        """The store of a value behind the end of a sequence."""
        kept = self.cell(self.nexts[value]) if value in self.nexts else "0"
        return self.alone(value, f"{self.entry(value)} = {kept};")

    def alone(self, value: Value, text: str) -> str:
        """A store, which one block does where all have the same."""
        return f"if (blockIdx.y == 0) {text}" if value.size == 1 else text

    def end(self) -> Iterator[str]:
        if not self.back:
            yield from self.behind()
            return
        for size in self.sizes(self.carries):
            own = [v for v in self.carries if v.size == size]
            yield from self.each(size, (self.alone(v, f"{self.entry(v)} = {self.cell(v)};") for v in own))

    def steps(self) -> Iterator[str]:
        head = (
            "for (Index t = last - 1; t >= 0; t--)"
            if self.back
            else f"for (Index t = {self.first}; t < last; t++)"
        )
        yield from in_braces(head, self.step())

    def step(self) -> Iterator[str]:
        fresh = set() if self.back else {*self.carries}
        k = 0
        while k < len(self.loop):
            stage = self.loop[k]
            k += 1
            if isinstance(stage, Kernel):
                yield from self.kernel(stage)
                fresh |= {*stage.writes}
            elif isinstance(stage, MatMul):
                if not fresh.isdisjoint(stage.operand):
                    yield "meet(arrived, goal);"
                    fresh = set()
                yield from self.product(stage)
                fresh |= {*stage.writes}
            else:
                assert isinstance(stage, Sum)
                batch = [stage]
                while k < len(self.loop) and isinstance(following := self.loop[k], Sum):
                    batch.append(following)
                    k += 1
                yield from self.summed(batch)
                fresh = set()
        for size in self.sizes(self.carries):
            own = [now for now in self.carries if now.size == size]
            yield from self.each(size, (line for now in own for line in self.followed(now)))
        yield "__syncthreads();"

    def followed(self, now: Value) -> Iterator[str]:
        """The next state takes the place of the state, or if a sequence is over that of a given one."""
        then = self.carries[now]
        if then in self.tile:
            yield f"if (!over) {self.cell(now)} = {self.cell(then)};"
        else:
            yield f"if (!over) {self.cell(now)} = {self.entry(then)};"
            yield f"else {self.alone(then, f'{self.entry(then)} = {self.cell(now)};')}"

    def stored(self, value: Value, text: str) -> str:
        """The line that writes a value of the step, of a sequence that is over its state or 0."""
        kept = self.cell(self.nexts[value]) if value in self.nexts else "0"
        return self.alone(value, f"{self.entry(value)} = over ? {kept} : {text};")

    def kernel(self, stage: Kernel) -> Iterator[str]:
        yield from self.each(stage.size, self.computed(stage))
        yield "__syncthreads();"

    def computed(self, stage: Kernel) -> Iterator[str]:
        """The lines for an entry of what a stage computes."""
        own = {op.out for op in stage.ops}
        reads = dict.fromkeys(
            v for op in stage.ops for v in op.reads if v not in own and not self.host.scalar(v)
        )
        loads = [
            f"const real {self.name[v.name]} = {self.cell(v) if v in self.tile else self.entry(v)};"
            for v in reads
        ]
        uses: dict[Value, list[Use]] = {}
        for v in stage.writes:
            if v in self.tile:
                uses.setdefault(v, []).append(f"{self.cell(v)} = {{}};".format)
            if v in self.stores:
                uses.setdefault(v, []).append(partial(self.stored, v))
        computed, used = self.host.computed(stage.ops, uses, self.name)
        yield from (*loads, *computed, *used)

    def factors(self) -> Iterator[tuple[MatMul, Factor]]:
        """Of every product the stretches of its weight, for neighbouring results or neighbouring operands."""
        host, number = self.host, 0
        for stage in self.loop:
            if not isinstance(stage, MatMul):
                continue
            done: sp.Expr = sp.S.Zero
            for weight in stage.weights:
                width = host.module.fields[weight.field].width
                units, rows, number = length(stage.out[0].size), weight.stop - weight.start, number + 1
                gates = 1 if stage.transposed else int(sp.cancel(rows / units))
                first = 0 if stage.transposed else int(sp.cancel(done / units))
                yield (
                    stage,
                    Factor(
                        f"weight_{number}",
                        f"by_{number}",
                        self.weights[weight.field],
                        weight.start * width + (weight.columns[0] if weight.columns else 0),
                        width,
                        gates,
                        stage.out[0].size,
                        stage.out[first],
                        done if stage.transposed else sp.S.Zero,
                        rows if stage.transposed else sp.Add(*(length(v.size) for v in stage.operand)),
                        stage.transposed,
                        stage.add or (stage.transposed and done != 0),
                    ),
                )
                done += rows

    def pointers(self) -> Iterator[str]:
        """Where the weights of the block's units are: in shared memory, if that holds them."""
        for _, f in self.products:
            own, pitch, units = self.own[f.size], self.text(f.width), self.text(length(f.size))
            across, along = ("1", pitch) if f.transposed else (pitch, "1")
            place = " + ".join(part for part in (f.array, self.text(f.begin)) if part != "0")
            block = f"blockIdx.y * {own}" + (f" * {grouped(across)}" if across != "1" else "")
            yield f"const storage* {f.name} = {place} + {block};"
            numbers = (f"{f.gates}", f"units_of({units}, {own})", own)
            entries = (*numbers, f"{grouped(units)} * {grouped(pitch)}", across, along)
            yield f"Columns {f.by}{{{', '.join(entries)}}};"
        for _, f in self.products:
            yield f"if (kept) keep({f.name}, {f.by}, {self.text(f.inner)}, weights);"
        yield "__syncthreads();"

    def text(self, expr: sp.Expr) -> str:
        """Arithmetic of sizes in CUDA, where there are no powers."""
        return re.sub(r"(\w+)\*\*2", r"\1 * \1", self.host.size(sp.expand(expr)))

    def product(self, stage: MatMul) -> Iterator[str]:
        host, operand = self.host, joined([self.slot[v] for v in stage.operand])
        for of, f in self.products:
            if of is not stage:
                continue
            source = View(operand.home, operand.start + f.offset, operand.stop, operand.shift, operand.single)
            buffer = host.buffer(source)
            assert buffer is not None
            row, pitch = f"(t * B + row{' + B' * bool(operand.shift)})", self.text(buffer.width)
            assert isinstance(operand.home, InBuffer)
            start = f"{self.buffers[operand.home]} + {row} * {grouped(pitch)}"
            start += f" + {host.offset(source)}".removesuffix(" + ") if host.offset(source) else ""
            arguments = [
                self.tile[f.out],
                "true" if f.add else "false",
                start.removesuffix(" + "),
                pitch,
                "rows",
            ]
            arguments += [self.text(f.inner), f.name, f.by, "room"]
            call = f"product({', '.join(arguments)});"
            wide = WIDTH - 12
            yield from textwrap.wrap(call, wide, subsequent_indent="    ", break_long_words=False)
        stored = [v for v in stage.out if v in self.stores]
        if stored:
            yield from self.each(stored[0].size, [self.stored(v, self.cell(v)) for v in stored])

    def summed(self, stages: Sequence[Sum]) -> Iterator[str]:
        """Sums over the features: those of each block, which all add up in one order."""

        def part(stage: Sum, block: str) -> str:
            place = f"{self.sums.index(stage.out)} * 2 + (t & 1)"
            return f"parts[(({place}) * B + b) * gridDim.y + {block}]"

        lines: list[str] = []
        for stage in stages:
            lines += ["{", "    real total = 0;"]
            for v in stage.operand:
                own, width = self.own[v.size], self.host.size(length(v.size))
                item = f"{self.tile[v]}[r * {own} + q]"
                lines += [f"    for (Index q = 0; q < units_of({width}, {own}); q++) total += {item};"]
            lines += [f"    {part(stage, 'blockIdx.y')} = total;", "}"]
        yield from self.each(1, lines)
        yield "meet(arrived, goal);"
        lines = []
        for stage in stages:
            start = self.cell(stage.out) if stage.add else "0"
            lines += ["{", f"    real total = {start};"]
            lines += [f"    for (Index q = 0; q < gridDim.y; q++) total += __ldcg(&{part(stage, 'q')});"]
            lines += [f"    {self.cell(stage.out)} = total;"]
            lines += [f"    {self.stored(stage.out, 'total')}"] if stage.out in self.stores else []
            lines += ["}"]
        yield from self.each(1, lines)
        yield "__syncthreads();"
