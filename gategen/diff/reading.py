"""How a cell may be read: as it stands, with parameters that are only added as one, with others negated.

Each is a change of trained parameters, under which the cell can be all the functions that it could be before.
Which readings of two cells are equal is for `diff` to find.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

from gategen.diff.match import Side
from gategen.diff.normal import (
    POWERS,
    ZERO,
    Block,
    Form,
    Normal,
    System,
    Term,
    add,
    atom,
    block_of,
    children,
    constant,
    leaf,
    multiply,
    names_in,
    power,
    results,
    scale,
    system,
)
from gategen.graph import shape_of
from gategen.spec import language as lang
from gategen.spec.cell import Cell

FLIPS = 7  # so many gates are tried with parameters of the other sign,
WORK = 2000  # and of many gates fewer: so many times a gate is looked at


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
        names = {name: ZERO for name in gone} | {n: scale(leaf(n), -1) for n in self.flipped}
        combined = {name: () for name in gone} | {n: ((-1, n),) for n in self.flipped}
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
    return add(ZERO if odd else constant(1), scale(form, -1))


def kinds_of(cell: Cell) -> dict[str, Hashable]:
    """Role and size of everything that can be renamed, and of what is fixed the contents.

    The sequence is the sequence on both sides.
    """
    found: dict[str, Hashable] = {
        x.name: ("sequence" if k == 0 else "input", *shape_of(x.size)) for k, x in enumerate(cell.inputs)
    }
    found |= {s.name: ("state", s.size) for s in cell.states}
    for p in cell.parameters:
        shape = cell.shapes[p.name] if isinstance(p, lang.Matrix) else (cell.size_of(p),)
        if isinstance(shape[-1], tuple):
            blocks = {Block(p.name, k): (k, c) for k, c in enumerate(shape[-1])}
            found |= {block: ("matrix", shape[0], c, held_by(p, k)) for block, (k, c) in blocks.items()}
        else:
            found[p.name] = (p.role, *shape, held_by(p))
    return found


def held_by(parameter: lang.Parameter, column: int = 0) -> lang.Contents | None:
    """What a fixed parameter, or a block of its columns, is said to hold, and always does."""
    fixed = parameter.contents and not parameter.trainable
    return parameter.contents.column(column) if fixed else None


def flipped(left: Reading, right: Reading) -> Iterator[Reading]:
    """The left reading with ever more gates of the other sign, where some signs can make it equal to the
    right one; first with none, where parameters were dropped.
    """
    known: dict[Hashable, int] = {}
    if skeleton(left, known) == skeleton(right, known):
        for names in signs(left):
            if names:
                yield replace(left, flipped=names)
            elif left.dropped or right.dropped:
                yield left


def skeleton(reading: Reading, known: dict[Hashable, int]) -> Counter[Hashable]:
    """What no renaming and no change of sign changes: which kinds of names and functions each result is of.

    A form is told by the set of its atoms alone, for `1 - z` has other terms than `z`. `known` numbers
    the descriptions of forms.
    """
    numbers: dict[Form, int] = {}
    kinds = reading.kinds

    def of(form: Form) -> int:
        waiting = [form]
        while form not in numbers:  # what is inside comes first, however deep it lies
            last = waiting[-1]
            inner = [part for one in last.atoms for part in children(one) if part not in numbers]
            waiting += inner
            if not inner:
                numbers[waiting.pop()] = known.setdefault(frozenset(whole(last.atoms)), len(known))
        return numbers[form]

    def whole(found: Iterable[Any]) -> Iterator[Hashable]:
        for one in found:
            match one:
                case ("sum", inner):
                    yield from whole(inner.atoms)
                case ("name", name):
                    yield kinds.get(name)
                case ("@", (matrix, transposed), forms):
                    yield "@", kinds.get(matrix), transposed, tuple(map(of, forms))
                case ("number", _):
                    yield one
                case (function, *_):
                    yield function, frozenset(map(of, children(one)))

    return Counter((rule, of(form)) for (rule, _), form in results(reading.whole).items())


def trained(cell: Cell) -> set[str]:
    """The names of parameters, or of their blocks, that training changes."""
    owners = {p.name for p in cell.parameters if p.trainable}
    return {name for name in kinds_of(cell) if block_of(name)[0] in owners}


def merged(made: Reading) -> Reading:
    """A reading with parameters dropped that only ever stand in a sum with another one of their kind."""
    own = trained(made.cell)
    where = places(results(made.whole).values())
    gone: dict[str, str] = {}
    alike: dict[Hashable, list[str]] = defaultdict(list)  # what only its sum with another counts is like that
    for name in made.kinds:
        if name in own:
            alike[made.kinds[name], likeness(name, where[name])].append(name)
    for names in alike.values():
        for k, kept in enumerate(names):
            for other in names[k + 1 :]:
                if not {kept, other} & gone.keys() and only_their_sum(kept, other, gone, where):
                    gone[other] = kept
    order = {name: k for k, name in enumerate(made.kinds)}
    dropped = sorted(gone.items(), key=lambda pair: (order[pair[1]], order[pair[0]]))
    return replace(made, dropped=tuple(dropped)) if dropped else made


Places = dict[int, Form]  # terms in which a name stands, by the number of the form that they are of


def places(forms: Iterable[Form]) -> dict[str, Places]:
    """Where each name stands, of itself or as the matrix of a product."""
    found: dict[str, dict[int, list[Any]]] = defaultdict(dict)
    seen: set[Form] = set()
    waiting = list(forms)
    while waiting:
        form = waiting.pop()
        if form not in seen:
            seen.add(form)
            for term in form:
                for name in {named for one, _ in term[0] if (named := direct_name(one))}:
                    found[name].setdefault(len(seen), []).append(term)
            waiting += [child for one in form.atoms for child in children(one)]
    return {name: {k: Form(terms) for k, terms in forms.items()} for name, forms in found.items()}


def likeness(name: str, where: Places) -> Hashable:
    """What two names have in common that can change places."""
    return frozenset(
        (k, frozenset(Counter(described(name, term) for term in terms).items())) for k, terms in where.items()
    )


def described(name: str, term: Term) -> Hashable:
    """A term by its factor, the number of its atoms, and the exponents of those with the name."""
    monomial, count = term
    return (
        count,
        len(monomial),
        frozenset(Counter(e for one, e in monomial if direct_name(one) == name).items()),
    )


def only_their_sum(kept: str, other: str, gone: Collection[str], where: Mapping[str, Places]) -> bool:
    """Whether a cell without the names `gone` depends on `kept + other` alone: `other` cancels where
    `kept - other` takes the place of `kept`.

    That is told form by form, for what is inside of another function cancels with nothing outside of it.
    """
    return all(
        cancels(kept, other, [term for term in where[kept][k] | where[other][k] if not held(term, gone)])
        for k in where[kept]
    )


def held(term: Term, names: Collection[str]) -> bool:
    """Whether one of the names stands in a term."""
    return any(direct_name(one) in names for one, _ in term[0])


def cancels(kept: str, other: str, terms: Iterable[Term]) -> bool:
    """Whether `other` is in no term any more where `kept - other` takes the place of `kept`."""
    total = ZERO
    for monomial, count in terms:
        product = constant(count)
        for one, exponent in monomial:
            name = direct_name(one)
            if name in (kept, other):
                if exponent.denominator != 1 or not 0 < exponent <= POWERS:
                    return False
                value = atom(one)
                if name == kept:
                    value = add(value, scale(atom(called(one, other)), -1))
                product = multiply(product, power(value, exponent))
            else:
                product = multiply(product, Form({(frozenset({(("opaque", one), exponent)}), 1)}))
        total = add(total, product)
    return not any(one[0] == "sum" or direct_name(one) == other for one in total.atoms)


def called(one: Any, name: str) -> Any:
    """A name, or a product with a matrix, of another name."""
    return ("name", name) if one[0] == "name" else ("@", (name, one[1][1]), one[2])


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
        for some in combinations(list(groups)[: flips(len(groups))], count):
            yield frozenset(symmetric_difference(some))


def flips(gates: int) -> int:
    """How many of so many gates are turned round: with each more there are twice as many readings to try."""
    return next((k for k in range(FLIPS, 0, -1) if 2**k * gates <= WORK), 1)


def symmetric_difference(sets: Iterable[frozenset[str]]) -> set[str]:
    found: set[str] = set()
    for one in sets:
        found ^= one
    return found


def insides(forms: Iterable[Form]) -> list[frozenset[str]]:
    """The parameters directly in the argument of each sigmoid and tanh, in the order of their names."""
    found: set[frozenset[str]] = set()
    seen: set[Form] = set()
    waiting = list(forms)
    while waiting:
        form = waiting.pop()
        if form not in seen:
            seen.add(form)
            inner = form.atoms
            found |= {frozenset(direct(one[2][0])) for one in inner if one[0] in ("sigmoid", "tanh")}
            waiting += [child for one in inner for child in children(one)]
    return sorted(found, key=sorted)


def direct(form: Form) -> set[str]:
    """The names in a form, and the matrices of its products, but nothing deeper."""
    return {name for one in form.atoms if (name := direct_name(one))}


def direct_name(one: Any) -> str:
    """The name that an atom is, or whose matrix it multiplies by; empty for others."""
    name: str = one[1] if one[0] == "name" else one[1][0] if one[0] == "@" else ""
    return name


def turns(reading: Reading) -> Iterator[Reading]:
    """The reading with some of its gates turned round, few before many: 1 - z for z, -n for n."""
    gates = turnable(reading)
    for count in range(len(gates) + 1):
        for some in combinations(gates, count):
            flipped = symmetric_difference(inside for _, _, inside in some)
            yield replace(
                reading, flipped=frozenset(flipped), turned=tuple(some_gate[:2] for some_gate in some)
            )


def turnable(reading: Reading) -> list[tuple[str, bool, frozenset[str]]]:
    """Gates that are a sigmoid or a tanh of trained parameters: name, whether odd, and those parameters."""
    own = trained(reading.cell)
    found = []
    for (kind, gate), form in reading.open.items():
        inner = form.atoms
        if kind == "gate" and len(form) == 1 and len(inner) == 1:
            (one,) = inner
            if one[0] in ("sigmoid", "tanh"):
                found.append((gate, one[0] == "tanh", frozenset(direct(one[2][0]) & own)))
    return found[: flips(len(found))]
