"""What a CuPy module launches for a run, read off its lines: kernels of all steps, and how many others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gategen.backends.cupy import kernels_and_context
from gategen.backends.cupy.persistent import MOST_UNITS
from gategen.backends.functions import Function, RuleFunctions
from gategen.backends.host import Part
from gategen.plan import Plan

# How many kernels a call of a line is; others are of CuPy's own, that copy or fill.
KERNELS = {
    "column_sums": 2,
    **dict.fromkeys("launch along_rows down_columns over_matrices row_sum row_max running_sum".split(), 1),
}
PRODUCTS = dict.fromkeys("product blockwise blockwise_back blockwise_sum cp.matmul".split(), 1)
ENTRIES, STRETCHES = "(?:through_time|along_stretches)", "linear_starts"
BLOCKS, ROWS = "one_launch", "row_by_row"


@dataclass(frozen=True)
class Work:
    """Kernels and matrix products."""

    kernels: int = 0
    products: int = 0

    def __str__(self) -> str:
        counted = ((self.kernels, "kernel"), (self.products, "product"))
        return ", ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in counted if n) or "nothing"


@dataclass(frozen=True)
class Launches:
    """Of one direction.

    A thread of the kernels in `entries` takes all steps of an entry, whatever the sizes; before those in
    `stretches`, which can cut the steps, two launches say what each stretch begins with. `blocks` is the
    kernel whose blocks wait for each other, where all rows have at most `most` of these `units`, and `rows`
    the one whose blocks have a row each; where rows have more, or no kernel takes all steps, `step` is
    launched for every step. `first` is that of a first step of its own, `start` of trained initial states,
    and `beside` is done once.
    """

    way: str
    entries: tuple[str, ...]
    stretches: tuple[str, ...]
    blocks: str
    units: str
    rows: str
    step: Work
    beside: Work
    first: Work | None
    start: Work | None
    most: int = MOST_UNITS


def launches(plan: Plan) -> tuple[Launches, ...]:
    """Of both directions."""
    _, made = kernels_and_context(plan)
    return tuple(_of_way(made, way) for way in ("forward", "backward"))


def rows(found: Launches) -> Iterator[tuple[str, str, str]]:
    """As a listing: the direction, which kernels, and what they do."""
    at_once, some = "all steps in one launch", ", ".join(found.entries)
    if found.entries:
        yield found.way, "entries", f"{some}: {at_once}{' each' * (len(found.entries) > 1)}, entry by entry"
    if found.stretches:
        some = ", ".join(found.stretches)
        yield found.way, "stretches", f"{some}: two launches more where few entries have many steps"
    if found.blocks:
        told = f"{at_once}, by blocks that wait for each other"
        yield found.way, "blocks", f"{found.blocks}: {told}; up to B {found.units} = {found.most}"
    if found.rows:
        yield (
            found.way,
            "rows",
            f"{found.rows}: {at_once}, by blocks that take a row each, where they have room",
        )
    if found.step != Work():
        more = ", for more" if found.blocks else ", for larger ones" if found.rows else ""
        yield found.way, "steps", f"{found.step} a step{more}"
    if found.first:
        yield found.way, "first", f"{found.first}, for the first step"
    if found.start:
        yield found.way, "start", f"{found.start}, for the initial states"
    if found.beside != Work():
        yield found.way, "beside", f"{found.beside}, however many steps"


def _of_way(made: dict[str, object], way: str) -> Launches:
    function = made[way]
    assert isinstance(function, Function)
    beside = "\n".join((*function.weights, *map(_text, (function.before, function.ahead, function.after))))
    loop = "\n".join((_text(function.loop), *function.aside, *function.kept))
    return Launches(
        way,
        tuple(_named(ENTRIES, beside)),
        tuple(_named(STRETCHES, beside)),
        next(_named(BLOCKS, function.once), ""),
        function.units,
        next(_named(ROWS, function.once), ""),
        _work(loop),
        _work(beside),
        _of_rule(made["first"], way),
        _of_rule(made["start"], way),
    )


def _of_rule(rule: object, way: str) -> Work | None:
    if rule is None:
        return None
    assert isinstance(rule, RuleFunctions)
    return _work(_text((rule.forward if way == "forward" else rule.backward).loop))


def _text(part: Part) -> str:
    return "\n".join((*part.prepare, part.text))


def _work(text: str) -> Work:
    called = re.findall(r"(?<![.\w])([a-z_]+(?:\.matmul)?)\(", re.sub("#.*", "", text))
    return Work(*(sum(each.get(name, 0) for name in called) for each in (KERNELS, PRODUCTS)))


def _named(function: str, text: str) -> Iterator[str]:
    """The kernels that a function of the module is called with."""
    yield from re.findall(rf'\b{function}\(\s*"(\w+)"', text)
