"""A kernel whose threads take an entry of a row each through all steps, or through a stretch of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gategen.backends.cupy.kernels import Kernels
from gategen.backends.cupy.text import (
    Use,
    in_braces,
    mentions,
    row_index,
)
from gategen.backends.pointwise import (
    Space,
    times,
    unique,
)
from gategen.graph import Value, length
from gategen.plan import (
    Slot,
    TimeLoop,
)


class LoopText:
    """The text of a kernel whose threads take an entry of a row each through all steps.

    Its states stay in registers, and so do sums over the steps. What waits for no state is fetched some steps
    ahead. `at` is the row of the step at hand; behind the end of a sequence stand its last states and zeros.
    Of a loop that is linearized a thread may have a stretch alone, which then starts with what stands in
    `starts`.
    """

    def __init__(self, host: Kernels, loop: TimeLoop, first: str) -> None:
        self.host, self.loop = host, loop
        self.cut = loop.linearized  # into stretches
        self.first, self.last = ("begin", "stop") if self.cut else (first, "T")  # of the thread's steps
        self.start = first  # of all steps
        self.slot, self.back = host.schedule.slot, host.schedule.graph.backwards
        self.carries, taken = dict(loop.carries), host.words()
        host.enter(taken, *([Space("k", loop.size)] if isinstance(loop.size, tuple) else []))
        made = {op.out for op in loop.ops}
        self.given = [v for v in self.carries.values() if v not in made]  # next states that wait for no state
        self.arguments, self.buffers = host.gather(self.reads, self.written, taken)
        self.name = host.renamed((*loop.reads, *(op.out for op in loop.ops)), taken)
        self.totals = {v: unique(total.name, taken) for v, total in loop.sums}
        arrays = [v for v in self.reads if not host.scalar(v)]
        self.statics = [v for v in arrays if v.static]
        moving = [v for v in arrays if loop.ops and not v.static and v not in self.carries]
        self.again = met_again(moving, self.slot, self.back)
        self.ahead = {v: unique(f"{v.name}_ahead", taken) for v in moving if v not in self.again}
        self.width = host.size(length(loop.size))
        self.computes = tuple(self.backwards() if self.back else self.forwards())

    @property
    def reads(self) -> Sequence[Value]:
        return self.loop.reads

    @property
    def written(self) -> tuple[Value, ...]:
        return (*self.loop.writes, *(self.carries if self.back else self.given))

    def entry(self, value: Value) -> str:
        return self.host.entry(value, self.buffers)

    def register(self, value: Value) -> str:
        """The line that makes a register of an entry."""
        return f"real {self.name[value.name]} = {self.entry(value)};"

    @property
    def index(self) -> tuple[str, ...]:
        lines = [*self.loads, *self.computes]
        places = self.host.along_axes()  # that these lines name
        text = "\n".join([*lines, *places])
        entries = times("B", self.width)
        where = row_index("B", self.width, "b k" if mentions(text, "k") else "b")
        if self.cut:
            where = tuple(line.replace("b = i /", "b = i % {} /") for line in where)
            where = tuple(line.replace("b = i;", "b = i % B;").format(f"({entries})") for line in where)
        return (
            "const Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;",
            f"if (i >= {'stretches * ' * bool(self.cut)}{entries}) return;",
            *where,
            *([f"const Index {', '.join(places)};"] if places else []),
            *self.stretch(f"({entries})" if " " in entries else entries),
            f"const Index end = steps_of(finished, B, b, {self.first}, {self.last});",
        )

    def stretch(self, entries: str) -> Iterator[str]:
        """Which steps the thread takes, where that is not all of them."""
        if self.cut:
            n = len(self.cut.states)
            each = f"{n * (n + 2)} * {entries.strip('()')}"  # numbers of a stretch
            yield f"const Index s = i / {entries}, pitch = {each}, own = s * pitch + i % {entries};"
            yield f"const auto [begin, stop] = {self.steps};"

    @property
    def steps(self) -> str:
        side = "true" if self.back else "false"
        return f"steps_of_stretch<{side}>(s, stretches, count, {self.start}, T, starts, own, pitch)"

    @property
    def loads(self) -> tuple[str, ...]:
        """What is there before the first step."""
        return (
            *self.host.loads(self.statics, self.buffers, self.name),
            *([] if self.back else [f"Index at = {self.row};"]),
            *self.starts(),
            *(f"real {total} = 0;" for total in self.totals.values()),
        )

    @property
    def row(self) -> str:
        """The row of the states that are read first, on the way forward."""
        return row_of(self.first if self.loop.ops else "end")

    def starts(self) -> Iterator[str]:
        """The lines that make registers of what the steps begin with."""
        for k, value in enumerate(self.carries):
            if self.cut:
                known = f"starts ? starts[own{self.further(k)}] : real({self.entry(value)})"
                yield f"real {self.name[value.name]} = {known};"
            else:
                yield self.register(value)

    def further(self, k: int) -> str:
        """Where the k-th of the numbers of an entry and a stretch stands behind the first."""
        width = times("B", self.width)
        return f" + {k} * {width}".replace("+ 1 * ", "+ ") if k else ""

    def forwards(self) -> Iterator[str]:
        if self.loop.ops:  # else no state waits for another, and lengths alone are to do
            yield from self.fetched(self.count)
            yield from in_braces(f"for (Index t = {self.first}; t < end; t++, at += B)", self.step())
        become = {then: self.name[now.name] for now, then in self.carries.items()}
        behind = [f"{self.entry(v)} = {become.get(v, 0)};" for v in (*self.loop.stores, *self.given)]
        yield from in_braces(f"for (Index t = end; t < {self.last}; t++, at += B)", behind)
        yield from self.summed()

    @property
    def count(self) -> str:
        """How many steps are done."""
        return "end" if self.first == "0" else f"end - {self.first}"

    def backwards(self) -> Iterator[str]:
        yield f"Index at = ({self.last} - 1) * B + b;"
        behind = [f"{self.entry(v)} = 0;" for v in self.loop.stores]
        yield from in_braces(f"for (Index t = {self.last}; t > end; t--, at -= B)", behind)
        yield from self.fetched(self.count)
        yield from in_braces(f"for (Index t = end; t > {self.first}; t--, at -= B)", self.step())
        yield from self.ends()
        yield from self.summed()

    def ends(self) -> Iterator[str]:
        """What becomes of the carries of a step back."""
        last = "if (begin == 0) " * bool(self.cut)
        yield from (f"{last}{self.entry(v)} = {self.name[v.name]};" for v in self.carries)

    def fetched(self, steps: str) -> Iterator[str]:
        """What fetches so many steps ahead."""
        if self.ahead:
            yield f"constexpr Index ahead = steps_ahead({len(self.ahead)});"
        for v, name in self.ahead.items():
            kind = "real" if self.slot[v].home in self.host.precise else "storage"
            pitch = f"{'-' * self.back}{times('B', self.host.pitch(self.slot[v]))}"
            yield f"Ahead<ahead, {kind}> {name}(&{self.entry(v)}, {pitch}, {steps});"
        yield from map(self.register, self.again)
        if self.ahead:
            yield "#pragma unroll ahead"

    def step(self) -> Iterator[str]:
        yield from (f"const real {self.name[v.name]} = {name}.take();" for v, name in self.ahead.items())
        if self.ahead:
            yield ""
        uses: dict[Value, list[Use]] = {v: [f"{self.entry(v)} = {{}};".format] for v in self.loop.stores}
        for v, total in self.totals.items():
            uses.setdefault(v, []).append(f"{total} += {{}};".format)
        computed, used = self.host.computed(self.loop.ops, uses, self.name, {*self.carries.values()})
        yield from (*computed, *used)
        for held, value in (*self.carries.items(), *self.again.items()):
            yield f"{self.name[held.name]} = {self.name[value.name]};"

    def summed(self) -> Iterator[str]:
        yield from (f"{self.entry(total)} = {self.totals[v]};" for v, total in self.loop.sums)


class LinearizedText(LoopText):
    """The text of a kernel that takes a stretch to first order, for what it ends with.

    In `starts` stand what each stretch begins with, what it makes of that, and the derivatives of this.
    Before anything is known, all begin with what the first of them begins with.
    """

    def __init__(self, host: Kernels, loop: TimeLoop, first: str) -> None:
        assert loop.linearized is not None
        self.states, self.slopes = loop.linearized.states, loop.linearized.slopes
        carries = (*self.states, *(carry for _, carry in self.slopes))
        super().__init__(
            host, replace(loop, ops=loop.linearized.ops, carries=carries, stores=(), sums=()), first
        )

    @property
    def reads(self) -> Sequence[Value]:
        return [v for v in self.loop.reads if v in self.host.schedule.slot or self.host.scalar(v)]

    @property
    def written(self) -> tuple[Value, ...]:
        return ()

    @property
    def steps(self) -> str:
        return f"steps_of_stretch(s, count, {self.start}, T)"

    @property
    def row(self) -> str:
        return row_of(self.start)

    def starts(self) -> Iterator[str]:
        for k, (value, _) in enumerate(self.states):
            name, place = self.name[value.name], f"starts[own{self.further(k)}]"
            yield f"real {name} = known ? {place} : real({self.entry(value)});"
            yield f"if (!known) {place} = {name};"
        yield from (
            f"real {self.name[now.name]} = {int(after == early)};" for (after, early), (now, _) in self.slopes
        )

    def forwards(self) -> Iterator[str]:
        yield f"at = {row_of(self.first)};"
        yield from self.fetched(self.count)
        yield from in_braces(f"for (Index t = {self.first}; t < end; t++, at += B)", self.step())
        yield from self.ends()

    def backwards(self) -> Iterator[str]:
        yield "Index at = (end - 1) * B + b;"
        yield from self.fetched(self.count)
        yield from in_braces(f"for (Index t = end; t > {self.first}; t--, at -= B)", self.step())
        yield from self.ends()

    def ends(self) -> Iterator[str]:
        n = len(self.states)
        slopes = {place: self.name[now.name] for place, (now, _) in self.slopes}
        for k, (value, _) in enumerate(self.states):
            yield f"starts[own{self.further(n + k)}] = {self.name[value.name]};"
        for after in range(n):
            for early in range(n):
                slope = slopes.get((after, early), "0")
                yield f"starts[own{self.further((2 + after) * n + early)}] = {slope};"


def row_of(step: str) -> str:
    """The row of a step in an array of all steps."""
    return f"{step} * B + b".removeprefix("0 * B + ")


def met_again(moving: Sequence[Value], slot: Mapping[Value, Slot], back: bool) -> dict[Value, Value]:
    """States as one step reads them that the step before it, in the order of the loop, has read as others.

    On the way back what a state was before a step is what it is after the next one to be done.
    """
    return {
        later if back else now: now if back else later
        for now in moving
        for later in moving
        if slot[later].shift and slot[now] == replace(slot[later], shift=0)
    }
