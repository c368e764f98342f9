"""A kernel whose blocks take a row of the batch each through all steps, with the matrices of that row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import sympy as sp

from gategen.backends.cupy.kernels import Kernels
from gategen.backends.cupy.persistent import Persistent
from gategen.backends.cupy.sums import (
    BLOCKS,
    COLUMNS,
    ROWS,
    SUM_WORDS,
    Adding,
    apart,
    sums_matrices,
    terms,
)
from gategen.backends.cupy.text import in_braces, lines_of, mentions
from gategen.backends.pointwise import Space, times, unique
from gategen.graph import Value, axes, length
from gategen.plan import Contraction, Home, Kernel, Slot, Sum, parted_by
from gategen.spec.language import Axes, Extent

ROW_WORDS = frozenset("shared thread next last from lanes lanes_of own begin".split()) | SUM_WORDS


@dataclass(frozen=True)
class Sharing:
    """How the threads of one block share sums, each of which adds up as where it is launched by itself."""

    head: str  # of the loop over the sums, from one to another, with so many entries each
    place: str  # which sum a thread works for
    first: str  # of the entries that it adds up
    step: str
    joined: str  # what adds up what the threads of a sum have
    writes: str  # who writes it


SHARING = {
    ROWS: Sharing(
        "for (Index from = {first}, lanes = lanes_of({width}); from < {end}; from += 256 / lanes)",
        "from + thread / lanes",
        "thread % lanes",
        "lanes",
        "{0} = over_lanes({0}, lanes);",
        "inside && thread % lanes == 0",
    ),
    COLUMNS: Sharing(
        "for (Index from = {first}; from < {end}; from += 32)",
        "from + threadIdx.x",
        "threadIdx.y",
        "8",
        "{0} = over_threads({0});",
        "inside && threadIdx.y == 0",
    ),
    BLOCKS: Sharing(
        "for (Index k = {first}; k < {end}; k++)",
        "",
        "thread",
        "256",
        "{0} = over_threads(over_lanes({0}, 32));",
        "thread == 0",
    ),
}


class Rows(Persistent):
    """The text of a kernel that takes all steps of a loop without products, with a block for each row.

    Several blocks share a row where no sum goes over the first axis of matrices, each with a part of that.
    What passes from one stage to the next is in shared memory, in the type that is computed with, states
    among it; values of one place in memory have one place there, and a state the place of the one before it.
    """

    words = ROW_WORDS

    def __init__(self, host: Kernels) -> None:
        self.axis = parted_by(host.schedule)
        super().__init__(host)

    @property
    def room(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """How long the axis is that is shared, how much a block keeps for each of it, and how much else."""
        kept = {name: v for v, name in self.tile.items()}.values()
        shared, others = ([v for v in kept if self.shared(v) == whether] for whether in (True, False))
        each, further = (
            sp.Add(*(length(v.axes[1:]) for v in shared)),
            sp.Add(*(length(v.size) for v in others)),
        )
        return (length(self.axis), each, further) if self.axis else (sp.S.One, further, sp.S.Zero)

    def shared(self, value: Value) -> bool:
        """Whether a block has but its part of a value."""
        return self.axis != "" and self.axis in value.axes

    def bounds(self, along: Axes) -> tuple[str, str]:
        """The first of the entries that a block has along some axes, and what is behind the last."""
        if self.axis and self.axis in along:
            rest = self.host.size(length(along[1:]))
            return times("begin", rest), times("end", rest)
        return "0", self.host.size(length(along))

    def crossing(self) -> list[Value]:
        read = {v for k, stage in enumerate(self.loop) for v in stage.reads if self.made.get(v, k) != k}
        return [v for v in self.made if v in read | {*self.carries.values()}]

    def tiles(self, values: Sequence[Value]) -> dict[Value, str]:
        replaced = {
            self.slot[self.carries[now]]: self.slot[now] for now in self.carries if self.in_place(now)
        }
        place = {v: replaced.get(self.slot[v], self.slot[v]) for v in values}
        names: dict[Slot, str] = {}
        for v, slot in place.items():
            if slot not in names:
                names[slot] = unique(f"s_{self.carries.get(v, v).name if self.back else v.name}", self.taken)
        return {v: names[slot] for v, slot in place.items()}

    def in_place(self, now: Value) -> bool:
        """Whether a state can take the place of the one before it, since nothing reads that any more."""
        slot = self.slot[self.carries[now]]
        makers = [k for v, k in self.made.items() if self.slot.get(v) == slot]
        readers = [k for k, stage in enumerate(self.loop) if now in stage.reads]
        if not makers or now in self.carries.values():
            return False
        first = min(makers)
        kernels = [self.loop[k] for k in makers]
        entries = all(isinstance(stage, Kernel) and stage.size == now.size for stage in kernels)
        return entries and all(k <= first for k in readers)

    def enter(self, *spaces: Space) -> None:
        """Begin lines in which features are counted in these spaces."""
        self.host.enter({*self.taken}, *spaces)

    def cell(self, value: Value) -> str:
        return f"{self.tile[value]}[{self.host.feature(value)}]"

    def read(self, value: Value) -> str:
        """The line that reads an entry."""
        source = self.cell(value) if value in self.tile else self.entry(value)
        return f"const real {self.name[value.name]} = {source};"

    def each(self, size: Extent, lines: Iterable[str]) -> Iterator[str]:
        self.enter(*([Space("k", size)] if isinstance(size, tuple) else []))
        body = [*lines]
        places = self.host.along_axes()
        places += ["at = t * B + b"] if mentions("\n".join(body), "at") else []
        where = [f"const Index {', '.join(places)};"] if places else []
        first, end = self.bounds(axes(size))
        first = f"{first} + thread".removeprefix("0 + ")
        head = "if (thread == 0)" if size == 1 else f"for (Index k = {first}; k < {end}; k += 256)"
        if body:
            yield from in_braces(head, (*where, *body))

    @property
    def index(self) -> tuple[str, ...]:
        return (
            "extern __shared__ real shared[];",
            "const Index b = blockIdx.x, thread = 32 * threadIdx.y + threadIdx.x;",
            f"const Index last = steps_of(finished, B, b, {self.first}, T);",
            *(self.part if self.axis else ()),
        )

    @property
    def part(self) -> tuple[str, ...]:
        """Which part of the axis a block has."""
        count = self.host.size(length(self.axis))
        return (
            f"const Index own = ({count} + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * own;",
            f"const Index end = begin + own < {count} ? begin + own : {count};",
        )

    @property
    def loads(self) -> tuple[str, ...]:
        lines = ["real* next = shared;"]
        for name, v in {name: v for v, name in self.tile.items()}.items():
            if self.shared(v):  # its entries have the numbers that they have in the row
                rest = self.host.size(length(v.axes[1:]))
                lines += [f"real* const {name} = next - {times('begin', rest)};"]
                lines += [f"next += {times('own', rest)};"]
            else:
                lines += [f"real* const {name} = next;", f"next += {self.host.size(length(v.size))};"]
        return tuple(lines[:-1])

    def way_of(self, home: Home, written: bool) -> str:
        return self.host.way_of(home, written)

    def alone(self, value: Value, text: str) -> str:
        return f"if (blockIdx.y == 0) {text}" if self.axis and not self.shared(value) else text

    def stored(self, value: Value, text: str) -> str:
        return self.alone(value, f"{self.entry(value)} = {text};")

    def followed(self, now: Value) -> Iterator[str]:
        then = self.carries[now]
        if then not in self.tile:
            yield f"{self.cell(now)} = {self.entry(then)};"
        elif self.tile[then] != self.tile[now]:
            yield f"{self.cell(now)} = {self.cell(then)};"

    def step(self) -> Iterator[str]:
        for sums, some in groupby(self.loop, lambda stage: not isinstance(stage, Kernel)):
            if not sums:
                for stage in some:
                    assert isinstance(stage, Kernel)
                    yield from self.kernel(stage)
                continue
            for run in apart([stage for stage in some if isinstance(stage, Contraction | Sum)], self.slot):
                yield from self.run(run)
        for size in self.sizes(self.carries):
            own = [now for now in self.carries if now.size == size]
            if lines := [*self.each(size, (line for now in own for line in self.followed(now)))]:
                yield from (*lines, "__syncthreads();")

    def run(self, stages: Sequence[Contraction | Sum]) -> Iterator[str]:
        """Sums that can be done at once: those over the same axes share a loop."""
        groups: dict[tuple[Axes, Axes, Adding], list[Contraction | Sum]] = {}
        for stage in stages:
            if sums_matrices(stage):
                groups.setdefault(self.host.going_over(stage), []).append(stage)
            else:
                groups.setdefault(((), axes(stage.reads[0].size), BLOCKS), []).append(stage)
        for (kept, summed, adding), alike in groups.items():
            yield from self.added(alike, kept, summed, adding)
        yield "__syncthreads();"

    def added(
        self, stages: Sequence[Contraction | Sum], kept: Axes, summed: Axes, adding: Adding
    ) -> Iterator[str]:
        """Sums over the same axes."""
        self.enter(Space("k", kept), Space("j", summed))
        how, size = SHARING[adding], self.host.size
        (first, end), width = self.bounds(kept), size(length(summed))
        inside = "inside && " if how.place else ""
        totals = [self.name[stage.out.name] for stage in stages]
        reads = dict.fromkeys(v for stage in stages for v in stage.reads)
        body = [self.read(v) for v in reads]
        stores: list[str] = []
        for stage, total in zip(stages, totals, strict=True):
            body += [f"{total} += {' * '.join(self.name[v.name] for v in term)};" for term in terms(stage)]
            if isinstance(stage, Sum) and stage.add:
                stores.append(f"{total} += {self.cell(stage.out)};")
            stores += [f"{self.cell(stage.out)} = {total};"] if stage.out in self.tile else []
            stores += [self.stored(stage.out, total)] if stage.out in self.stores else []
        lines = [
            *(f"real {total} = 0;" for total in totals),
            *in_braces(
                f"for (Index j = {how.first}; {inside}j < {width}; j += {how.step})",
                (line for text in body for line in lines_of(text)),
            ),
        ]
        for total in totals:
            lines += [how.joined.format(total)]
            lines += ["__syncthreads();"] if adding is not ROWS else []
        lines += in_braces(f"if ({how.writes})", stores)
        index = ["at = t * B + b"] if mentions("\n".join(lines), "at") else []
        index = [f"k = {how.place}", *index] if how.place else index
        head = [f"const Index {', '.join(index)};"] if index else []
        head += [f"const bool inside = k < {end};"] if how.place else []
        loop = how.head.format(first=first, end=end, width=width) if kept else ""
        yield from in_braces(loop, (*head, *lines))
