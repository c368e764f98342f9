"""One step of a recurrence in single assignment: values, ops, `Graph`.

A `Graph` holds per-step inputs, states, parameters, ops, per-step outputs, and sums over time and batch.
Derivatives are graphs too (`adjoint.py`, `tangent.py`): a backward step is a recurrence that runs the other
way, whose states are the gradients of the states and whose sums are the gradients of the parameters. Nothing
here knows of cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, cast

import sympy as sp

from gategen.spec.names import Size

Role = Literal["", "next", "argument", "output", "gradient", "term", "carried", "tangent"]


class Value(sp.Symbol):  # type: ignore[misc]
    """A name in a graph. `shape` is `(size,)`, `()` for one number, `(rows, columns)` for a matrix.

    A static value is one for all steps and rows (a parameter, or computed from parameters and sums); any
    other has a row for every sequence at every step.

    role        of             what it is
    "next"      a state        its value after the step
    "argument"  a gate, state  what a function in its equation is applied to
    "output"    a value        that, as the caller knows it
    "gradient"  a value        the whole gradient of the loss by it
    "term"      a value        part of its gradient, or of its tangent
    "carried"   a state        its gradient, as the step after hands it back
    "tangent"   a value        its derivative in the direction at hand
    ""          nothing        anything else

    The name is for people, and nothing is told by its spelling. Role and `of` are part of what a value is, as
    its shape: SymPy keeps expressions by equality, and would put the value of another cell in the place of
    one that is equal but for its role. A copy of a value (`Builder.copy`) keeps both.
    """

    shape: tuple[Size, ...]
    static: bool
    role: Role
    of: Any  # another value or a name of the spec; None
    _content: tuple[Any, ...]

    def __new__(
        cls,
        name: str,
        shape: tuple[Size, ...],
        static: bool = False,
        role: Role = "",
        of: sp.Symbol | None = None,
    ) -> Value:
        self = cast(Value, sp.Symbol.__xnew__(cls, name, real=True))
        self.shape, self.static, self.role, self.of = shape, static, role, of
        owner = "" if of is None else str(of._hashable_content())
        self._content = (*super()._hashable_content(self), str(shape), str(static), role, owner)
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.name, self.shape, self.static, self.role, self.of), {}

    def _hashable_content(self) -> tuple[Any, ...]:
        return self._content

    @property
    def size(self) -> Size:
        """The number of features; 1 where it broadcasts."""
        return self.shape[-1] if self.shape else 1


class Length(sp.Symbol):  # type: ignore[misc]
    """How many features a size has, as a number in an expression: `mean(v) = sum(v) / Length("hidden")`."""

    def __new__(cls, size: str) -> Length:
        return cast(Length, sp.Symbol.__xnew__(cls, size, positive=True, integer=True))

    def __getnewargs_ex__(self) -> Any:
        return (self.name,), {}


def length(size: Size) -> sp.Expr:
    return sp.Integer(size) if isinstance(size, int) else Length(size)


@dataclass(frozen=True)
class Pointwise:
    """`out = expr`, entry by entry; size-1 and static values broadcast."""

    out: Value
    expr: sp.Expr

    @cached_property
    def reads(self) -> tuple[Value, ...]:
        return values_in(self.expr)


@dataclass(frozen=True)
class Product:
    """`out = matrix @ operand`, or `matrix.T @ operand`, for every row."""

    out: Value
    matrix: Value
    operand: Value
    transposed: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.matrix, self.operand


@dataclass(frozen=True)
class Reduce:
    """`out = sum(operands)` over the features of all of them, as if concatenated; size 1."""

    out: Value
    operands: tuple[Value, ...]

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operands


@dataclass(frozen=True)
class Outer:
    """`out = sum of left right^T` over all steps and rows: a static matrix."""

    out: Value
    left: Value
    right: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.left, self.right


@dataclass(frozen=True)
class BatchSum:
    """`out = sum of operand` over all steps and rows: a static vector."""

    out: Value
    operand: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)


Op = Pointwise | Product | Reduce | Outer | BatchSum


@dataclass(frozen=True)
class Carry:
    """A state: its value before the step and after it."""

    name: str
    current: Value
    next: Value


@dataclass(frozen=True)
class Mask:
    """What batch norms read of the lengths: which positions count (per row and step), and how many they are;
    and whether the statistics are those of the batch.
    """

    valid: Value
    count: Value
    training: Value


@dataclass(frozen=True)
class Statistic:
    """A running statistic of a batch norm: what is known before a run, and the value after it."""

    value: Value
    kind: Literal["mean", "var"]
    update: Value


@dataclass(frozen=True)
class Graph:
    """One step of a recurrence. `outputs` and `sums` name their values for those who come from outside.

    `fixed` are inputs and parameters that nothing is differentiated by; those of batch norms are told by
    `mask` and `statistics`. `blocks` tells which parameter of the cell each column block belongs to, where
    one matrix meets several vectors.
    """

    name: str
    inputs: tuple[Value, ...]
    parameters: tuple[Value, ...]
    states: tuple[Carry, ...]
    ops: tuple[Op, ...]
    outputs: tuple[tuple[str, Value], ...]
    sums: tuple[tuple[str, Value], ...] = ()
    fixed: tuple[Value, ...] = ()
    mask: Mask | None = None
    statistics: tuple[Statistic, ...] = ()
    blocks: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    backwards: bool = False

    @property
    def given(self) -> tuple[Value, ...]:
        """What is known before any op runs."""
        return (*self.parameters, *self.inputs, *(carry.current for carry in self.states))

    @property
    def values(self) -> tuple[Value, ...]:
        return (*self.given, *(op.out for op in self.ops))

    @property
    def results(self) -> tuple[Value, ...]:
        """What is read from outside: outputs, sums and new statistics."""
        return (*(v for _, v in (*self.outputs, *self.sums)), *(s.update for s in self.statistics))

    @property
    def nexts(self) -> tuple[Value, ...]:
        """The states after the step."""
        return tuple(carry.next for carry in self.states)


@lru_cache(maxsize=10_000)
def derivative(expr: sp.Expr, by: Value) -> sp.Expr:
    """By one value; of a sum, of those terms alone that hold it."""
    return sp.Add(*(_slope(term, by) for term in _terms_with(expr).get(by, ())))


def _slope(term: sp.Expr, by: Value) -> sp.Expr:
    """The derivative of a term by a value that it holds; SymPy's own is slow on what is most frequent."""
    if term == by:
        return sp.S.One
    if isinstance(term, sp.Mul):
        rest = [factor for factor in term.args if factor != by]
        if len(rest) < len(term.args) and not any(by in factor.free_symbols for factor in rest):
            return sp.Mul(*rest)
    if term.args == (by,) and type(term)._eval_derivative is sp.Function._eval_derivative:
        return term.fdiff(1)
    return term.diff(by)


@lru_cache(maxsize=1_000)
def _terms_with(expr: sp.Expr) -> Mapping[sp.Symbol, Sequence[sp.Expr]]:
    """The terms of a sum that hold each of its symbols."""
    found: dict[sp.Symbol, list[sp.Expr]] = {}
    for term in sp.Add.make_args(expr):
        for symbol in term.free_symbols:
            found.setdefault(symbol, []).append(term)
    return found


@lru_cache(maxsize=10_000)
def values_in(expr: sp.Basic) -> tuple[Value, ...]:
    """The values in an expression, by name."""
    return tuple(sorted(expr.atoms(Value), key=lambda v: v.name))


def fresh(name: str, taken: Iterable[str]) -> str:
    """`name`, or the first of `name_2`, `name_3` ... not yet taken. All invented names come from here."""
    used = taken if isinstance(taken, (set, frozenset, dict)) else set(taken)
    if name not in used:
        return name
    return next(f"{name}_{k}" for k in range(2, len(used) + 3) if f"{name}_{k}" not in used)


def common_size(values: Iterable[Value]) -> Size:
    """The one size of elementwise operands: 1 unless one of them has another."""
    return next((v.size for v in values if v.size != 1), 1)
