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

from gategen.spec.names import Axes, Extent, Size, as_said, factors, regrouped, shared

How = Literal["sum", "max", "bound"]
Role = Literal["", "next", "argument", "output", "gradient", "term", "carried", "tangent"]


class Value(sp.Symbol):  # type: ignore[misc]
    """A name in a graph. `shape` is `(size,)`, `()` for one number, `(hidden, keys)` for a matrix.

    A static value is one for all steps and rows (a parameter, or computed from parameters and sums); any
    other has a row for every sequence at every step, which may be a matrix. Axes are told by their sizes: in
    an expression of matrices a vector of the size `keys` is the same along every other axis. So the sizes of
    a matrix that is no weight of a product differ.

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
    def size(self) -> Extent:
        """The number of features, of a matrix the sizes of its axes; 1 where it broadcasts."""
        return self.shape if len(self.shape) > 1 else self.shape[0] if self.shape else 1

    @property
    def axes(self) -> Axes:
        """The sizes of the axes along which it differs."""
        return axes(self.size)

    @property
    def wide(self) -> bool:
        """Whether every row of it is a matrix."""
        return not self.static and len(self.shape) > 1


def axes(size: Extent) -> Axes:
    """The sizes of the axes of a value of this size: none of what broadcasts."""
    if isinstance(size, tuple):
        return tuple(axis for part in size for axis in factors(part))
    return () if size == 1 else factors(size)


def extent(along: Sequence[Size], flat: bool = True) -> Extent:
    """The size of a value with these axes: of a vector, `heads*keys`, or of a matrix."""
    if len(along) < 2:
        return along[0] if along else 1
    return "*".join(map(str, along)) if flat else tuple(along)


def replaced(along: Axes, axis: Size, other: Size) -> Axes:
    """The axes with another one in the place of one of them."""
    return tuple(other if own == axis else own for own in along)


def shape_of(size: Extent) -> tuple[Size, ...]:
    """The shape of a value of this size that has rows."""
    return size if isinstance(size, tuple) else (size,)


def share(size: Extent, blocks: Size) -> Extent:
    """The share of each block: `hidden/heads`."""
    return size if blocks == 1 else f"{as_said(size)}/{blocks}"


class Length(sp.Symbol):  # type: ignore[misc]
    """How many features a size has, as a number in an expression: `mean(v) = sum(v) / Length("hidden")`."""

    def __new__(cls, size: str) -> Length:
        return cast(Length, sp.Symbol.__xnew__(cls, size, positive=True, integer=True))

    def __getnewargs_ex__(self) -> Any:
        return (self.name,), {}


def length(size: Extent) -> sp.Expr:
    """How many numbers a row of this size has, as an integer."""
    every = factors(regrouped("*".join(map(str, axes(size))) or 1))
    return sp.Mul(*(sp.Integer(s) if isinstance(s, int) else Length(s) for s in every))


def number(size: Extent) -> sp.Expr:
    """The same for arithmetic with real numbers."""
    return in_quotients(length(size))


def in_quotients(expr: sp.Expr) -> sp.Expr:
    """A polynomial in sizes whose shares of others, `hidden/heads`, are quotients."""
    told = ((symbol, shared(str(symbol))) for symbol in expr.free_symbols)
    return expr.xreplace({symbol: length(whole) / length(count) for symbol, (whole, count) in told if whole})


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
    """`out = matrix @ operand`, or `matrix.T @ operand`, for every row.

    An operand that is a matrix is multiplied along the axis that the matrix has too, whose place in `out` its
    other one takes: that of `W @ C`, which is multiplied by W, and that of `C @ W`, by `W.T`.

    With `blocks` the matrix is that many blocks, one below the other, and each multiplies its share.
    """

    out: Value
    matrix: Value
    operand: Value
    transposed: bool = False
    blocks: Size = 1

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.matrix, self.operand

    @property
    def along(self) -> Size:
        """The axis of a matrix that is multiplied; nothing of a vector."""
        return self.matrix.shape[not self.transposed] if self.operand.wide else ""


@dataclass(frozen=True)
class Contract:
    """`out = left * right`, summed over the axes that `out` does not have, for every row.

    `C @ k` with a matrix C of every row, `C.T @ v`, the inner product of two matrices.
    """

    out: Value
    left: Value
    right: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.left, self.right


@dataclass(frozen=True)
class Reduce:
    """One value of the features of all operands, as if concatenated; size 1.

    Of one operand that has several axes it is over those that `out` does not have.

    how      `out` is
    "sum"    their sum
    "max"    the largest; complex ones are compared by their real parts, and equal ones averaged
    "bound"  the real part of the largest, through which nothing is differentiated: what a softmax subtracts
    """

    out: Value
    operands: tuple[Value, ...]
    how: How = "sum"

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operands


@dataclass(frozen=True)
class Outer:
    """`out = sum of left right^T` over all steps and rows: a static matrix; with `blocks`, of shares.

    Of matrices it is over all axes but one of each, which are those of `out`.
    """

    out: Value
    left: Value
    right: Value
    blocks: Size = 1

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.left, self.right

    @property
    def along(self) -> Axes:
        """The axes of matrices that are those of `out`; none of vectors."""
        return self.out.shape if self.left.wide else ()


@dataclass(frozen=True)
class BatchSum:
    """`out = sum of operand` over all steps and rows: a static vector."""

    out: Value
    operand: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)


@dataclass(frozen=True)
class CumSum:
    """`out[k] = sum of operand[: k + 1]` for every row; `backwards`, of `operand[k:]`.

    With `axis` it goes along that one of several axes.
    """

    out: Value
    operand: Value
    backwards: bool = False
    axis: Size = ""

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)


@dataclass(frozen=True)
class Shift:
    """`out[k] = operand[k - by]` along one axis, for every row; 0 where that lies outside."""

    out: Value
    operand: Value
    by: int
    axis: Size

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)


@dataclass(frozen=True)
class MatrixOp:
    """`out = word(operands)`, of static matrices, one for all steps.

    "transpose"    A.T
    "multiply"     A @ B
    "inverse"      of a square matrix
    "exponential"  of a square matrix A; with further operands its derivative at A in each of their directions
    "sum"          over the axes on which `out` has size 1, over both for a number
    "unit"         the unit matrix, of no operand
    """

    out: Value
    word: str
    operands: tuple[Value, ...]

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.operands


Op = Pointwise | Product | Contract | Reduce | CumSum | Shift | Outer | BatchSum | MatrixOp


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
    def orders(self) -> tuple[Extent, ...]:
        """The sizes of what has several axes, in the order in which they stand: matrices, then vectors.

        Matrices of every row come before weights, whose axes may stand the other way round.
        """
        wide = [v for v in self.values if len(v.axes) > 1]
        return tuple(dict.fromkeys(v.size for v in sorted(wide, key=lambda v: (len(v.shape) < 2, v.static))))

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


def common_size(values: Iterable[Value], orders: Iterable[Extent] = ()) -> Extent:
    """The size of what is computed of these, entry by entry: all of their axes.

    Where no value has all of them, they stand as in the first of the sizes `orders` that has.
    """
    every = [v for v in values if v.size != 1]
    if len({v.size for v in every}) < 2:
        return every[0].size if every else 1
    along = {axis for v in every for axis in v.axes}
    flat = not any(len(v.shape) > 1 for v in every)
    for v in sorted(every, key=lambda v: -len(v.shape)):
        if along.issubset(v.axes):
            return v.size
    for order in orders:
        if along.issubset(whole := axes(order)):
            part = [axis for axis in whole if axis in along]
            return extent(part, not isinstance(order, tuple) or (flat and len(along) < len(whole)))
    return extent(list(dict.fromkeys(axis for v in every for axis in v.axes)), flat)
