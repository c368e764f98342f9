"""The kinds of name that an expression may hold: inputs, states, gates, parameters, constants.

A vector is an ordinary commutative real symbol, so `*` is elementwise; `W @ v` is an opaque function of `v`.
Here is what names are and which ones there may be; the words that declare them are in `declarations.py`.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sympy as sp
from sympy.logic.boolalg import Boolean

from gategen.errors import SpecError, Where
from gategen.spec.opaque import matvec

Size = str | int
Shape = tuple["Size | tuple[Size, ...]", ...]

# ---------------------------------------------------------------------------------------------- spelling

_C_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class
compl concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype
default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline
int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast struct switch
template this thread_local throw true try typedef typeid typename typeof union unsigned using virtual void
volatile wchar_t while xor xor_eq
threadIdx blockIdx blockDim gridDim warpSize dim3
""".split()

RESERVED = frozenset([*keyword.kwlist, *_C_WORDS])
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z", re.ASCII)


def check_name(name: str) -> str:
    """`name`, if generated Python and CUDA can carry it; otherwise a `SpecError` that says why not."""
    if not isinstance(name, str):
        raise SpecError(f"a name is text, not {type(name).__name__}", hint='such as "W_z"')
    if not _IDENTIFIER.match(name):
        if name.endswith("'"):
            hint = f"the next value of a state is not declared: {name[:-1]}.next"
        else:
            greek = "greek letters are written out: alpha, sigma, theta"
            hint = "such as W_z or h1" if name.isascii() else greek
        raise SpecError(
            f"{name!r} is not a name: use ASCII letters, digits and _, beginning with a letter", hint=hint
        )
    if name in RESERVED:
        raise SpecError(f"{name!r} is a keyword of Python, C or CUDA", hint=f"call it {name}_ or {name}0")
    return name


_PACKAGE = Path(__file__).parents[1]
_CELLS = _PACKAGE / "cells"


def caller() -> Where | None:
    """The first place on the stack outside SymPy and this package but for its cells: the line of the spec."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        ours = file.is_relative_to(_PACKAGE) and not file.is_relative_to(_CELLS)
        if not ours and not frame.f_globals.get("__name__", "").startswith("sympy."):
            return Where(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


# ---------------------------------------------------------------------------------------------- names


class Name(sp.Symbol):  # type: ignore[misc]
    """A declared name: a real commutative symbol that knows its role. `fields` are part of its identity."""

    role = "name"
    fields: tuple[Any, ...]

    def __new__(cls, name: str, *fields: Any) -> Name:
        self = cast(Name, sp.Symbol.__xnew__(cls, name, real=True))
        self.fields = fields
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.name, *self.fields), {}

    def _hashable_content(self) -> tuple[Any, ...]:
        content = list(super()._hashable_content())
        # SymPy caches by equality: the next values of two states named h must differ
        for field in self.fields:
            content.extend(field._hashable_content() if isinstance(field, Name) else (str(field),))
        return tuple(content)

    def __rmatmul__(self, left: Any) -> Any:
        hint = "a sum of matrices is a sum of products, (2*W) @ x is 2*(W @ x), and v * x is elementwise"
        if isinstance(left, sp.Expr) and not any(isinstance(part, Matrix) for part in _parts(left)):
            shown = f"({left})" if left.args else str(left)
            hint = f"the inner product is sum_({shown} * {self}), and {shown} * {self} is elementwise"
            hint = f"the matrix stands on the left: {self} @ {shown}" if isinstance(self, Matrix) else hint
        raise SpecError(f"the left side of @ must be one matrix, not {left}", where=caller(), hint=hint)


class Input(Name):
    """Read at every step. The last field is its place among all declarations: the first is the sequence."""

    role = "input"

    @property
    def size(self) -> Size:
        return cast(Size, self.fields[0])


class State(Name):
    """Carried from step to step. The last field is its place among all declarations."""

    role = "state"
    where: Where | None = None  # of the declaration, for errors in `initial`

    @property
    def size(self) -> Size:
        return cast(Size, self.fields[0])

    @property
    def initial(self) -> sp.Expr:
        return cast(sp.Expr, self.fields[1])

    @property
    def next(self) -> Next:
        """The value after the step, usable on the right-hand side of other equations of the same step."""
        return Next(f"{self.name}'", self)


class Next(Name):
    """The new value of a state."""

    role = "next state"

    @property
    def state(self) -> State:
        return cast(State, self.fields[0])


class Gate(Name):
    """An intermediate value, defined by exactly one equation."""

    role = "gate"


@dataclass(frozen=True)
class Block:
    """Which rows of an array a parameter is: those at `index` of `owner`, whose blocks have sizes `rows`."""

    owner: str
    index: int
    rows: tuple[Size, ...]


class Parameter(Name):
    """What training changes (or would, were it trainable). Its name is one that generated code can carry."""

    @property
    def trainable(self) -> bool:
        return cast(bool, self.fields[-1])

    @property
    def block(self) -> Block | None:
        """Its place in an array of stacked rows; None where it stands alone."""
        return cast("Block | None", self.fields[-2])

    @property
    def contents(self) -> Any:
        """What `init` puts into it, as `contents.Contents`; None where it draws numbers, or asks for them."""
        return self.fields[-3]

    @property
    def array(self) -> str:
        """The name under which it is packed: its own, or that of the array it is a block of."""
        return self.block.owner if self.block else cast(str, self.name)

    def _sympystr(self, printer: Any) -> str:
        return f"{self.block.owner}[{self.block.index}]" if self.block else cast(str, self.name)


class Vector(Parameter):
    role = "vector"

    @property
    def size(self) -> Size:
        return cast(Size, self.fields[0])


class Scalar(Parameter):
    role = "scalar"


class Matrix(Parameter):
    """A parameter that stands on the left of `@`. Its shape is inferred from use where it is not given."""

    role = "matrix"

    @property
    def shape(self) -> Shape | None:
        return cast("Shape | None", self.fields[0])

    @property
    def T(self) -> Transposed:
        return Transposed(self)

    def __matmul__(self, operand: Any) -> sp.Expr:
        return _product(self, operand, False)


class Transposed:
    """`W.T`, which only `@` understands."""

    def __init__(self, matrix: Matrix) -> None:
        self.T = matrix

    def __matmul__(self, operand: Any) -> sp.Expr:
        return _product(self.T, operand, True)

    def __str__(self) -> str:
        return f"{self.T}.T"

    __repr__ = __str__

    def _refuse(self, *_: Any) -> Any:
        raise SpecError(f"{self} can only stand on the left of @", where=caller(), hint=f"{self} @ v")

    _sympy_ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = (
        _refuse
    )
    __neg__ = __rmatmul__ = _refuse


class Stack(tuple[Any, ...]):
    """Stacked rows: the blocks of a matrix or a vector, or the values of `A @ v`. To unpack, or to index."""

    text: str

    def __new__(cls, members: Iterable[Any], text: str) -> Stack:
        self = super().__new__(cls, members)
        self.text = text
        return self

    def __matmul__(self, operand: Any) -> Stack:
        if not all(isinstance(member, Matrix) for member in self):
            self._refuse()
        products = [member @ operand for member in self]
        return Stack(products, str(products[0]).replace(str(self[0]), self.text, 1))

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    @property
    def T(self) -> Any:
        raise SpecError(
            f"{self}.T: the columns of {self}.T would be stacked",
            where=caller(),
            hint=f"{self}[0].T @ v + {self}[1].T @ w",
        )

    def _refuse(self, *_: Any) -> Any:
        if isinstance(self[0], Matrix):
            message, hint = "matrices and stands without @", f"{self} @ x, which is {len(self)} vectors"
        else:
            message = "vectors and stands where one belongs"
            hint = (
                f"take one, ({self})[0], or unpack them: {', '.join(f'v{k}' for k in range(len(self)))} = ..."
            )
        raise SpecError(f"{self} is {len(self)} {message}", where=caller(), hint=hint)

    _sympy_ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = (
        _refuse
    )
    __neg__ = __rmatmul__ = _refuse


class Constant(Name):
    """A fixed number with a default that `Cell.with_constants` and `--set` change."""

    role = "constant"

    @property
    def value(self) -> sp.Expr:
        return cast(sp.Expr, self.fields[0])


# ---------------------------------------------------------------------------------------------- expressions


def _parts(expr: sp.Expr) -> Iterator[sp.Expr]:
    """The factors of all terms."""
    return (factor for term in sp.Add.make_args(expr) for factor in sp.Mul.make_args(term))


def _product(matrix: Matrix, operand: Any, transposed: bool) -> sp.Expr:
    if isinstance(operand, (Matrix, Transposed)):
        raise SpecError(
            f"{operand} on the right of @ is a matrix",
            where=caller(),
            hint=f"multiply by the vector first: {matrix} @ ({operand} @ v)",
        )
    operand = expression(operand, f"the right side of {matrix} @")
    if operand.is_number:
        raise SpecError(
            f"the right side of {matrix} @ must be a vector, not {operand}",
            where=caller(),
            hint=f"{matrix} @ x, or a vector b instead of {matrix} @ {operand}",
        )
    return cast(sp.Expr, matvec(matrix, operand, sp.Integer(int(transposed))))


def expression(value: Any, what: str) -> sp.Expr:
    """`value` as a SymPy expression; text is refused, for SymPy would execute it."""
    if isinstance(value, Stack):
        value._refuse()
    try:
        expr = sp.sympify(value, strict=True)
    except sp.SympifyError:
        expr = None
    if not isinstance(expr, sp.Expr):
        kind = "a comparison" if isinstance(value, Boolean) else f"{type(value).__name__} {value!r}"
        hint = "comparisons belong inside where(...)" if isinstance(value, Boolean) else ""
        hint = "write the expression itself, without quotes" if isinstance(value, str) else hint
        raise SpecError(f"{what} must be an expression, not {kind}", where=caller(), hint=hint)
    return expr


def names_in(expr: sp.Basic) -> list[Name]:
    """The declared names in an expression, each once, by name."""
    found: Iterable[Name] = expr.atoms(Name)
    return sorted(found, key=lambda name: (name.name, name.role))
