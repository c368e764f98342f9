"""Are two cells the same function? The same name means different cells in different libraries.

Three answers: `same`, after renaming parameters, states and gates where need be; `same up to a change of
parameters`, where some are negated, biases that are only ever added up are one, or matrices are stacked; and
`different`, with the first equation that differs. Equations are compared in normal form (`normal.py`,
`match.py`), and what that says is tried on random numbers, from given states and from the cells' own start.
Cells that differ in form but, under corresponding names, not on random numbers are reported as the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gategen.callables import make_callable
from gategen.diff.match import Renaming, match, renamed_key, similar
from gategen.diff.normal import Block, Key, Numbers, block_of, key, names_in
from gategen.diff.reading import Reading, flipped, merged, trained, turned, turns
from gategen.diff.trial import trial
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.language import Eq
from gategen.spec.load import Target, load_one
from gategen.spec.printer import Printer

SAME, CHANGED, DIFFERENT = "same", "same up to a change of parameters", "different"
ALIKE, MOVED, UNLIKE = " ", "~", "!"
TOLERANCE = 1e-9
WIDEST = 130  # characters of two equations side by side


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


def diff(left: Target, right: Target) -> Difference:
    """Compare two cells, each given as itself, by the name of a built-in one, or by the path of its file.

    Of two that have one name, the result says also where they come from. Raises `GategenError` for a file of
    several cells.
    """
    a, b = load_one(left), load_one(right)
    found = compared(a, b)
    same = a.name == b.name and a.where != b.where
    return replace(found, left=labelled(a), right=labelled(b)) if same else found


def labelled(cell: Cell) -> str:
    return f"{cell.name} ({'built-in' if cell.builtin else cell.where and Path(cell.where.file).name})"


def compared(a: Cell, b: Cell) -> Difference:
    left, right, forms = Reading(a), Reading(b), Numbers()
    if (found := match(left.side, right.side, forms)) is not None:
        return agreeing(left, right, found, forms)
    left, right = merged(left), merged(right)
    for tried in flipped(left, right):
        if (found := match(tried.side, right.side, forms)) is not None:
            return agreeing(tried, right, found, forms)
    return differing(left, right)


def agreeing(left: Reading, right: Reading, names: Renaming, forms: Numbers) -> Difference:
    """The answer for cells whose forms are equal under a renaming; numbers have the last word."""
    partners, turned_gates = gate_partners(left, right, names, forms)
    error = trial(left, right, names)
    verdict = same_verdict(left, right, names) if error <= TOLERANCE else DIFFERENT
    note = "" if error <= TOLERANCE else "the forms are equal, but not what they give on random numbers"
    equations, first = side_by_side(left, right, names | partners, lambda _: True)
    renaming = pairs(left, right, names | partners, turned_gates)
    asides = trained_aside(left, right, names), begun_aside(left, right, names)
    note = note or "; ".join(filter(None, asides))
    return Difference(left.cell.name, right.cell.name, verdict, renaming, equations, first, error, note)


def differing(left: Reading, right: Reading) -> Difference:
    """The answer for cells without a common form: what corresponds, and where they part."""
    names = correspondence(left, right)
    left = max(turns(left), key=lambda tried: len(agreeing_keys(tried, right, names)))
    own = {name: other for name, other in names.items() if name in left.kinds}
    complete = own.keys() == left.kinds.keys() and set(own.values()) == right.kinds.keys()
    error = trial(left, right, own) if complete else None
    equal_numbers = error is not None and error <= TOLERANCE
    alike = agreeing_keys(left, right, names)
    equations, first = side_by_side(left, right, names, lambda k: equal_numbers or k in alike)
    verdict = same_verdict(left, right, own) if equal_numbers else DIFFERENT
    note = "equal on random numbers; no common form was found" if equal_numbers else held_apart(left, right)
    gates = {gate: f"{'-' if odd else '1 - '}{names[gate]}" for gate, odd in left.turned if gate in names}
    renaming = pairs(left, right, names, gates)
    return Difference(left.cell.name, right.cell.name, verdict, renaming, equations, first, error, note)


def same_verdict(left: Reading, right: Reading, names: Renaming) -> str:
    """How two readings that are equal make their cells the same."""
    return CHANGED if left.changes or right.changes or restacked(names) else SAME


def trained_aside(left: Reading, right: Reading, names: Renaming) -> str:
    """Which parameters are trained on one side alone, which is no difference of the function."""
    ours, theirs = trained(left.cell), trained(right.cell)
    found = [name for name, other in names.items() if (name in ours) != (other in theirs)]
    return f"trained on one side alone: {', '.join(sorted(found))}" if found else ""


def begun_aside(left: Reading, right: Reading, names: Renaming) -> str:
    """Which trained parameters begin with other numbers, which is no difference of the function."""
    ours, theirs = ({p.name: p for p in side.cell.parameters} for side in (left, right))
    own = trained(left.cell)
    pairs = [(ours[name], theirs.get(other)) for name, other in names.items() if name in own and name in ours]
    found = [str(p) for p, other in pairs if other is not None and p.contents != other.contents]
    return f"beginning with other numbers: {', '.join(sorted(found))}" if found else ""


def held_apart(left: Reading, right: Reading) -> str:
    """Which fixed parameters of one name hold other numbers."""
    theirs = {p.name: p for p in right.cell.parameters if not p.trainable}
    pairs = [(p, theirs[p.name]) for p in left.cell.parameters if not p.trainable and p.name in theirs]
    found = [f"{p} is {held(p)} and {held(other)}" for p, other in pairs if p.contents != other.contents]
    return f"fixed parameters differ: {', '.join(found)}" if found else ""


def held(parameter: lang.Parameter) -> str:
    return parameter.contents.brief if parameter.contents else "not said to hold anything"


# ---------------------------------------------------------------------------------------------- counterparts


def gate_partners(
    left: Reading, right: Reading, names: Renaming, numbers: Numbers
) -> tuple[Renaming, dict[str, str]]:
    """Gates of both sides that are equal up to a turn, and of those that are turned what they are."""
    theirs: dict[int, str] = {}
    for (kind, gate), form in right.whole.items():
        if kind.endswith("gate"):
            theirs.setdefault(numbers.of(form, numbers.own), gate)
    found: Renaming = {f"{s.name}'": f"{names[s.name]}'" for s in left.cell.states}
    taken = {*found.values()}
    turns: dict[str, str] = {}
    for (kind, gate), form in left.whole.items():
        for spelled in ("{}", "1 - {}", "-{}"):
            if not kind.endswith("gate") or gate in found:
                break
            tried = form if spelled == "{}" else turned(form, spelled == "-{}")
            other = theirs.get(numbers.of(tried, names))
            if other is not None and other not in taken:
                found[gate] = other
                taken.add(other)
                turns |= {gate: spelled.format(other)} if spelled != "{}" else {}
    return found, turns


def correspondence(left: Reading, right: Reading) -> Renaming:
    """Which names stand for the same thing, as far as can be told."""
    names = similar(left.open_side, right.open_side)
    states = [s.name for s in left.cell.states if s.name in names]
    return names | {f"{name}'": f"{names[name]}'" for name in states}


def agreeing_keys(left: Reading, right: Reading, names: Renaming) -> set[Key]:
    """The equations of the left cell that are equal to their counterparts."""
    numbers = Numbers()
    theirs = {k: numbers.of(form, numbers.own) for k, form in right.open.items()}
    return {
        k for k, form in left.open.items() if numbers.of(form, names) == theirs.get(renamed_key(k, names))
    }


def restacked(names: Renaming) -> bool:
    """Whether blocks of one matrix correspond to something other than the same blocks of one matrix."""
    whole: dict[str, str] = {}
    for name, other in names.items():
        (mine, k), (theirs, j) = block_of(name), block_of(other)
        if (k, j) != (None, None) and (k != j or whole.setdefault(mine, theirs) != theirs):
            return True
    return False


def pairs(
    left: Reading, right: Reading, names: Renaming, turned_gates: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """What corresponds, as text: gates of another name or turned round, inputs, states and parameters."""
    gates = dict.fromkeys(eq.lhs.name for eq in left.cell.all_equations if isinstance(eq.lhs, lang.Gate))
    spelled = {gate: turned_gates.get(gate, names.get(gate, gate)) for gate in gates}
    made = [(gate, other) for gate, other in spelled.items() if gate != other]
    totals, others = totals_of(left, names), totals_of(right, names.values())
    for name in left.kinds:
        if name in names:
            ours, theirs = totals[name], others[names[name]]
            bracketed = f"({theirs})" if " + " in theirs else theirs
            made.append((ours, f"-{bracketed}" if name in left.flipped else theirs))
    return tuple(made)


def totals_of(reading: Reading, names: Iterable[str]) -> dict[str, str]:
    """What names stand for: parameters with those that are added to them."""
    spelled = {p.name: str(p) for p in reading.cell.parameters}

    def shown(name: str) -> str:
        matrix, k = block_of(name)
        return spelled.get(matrix, matrix) + ("" if k is None else f"[:, block {k}]")

    found = {name: shown(name) for name in names}
    for gone, kept in reading.dropped:
        if kept in found:
            found[kept] += f" + {shown(gone)}"
    return found


# ---------------------------------------------------------------------------------------------- side by side


def side_by_side(
    left: Reading, right: Reading, names: Renaming, agrees: Callable[[Key], bool]
) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    """The equations of the step, and of the first step, in the order of the left cell.

    `agrees` tells which of them are the same in effect.
    """
    ours, theirs = Reading(left.cell), Reading(right.cell)
    cut = {name for name, other in names.items() if isinstance(name, Block) != isinstance(other, Block)}
    plain = {k for k in agreeing_keys(ours, theirs, names) if cut.isdisjoint(names_in([ours.open[k]]))}

    def mark(k: Key) -> str:
        return ALIKE if k in plain else MOVED if agrees(k) else UNLIKE

    def lines(rule: str, ours: Sequence[Eq], theirs: Sequence[Eq]) -> Iterator[Line]:
        mine, others = texts(left.cell, ours, rule), texts(right.cell, theirs, rule)
        for k, text in mine.items():
            yield Line(mark(k), text, others.pop(renamed_key(k, names), ""))
        for text in others.values():
            yield Line(MOVED if mine and all(map(agrees, mine)) else UNLIKE, "", text)

    equations = [*lines("", left.cell.equations, right.cell.equations), *outputs(left, right, mark)]
    first = [*lines("first ", left.cell.first, right.cell.first), *starts(left, right, names, mark)]
    return tuple(equations), tuple(first)


def texts(cell: Cell, equations: Sequence[Eq], rule: str) -> dict[Key, str]:
    lines = cell.text(equations) if equations else ()
    return {key(eq, rule): line for eq, line in zip(equations, lines, strict=True)}


def outputs(left: Reading, right: Reading, mark: Callable[[Key], str]) -> Iterator[Line]:
    """What the outputs are, where that differs."""
    ours, theirs = (", ".join(map(str, reading.cell.outputs)) for reading in (left, right))
    count = max(len(left.cell.outputs), len(right.cell.outputs))
    marks = {mark(("output", str(k))) for k in range(count)}
    if UNLIKE in marks or len(left.cell.outputs) != len(right.cell.outputs):
        yield Line(UNLIKE, f"output {ours}", f"output {theirs}")


def starts(left: Reading, right: Reading, names: Renaming, mark: Callable[[Key], str]) -> Iterator[Line]:
    """The initial values that differ."""
    initial = {("start", s.name): s.initial for s in right.cell.states}
    for state in left.cell.states:
        k = ("start", state.name)
        other = renamed_key(k, names)
        if k in left.open and other in right.open and mark(k) == UNLIKE:
            values = (state.name, state.initial), (other[1], initial[other])
            yield Line(UNLIKE, *(f"{name} starts from {Printer()(value)}" for name, value in values))


# ---------------------------------------------------------------------------------------------- text


def text(found: Difference) -> str:
    """The verdict, the equations side by side, what corresponds, and what random numbers say."""
    marks = {line.mark for line in (*found.equations, *found.first_step)}
    legend = {UNLIKE: "! differs", MOVED: "~ written differently, the same in effect"}
    apart = [(found.left, found.first.left), (found.right, found.first.right)] if found.first else []
    other = [(ours, theirs) for ours, theirs in found.renaming if ours != theirs]
    tried = [] if found.error is None else [f"largest difference on random numbers: {found.error:.1e}"]
    parts: list[tuple[str, list[str]]] = [
        ("", [f"{found.left} and {found.right}: {found.verdict}"]),
        ("", table(found, found.equations)),
        ("first step, where no initial state is given:", table(found, found.first_step)),
        ("", [meaning for mark, meaning in legend.items() if mark in marks]),
        ("first difference:", columns(apart)),
        (f"corresponding, {found.left} = {found.right}:", columns(other, " = ")),
        ("", [*tried, *filter(None, [found.note])]),
    ]
    return "\n\n".join("\n".join(filter(None, [head, *lines])) for head, lines in parts if lines)


def table(found: Difference, lines: Sequence[Line]) -> list[str]:
    """Two columns, or where that is too wide one below the other."""
    left, right = (max((len(side) for side in sides), default=0) for sides in halves(lines))
    if left + right <= WIDEST:
        head = [f"  {found.left:{left}}    {found.right}"] if lines else []
        return [*head, *(f"{line.mark} {line.left:{left}}    {line.right}".rstrip() for line in lines)]
    width = max(len(found.left), len(found.right))
    names = f"{found.left:{width}}", f"{found.right:{width}}"
    return [
        f"{line.mark} {name}    {side}"
        for line in lines
        for name, side in zip(names, (line.left, line.right), strict=True)
        if side
    ]


def halves(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    return [line.left for line in lines], [line.right for line in lines]


def columns(rows: Sequence[tuple[str, str]], between: str = "  ") -> list[str]:
    width = max((len(left) for left, _ in rows), default=0)
    return [f"    {left:{width}}{between}{right}".rstrip() for left, right in rows]


make_callable(__name__, diff)
