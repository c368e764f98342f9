"""Matrices of every row in C: loops over their axes, and the helpers that do the innermost of them.

Values may have any number of axes; their entries lie row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gategen.backends.pointwise import grouped
from gategen.graph import Value, axes, common_size
from gategen.plan import Contraction, Schedule, Sum
from gategen.spec.language import Axes, Size

OUTER = ("i", "j", "l", "m", "n")  # the counters of outer loops
Counted = Callable[[Axes], str]  # how many entries some axes have, as text


@dataclass(frozen=True)
class Along:
    """Neighbouring axes that every value has, or has not, together: one loop."""

    axes: Axes

    def of(self, value: Value) -> bool:
        return self.axes[0] in value.axes


def loops(whole: Axes, values: Iterable[Value]) -> tuple[Along, ...]:
    """The axes as few loops, the outermost first."""
    sides = [{*v.axes} for v in values]
    made: list[list[Size]] = []
    for axis in whole:
        if made and all((made[-1][-1] in side) == (axis in side) for side in sides):
            made[-1].append(axis)
        else:
            made.append([axis])
    return tuple(Along(tuple(part)) for part in made)


def numbered(found: Sequence[Along], last: tuple[str, ...]) -> dict[Along, str]:
    """The counters of loops, those of the innermost ones as `last` says."""
    return dict(zip(found, (*OUTER[: len(found) - len(last)], *last), strict=False))


def index(value: Value, counters: Mapping[Along, str], count: Counted) -> str:
    """`i * K + k`: which entry of a value nested loops are at; entries lie row by row."""
    text = ""
    for along, counter in counters.items():
        if along.of(value):
            whole = f"({text})" if " + " in text else text
            text = f"{whole} * {grouped(count(along.axes))} + {counter}" if text else counter
    return text or "0"


def nested(heads: Sequence[tuple[str, str]], body: Sequence[str]) -> list[str]:
    """Lines in loops, each of a counter and how far it counts."""
    lines = list(body)
    for counter, count in reversed(heads):
        lines = [
            f"for (size_t {counter} = 0; {counter} < {count}; {counter}++) {{",
            *(f"    {line}" for line in lines),
            "}",
        ]
    return lines


def offset(value: Value, counters: Mapping[Along, str], inner: Sequence[Along], count: Counted) -> str:
    """`i * V * K`: where the entries of a value begin that inner loops go over; empty for 0."""
    at = index(value, counters, count)
    rest = [grouped(count(along.axes)) for along in inner if along.of(value)]
    if at == "0":
        return ""
    return " * ".join([f"({at})" if " + " in at and rest else at, *rest])


@dataclass(frozen=True)
class Inner:
    """What the innermost loops of a sum are called, and which of its values come in which order."""

    name: str
    loops: int
    order: tuple[Value, ...]

    @property
    def adds(self) -> bool:
        """Whether it adds to what is there, whether that is wanted or not."""
        return self.name in ("column_sums", "add_multiples", "add_products")


def innermost(found: Sequence[Along], values: tuple[Value, ...], out: Value) -> Inner | None:
    """The helper that does the innermost loops of a sum; None where there is none."""
    above, last = ([None, *found])[-2:]
    assert last is not None
    has_last = [v for v in values if last.of(v)]
    has_above = [v for v in values if above is not None and above.of(v)]
    if not last.of(out) and len(has_last) == len(values):
        if len(values) == 2 and has_above and above is not None and above.of(out):
            rest = [v for v in values if v not in has_above]
            return Inner("dots" if rest else "dots_by_row", 2, (*has_above, *rest))
        return Inner("sum" if len(values) == 1 else "dot", 1, values)
    if last.of(out) and above is not None and not above.of(out) and len(has_above) == len(values):
        if len(values) == 1:
            return Inner("column_sums", 2, values)
        rest = [v for v in values if v not in has_last]
        return Inner("add_multiples" if rest else "add_products", 2, (*rest, *has_last))
    return None


def reach(stage: Sum | Contraction, schedule: Schedule) -> Axes:
    """All axes that a sum goes over, and those that it keeps."""
    return axes(common_size((*stage.reads, stage.out), schedule.graph.orders))
