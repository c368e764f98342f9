"""Sizes by unification: every vector gets a size, every matrix a shape, or an error that names the symbols.

Elementwise terms have one size, a size-1 value broadcasts, `W @ v` ties the columns of `W` to `v` and its
rows to what surrounds it. Sizes are names (`"hidden"`) or integers; what is still unknown is a `Variable`.
`infer` does so for all equations of a cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from gategen.errors import SpecError
from gategen.spec import language as lang
from gategen.spec.equations import Eq
from gategen.spec.language import Shape, Size
from gategen.spec.printer import text
from gategen.spec.quoting import placed


@dataclass(frozen=True)
class Variable:
    """An unknown size: the rows or the columns of a matrix that was declared without a shape."""

    owner: str
    side: str

    def __str__(self) -> str:
        return f"the {self.side} of {self.owner}"


Term = Size | Variable
REDUCTIONS = (lang.sum_, lang.mean, lang.var)


class Unifier:
    """Gathers equalities between sizes; `gates` holds the sizes of the equations read so far."""

    def __init__(self) -> None:
        self.known: dict[Variable, Term] = {}
        self.gates: dict[str, Term] = {}
        self.matrices: dict[str, tuple[Term, Term | tuple[Term, ...]]] = {}

    def find(self, term: Term) -> Term:
        while isinstance(term, Variable) and term in self.known:
            term = self.known[term]
        return term

    def equate(self, a: Term, b: Term, message: str, left: Any = None, right: Any = None) -> Term:
        """One size from two, those of `left` and `right`, or a `SpecError` with `message` and both sizes."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return a
        if isinstance(a, Variable):
            self.known[a] = b
            return b
        if isinstance(b, Variable):
            self.known[b] = a
            return a
        hint = "elementwise values have one size, or size 1; a product W @ v changes the size"
        for value, other in ((left, b), (right, a)):
            size = f'"{other}"' if isinstance(other, str) else other
            if (x := _elementwise(lang.Input, value)) is not None:
                made = f'{x} = inputs("{x}", size={size})'
                hint = f"{made} makes {x} as wide; a product W @ {x} changes the size"
            elif left is None and (v := _elementwise(lang.Vector, value)) is not None and v.size != other:
                hint = f'{v} = vectors("{v}", size={size}) makes {v} as wide as the state'
        raise SpecError(f"sizes contradict: {message.format(a=describe(a), b=describe(b))}", hint=hint)

    # ------------------------------------------------------------------------------------------ reading

    def size(self, expr: sp.Basic) -> Term:
        """The size of an expression; 1 where it broadcasts."""
        if isinstance(expr, (lang.Input, lang.State, lang.Vector)):
            return expr.size
        if isinstance(expr, lang.Next):
            return expr.state.size
        if isinstance(expr, lang.Gate):
            return self.gates[expr.name]
        if isinstance(expr, lang.matvec):
            return self.product(expr)
        if isinstance(expr, REDUCTIONS):
            for arg in expr.args:
                self.size(arg)
            return 1
        if isinstance(expr, lang.normed):
            for value in expr.values:
                self.size(value)
            return self.common(expr.part)
        return self.common(expr.args)

    def common(self, args: Iterable[sp.Basic]) -> Term:
        """The one size of the arguments of an elementwise expression."""
        size: Term = 1
        first: sp.Basic | None = None
        for arg in args:
            if not isinstance(arg, (sp.Expr, Relational)):
                continue
            own = self.find(self.size(arg))
            if own == 1:
                continue
            if first is not None:
                message = f"{text(first)} has size {{a}}, {text(arg)} has size {{b}}"
                size = self.equate(size, own, message, first, arg)
            else:
                size, first = own, arg
        return size

    def product(self, expr: Any) -> Term:
        matrix, operand, transposed = expr.args
        rows, columns = self.shape(matrix, operand)
        if isinstance(operand, lang.concat) and transposed:
            raise SpecError(
                f"{matrix}.T meets stacked vectors: only columns can be stacked",
                hint="declare the matrix the other way round: A @ concat(...)",
            )
        if isinstance(operand, lang.concat):
            return self.stacked(matrix, operand, rows, columns)
        if isinstance(columns, tuple):
            raise SpecError(
                f"{matrix} has stacked columns {describe(columns)} but meets {text(operand)}",
                hint=f"{matrix} @ concat(...), with {len(columns)} vectors",
            )
        size = self.size(operand)
        inner, outer = (rows, columns) if transposed else (columns, rows)
        side = "rows" if transposed else "columns"
        self.equate(inner, size, f"the {side} of {matrix} have size {{a}}, {text(operand)} has size {{b}}")
        return self.find(outer)

    def stacked(self, matrix: Any, operand: Any, rows: Term, columns: Term | tuple[Term, ...]) -> Term:
        if not isinstance(columns, tuple) or len(columns) != len(operand.args):
            parts = ", ".join(f'"{describe(self.find(self.size(part)))}"' for part in operand.args)
            raise SpecError(
                f"{matrix} meets {len(operand.args)} stacked vectors, "
                f"but its columns are {describe(columns)}",
                hint=f'matrices("{matrix}", shape=("{describe(self.find(rows))}", ({parts})))',
            )
        for k, (column, part) in enumerate(zip(columns, operand.args, strict=True)):
            message = f"column block {k} of {matrix} has size {{a}}, {text(part)} has size {{b}}"
            self.equate(column, self.size(part), message)
        return self.find(rows)

    def shape(self, matrix: Any, operand: Any) -> tuple[Term, Term | tuple[Term, ...]]:
        if matrix.name not in self.matrices:
            if matrix.shape is not None:
                self.matrices[matrix.name] = matrix.shape
            elif isinstance(operand, lang.concat):
                columns = tuple(Variable(matrix.name, f"column block {k}") for k in range(len(operand.args)))
                self.matrices[matrix.name] = Variable(matrix.name, "rows"), columns
            else:
                self.matrices[matrix.name] = Variable(matrix.name, "rows"), Variable(matrix.name, "columns")
        return self.matrices[matrix.name]

    # ------------------------------------------------------------------------------------------ answers

    def solved(self, term: Term) -> Size:
        found = self.find(term)
        if isinstance(found, Variable):
            raise SpecError(
                f"{found} cannot be inferred",
                hint=f"say it where it is declared, in a size name known or new: "
                f'matrices("{found.owner}", shape=("hidden", "input"))',
            )
        return found

    def solved_shape(self, name: str) -> Shape:
        rows, columns = self.matrices[name]
        if isinstance(columns, tuple):
            return self.solved(rows), tuple(map(self.solved, columns))
        return self.solved(rows), self.solved(columns)


def describe(size: Term | tuple[Term, ...]) -> str:
    return f"({', '.join(map(str, size))})" if isinstance(size, tuple) else str(size)


# ---------------------------------------------------------------------------------------------- of a cell


def infer(
    equations: Sequence[Eq], first: Sequence[Eq], states: Sequence[lang.State], outputs: Sequence[Any]
) -> tuple[Mapping[str, Size], Mapping[str, Size], Mapping[str, Shape]]:
    """The sizes of the gates, those of the gates of the first step, and the shapes of the matrices."""
    unifier = Unifier()
    gates: list[dict[str, Any]] = []
    for one in (equations, first):
        unifier.gates = {}
        for eq in one:
            try:
                _unify(unifier, eq)
            except SpecError as error:
                raise placed(error, eq) from None
        gates.append(unifier.gates)
    for state in states:
        own = unifier.size(state.initial)
        if unifier.find(own) != 1:
            try:
                unifier.equate(state.size, own, f"{state} has size {{a}}, its initial value {{b}}")
            except SpecError as error:
                raise error.at(state.where) from None
    try:
        sizes = [{name: unifier.solved(size) for name, size in part.items()} for part in gates]
        shapes = {name: unifier.solved_shape(name) for name in unifier.matrices}
    except SpecError as error:
        culprit = next((eq for eq in (*equations, *first) if _mentions(eq, error.message)), None)
        raise (placed(error, culprit) if culprit else error) from None
    for symbol in outputs:
        later, at_first = (part.get(symbol.name) for part in sizes)
        if first and later != at_first:
            message = f"sizes contradict: output {symbol} has size {later}, and {at_first} in the first step"
            raise SpecError(message, hint="give it one size in both sets of equations")
    return sizes[0], sizes[1], shapes


def _unify(unifier: Unifier, eq: Eq) -> None:
    size = unifier.size(eq.rhs)
    if isinstance(eq.lhs, lang.Next):
        if unifier.find(size) != 1:
            message = f"{eq.lhs.state} has size {{a}}, its next value {{b}}"
            unifier.equate(eq.lhs.state.size, size, message, None, eq.rhs)
        return
    unifier.gates[eq.lhs.name] = size


def _elementwise(kind: type, expr: sp.Basic | None) -> Any:
    """A symbol of this kind in an expression itself, not in a product or a sum over the features."""
    if isinstance(expr, kind):
        return expr
    if expr is None or isinstance(expr, (lang.matvec, *REDUCTIONS)):
        return None
    return next(filter(None, (_elementwise(kind, arg) for arg in expr.args)), None)


def _mentions(eq: Eq, message: str) -> bool:
    return any(isinstance(s, lang.Matrix) and f"of {s.name} " in message for s in lang.names_in(eq.rhs))
