"""Equations in a normal form in which equal functions look equal: polynomials over atoms, order forgotten.

A form is a sum of monomials over atoms; an atom is a name or an applied function whose arguments are forms.
Sums and products are multiplied out, gates are put in, `W @ (a + b)` is `W @ a + W @ b`, stacked columns are
matrices of their own, odd functions and sigmoid lose a minus sign (`sigmoid(-a) = 1 - sigmoid(a)`). Nothing
else is rewritten: `sympy.simplify` is never called, and what needs more than this stays different here.

Names are given a meaning by an environment: so renaming, negating and adding up parameters is tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from typing import Any

import sympy as sp

from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.functions import TABLE, row_of
from gategen.spec.language import Eq

Number = int | Fraction
Monomial = frozenset[tuple[Any, Number]]  # atoms and their exponents
Term = tuple[Monomial, Number]
Combination = tuple[tuple[Number, str], ...]  # what a matrix stands for: a sum of matrices with factors


class Form(frozenset[Term]):
    """A sum of terms, each a monomial with its factor."""

    @cached_property
    def atoms(self) -> frozenset[Any]:
        """The atoms of all terms, but not what is inside of them."""
        return frozenset([one for monomial, _ in self for one, _ in monomial])


ONE: Monomial = frozenset()
ZERO = Form()
LARGEST = 4096  # terms of a product that is still multiplied out
POWERS = 8  # the largest power of a sum that is

COMMUTATIVE = (*lang.REDUCTIONS, *(row.apply for row in TABLE if row.symmetric))
FLIPPED = {">": "<", ">=": "<="}


def leaf(name: str) -> Form:
    return atom(("name", name))


def atom(found: Any) -> Form:
    return Form({(frozenset({(found, 1)}), 1)})


def constant(value: Number) -> Form:
    return Form({(ONE, value)}) if value else ZERO


def exact(number: sp.Expr) -> Number | None:
    """A rational number; a float as the decimal number it is written as; None for pi and the like."""
    if isinstance(number, sp.Rational):
        return int(number.p) if number.q == 1 else Fraction(int(number.p), int(number.q))
    return Fraction(repr(float(number))) if isinstance(number, sp.Float) else None


def collected(terms: Iterable[Term]) -> Form:
    total: dict[Monomial, Number] = {}
    for monomial, count in terms:
        total[monomial] = total.get(monomial, 0) + count
    return Form(term for term in total.items() if term[1])


def add(*forms: Form) -> Form:
    if len(forms) == 1:
        return forms[0]
    every = ZERO.union(*forms)
    if len(dict(every)) == sum(map(len, forms)):  # no monomial is in two of them
        return Form(every)
    return collected(term for form in forms for term in form)


def scale(form: Form, factor: Number) -> Form:
    return Form([(monomial, count * factor) for monomial, count in form]) if factor else ZERO


def multiply(a: Form, b: Form) -> Form:
    """Multiplied out, where that is not too much."""
    if len(a) * len(b) > LARGEST:
        a, b = (atom(("sum", form)) if len(form) > 1 else form for form in (a, b))
    terms = [(joined(m, n), p * q) for m, p in a for n, q in b]
    return Form(terms) if len(a) == 1 or len(b) == 1 else collected(terms)


def joined(a: Monomial, b: Monomial) -> Monomial:
    """The product."""
    if not a or not b:
        return a or b
    exponents = dict(a)
    for found, exponent in b:
        exponents[found] = exponents.get(found, 0) + exponent
    if len(exponents) == len(a) + len(b):
        return a | b
    return frozenset((found, exponent) for found, exponent in exponents.items() if exponent)


def power(base: Form, exponent: Number) -> Form:
    if exponent.denominator == 1 and 0 <= exponent <= POWERS:
        total = constant(1)
        for _ in range(int(exponent)):
            total = multiply(total, base)
        return total
    if len(base) == 1:
        ((monomial, count),) = base
        plain = len(monomial) == 1 and all(e == 1 for _, e in monomial)  # sqrt(a**2) is not a
        if count == 1 and (plain or exponent.denominator == 1):
            return Form({(frozenset((found, e * exponent) for found, e in monomial), 1)})
    return Form({(frozenset({(("sum", base), exponent)}), 1)})


class Normal:
    """Reads expressions in an environment: forms of names, and the combinations that matrices stand for."""

    def __init__(
        self, names: Mapping[str, Form] | None = None, matrices: Mapping[str, Combination] | None = None
    ) -> None:
        self.names = dict(names or {})
        self.matrices = dict(matrices or {})

    def __call__(self, expr: sp.Basic) -> Form:
        if isinstance(expr, lang.Constant):
            return self(expr.value)
        if isinstance(expr, lang.Count):
            return atom(("number", f"size {expr}"))
        if isinstance(expr, lang.leaf):
            return self(expr.args[0])
        if isinstance(expr, lang.Matrix):
            known = self.matrices.get(expr.name, ((1, expr.name),))
            return add(*(scale(leaf(name), factor) for factor, name in known))
        if isinstance(expr, sp.Symbol):
            return self.names.get(expr.name, leaf(expr.name))
        if isinstance(expr, sp.Add):
            return add(*map(self, expr.args))
        if isinstance(expr, sp.Mul):
            total = constant(1)
            for arg in expr.args:
                total = multiply(total, self(arg))
            return total
        if isinstance(expr, sp.Pow):
            return self.power(expr)
        if isinstance(expr, lang.matvec):
            return self.product(expr)
        if isinstance(expr, lang.matmat):  # of its rows W.T @ v
            value, matrix, transposed = expr.args
            if isinstance(matrix, lang.computed):
                return self.computed(matrix.args[0], self(value), not transposed)
            return self.applied(matrix.name, value, not transposed)
        if isinstance(expr, lang.Word):
            return self(expr.formula)
        if isinstance(expr, lang.where):
            return self.where(expr)
        if isinstance(expr, lang.outer):  # axes are told by their sizes: it is a product of all entries
            return multiply(*map(self, expr.args))
        if isinstance(expr, sp.Function):
            return self.function(expr)
        value = exact(expr)
        return constant(value) if value is not None else atom(("number", str(expr)))

    def power(self, expr: sp.Pow) -> Form:
        found = self(expr.exp)
        if found == ZERO or (len(found) == 1 and next(iter(found))[0] == ONE):
            return power(self(expr.base), next(iter(found))[1] if found else 0)
        return atom(("power", (self(expr.base), found)))

    def computed(self, expr: Any, operand: Form, transposed: bool) -> Form:
        """An expression of matrices times a form: of what is linear the parts, the rest as one matrix."""
        if isinstance(expr, lang.leaf):
            return self.times(expr.args[0].name, operand, transposed)
        if isinstance(expr, lang.transposed):
            return self.computed(expr.args[0], operand, not transposed)
        if isinstance(expr, lang.unit):
            return operand
        if isinstance(expr, lang.matmul):
            first, last = expr.args[:: 1 if transposed else -1]
            return self.computed(last, self.computed(first, operand, transposed), transposed)
        if isinstance(expr, sp.Add):
            return add(*(self.computed(arg, operand, transposed) for arg in expr.args))
        whole = [arg for arg in expr.args if lang.is_matrix(arg)] if isinstance(expr, sp.Mul) else []
        if len(whole) == 1 and not (isinstance(whole[0], sp.Pow) or whole[0].has(lang.row_norm)):
            numbers = self(sp.Mul(*(arg for arg in expr.args if arg is not whole[0])))
            return multiply(numbers, self.computed(whole[0], operand, transposed))
        form = self(expr)
        return add(
            *(
                scale(atom(("computed", transposed, (form, Form({(monomial, 1)})))), count)
                for monomial, count in operand
            )
        )

    def product(self, expr: Any) -> Form:
        matrix, operand, transposed = expr.args
        if isinstance(matrix, lang.computed):
            return self.computed(matrix.args[0], self(operand), bool(transposed))
        if not isinstance(matrix, lang.Matrix):
            return self.bilinear("transposed" if transposed else "@", self(matrix), self(operand))
        if isinstance(operand, lang.concat):
            blocks = (self.applied(Block(matrix.name, k), arg, False) for k, arg in enumerate(operand.args))
            return add(*blocks)
        return self.applied(matrix.name, operand, bool(transposed))

    def applied(self, matrix: str, operand: sp.Expr, transposed: bool) -> Form:
        """One term for every matrix that `matrix` stands for and every term of the operand."""
        return self.times(matrix, self(operand), transposed)

    def times(self, matrix: str, operand: Form, transposed: bool) -> Form:
        return add(
            *(
                scale(atom(("@", (name, transposed), (Form({(monomial, 1)}),))), factor * count)
                for factor, name in self.matrices.get(matrix, ((1, matrix),))
                for monomial, count in operand
            )
        )

    @staticmethod
    def bilinear(name: str, left: Form, right: Form) -> Form:
        """One term for every pair of terms of two forms."""
        return add(
            *(
                scale(atom(("of rows", name, (Form({(a, 1)}), Form({(b, 1)})))), n * m)
                for a, n in left
                for b, m in right
            )
        )

    def where(self, expr: Any) -> Form:
        condition, a, b = expr.args
        sign, difference = (
            condition.rel_op,
            add(self(condition.lhs), scale(self(condition.rhs), -1)),
        )
        if sign in FLIPPED:
            sign, difference = FLIPPED[sign], scale(difference, -1)
        if sign == "==" and negative(difference):
            difference = scale(difference, -1)
        return atom(("where", sign, (difference, self(a), self(b))))

    def function(self, expr: sp.Function) -> Form:
        name, args = type(expr).__name__, tuple(map(self, expr.args))
        if not args:
            return atom((name, "", ()))
        if isinstance(expr, COMMUTATIVE):
            return atom((name, frozenset(Counter(args).items()), ()))
        (first, *rest) = args
        if isinstance(expr, (lang.cumsum, lang.cumsum_over, lang.shifted)):
            terms = ((atom((name, "", (Form({(monomial, 1)}), *rest))), count) for monomial, count in first)
            return add(ZERO, *(scale(one, count) for one, count in terms))
        row = row_of(expr)
        if row and row.parity and negative(first):
            inner = atom((name, "", (scale(first, -1),)))
            if row.parity == "opposite":
                return add(constant(1), scale(inner, -1))
            return inner if row.parity == "even" else scale(inner, -1)
        return atom((name, "", (first, *rest)))


class Block(str):
    """The name of a block of columns, which knows its matrix; no name of a spec looks like it."""

    matrix: str
    k: int

    def __new__(cls, matrix: str, k: int) -> Block:
        self = super().__new__(cls, f"{matrix}, block {k}")
        self.matrix, self.k = matrix, k
        return self


def block_of(name: str) -> tuple[str, int | None]:
    """The matrix that a name belongs to, and which of its blocks it is."""
    return (name.matrix, name.k) if isinstance(name, Block) else (name, None)


def negative(form: Form) -> bool:
    """Whether most terms carry a minus sign: a choice of sign that no renaming changes."""
    return len([count for _, count in form if count < 0]) * 2 > len(form)


class Numbers:
    """A number for each form, the same for equal ones, also where names are other ones.

    Deep forms share parts, and to compare two of them part by part takes as long as if they did not.
    """

    def __init__(self) -> None:
        self.own: Mapping[str, str] = {}  # no other names
        self.known: dict[Any, int] = {}
        self.seen: dict[tuple[int, int], tuple[int, Any, Any]] = {}  # by identity; holds what it is of

    def of(self, form: Form, names: Mapping[str, str]) -> int:
        """The number of a form with other names in it. What is inside comes first, however deep it lies."""
        seen, which = self.seen, id(names)
        if (id(form), which) not in seen:
            for part in inside_out([form], lambda part: (id(part), which) in seen):
                number = {one: self.number(self.described(one, names)) for one in part.atoms}
                terms = [(count, *sorted([(number[one], e) for one, e in powers])) for powers, count in part]
                seen[id(part), which] = self.number(frozenset(terms)), part, names
        return seen[id(form), which][0]

    def number(self, description: Any) -> int:
        return self.known.setdefault(description, len(self.known))

    def described(self, one: Any, names: Mapping[str, str]) -> Any:
        """An atom, with numbers for the forms in it."""
        match one:
            case ("name", name):
                return "name", names.get(name, name)
            case ("number", _):
                return one
            case ("sum", inner):
                return "sum", self.of(inner, names)
            case ("power", forms):
                return "power", tuple(self.of(form, names) for form in forms)
            case ("@", (matrix, transposed), forms):
                inner = tuple(self.of(form, names) for form in forms)
                return "@", (names.get(matrix, matrix), transposed), inner
            case (function, frozenset() as counted, ()):
                return function, frozenset((self.of(form, names), count) for form, count in counted), ()
            case (function, sign, forms):
                return function, sign, tuple(self.of(form, names) for form in forms)
        raise AssertionError(one)


def names_in(forms: Iterable[Form]) -> set[str]:
    """All names in forms, matrices among them."""
    atoms = {one for form in inside_out(forms) for one in form.atoms}
    return {one[1] if one[0] == "name" else one[1][0] for one in atoms if one[0] in ("name", "@")}


def inside_out(forms: Iterable[Form], known: Callable[[Form], bool] = lambda form: False) -> Iterator[Form]:
    """All forms but the `known` ones, and before each of them those inside of it; each object once."""
    seen: set[int] = set()
    waiting = [(form, False) for form in forms]
    while waiting:
        form, ready = waiting.pop()
        if ready:
            yield form
        elif id(form) not in seen and not known(form):
            seen.add(id(form))
            waiting.append((form, True))
            waiting += [(part, False) for one in form.atoms for part in children(one)]


def children(one: Any) -> list[Form]:
    """The forms inside an atom."""
    match one:
        case ("name" | "number", _):
            return []
        case ("sum", form):
            return [form]
        case ("power", forms):
            return list(forms)
        case (_, frozenset() as counted, ()):
            return [form for form, _ in counted]
        case (_, _, forms):
            return list(forms)
    raise AssertionError(one)


# ---------------------------------------------------------------------------------------------- a cell

Key = tuple[str, str]
System = dict[Key, Form]


def system(cell: Cell, given: Normal, *, whole: bool = True) -> System:
    """What a cell computes: ("next", h), ("gate", z), ("output", 0), ("start", h), and ("first next", h) ...

    With `whole` gates are put in where they are read, otherwise they are names there, as are next states.
    """
    first = _step(cell, cell.first, given, "first ", whole)
    read = names_in(first.values())  # a rule that reads no state leaves its initial value without effect
    starts = {("start", s.name): given(s.initial) for s in cell.states if not cell.first or s.name in read}
    return _step(cell, cell.equations, given, "", whole) | first | starts


def _step(cell: Cell, equations: Iterable[Eq], given: Normal, rule: str, whole: bool) -> System:
    reader = Normal(given.names, given.matrices)
    found: System = {}
    values: dict[str, Form] = {}
    for eq in equations:
        values[eq.lhs.name] = value = reader(eq.rhs)
        if whole:
            reader.names[eq.lhs.name] = value
        found[key(eq, rule)] = value
    for k, symbol in enumerate(cell.outputs if values else ()):
        found[f"{rule}output", str(k)] = values[symbol.name] if whole else given(symbol)
    return found


def key(eq: Eq, rule: str) -> Key:
    if isinstance(eq.lhs, lang.Next):
        return f"{rule}next", str(eq.lhs.state.name)
    return f"{rule}gate", str(eq.lhs.name)


def results(found: System) -> System:
    """What reaches the outside."""
    return {key: form for key, form in found.items() if not key[0].endswith("gate")}
