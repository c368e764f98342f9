"""Are two cells the same function? The same name means different cells in different libraries.

Three answers: `same`, after renaming parameters, states and gates where need be; `same up to a change of
parameters`, where some are negated, biases that are only ever added up are one, or matrices are stacked; and
`different`, with the first equation that differs. Equations are compared in normal form (`normal.py`,
`match.py`), and what that says is tried on random numbers, from given states and from the cells' own start.
Cells that differ in form but, under corresponding names, not on random numbers are reported as the same.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np

from gategen import language as lang
from gategen.cell import Cell
from gategen.language import Eq
from gategen.match import Renaming, Side, match, renamed_key, similar
from gategen.normal import (
    ZERO,
    Form,
    Key,
    Normal,
    System,
    add,
    atoms,
    block,
    children,
    constant,
    key,
    leaf,
    names_in,
    renamed,
    results,
    scale,
    system,
)
from gategen.printer import Printer
from gategen.trial import outcome

SAME, CHANGED, DIFFERENT = "same", "same up to a change of parameters", "different"
ALIKE, MOVED, UNLIKE = " ", "~", "!"
TOLERANCE = 1e-9
FLIPS = 7  # so many gates are tried with parameters of the other sign
STEPS, BATCH, DRAWS = 5, 3, 3

ONE, MINUS = Fraction(1), Fraction(-1)


@dataclass(frozen=True)
class Line:
    """An equation of the left cell beside its counterpart; either may be empty.

    mark   " " equal, "~" written differently but the same in effect, "!" different
    """

    mark: str
    left: str
    right: str


@dataclass(frozen=True)
class Difference:
    """How two cells compare.

    `renaming` pairs what corresponds, inputs, states and parameters: where parameters are added up, the sum;
    where one is negated, that of the right cell carries the sign. `error` is the largest difference of
    outputs and final states on random numbers, relative to their size; None where not all names correspond.
    """

    left: str
    right: str
    verdict: str
    renaming: tuple[tuple[str, str], ...]
    equations: tuple[Line, ...]
    first_step: tuple[Line, ...]
    error: float | None
    note: str = ""

    @property
    def same(self) -> bool:
        return self.verdict != DIFFERENT

    @property
    def first(self) -> Line | None:
        """The first equation that differs."""
        return next((line for line in (*self.equations, *self.first_step) if line.mark == UNLIKE), None)


def diff(a: Cell, b: Cell) -> Difference:
    """Compare two cells."""
    for left, right in readings(a, b):
        found = match(left.side, right.side)
        if found is not None:
            return agreeing(left, right, found)
    return differing(merged(a), merged(b))


def agreeing(left: Reading, right: Reading, names: Renaming) -> Difference:
    """The answer for cells whose forms are equal under a renaming; numbers have the last word."""
    partners, turns = gate_partners(left, right, names)
    error = trial(left, right, names)
    plain = not (left.changes or right.changes or restacked(left.cell, right.cell, names))
    verdict = (SAME if plain else CHANGED) if error <= TOLERANCE else DIFFERENT
    note = "" if error <= TOLERANCE else "the forms are equal, but not what they give on random numbers"
    equations, first = side_by_side(left, right, names | partners, lambda _: True)
    renaming = (*pairs(left, right, names | partners), *turns.items())
    return Difference(left.cell.name, right.cell.name, verdict, renaming, equations, first, error, note)


def differing(left: Reading, right: Reading) -> Difference:
    """The answer for cells without a common form: what corresponds, and where they part."""
    left, names = best_signs(left, right)
    own = {name: other for name, other in names.items() if name in left.kinds}
    complete = own.keys() == left.kinds.keys() and set(own.values()) == right.kinds.keys()
    error = trial(left, right, own) if complete else None
    alike = agreeing_keys(left, right, names)
    equal_numbers = error is not None and error <= TOLERANCE
    equations, first = side_by_side(left, right, names, lambda k: equal_numbers or k in alike)
    plain = not (left.changes or right.changes or restacked(left.cell, right.cell, own))
    return Difference(
        left.cell.name,
        right.cell.name,
        DIFFERENT if not equal_numbers else SAME if plain else CHANGED,
        (
            *pairs(left, right, names),
            *((gate, f"{'-' if odd else '1 - '}{names[gate]}") for gate, odd in left.turned),
        ),
        equations,
        first,
        error,
        "equal on random numbers; no common form was found" if equal_numbers else "",
    )


# ---------------------------------------------------------------------------------------------- readings


@dataclass(frozen=True)
class Reading:
    """A cell with some parameters added to another one (dropped: name by name), some with the other sign."""

    cell: Cell
    dropped: tuple[tuple[str, str], ...] = ()
    flipped: frozenset[str] = frozenset()
    turned: tuple[tuple[str, bool], ...] = ()  # gates read as 1 - z, or (True) as -z, in `open`

    @property
    def changes(self) -> bool:
        return bool(self.dropped or self.flipped)

    @cached_property
    def environment(self) -> Normal:
        gone = dict(self.dropped)
        names = {name: ZERO for name in gone} | {n: scale(leaf(n), MINUS) for n in self.flipped}
        combined = {name: () for name in gone} | {n: ((MINUS, n),) for n in self.flipped}
        return Normal(names, combined)

    @cached_property
    def whole(self) -> System:
        return system(self.cell, self.environment)

    @cached_property
    def kinds(self) -> dict[str, Hashable]:
        """What there is to be renamed: inputs, states, and the parameters that make a difference."""
        used = names_in(results(self.whole).values())
        every = kinds_of(self.cell)
        states = {s.name for s in self.cell.states}
        return {name: kind for name, kind in every.items() if name in used or name in states}

    @cached_property
    def side(self) -> Side:
        return Side(results(self.whole), self.kinds)

    @cached_property
    def open(self) -> System:
        """The equations one by one, gates and next states by name."""
        given = Normal(self.environment.names, self.environment.matrices)
        for gate, odd in self.turned:
            given.names[gate] = turned(leaf(gate), odd)
        found = system(self.cell, given, whole=False)
        for gate, odd in self.turned:
            for rule in ("gate", "first gate"):
                if (rule, gate) in found:
                    found[rule, gate] = turned(found[rule, gate], odd)
        return found

    @cached_property
    def open_side(self) -> Side:
        used = names_in(self.open.values()) | self.kinds.keys()
        found = {name: kind for name, kind in kinds_of(self.cell).items() if name in used}
        for eq in self.cell.all_equations:
            next_state = isinstance(eq.lhs, lang.Next)
            size = eq.lhs.state.size if next_state else self.cell.gate_sizes.get(eq.lhs.name, "first")
            found[eq.lhs.name] = ("next" if next_state else "gate", size)
        return Side(self.open, found)


def turned(form: Form, odd: bool) -> Form:
    """-z, or 1 - z."""
    return add(ZERO if odd else constant(ONE), scale(form, MINUS))


def kinds_of(cell: Cell) -> dict[str, Hashable]:
    """Role and size of everything that can be renamed. The sequence is the sequence on both sides."""
    found: dict[str, Hashable] = {
        x.name: ("sequence" if k == 0 else "input", x.size) for k, x in enumerate(cell.inputs)
    }
    found |= {s.name: ("state", s.size) for s in cell.states}
    for p in cell.parameters:
        shape = cell.shapes[p.name] if isinstance(p, lang.Matrix) else (cell.size_of(p),)
        if isinstance(shape[-1], tuple):
            found |= {block(p.name, k): ("matrix", shape[0], c) for k, c in enumerate(shape[-1])}
        else:
            found[p.name] = (p.role, *shape)
    return found


def readings(a: Cell, b: Cell) -> Iterator[tuple[Reading, Reading]]:
    """The cells as they are; then with biases added up; then with ever more gates of the other sign."""
    yield Reading(a), Reading(b)
    left, right = merged(a), merged(b)
    for flipped in signs(left):
        if left.dropped or right.dropped or flipped:
            yield replace(left, flipped=flipped), right


def trained(cell: Cell) -> set[str]:
    """The names of parameters, or of their blocks, that training changes."""
    owners = {p.name for p in cell.parameters if p.trainable}
    return {name for name in kinds_of(cell) if name.split(", block")[0] in owners}


def merged(cell: Cell) -> Reading:
    """The cell with parameters dropped that only ever stand in a sum with another one of their kind."""
    made = Reading(cell)
    names = sorted(trained(cell) & made.kinds.keys(), key=list(made.kinds).index)
    for k, kept in enumerate(names):
        for other in names[k + 1 :]:
            gone = dict(made.dropped)
            if made.kinds.get(kept) != made.kinds.get(other, ...) or {kept, other} & gone.keys():
                continue
            if only_their_sum(made, kept, other):
                made = replace(made, dropped=(*made.dropped, (other, kept)))
    return made


def only_their_sum(reading: Reading, kept: str, other: str) -> bool:
    """Whether the cell depends on `kept + other` alone: with `kept - other` for `kept`, `other` cancels."""
    given = reading.environment
    names = {**given.names, kept: add(leaf(kept), scale(leaf(other), MINUS))}
    matrices = {**given.matrices, kept: ((ONE, kept), (MINUS, other))}
    return other not in names_in(results(system(reading.cell, Normal(names, matrices))).values())


def signs(reading: Reading) -> Iterator[frozenset[str]]:
    """Sets of parameters to negate: those inside some sigmoids and tanhs, few before many.

    Negating trained parameters is a change of parameters whatever they are; these are the ones that turn a
    gate z into 1 - z.
    """
    own = trained(reading.cell)
    groups = dict.fromkeys(
        inside & own for inside in insides(results(reading.whole).values()) if inside & own
    )
    for count in range(len(groups) + 1):
        for some in combinations(list(groups)[:FLIPS], count):
            yield frozenset(symmetric_difference(some))


def symmetric_difference(sets: Iterable[frozenset[str]]) -> set[str]:
    found: set[str] = set()
    for one in sets:
        found ^= one
    return found


def insides(forms: Iterable[Form]) -> list[frozenset[str]]:
    """The parameters directly in the argument of each sigmoid and tanh."""
    found: list[frozenset[str]] = []
    seen: set[Form] = set()
    waiting = list(forms)
    while waiting:
        form = waiting.pop(0)
        if form in seen:
            continue
        seen.add(form)
        for one in sorted(
            atoms(form), key=lambda one: sorted(names_in([frozenset({(frozenset({(one, ONE)}), ONE)})]))
        ):
            if one[0] in ("sigmoid", "tanh"):
                found.append(frozenset(direct(one[2][0])))
            waiting += children(one)
    return found


def direct(form: Form) -> set[str]:
    """The names in a form, and the matrices of its products, but nothing deeper."""
    return {one[1] if one[0] == "name" else one[1][0] for one in atoms(form) if one[0] in ("name", "@")}


# ---------------------------------------------------------------------------------------------- counterparts


def gate_partners(left: Reading, right: Reading, names: Renaming) -> tuple[Renaming, dict[str, str]]:
    """Gates of both sides that are equal up to a turn, and of those that are turned what they are."""
    theirs: dict[Form, str] = {}
    for (kind, gate), form in right.whole.items():
        if kind.endswith("gate"):
            theirs.setdefault(form, gate)
    found: Renaming = {f"{s.name}'": f"{names[s.name]}'" for s in left.cell.states}
    turns: dict[str, str] = {}
    for (kind, gate), form in left.whole.items():
        own = renamed(form, names)
        for tried, spelled in ((own, "{}"), (turned(own, False), "1 - {}"), (turned(own, True), "-{}")):
            other = theirs.get(tried) if kind.endswith("gate") and gate not in found else None
            if other is not None and other not in found.values():
                found[gate] = other
                turns |= {gate: spelled.format(other)} if spelled != "{}" else {}
    return found, turns


def best_signs(left: Reading, right: Reading) -> tuple[Reading, Renaming]:
    """Where cells differ: the left one with those gates turned round that leave the fewest differences."""
    choices = []
    gates = turnable(left)
    names = correspondence(left, right)
    for count in range(len(gates) + 1):
        for some in combinations(gates, count):
            flipped = symmetric_difference(inside for _, _, inside in some)
            turned_gates = tuple((gate, odd) for gate, odd, _ in some)
            tried = replace(left, flipped=frozenset(flipped), turned=turned_gates)
            choices.append((len(agreeing_keys(tried, right, names)), -count, tried))
    return max(choices, key=lambda choice: choice[:2])[2], names


def turnable(reading: Reading) -> list[tuple[str, bool, frozenset[str]]]:
    """Gates that are a sigmoid or a tanh of trained parameters: name, whether odd, and those parameters."""
    own = trained(reading.cell)
    found = []
    for (kind, gate), form in reading.open.items():
        inner = atoms(form)
        if kind == "gate" and len(form) == 1 and len(inner) == 1:
            (one,) = inner
            if one[0] in ("sigmoid", "tanh"):
                found.append((gate, one[0] == "tanh", frozenset(direct(one[2][0]) & own)))
    return found[:FLIPS]


def correspondence(left: Reading, right: Reading) -> Renaming:
    names = similar(left.open_side, right.open_side)
    ours, theirs = ([s.name for s in reading.cell.states] for reading in (left, right))
    if len(ours) == len(theirs):
        names |= dict(
            zip(
                [s for s in ours if s not in names],
                [s for s in theirs if s not in names.values()],
                strict=True,
            )
        )
    return names | {f"{name}'": f"{names[name]}'" for name in ours if name in names}


def agreeing_keys(left: Reading, right: Reading, names: Renaming) -> set[Key]:
    """The equations of the left cell that are equal to their counterparts."""
    return {
        k for k, form in left.open.items() if renamed(form, names) == right.open.get(renamed_key(k, names))
    }


def restacked(a: Cell, b: Cell, names: Renaming) -> bool:
    """Whether blocks of one matrix correspond to something other than the same blocks of one matrix."""
    whole: dict[str, str] = {}
    for name, other in names.items():
        (mine, _, k), (theirs, _, j) = name.partition(", block "), other.partition(", block ")
        if (k or j) and (k != j or whole.setdefault(mine, theirs) != theirs):
            return True
    return False


def pairs(left: Reading, right: Reading, names: Renaming) -> tuple[tuple[str, str], ...]:
    """What corresponds, as text: inputs, states, parameters, and gates of other names."""
    gates = [eq.lhs.name for eq in left.cell.all_equations if isinstance(eq.lhs, lang.Gate)]
    made = [(gate, names[gate]) for gate in dict.fromkeys(gates) if names.get(gate, gate) != gate]
    for name in left.kinds:
        if name in names:
            ours, theirs = total(left, name), total(right, names[name])
            bracketed = f"({theirs})" if " " in theirs else theirs
            made.append((ours, f"-{bracketed}" if name in left.flipped else theirs))
    return tuple(made)


def total(reading: Reading, name: str) -> str:
    """A parameter with those that are added to it."""
    parts = [name, *(gone for gone, kept in reading.dropped if kept == name)]
    return " + ".join(map(shown, parts))


def shown(name: str) -> str:
    matrix, _, k = name.partition(", block ")
    return f"{matrix}[:, block {k}]" if k else name


# ---------------------------------------------------------------------------------------------- side by side


def side_by_side(
    left: Reading, right: Reading, names: Renaming, agrees: Any
) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    """The equations of the step, and of the first step, in the order of the left cell."""
    ours, theirs = Reading(left.cell), Reading(right.cell)
    cut = {name for name, other in names.items() if name.find(", block") * other.find(", block") < 0}
    plain = {k for k in agreeing_keys(ours, theirs, names) if cut.isdisjoint(names_in([ours.open[k]]))}

    def mark(k: Key) -> str:
        return ALIKE if k in plain else MOVED if agrees(k) else UNLIKE

    def lines(rule: str, ours: Sequence[Eq], theirs: Sequence[Eq]) -> Iterator[Line]:
        mine, others = texts(left.cell, ours, rule), texts(right.cell, theirs, rule)
        for k, text in mine.items():
            yield Line(mark(k), text, others.pop(renamed_key(k, names), ""))
        for text in others.values():
            yield Line(MOVED if mine and all(map(agrees, mine)) else UNLIKE, "", text)

    def lone(found: Iterable[Line]) -> tuple[Line, ...]:
        return tuple(line for line in found if line.left or line.right)

    equations = [*lines("", left.cell.equations, right.cell.equations), *outputs(left, right, mark)]
    first = [*lines("first ", left.cell.first, right.cell.first), *starts(left, right, names, mark)]
    return lone(equations), lone(first)


def texts(cell: Cell, equations: Sequence[Eq], rule: str) -> dict[Key, str]:
    lines = cell.text(equations) if equations else ()
    return {key(eq, rule): line for eq, line in zip(equations, lines, strict=True)}


def outputs(left: Reading, right: Reading, mark: Any) -> Iterator[Line]:
    """What the outputs are, where that differs."""
    ours, theirs = (", ".join(map(str, reading.cell.outputs)) for reading in (left, right))
    count = max(len(left.cell.outputs), len(right.cell.outputs))
    marks = {mark(("output", str(k))) for k in range(count)}
    if UNLIKE in marks or len(left.cell.outputs) != len(right.cell.outputs):
        yield Line(UNLIKE, f"output {ours}", f"output {theirs}")


def starts(left: Reading, right: Reading, names: Renaming, mark: Any) -> Iterator[Line]:
    """The initial values that differ."""
    initial = {("start", s.name): s.initial for s in right.cell.states}
    for state in left.cell.states:
        k = ("start", state.name)
        other = renamed_key(k, names)
        if k in left.open and other in right.open and mark(k) == UNLIKE:
            values = (state.name, state.initial), (other[1], initial[other])
            yield Line(UNLIKE, *(f"{name} starts from {Printer()(value)}" for name, value in values))


# ---------------------------------------------------------------------------------------------- numbers


def trial(left: Reading, right: Reading, names: Renaming) -> float:
    """The largest difference of outputs and final states over several draws of all numbers.

    States start between 0 and 1 where they may be probabilities, from numbers of either sign, and from the
    cells' own start.
    """
    rng = np.random.default_rng(0)
    ranges: tuple[tuple[float, float] | None, ...] = ((0.1, 0.9), (-1.5, 1.5), None)
    return max(_error(left, right, names, rng, among) for _ in range(DRAWS) for among in ranges)


def _error(
    left: Reading,
    right: Reading,
    names: Renaming,
    rng: np.random.Generator,
    among: tuple[float, float] | None,
) -> float:
    sizes = _sizes(left.cell, right.cell)
    theirs = _drawn(right.cell, sizes, rng)
    ours = _drawn(left.cell, sizes, rng)
    for name, other in names.items():
        if name not in ours:
            continue
        sign = -1 if name in left.flipped else 1
        meant = sum((theirs[gone] for gone, kept in right.dropped if kept == other), start=theirs[other])
        ours[name] = sign * meant - sum(ours[gone] for gone, kept in left.dropped if kept == name)
    low, high = among or (0, 0)
    states = {s.name: rng.uniform(low, high, (BATCH, sizes.get(s.size, s.size))) for s in left.cell.states}
    initial = {names[name]: array for name, array in states.items()}
    a = outcome(left.cell, ours, states if among else None, sizes)
    b = outcome(right.cell, theirs, initial if among else None, sizes)
    if len(left.cell.outputs) != len(right.cell.outputs):
        return np.inf
    return max(_distance(array, b[names.get(name, name)]) for name, array in a.items())


def _distance(a: Any, b: Any) -> float:
    """The largest difference, relative to the largest entry; where both are no number they are equal."""
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    with np.errstate(invalid="ignore"):
        off = np.where((a == b) | np.isnan(a), 0, np.abs(a - b))
    return float(off.max(initial=0) / max(1, np.abs(b[np.isfinite(b)]).max(initial=0)))


def _sizes(*cells: Cell) -> dict[str, int]:
    names = dict.fromkeys(size for cell in cells for size in cell.sizes)
    return {name: 3 + k for k, name in enumerate(names)}


def _drawn(cell: Cell, sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, Any]:
    """Inputs and parameters, each entry of them random."""

    def shape(kind: Any) -> tuple[int, ...]:
        role, *parts = kind
        if role == "scalar":
            return ()
        lead = (STEPS, BATCH) if role in ("sequence", "input") else ()
        return (*lead, *(sizes.get(part, part) for part in parts))

    return {
        name: 0.5 * rng.standard_normal(shape(kind))
        for name, kind in kinds_of(cell).items()
        if kind[0] != "state"  # type: ignore[index]
    }


# ---------------------------------------------------------------------------------------------- text and data


def text(found: Difference) -> str:
    """The verdict, the equations side by side, what corresponds, and what random numbers say."""
    between = f"{found.left} and {found.right}: {found.verdict}"
    blocks = [[between], table(found, found.equations)]
    if found.first_step:
        blocks.append(["first step, where no initial state is given:", *table(found, found.first_step)])
    marks = {line.mark for line in (*found.equations, *found.first_step)}
    legend = {UNLIKE: "! differs", MOVED: "~ written differently, the same in effect"}
    blocks.append([meaning for mark, meaning in legend.items() if mark in marks])
    if found.first is not None:
        blocks.append(
            [
                "first difference:",
                *columns([(found.left, found.first.left), (found.right, found.first.right)]),
            ]
        )
    other = [pair for pair in found.renaming if pair[0] != pair[1]]
    if other:
        blocks.append([f"corresponding, {found.left} = {found.right}:", *columns(other, " = ")])
    if found.error is not None:
        blocks.append(
            [f"largest difference on random numbers: {found.error:.1e}", *filter(None, [found.note])]
        )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def table(found: Difference, lines: Sequence[Line]) -> list[str]:
    """Two columns, or where that is too wide one below the other."""
    width = max(len(line.left) for line in lines) if lines else 0
    wide = width + max((len(line.right) for line in lines), default=0) > 130
    if not wide:
        head = f"  {found.left:{width}}    {found.right}"
        return [head, *(f"{line.mark} {line.left:{width}}    {line.right}".rstrip() for line in lines)]
    width = max(len(found.left), len(found.right))
    sides = [
        (line.mark, *side) for line in lines for side in ((found.left, line.left), (found.right, line.right))
    ]
    return [f"{mark} {name:{width}}    {equation}" for mark, name, equation in sides if equation]


def columns(rows: Sequence[tuple[str, str]], between: str = "  ") -> list[str]:
    width = max((len(left) for left, _ in rows), default=0)
    return [f"    {left:{width}}{between}{right}".rstrip() for left, right in rows]


def as_json(found: Difference) -> dict[str, Any]:
    """The same as plain data; marks are `same`, `rewritten` and `different`."""
    words = {ALIKE: "same", MOVED: "rewritten", UNLIKE: "different"}

    def rows(lines: Iterable[Line]) -> list[dict[str, str]]:
        return [{"mark": words[line.mark], "left": line.left, "right": line.right} for line in lines]

    return {
        "left": found.left,
        "right": found.right,
        "verdict": found.verdict,
        "renaming": [list(pair) for pair in found.renaming],
        "equations": rows(found.equations),
        "first_step": rows(found.first_step),
        "error": None if found.error is None or not np.isfinite(found.error) else found.error,
        "note": found.note,
    }


class _Callable(ModuleType):
    """`gategen.diff(...)` works also where an import bound that name to this module."""

    def __call__(self, a: Cell, b: Cell) -> Difference:
        return diff(a, b)


sys.modules[__name__].__class__ = _Callable
