"""Which names of one system of forms are those of another: a bijection under which they are equal.

Names are coloured by their kind, then again and again by where they stand and what stands beside them, until
nothing changes (colour refinement: McKay & Piperno 2014, doi:10.1016/j.jsc.2013.09.003). What is still alike
is told apart by trying. A bijection that is found is checked by renaming, so it never depends on colours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gategen.diff.normal import Form, Key, Numbers, System, atoms, children

Kinds = Mapping[str, Hashable]
Renaming = dict[str, str]
Places = Counter[Hashable]
TRIES = 500  # of names that look alike
DEPTH = 5  # rounds that look for what corresponds


@dataclass(frozen=True)
class Side:
    """A system, and what kind of thing each of its names is."""

    system: System
    kinds: Kinds


def match(a: Side, b: Side) -> Renaming | None:
    """For each name of `a` the one of `b`, so that both systems are equal; None where there is no such."""
    tries = iter(range(TRIES))
    return _match(a, b, tries)


def _match(a: Side, b: Side, tries: Iterator[int]) -> Renaming | None:
    if next(tries, None) is None:
        return None
    classes = _counterparts(a, b)
    if classes is None:
        return None
    alike = next((c for c, names in classes[0].items() if len(names) > 1), None)
    if alike is None:
        found = {names[0]: classes[1][c][0] for c, names in classes[0].items()}
        return found if equal(a.system, b.system, found) else None
    name = classes[0][alike][0]
    for other in sorted(classes[1][alike], key=lambda other: other != name):
        chosen = ("chosen", name, other)
        found_or_none = _match(
            Side(a.system, {**a.kinds, name: chosen}), Side(b.system, {**b.kinds, other: chosen}), tries
        )
        if found_or_none:
            return found_or_none
    return None


def _counterparts(a: Side, b: Side) -> tuple[dict[int, list[str]], dict[int, list[str]]] | None:
    """The names of either side by their last colours; None as soon as one colour has more names in one."""
    classes: tuple[dict[int, list[str]], dict[int, list[str]]] = {}, {}
    for ours, theirs in colourings(a, b):
        if Counter(ours.values()) != Counter(theirs.values()):
            return None
        classes = _classes(ours), _classes(theirs)
    return classes


def equal(a: System, b: System, names: Renaming) -> bool:
    """Whether renaming `a` gives `b`."""
    numbers, own = Numbers(), Renaming()
    ours = {renamed_key(key, names): numbers.of(form, names) for key, form in a.items()}
    return ours == {key: numbers.of(form, own) for key, form in b.items()}


def renamed_key(key: Key, names: Mapping[str, str]) -> Key:
    return key if key[0].endswith("output") else (key[0], names.get(key[1], key[1]))


def similar(a: Side, b: Side) -> Renaming:
    """What corresponds where systems differ: equal names of one kind, then what shares the most places."""
    found = {name: name for name in a.kinds if a.kinds[name] == b.kinds.get(name)}
    while pairs := _likely(a, b, found):
        found |= pairs
    return found


def _likely(a: Side, b: Side, found: Renaming) -> Renaming:
    """Further pairs of one kind: those that fit each other better than anything else, or the best one."""
    taken = set(found.values())
    free = [name for name in a.kinds if name not in found]
    others = [name for name in b.kinds if name not in taken]
    wanted = [(m, n) for m in free for n in others if a.kinds[m] == b.kinds[n]]
    if not wanted:
        return {}
    ours, theirs = _all_places(a, b, found)
    score = {(m, n): sum((ours[m] & theirs[n]).values()) for m, n in wanted}

    def best(pair: tuple[str, str]) -> bool:
        rivals = [other for other in wanted if (other[0] == pair[0]) != (other[1] == pair[1])]
        return all(score[pair] > score[other] for other in rivals)

    return dict(filter(best, wanted)) or dict([max(wanted, key=score.__getitem__)])


def _all_places(a: Side, b: Side, found: Renaming) -> tuple[dict[str, Places], dict[str, Places]]:
    """Where the names of both sides stand: on the way from the roots, and with all that is beside them."""
    numbers: dict[Hashable, int] = {}
    known = {name: ("found", name) for name in found}
    ours = Side(a.system, {**a.kinds, **known})
    theirs = Side(b.system, {**b.kinds, **{found[name]: kind for name, kind in known.items()}})
    totals: list[dict[str, Places]] = [{name: Counter() for name in side.kinds} for side in (a, b)]
    for inner in (False, True):
        palettes = _Palette(ours, numbers, inner), _Palette(theirs, numbers, inner)
        for depth in range(DEPTH):
            for palette, total in zip(palettes, totals, strict=True):
                for name, places in palette.refine().items():
                    total[name].update({(inner, depth, place): count for place, count in places.items()})
    return totals[0], totals[1]


# ---------------------------------------------------------------------------------------------- colours

Colours = dict[str, int]


def _classes(colours: Colours) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for name in sorted(colours):
        found[colours[name]].append(name)
    return found


def colourings(a: Side, b: Side) -> Iterator[tuple[Colours, Colours]]:
    """The colours of all names, round by round, as long as more of them differ."""
    numbers: dict[Hashable, int] = {}
    palettes = _Palette(a, numbers), _Palette(b, numbers)
    last = 0
    while True:
        yield palettes[0].names(), palettes[1].names()
        count = len({c for palette in palettes for c in palette.colours.values()})
        if count == last:
            return
        last = count
        for palette in palettes:
            palette.refine()


class _Palette:
    """The colours of the atoms of one side; `numbers` gives equal descriptions of both sides one colour.

    Without `inner` a colour tells where an atom stands, but not what it and its neighbours are made of.
    """

    def __init__(self, side: Side, numbers: dict[Hashable, int], inner: bool = True) -> None:
        self.side = side
        self.inner = inner
        self.numbers = numbers
        self.colours: dict[Any, int] = {}
        waiting = list(side.system.values())
        while waiting:
            for one in atoms(waiting.pop()) - self.colours.keys():
                self.colours[one] = self.number(self.first(one))
                waiting += children(one)
        for name in side.kinds:
            self.colours.setdefault(("name", name), self.number(("kind", side.kinds[name])))

    def number(self, description: Hashable) -> int:
        return self.numbers.setdefault(description, len(self.numbers))

    def first(self, one: Any) -> Hashable:
        if one[0] == "name":
            return "kind", self.side.kinds.get(one[1])
        if one[0] == "number":
            return str(one)
        return str(one[0]), str(one[1][1] if one[0] == "@" else one[1] if one[0] == "where" else "")

    def names(self) -> Colours:
        return {name: self.colours["name", name] for name in self.side.kinds}

    def refine(self) -> dict[str, Places]:
        """One round: each atom by what it is made of and the places where it stands. Those of the names."""
        forms: dict[Form, int] = {}
        places: dict[Any, Places] = defaultdict(Counter)

        def colour(form: Form) -> int:
            if not self.inner:
                return 0
            if form not in forms:
                forms[form] = self.number(("form", frozenset(Counter(map(term, form)).items())))
            return forms[form]

        def term(item: Any) -> Hashable:
            monomial, count = item
            return count, frozenset(Counter((self.colours[one], e) for one, e in monomial).items())

        def place(owner: Hashable, form: Form) -> None:
            for item in form:
                for one, exponent in item[0]:
                    places[one][owner, exponent, term(item) if self.inner else ""] += 1

        made: dict[Any, Hashable] = {}
        for (kind, name), form in self.side.system.items():
            if kind.endswith("output"):
                owner: Hashable = ("root", kind, name, colour(form))
            else:
                owner = ("root", kind, self.colours["name", name], colour(form))
                places["name", name][owner] += 1
            place(owner, form)
        for one, own in self.colours.items():
            made[one] = self.made_of(one, colour)
            for slot, form in _slots(one):
                place((own, slot), form)
            if one[0] == "@":
                places["name", one[1][0]][own, "matrix"] += 1
        self.colours = {
            one: self.number((own, made[one], frozenset(places[one].items())))
            for one, own in self.colours.items()
        }
        return {name: places["name", name] for name in self.side.kinds}

    def made_of(self, one: Any, colour: Any) -> Hashable:
        if not self.inner:
            return None
        slots = Counter((slot, colour(form)) for slot, form in _slots(one))
        matrix = self.colours["name", one[1][0]] if one[0] == "@" else None
        return matrix, frozenset(slots.items())


def _slots(one: Any) -> Iterable[tuple[Hashable, Form]]:
    """The forms inside an atom, each with its place; places that may be exchanged are one."""
    match one:
        case (_, frozenset() as counted, ()):
            return [(("any", count), form) for form, count in counted]
        case _:
            return list(enumerate(children(one)))
