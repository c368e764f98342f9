"""A kernel whose threads take an entry of a row each through all steps."""

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
    """

    def __init__(self, host: Kernels, loop: TimeLoop, first: str) -> None:
        self.host, self.loop, self.first = host, loop, first  # the number of the first step
        self.slot, self.back = host.schedule.slot, host.schedule.graph.backwards
        self.carries, taken = dict(loop.carries), host.words()
        host.enter(taken, *([Space("k", loop.size)] if isinstance(loop.size, tuple) else []))
        made = {op.out for op in loop.ops}
        self.given = [v for v in self.carries.values() if v not in made]  # next states that wait for no state
        written = (*loop.writes, *(self.carries if self.back else self.given))
        self.arguments, self.buffers = host.gather(loop.reads, written, taken)
        self.name = host.renamed((*loop.reads, *(op.out for op in loop.ops)), taken)
        self.totals = {v: unique(total.name, taken) for v, total in loop.sums}
        arrays = [v for v in loop.reads if not host.scalar(v)]
        self.statics = [v for v in arrays if v.static]
        moving = [v for v in arrays if loop.ops and not v.static and v not in self.carries]
        self.again = met_again(moving, self.slot, self.back)
        self.ahead = {v: unique(f"{v.name}_ahead", taken) for v in moving if v not in self.again}
        self.width = host.size(length(loop.size))
        self.computes = tuple(self.backwards() if self.back else self.forwards())

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
        return (
            "const Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;",
            f"if (i >= {times('B', self.width)}) return;",
            *row_index("B", self.width, "b k" if mentions(text, "k") else "b"),
            *([f"const Index {', '.join(places)};"] if places else []),
            f"const Index end = steps_of(finished, B, b, {self.first}, T);",
        )

    @property
    def loads(self) -> tuple[str, ...]:
        """What is there before the first step."""
        begin = self.first if self.loop.ops else "end"
        row = f"{begin} * B + b".removeprefix("0 * B + ")
        return (
            *self.host.loads(self.statics, self.buffers, self.name),
            *([] if self.back else [f"Index at = {row};"]),
            *map(self.register, self.carries),
            *(f"real {total} = 0;" for total in self.totals.values()),
        )

    def forwards(self) -> Iterator[str]:
        if self.loop.ops:  # else no state waits for another, and lengths alone are to do
            yield from self.fetched("end" if self.first == "0" else f"end - {self.first}")
            yield from in_braces(f"for (Index t = {self.first}; t < end; t++, at += B)", self.step())
        become = {then: self.name[now.name] for now, then in self.carries.items()}
        behind = [f"{self.entry(v)} = {become.get(v, 0)};" for v in (*self.loop.stores, *self.given)]
        yield from in_braces("for (Index t = end; t < T; t++, at += B)", behind)
        yield from self.summed()

    def backwards(self) -> Iterator[str]:
        yield "Index at = (T - 1) * B + b;"
        behind = [f"{self.entry(v)} = 0;" for v in self.loop.stores]
        yield from in_braces("for (Index t = T; t > end; t--, at -= B)", behind)
        yield from self.fetched("end")
        yield from in_braces("for (Index t = end; t > 0; t--, at -= B)", self.step())
        yield from (f"{self.entry(v)} = {self.name[v.name]};" for v in self.carries)
        yield from self.summed()

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
