"""CUDA text: its words, expressions and lines, and what a kernel is made of."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gategen.backends.folding import WIDTH
from gategen.backends.pointwise import (
    EntryPrinter,
    grouped,
    times,
    unique,
)
from gategen.graph import Pointwise, Value
from gategen.plan import (
    Slot,
)
from gategen.spec.elementwise import Call, Row, called, helpers
from gategen.spec.functions import TABLE

# Names that the CUDA text uses for itself.
CUDA_WORDS = frozenset(
    """
    real storage Index Read Write ReadReal WriteReal rows B T t i b k at clip fmax fmin floor pow abs min max
    total part REAL over finished first end count parts every_8th over_threads Ahead ahead steps_ahead
    steps_of begin stop s own pitch starts stretches known moved steps_of_stretch finite hand_on Steps
    auto STORAGE HALF NULL INFINITY NAN M_PI unix linux float double half
    """.split()
) | {row.cuda.name for row in TABLE if row.cuda}


class CudaPrinter(EntryPrinter):
    """Expressions as CUDA."""

    def real(self, text: str) -> str:
        return f"real({text})"

    def call_of(self, row: Row) -> Call | None:
        return row.cuda


Use = Callable[[str], str]  # the line that does something with the text of a value


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


def in_cuda(line: str) -> str:
    """A line whose sizes are divided as in Python."""
    return re.sub(r"(?<=\w) // (?=\w)", " / ", line)


def mentions(text: str, word: str) -> bool:
    """Whether lines have a word, outside of the comments beside them."""
    return re.search(rf"\b{re.escape(word)}\b", re.sub(r"  // .*", "", text)) is not None


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


def as_it_lies(copy: Pointwise) -> bool:
    """Whether a copy of a value with several axes is one of arrays of one shape, or of a number."""
    return all((v.axes, len(v.shape)) == (copy.out.axes, len(copy.out.shape)) for v in copy.reads)


def itself(line: str) -> bool:
    """Whether a line copies an array to itself."""
    target, _, source = line.partition(" = ")
    return target in (source, f"{source}[...]")


def lines_of(statement: str, name: str = "") -> list[str]:
    """A statement, which goes on in the next lines where it is long, with the name of what it computes."""
    lines = textwrap.wrap(in_cuda(statement), WIDTH - 8, subsequent_indent="    ", break_long_words=False)
    told = not name or re.match(rf"(if \(!over\) )?{name}\[", statement)
    return lines if told else [*lines[:-1], f"{lines[-1]}  // {name}"]


def in_loop(head: str, body: Sequence[str]) -> list[str]:
    """Statements in a loop."""
    return [f"for ({head}) {{", *(f"    {line}" for text in body for line in lines_of(text)), "}"]


def pointwise_index(rows: str, width: str, text: str) -> tuple[str, ...]:
    """Which unit of which sequence a thread works for; without `rows` there are no sequences.

    `at` is its row in an array of all steps, `b` in one of a single step; if `rows` are those of all steps,
    both are one.
    """
    lines = [
        "const Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;",
        f"if (i >= {times(rows, width)}) return;",
    ]
    return (*lines, *row_index(rows, width, text))


def row_index(rows: str, width: str, text: str) -> tuple[str, ...]:
    """What of the number of an entry, of its row and of its place in that a text mentions."""
    if not rows:
        return ("const Index k = i;",) if mentions(text, "k") else ()
    factor = grouped(width)
    row = "i" if width == "1" else f"i / {factor}"
    made = [f"k = i % {factor}"] if mentions(text, "k") and width != "1" else []
    if rows == "rows":
        made += [f"{at} = {row}" for at in ("at", "b") if mentions(text, at)]
    else:
        made += [f"b = {row}"] if mentions(text, "b") or mentions(text, "at") else []
        made += ["at = t * B + b"] if mentions(text, "at") else []
    return (f"const Index {', '.join(made)};",) if made else ()


def used_functions(kernels: Sequence[CudaKernel]) -> tuple[str, ...]:
    """The device functions that the kernels call."""
    lines = (line for kernel in kernels for line in kernel.computes)
    return helpers((name for line in lines for name in called(line)), (row.cuda for row in TABLE))


def in_braces(head: str, lines: Iterable[str]) -> Iterator[str]:
    """A loop over some lines."""
    yield f"{head} {{".lstrip()
    yield from (f"    {line}" for line in lines)
    yield "}"
