"""Which names of one system of forms are those of another: a bijection under which they are equal.

Names are coloured by their kind, then again and again by where they stand and what stands beside them, until
nothing changes (colour refinement: McKay & Piperno 2014, doi:10.1016/j.jsc.2013.09.003). What is still alike
is told apart by trying. A bijection that is found is checked by renaming, so it never depends on colours.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gategen.diff.normal import Form, Key, Numbers, System, children, inside_out

Kinds = Mapping[str, Hashable]
Renaming = dict[str, str]
Places = Counter[Hashable]
TRIES = 500  # of names that look alike
DEPTH = 5  # rounds that look for what corresponds
LOOKS = 3_000  # names looked at before all that are left are told apart at once, in their order


@dataclass(frozen=True)
class Side:
    """A system, and what kind of thing each of its names is."""

    system: System
    kinds: Kinds

    @cached_property
    def outline(self) -> Counter[Hashable]:
        """What no renaming changes: each root by what it is made of, names by their kinds."""
        known: dict[int, tuple[int, Form]] = {}  # by identity; holds what it is of

        def of_atom(one: Any) -> int:
            inner = [(slot, known[id(form)][0]) for slot, form in _slots(one)]
            kind = self.kinds.get(one[1][0]) if one[0] == "@" else None
            return hash((_Palette.first(one, self.kinds), kind, frozenset(Counter(inner).items())))

        for form in inside_out(self.system.values()):
            codes = {one: of_atom(one) for one in form.atoms}
            terms = [
                hash((count, sum([hash((codes[one], e)) for one, e in powers]))) for powers, count in form
            ]
            known[id(form)] = hash(tuple(sorted(terms))), form
        return Counter(
            (key if key[0].endswith("output") else key[0], known[id(form)][0])
            for key, form in self.system.items()
        )


def match(a: Side, b: Side, forms: Numbers) -> Renaming | None:
    """For each name of `a` the one of `b`, so that both systems are equal; None where there is no such.

    `forms` numbers the forms of both.
    """
    if a.outline != b.outline:
        return None
    numbers: dict[Hashable, int] = {}
    return _match((a, b), (_Palette(a, numbers), _Palette(b, numbers)), forms, iter(range(TRIES)))


def _match(
    sides: tuple[Side, Side], palettes: tuple[_Palette, _Palette], forms: Numbers, tries: Iterator[int]
) -> Renaming | None:
    if next(tries, None) is None:
        return None
    classes = _counterparts(*palettes)
    if classes is None:
        return None
    guess = _in_order(*classes)
    if equal(sides[0].system, sides[1].system, guess, forms):
        return guess
    alike = next((c for c, names in classes[0].items() if len(names) > 1), None)
    if alike is None:
        return None
    name = classes[0][alike][0]
    for other in sorted(classes[1][alike], key=lambda other: other != name):
        chosen = ("chosen", name, other)
        ours, theirs = palettes[0].where(name, chosen), palettes[1].where(other, chosen)
        found_or_none = _match(sides, (ours, theirs), forms, tries)
        if found_or_none:
            return found_or_none
    return None


def _in_order(ours: dict[int, list[str]], theirs: dict[int, list[str]]) -> Renaming:
    """For each name its like of the same colour, or the first that is left: the choices that are tried first.

    Where they all fit, to try them one by one would find nothing else.
    """
    found: Renaming = {}
    for colour, names in ours.items():
        left = dict.fromkeys(theirs[colour])
        for name in names:
            found[name] = name if name in left else next(iter(left))
            del left[found[name]]
    return found


def _counterparts(ours: _Palette, theirs: _Palette) -> tuple[dict[int, list[str]], ...] | None:
    """The names of either side by their last colours; None as soon as one colour has more names in one."""
    last = 0
    while True:
        names = ours.names(), theirs.names()
        if Counter(names[0].values()) != Counter(names[1].values()):
            return None
        count = len({*ours.colours, *theirs.colours})
        if count == last:
            return tuple(map(_classes, names))
        last = count
        ours.refine()
        theirs.refine()


def equal(a: System, b: System, names: Renaming, forms: Numbers) -> bool:
    """Whether renaming `a` gives `b`."""
    ours = {renamed_key(key, names): forms.of(form, names) for key, form in a.items()}
    return ours == {key: forms.of(form, forms.own) for key, form in b.items()}


def renamed_key(key: Key, names: Mapping[str, str]) -> Key:
    return key if key[0].endswith("output") else (key[0], names.get(key[1], key[1]))


def similar(a: Side, b: Side) -> Renaming:
    """What corresponds where systems differ: equal names of one kind, then what shares the most places."""
    found = {name: name for name in a.kinds if a.kinds[name] == b.kinds.get(name)}
    looked = 0
    while pairs := _likely(a, b, found, at_once=looked > LOOKS):
        found |= pairs
        looked += len(a.kinds)
    return found


def _likely(a: Side, b: Side, found: Renaming, at_once: bool) -> Renaming:
    """Further pairs of one kind: those that fit each other better than anything else; where there are none,
    the best one, or `at_once` as many that fit as well as any.
    """
    taken = set(found.values())
    free = [name for name in a.kinds if name not in found]
    others = [name for name in b.kinds if name not in taken]
    wanted = [(m, n) for m in free for n in others if a.kinds[m] == b.kinds[n]]
    if not wanted:
        return {}
    ours, theirs = _all_places(a, b, found)
    score = _shared(wanted, ours, theirs)
    rivals: dict[tuple[int, str], list[int]] = defaultdict(list)  # scores of the pairs that each name is in
    for pair in wanted:
        for side, name in enumerate(pair):
            rivals[side, name].append(score[pair])
    highest = {key: sorted(scores)[-2:] for key, scores in rivals.items()}

    def best(pair: tuple[str, str]) -> bool:
        """Whether no other pair of its names has as high a score."""
        tops = (highest[side, name] for side, name in enumerate(pair))
        return all(len(top) == 1 or (top[1] == score[pair] and top[0] < top[1]) for top in tops)

    if fitting := dict(filter(best, wanted)):
        return fitting
    if not at_once:
        return dict([max(wanted, key=score.__getitem__)])
    chosen: Renaming = {}
    used: set[str] = set()
    for m, n in wanted:
        if m not in chosen and n not in used and score[m, n] == highest[0, m][-1] == highest[1, n][-1]:
            chosen[m] = n
            used.add(n)
    return chosen


def _shared(
    wanted: Sequence[tuple[str, str]], ours: Mapping[str, Places], theirs: Mapping[str, Places]
) -> dict[tuple[str, str], int]:
    """How many places the names of each pair have in common; told once for names that stand alike."""
    left = {m: frozenset(ours[m].items()) for m, _ in wanted}
    right = {n: frozenset(theirs[n].items()) for _, n in wanted}
    at: dict[Hashable, list[tuple[Hashable, int]]] = defaultdict(list)
    for places in {*right.values()}:
        for place, count in places:
            at[place].append((places, count))
    score: Counter[Hashable] = Counter()
    for one in {*left.values()}:
        for place, count in one:
            for other, as_often in at.get(place, ()):
                score[one, other] += min(count, as_often)
    return {(m, n): score[left[m], right[n]] for m, n in wanted}


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
                palette.refine()
                for name, places in palette.places.items():
                    total[name].update((inner, depth, place) for place in places)
    return totals[0], totals[1]


# ---------------------------------------------------------------------------------------------- colours

Colours = dict[str, int]


def _classes(colours: Colours) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for name in sorted(colours):
        found[colours[name]].append(name)
    return found


class _Palette:
    """The colours of the atoms of one side; `numbers` gives equal descriptions of both sides one colour.

    Without `inner` a colour tells where an atom stands, but not what it and its neighbours are made of. Atoms
    and terms are known by their number here: a round of a large cell describes thousands of them.
    """

    def __init__(self, side: Side, numbers: dict[Hashable, int], inner: bool = True) -> None:
        self.inner = inner
        self.numbers = numbers
        self.index: dict[Any, int] = {}
        self.colours: list[int] = []
        self.terms: list[tuple[int, list[tuple[int, int]]]] = []  # a factor; atoms, each with its exponent
        self.places: dict[str, list[int]] = {}  # of the names, as of the last round
        found: list[Any] = []
        waiting = list(side.system.values())
        while waiting:
            for one in waiting.pop().atoms - self.index.keys():
                self.enter(one, self.first(one, side.kinds))
                found.append(one)
                waiting += children(one)
        for name, kind in side.kinds.items():
            if ("name", name) not in self.index:
                self.enter(("name", name), ("kind", kind))
        self.of_name = {name: self.index["name", name] for name in side.kinds}
        self.slots = [[(self.number(slot), self.form(form)) for slot, form in _slots(one)] for one in found]
        self.matrices = [self.index["name", one[1][0]] if one[0] == "@" else None for one in found]
        self.roots = [(key, self.form(form)) for key, form in side.system.items()]

    def enter(self, one: Any, description: Hashable) -> None:
        self.index[one] = len(self.colours)
        self.colours.append(self.number(description))

    def form(self, form: Form) -> list[int]:
        """The terms of a form, by their places in `terms`."""
        begin = len(self.terms)
        for monomial, count in form:
            powers = [(self.index[one], self.number(("exponent", e))) for one, e in monomial]
            self.terms.append((self.number(("count", count)), powers))
        return list(range(begin, len(self.terms)))

    def where(self, name: str, kind: Hashable) -> _Palette:
        """A palette with these colours, but for that of one name."""
        made = copy(self)
        made.colours = [*self.colours]
        made.colours[self.of_name[name]] = self.number(("kind", kind))
        return made

    def number(self, description: Hashable) -> int:
        return self.numbers.setdefault(description, len(self.numbers))

    @staticmethod
    def first(one: Any, kinds: Kinds) -> Hashable:
        if one[0] == "name":
            return "kind", kinds.get(one[1])
        if one[0] == "number":
            return str(one)
        return str(one[0]), str(one[1][1] if one[0] == "@" else one[1] if one[0] == "where" else "")

    def names(self) -> Colours:
        return {name: self.colours[one] for name, one in self.of_name.items()}

    def refine(self) -> None:
        """One round: each atom by what it is made of and the places where it stands."""
        colours, number = self.colours, self.number
        terms = [
            number((count, *sorted((colours[one], e) for one, e in powers))) if self.inner else 0
            for count, powers in self.terms
        ]
        places: list[list[int]] = [[] for _ in colours]

        def colour(form: list[int]) -> int:
            return number(("form", *sorted(terms[k] for k in form))) if self.inner else 0

        def place(owner: Hashable, form: list[int]) -> None:
            at = number(owner)
            for k in form:
                for one, e in self.terms[k][1]:
                    places[one].append(number((at, e, terms[k])))

        for (kind, name), form in self.roots:
            if kind.endswith("output"):
                place(("root", kind, name, colour(form)), form)
                continue
            own = self.of_name[name]
            owner = "root", kind, colours[own], colour(form)
            places[own].append(number(owner))
            place(owner, form)
        made: list[Hashable] = [None for _ in colours]
        for one, (slots, matrix) in enumerate(zip(self.slots, self.matrices, strict=True)):
            for slot, form in slots:
                place((colours[one], slot), form)
            if matrix is not None:
                places[matrix].append(number((colours[one], "matrix")))
            if self.inner:
                inside = tuple(sorted((slot, colour(form)) for slot, form in slots))
                made[one] = None if matrix is None else colours[matrix], inside
        self.places = {name: places[one] for name, one in self.of_name.items()}
        self.colours = [
            number((own, made[one], tuple(sorted(places[one])))) for one, own in enumerate(colours)
        ]


def _slots(one: Any) -> Iterable[tuple[Hashable, Form]]:
    """The forms inside an atom, each with its place; places that may be exchanged are one."""
    match one:
        case (_, frozenset() as counted, ()):
            return [(("any", count), form) for form, count in counted]
        case _:
            return list(enumerate(children(one)))
