"""The kinds of name that an expression may hold: inputs, states, gates, parameters, constants.

A vector is an ordinary commutative real symbol, so `*` is elementwise; `W @ v` is an opaque function of `v`.
Here is what names are and which ones there may be; the words that declare them are in `declarations.py`.
"""

from __future__ import annotations

import keyword
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sympy as sp
from sympy.logic.boolalg import Boolean

from gategen.errors import SpecError, Where
from gategen.spec import opaque
from gategen.spec.opaque import matvec

Size = str | int  # a name, a number, `hidden/heads`: the share of each head, or `heads*keys`: several axes
Axes = tuple[Size, ...]  # of a matrix of every row: `("hidden", "keys")`
Extent = Size | Axes  # of a value: its one size, or the sizes of its axes
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


def shared(size: Any) -> tuple[str, Size]:
    """`hidden/heads` taken apart: what is shared out, and among how many; ("", 1) of any other size."""
    whole, slash, count = size.partition("/") if isinstance(size, str) else (size, "", "")
    if not slash or "*" in whole:
        return "", 1
    return whole, int(count) if count.isdecimal() else count


def factors(size: Size) -> tuple[Size, ...]:
    """`heads*keys` taken apart; any other size as it is."""
    parts = size.split("*") if isinstance(size, str) else ()
    return tuple(int(part) if part.isdecimal() else part for part in parts) or (size,)


def regrouped(size: Size) -> Size:
    """A size in the fewest words, as people say it: `hidden` for `heads*hidden/heads`."""
    parts = [*factors(size)]
    for share in factors(size):
        whole, count = shared(share)
        if whole and count in parts:
            parts[parts.index(share)] = whole
            parts.remove(count)
    return "*".join(map(str, parts)) if len(parts) > 1 else parts[0]


def as_said(shape: Any) -> Any:
    """The same of all sizes of a shape."""
    if isinstance(shape, tuple):
        return tuple(map(as_said, shape))
    return shape if shape is None else regrouped(shape)


def names_of_size(size: Size) -> tuple[str, ...]:
    """The names of sizes that a size is made of."""
    found = (
        part for factor in factors(size) for part in (shared(factor) if shared(factor)[0] else (factor,))
    )
    return tuple(part for part in found if isinstance(part, str))


def extent_of(size: Size, sizes: Mapping[str, int]) -> int:
    """What a size is, where `sizes` are known. Raises ValueError where it cannot be shared out."""
    if isinstance(size, int):
        return size
    if len(factors(size)) > 1:
        return math.prod(extent_of(factor, sizes) for factor in factors(size))
    whole, count = shared(size)
    if not whole:
        return sizes[size]
    total, parts = sizes[whole], extent_of(count, sizes)
    if total % parts:
        raise ValueError(f"{whole} is {total}, which {count} = {parts} does not divide")
    return total // parts


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


LEFT = "matrices are added and multiplied, by each other and by numbers, and v * x is elementwise"


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
        if isinstance(self, Matrix) and may_be_matrix(left):
            return opaque.matmat(left, self, sp.S.Zero)
        hint = LEFT
        if isinstance(left, sp.Expr) and not any(isinstance(part, Matrix) for part in _parts(left)):
            shown = f"({left})" if left.args else str(left)
            hint = f"the inner product is sum_({shown} * {self}), and {shown} * {self} is elementwise"
            hint = f"the matrix stands on the left: {self} @ {shown}" if isinstance(self, Matrix) else hint
        raise SpecError(f"the left side of @ must be one matrix, not {left}", where=caller(), hint=hint)


class Stepped(Name):
    """What has another value at every step: `x[t - 2]` is the one of two steps ago."""

    __iter__ = None

    def __getitem__(self, index: Any) -> Name:
        steps = t - sp.sympify(index) if isinstance(index, (sp.Expr, int)) else None
        if steps is None or not steps.is_Integer:
            message = f"{self}[{index}]: what stands in [ ] is the step"
            hint = f"{self}[t - 1], with t from gategen, is {self} of the step before"
            raise SpecError(message, where=caller(), hint=hint)
        try:
            return earlier(self, int(steps))
        except SpecError as error:
            raise error.at(caller()) from None


class Varying(Stepped):
    """What every sequence has a value of: a vector, or a matrix `C`, with `C @ k` and `C.T @ v`."""

    @property
    def T(self) -> Transposed:
        return Transposed(self)

    def __matmul__(self, operand: Any) -> Any:
        if isinstance(operand, Arithmetic) or not may_be_matrix(self):
            return NotImplemented  # what stands on the right knows, or says what is wrong
        return _product(self, operand, False)


class Input(Varying):
    """Read at every step. The last field is its place among all declarations: the first is the sequence."""

    role = "input"

    @property
    def size(self) -> Extent:
        return cast(Extent, self.fields[0])


class State(Varying):
    """Carried from step to step. The last field is its place among all declarations."""

    role = "state"
    where: Where | None = None  # of the declaration, for errors in `initial`

    @property
    def size(self) -> Extent:
        return cast(Extent, self.fields[0])

    @property
    def initial(self) -> sp.Expr:
        return cast(sp.Expr, self.fields[1])

    @property
    def next(self) -> Next:
        """The value after the step, usable on the right-hand side of other equations of the same step."""
        return Next(f"{self.name}'", self)


class Next(Varying):
    """The new value of a state."""

    role = "next state"

    @property
    def state(self) -> State:
        return cast(State, self.fields[0])


class Gate(Varying):
    """An intermediate value, defined by exactly one equation."""

    role = "gate"


class Step(Name):
    """The step at hand, which stands in `x[t - 1]` alone."""

    role = "step"


t = Step("t")


class Past(Varying):
    """What an input or a state was some steps ago. A cell has states in its place (`delays.py`)."""

    role = "earlier value"

    @property
    def of(self) -> Input | State:
        return cast("Input | State", self.fields[0])

    @property
    def steps(self) -> int:
        return cast(int, self.fields[1])


FAR = 100  # steps that a value can be read back


def earlier(symbol: Name, steps: int) -> Name:
    """`x[t - steps]` of an input or a state, whose own symbol is what it was before this step."""
    shown = f"{symbol}[t{f' - {steps}' if steps > 0 else f' + {-steps}' if steps else ''}]"
    if not isinstance(symbol, (Input, State)):
        if isinstance(symbol, Gate):
            hint = f'q = states("q"), with Eq(q.next, {symbol}), is {symbol} of the step before'
        else:
            hint = f"{symbol} is a {symbol.role} and the same at every step"
        raise SpecError(f"{shown}: a step reads its inputs and the states before it", hint=hint)
    if steps < 0:
        raise SpecError(f"{shown}: a step knows nothing of those after it", hint=f"{symbol}[t - 1]")
    if steps == 0:
        new = f"{symbol}.next" if isinstance(symbol, State) else str(symbol)
        raise SpecError(f"{shown} is written without the step", hint=new)
    if steps > FAR:
        hint = f"a state that sums up what was, such as m.next = 0.9*m + {symbol}"
        raise SpecError(f"{shown} is more than {FAR} steps back", hint=hint)
    return symbol if isinstance(symbol, State) and steps == 1 else Past(shown, symbol, steps)


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


class Arithmetic:
    """What matrices can do with each other and with numbers: the result is a matrix that is computed.

    Anything else is left to SymPy, and refused when the cell is made.
    """

    _op_priority = 20.0  # of two operands SymPy asks the one with the higher

    def _left(self, name: str, other: Any, made: Callable[[Any, Any], Any]) -> Any:
        inner = _inner(other, name)
        return self._other(name, other) if inner is None else _computed(made(_inner(self), inner))

    def _other(self, name: str, other: Any) -> Any:
        """The same operation as SymPy does it."""
        return getattr(super(), name)(other)

    def __add__(self, other: Any) -> Any:
        return self._left("__add__", other, sp.Add)

    def __radd__(self, other: Any) -> Any:
        return self._left("__radd__", other, sp.Add)

    def __sub__(self, other: Any) -> Any:
        return self._left("__sub__", other, _minus)

    def __rsub__(self, other: Any) -> Any:
        if other == 0:  # as SymPy compares a matrix with 0
            return -self
        return self._left("__rsub__", other, lambda a, b: _minus(b, a))

    def __mul__(self, other: Any) -> Any:
        return self._left("__mul__", other, sp.Mul)

    def __rmul__(self, other: Any) -> Any:
        return self._left("__rmul__", other, sp.Mul)

    def __truediv__(self, other: Any) -> Any:
        return self._left("__truediv__", other, lambda a, b: sp.Mul(a, sp.Pow(b, -1)))

    def __neg__(self) -> Any:
        return _computed(sp.Mul(-1, _inner(self)))


class Matrix(Arithmetic, Parameter):
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

    def __pow__(self, exponent: Any) -> Any:
        return _power(self, exponent)


class Transposed(Arithmetic):
    """`W.T`: to stand on the left of `@`, alone or in an expression of matrices."""

    def __init__(self, matrix: Matrix | Varying) -> None:
        self.T = matrix

    def __matmul__(self, operand: Any) -> sp.Expr:
        return _product(self.T, operand, True)

    def __str__(self) -> str:
        return f"{self.T}.T"

    __repr__ = __str__

    def __rmatmul__(self, left: Any) -> Any:
        if isinstance(self.T, Matrix) and may_be_matrix(left):
            return opaque.matmat(left, self.T, sp.S.One)
        return self._refuse()

    def _refuse(self, *_: Any) -> Any:
        raise SpecError(f"{self} can only stand on the left of @", where=caller(), hint=f"{self} @ v")

    def _other(self, name: str, other: Any) -> Any:
        return self._refuse()

    def __pow__(self, exponent: Any) -> Any:
        return _power(self, exponent)

    _sympy_ = __rtruediv__ = _refuse


class computed(Arithmetic, opaque.Opaque):
    """A matrix that is computed of parameters, once a call: `mask * U`, `A - A.T`, `inv(identity + A)`.

    Its argument is the expression, in which `*` is elementwise and the rest as in `opaque.py`. It stands on
    the left of `@` alone.
    """

    nargs = 1

    @property
    def T(self) -> Any:
        return _computed(opaque.transposed(self.args[0]))

    def __matmul__(self, operand: Any) -> sp.Expr:
        return _product(self, operand, False)

    def __pow__(self, exponent: Any) -> Any:
        return _power(self, exponent)

    def __rmatmul__(self, left: Any) -> Any:
        if may_be_matrix(left):
            return opaque.matmat(left, self, sp.S.Zero)
        raise SpecError(
            f"the left side of @ must be a matrix, not {left}",
            where=caller(),
            hint=f"the matrix stands on the left: ({self}) @ {left}",
        )

    def _sympystr(self, printer: Any) -> str:
        return cast(str, printer._print(self.args[0]))


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


class Count(Name):
    """How many features a size has, as a number of an expression; written `size("keys")`."""

    role = "size"

    def __new__(cls, name: str) -> Count:
        self = cast(Count, sp.Symbol.__xnew__(cls, name, positive=True, integer=True))
        self.fields = ()
        return self


# ---------------------------------------------------------------------------------------------- matrices

SHAPED = (opaque.leaf, opaque.matmul, opaque.transposed, opaque.inverse, opaque.exponential, opaque.unit)


def is_matrix(expr: Any) -> bool:
    """Whether an expression within `computed` is a matrix, and no number."""
    if isinstance(expr, (sp.Add, sp.Mul, sp.Pow)):
        return any(map(is_matrix, expr.args))
    return isinstance(expr, (*SHAPED, opaque.row_norm))


def _is_number(expr: Any) -> bool:
    """Whether an expression is a number: arithmetic of numbers, scalars, constants, sizes and norms."""
    if isinstance(expr, (sp.Add, sp.Mul, sp.Pow)):
        return all(map(_is_number, expr.args))
    return isinstance(expr, (Scalar, Constant, Count, opaque.frobenius)) or (
        isinstance(expr, sp.Expr) and bool(expr.is_number)
    )


def _inner(value: Any, operation: str = "") -> Any:
    """What stands within `computed` for an operand; None where no matrix can be computed with it."""
    if isinstance(value, Transposed):
        return opaque.transposed(opaque.leaf(value.T))
    if isinstance(value, computed):
        return value.args[0]
    if isinstance(value, Matrix):
        return opaque.leaf(value)
    try:
        expr = sp.sympify(value, strict=True)
    except sp.SympifyError:
        return None
    if not _is_number(expr):
        return None
    if "add" in operation or "sub" in operation:
        raise SpecError(
            f"{expr} is a number and is added to a matrix",
            where=caller(),
            hint="the unit matrix is identity: identity + A, 2 * identity - A",
        )
    return expr


def _minus(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    return cast(sp.Expr, sp.Add(a, sp.Mul(-1, b)))


def _computed(expr: sp.Expr) -> Any:
    """The matrix of an expression."""
    if isinstance(expr, opaque.leaf):
        return expr.args[0]
    if not is_matrix(expr):
        raise SpecError(
            f"nothing is left of an expression of matrices but {expr}",
            where=caller(),
            hint="A - A is 0 and A / A is 1, whatever A is",
        )
    return computed(expr)


def _power(matrix: Any, exponent: Any) -> Any:
    if exponent not in (1, 2, 3, 4):
        raise SpecError(
            f"{matrix}**{exponent}: of a matrix there are whole powers up to 4, entry by entry",
            where=caller(),
            hint="A @ A is the product, inv(A) the inverse",
        )
    return _computed(sp.Pow(_inner(matrix), exponent))


def _argument(word: str, value: Any, hint: str = "") -> sp.Expr:
    """The argument of a function of a matrix."""
    inner = _inner(value) if isinstance(value, Arithmetic) else None
    if inner is None:
        sum_of_both = isinstance(value, sp.Add) and any(isinstance(part, Matrix) for part in value.args)
        hint = "identity + A" if sum_of_both else hint
        raise SpecError(f"{word}() takes a matrix, not {value}", where=caller(), hint=hint or f"{word}(A)")
    return cast(sp.Expr, inner)


def inv(A: Any) -> Any:
    """The inverse of a square matrix: `inv(identity + A)`."""
    return computed(opaque.inverse(_argument("inv", A)))


def expm(A: Any) -> Any:
    """The exponential of a square matrix, not that of its entries: `expm(A - A.T)` is orthogonal."""
    return computed(opaque.exponential(_argument("expm", A, "exp(v) is that of every entry")))


def norm(A: Any) -> Any:
    """The Frobenius norm of a matrix, a number."""
    return opaque.frobenius(_argument("norm", A, "that of a vector is sqrt(sum_(v**2))"))


def row_norms(A: Any) -> Any:
    """The Euclidean norm of every row of a matrix, to multiply or divide a matrix by: `A / row_norms(A)`."""
    return computed(opaque.row_norm(_argument("row_norms", A, "that of a vector is sqrt(sum_(v**2))")))


# ---------------------------------------------------------------------------------------------- expressions


def _parts(expr: sp.Expr) -> Iterator[sp.Expr]:
    """The factors of all terms."""
    return (factor for term in sp.Add.make_args(expr) for factor in sp.Mul.make_args(term))


def may_be_matrix(value: Any) -> bool:
    """Whether something of every row may be a matrix: what size a gate has is not known yet."""
    of = value.state if isinstance(value, Next) else value.of if isinstance(value, Past) else value
    if isinstance(of, (Input, State)):
        return isinstance(of.size, tuple)
    parts = of.atoms(Name) if isinstance(of, sp.Expr) else ()
    return any(isinstance(part, Varying) for part in parts)


def _product(matrix: Any, operand: Any, transposed: bool) -> Any:
    """The product with a vector or a matrix of every row, or that of two weights."""
    turned = operand.T if isinstance(operand, Transposed) else None
    if isinstance(turned, Varying) or (isinstance(matrix, Varying) and isinstance(operand, Arithmetic)):
        hint = "C @ W.T for W @ C.T, and W.T @ C for C.T @ W: the sizes of a matrix stand in one order"
        left = f"{matrix}.T" if transposed else matrix
        raise SpecError(f"{left} @ {operand} would be a transposed matrix", where=caller(), hint=hint)
    if isinstance(operand, Arithmetic):
        left = opaque.transposed(opaque.leaf(matrix)) if transposed else _inner(matrix)
        return computed(opaque.matmul(left, _inner(operand)))
    said = f"({matrix})" if isinstance(matrix, computed) else matrix
    operand = expression(operand, f"the right side of {said} @")
    if operand.is_number:
        raise SpecError(
            f"the right side of {said} @ must be a vector, not {operand}",
            where=caller(),
            hint=f"{said} @ x, or a vector b instead of {said} @ {operand}",
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
