"""The words a spec is written in: declarations, `@`, `.next`, functions, `Eq`.

Everything here is SymPy at the elementwise level. A vector is an ordinary commutative real symbol, so `*` is
elementwise; `W @ v` is an opaque function of `v` that is named before anything is differentiated. A function
gives its derivative in terms of its own value (`sigmoid` -> `s*(1 - s)`), so that a backward step can read
what the forward step saved. This module knows nothing of cells, sizes inferred from use, or code.
"""

from __future__ import annotations

import itertools
import keyword
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar, cast

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanFalse, BooleanTrue
from sympy.printing.precedence import PRECEDENCE

from gategen.errors import SpecError, Where

Size = str | int
Shape = tuple["Size | tuple[Size, ...]", ...]

# ---------------------------------------------------------------------------------------------- names

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


def caller() -> Where | None:
    """The first place on the stack outside these floors and SymPy: the line of the spec being read."""
    here = Path(__file__).parent
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.parent != here and not frame.f_globals.get("__name__", "").startswith("sympy."):
            return Where(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


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
        raise SpecError(
            f"the left side of @ must be one matrix, not {left}",
            where=caller(),
            hint="a sum of matrices is a sum of products, (2*W) @ x is 2*(W @ x), and v * x is elementwise",
        )


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


N = TypeVar("N", bound=Name)

_SERIAL = itertools.count()


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


def _declare(kind: type[N], names: str, *fields: Any) -> Any:
    """One symbol for one name, a tuple for several; errors point at the declaring line."""
    try:
        words = names.replace(",", " ").split() if isinstance(names, str) else [names]
        split = [check_name(name) for name in words]
        ordered = issubclass(kind, (Input, State))
        made = [kind(name, *fields, *([next(_SERIAL)] if ordered else [])) for name in split]
        if not made:
            raise SpecError(f"no name given: write {kind.__name__.lower()}s('a b')")
    except SpecError as error:
        raise error.at(caller()) from None
    return made[0] if len(made) == 1 else tuple(made)


def _declare_rows(kind: type[N], names: str, rows: Any, field: Any, trainable: bool) -> Any:
    """Each name as a `Stack` of blocks, whose generated names are `A_0`, `A_1`; `field` is made of a size."""
    sizes = tuple(map(_size, rows))
    if not sizes:
        raise SpecError("stacked rows need at least one size", where=caller(), hint='("hidden",) * 4')
    owners = _declare(Name, names)
    made = [
        Stack(
            (
                _declare(kind, f"{owner}_{k}", field(size), Block(owner.name, k, sizes), trainable)
                for k, size in enumerate(sizes)
            ),
            owner.name,
        )
        for owner in (owners if isinstance(owners, tuple) else (owners,))
    ]
    return made[0] if len(made) == 1 else tuple(made)


def _size(size: Size) -> Size:
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 1:
            raise SpecError(f"a size is at least 1, not {size}", where=caller(), hint='size="hidden"')
        return size
    if not isinstance(size, str):
        raise SpecError(f"a size is a name or an integer, not {size!r}", where=caller(), hint='size="hidden"')
    try:
        return check_name(size)
    except SpecError as error:
        raise error.at(caller()) from None


def inputs(names: str, size: Size = "input") -> Any:
    """Values read at every step, `(T, B, size)`; the first input of a cell is the sequence `x`."""
    return _declare(Input, names, _size(size))


def states(names: str, size: Size = "hidden", initial: Any = 0) -> Any:
    """Values carried from step to step, `(B, size)`; `initial` is a number or an expression of parameters."""
    start = normalise(expression(initial, f"the initial value of {names}"))
    made = _declare(State, names, _size(size), start)
    for state in made if isinstance(made, tuple) else (made,):
        state.where = caller()
    return made


def gates(names: str) -> Any:
    """Intermediate values, each defined by exactly one equation; their size is inferred."""
    return _declare(Gate, names)


def matrices(names: str, shape: Any = None, trainable: bool = True) -> Any:
    """Weights for `@`; `shape` is `(rows, columns)` in size names, inferred from use when left out.

    Columns may be a tuple of sizes, for `A @ concat(h, x)`: `("hidden", ("hidden", "input"))`. With a tuple
    of rows, `(("hidden",) * 4, "input")`, `A @ x` is a tuple of as many vectors, and `A[0]` a matrix.
    """
    if shape is not None:
        if not isinstance(shape, (tuple, list)) or len(shape) != 2:
            raise SpecError(
                f"a matrix has shape (rows, columns), not {shape!r}",
                where=caller(),
                hint='shape=("hidden", "input"), or ("hidden", ("hidden", "input")) for A @ concat(h, x)',
            )
        rows, columns = shape
        columns = tuple(map(_size, columns)) if isinstance(columns, (tuple, list)) else _size(columns)
        if isinstance(rows, (tuple, list)):
            return _declare_rows(Matrix, names, rows, lambda size: (size, columns), bool(trainable))
        shape = _size(rows), columns
    return _declare(Matrix, names, shape, None, bool(trainable))


def vectors(names: str, size: Size | tuple[Size, ...] = "hidden", trainable: bool = True) -> Any:
    """Biases, gains, peepholes, diagonal recurrences, `(size,)`; a tuple of them for a tuple of sizes."""
    if isinstance(size, (tuple, list)):
        return _declare_rows(Vector, names, size, lambda part: part, bool(trainable))
    return _declare(Vector, names, _size(size), None, bool(trainable))


def scalars(names: str, trainable: bool = True) -> Any:
    """One number each, `()`, broadcast."""
    return _declare(Scalar, names, None, bool(trainable))


def constants(**values: float) -> Any:
    """Fixed numbers with a default, in the order given: `eps, beta = constants(eps=1e-5, beta=1)`."""
    if not values:
        raise SpecError("constants needs a name and a value: constants(eps=1e-5)", where=caller())
    made = []
    for name, value in values.items():
        exact = isinstance(value, (int, sp.Basic)) or not isinstance(value, Real)
        try:
            number = sp.sympify(value if exact else float(value), strict=True)
        except sp.SympifyError:
            number = sp.nan
        if (
            not isinstance(number, sp.Expr)
            or not number.is_number
            or not number.is_real
            or not number.is_finite
        ):
            raise SpecError(f"constant {name} must be a finite number, not {value!r}", where=caller())
        made.append(_declare(Constant, name, number))
    return made[0] if len(made) == 1 else tuple(made)


# ---------------------------------------------------------------------------------------------- functions


class Elementwise(sp.Function):  # type: ignore[misc]
    """A real function, entry by entry; `fdiff` gives its derivative, in terms of `self` if that is cheap."""

    is_real = True
    nargs: Any = 1

    def _eval_evalf(self, prec: int) -> Any:
        """The value for numbers alone, such as that of `maximum(beta, 0.1)` for a constant."""
        same = _IN_SYMPY.get(type(self).__name__)
        return same(*self.args)._eval_evalf(prec) if same else super()._eval_evalf(prec)


class sigmoid(Elementwise):
    """1 / (1 + exp(-a))."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self * (1 - self)


class softplus(Elementwise):
    """log(1 + exp(a)), computed as max(a, 0) + log1p(exp(-abs(a)))."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return -expm1(-self)


class relu(Elementwise):
    """max(a, 0); its derivative at 0 is 0, as in PyTorch."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return step(self)


class step(Elementwise):
    """1 where a > 0, else 0."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero


class expm1(Elementwise):
    """exp(a) - 1, exact for small a."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self + 1


class log1p(Elementwise):
    """log(1 + a), exact for small a."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return 1 / (1 + self.args[0])


class stop_gradient(Elementwise):
    """The value a, with derivative 0."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero


class maximum(Elementwise):
    """The larger of a and b; where they are equal the derivative goes to a."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return where(a >= b, *((1, 0) if argindex == 1 else (0, 1)))


class minimum(Elementwise):
    """The smaller of a and b; where they are equal the derivative goes to a."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return where(a <= b, *((1, 0) if argindex == 1 else (0, 1)))


class mod(Elementwise):
    """a - b*floor(a/b); the floor has no derivative."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return sp.S.One if argindex == 1 else (self - a) / b


class where(Elementwise):
    """a where the condition holds, else b; the condition is a comparison `< <= > >=` or `equal(a, b)`."""

    nargs = 3

    def __new__(cls, condition: Any, a: Any, b: Any, **options: Any) -> sp.Expr:
        if isinstance(condition, bool):
            raise SpecError(
                f"the condition of where() is already {condition}: it does not depend on any value",
                where=caller(),
                hint="== compares symbols structurally in Python: write where(equal(a, b), ...)",
            )
        a, b = expression(a, "a value of where()"), expression(b, "a value of where()")
        if isinstance(condition, (BooleanTrue, BooleanFalse)):  # decided by SymPy: square(v) >= 0
            return a if condition else b
        if isinstance(condition, sp.Ne):
            condition, a, b = equal(*condition.args), b, a
        if isinstance(condition, sp.Dummy):  # SymPy looks for the period of a condition, and goes without
            raise NotImplementedError
        if not isinstance(condition, Relational):
            raise SpecError(
                f"the condition of where() must be one comparison, not {condition}",
                where=caller(),
                hint="where(a > 0, ...); for two conditions where(a > 0, where(b > 0, ...), ...)",
            )
        if a == b:
            return a
        return cast(sp.Expr, super().__new__(cls, condition, a, b, **options))

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        condition, a, b = self.args
        return cast(sp.Expr, where(condition, a.diff(s), b.diff(s)))


def equal(a: Any, b: Any) -> Boolean:
    """The comparison a == b, for `where` (Python's == on symbols is structural)."""
    a, b = expression(a, "a side of equal()"), expression(b, "a side of equal()")
    return cast(Boolean, sp.Eq(a, b, evaluate=False))


class matvec(Elementwise):
    """`W @ v` (third argument 1: `W.T @ v`); written with `@`."""

    nargs = 3
    precedence = (PRECEDENCE["Add"] + PRECEDENCE["Mul"]) // 2  # for SymPy's own printer

    def _sympystr(self, printer: Any) -> str:
        matrix, operand, transposed = self.args
        shown = printer.parenthesize(operand, PRECEDENCE["Pow"])
        return f"{matrix}{'.T' if transposed else ''} @ {shown}"


class concat(Elementwise):
    """Stacked vectors, for the right side of `@` alone: `A @ concat(h, x)`."""

    nargs = None


class sum_(Elementwise):
    """The sum over the features of all arguments, as if concatenated; a size-1 value."""

    nargs = None


class mean(Elementwise):
    """The mean over the features of all arguments, as if concatenated; a size-1 value."""

    nargs = None


class var(Elementwise):
    """The biased variance over the features of all arguments, as if concatenated; a size-1 value."""

    nargs = None
    is_nonnegative = True


class batch_norm(Elementwise):
    """Batch normalisation of a value that depends on no state, with statistics over batch and time.

    `gain*(v - mean)/sqrt(var + eps) + bias` (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1). Running
    statistics follow PyTorch: `running += momentum*(batch - running)`, the running variance unbiased.
    """

    nargs = 5

    def __new__(
        cls, v: Any, gain: Any = 1, bias: Any = 0, eps: Any = 1e-5, momentum: Any = 0.1, **options: Any
    ) -> sp.Expr:
        return cast(sp.Expr, super().__new__(cls, v, gain, bias, eps, momentum, **options))


class tanh(sp.tanh):  # type: ignore[misc]
    """SymPy's, which asks whether it is real by expanding its argument: for minutes, where there is a log."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return cast(sp.Expr, 1 - self**2)


# The functions that have a value for numbers, in SymPy's words.
_IN_SYMPY: dict[str, Callable[..., sp.Expr]] = {
    "sigmoid": lambda a: 1 / (1 + sp.exp(-a)),
    "softplus": lambda a: sp.log(1 + sp.exp(a)),
    "relu": lambda a: sp.Max(a, 0),
    "step": lambda a: sp.Heaviside(a, 0),
    "expm1": lambda a: sp.exp(a) - 1,
    "log1p": lambda a: sp.log(1 + a),
    "stop_gradient": lambda a: a,
    "maximum": sp.Max,
    "minimum": sp.Min,
    "mod": lambda a, b: a - b * sp.floor(a / b),
    "where": lambda condition, a, b: sp.Piecewise((a, condition), (b, True)),
}

exp, log, sin, cos, sqrt, abs, sign = sp.exp, sp.log, sp.sin, sp.cos, sp.sqrt, sp.Abs, sp.sign


def square(v: Any) -> sp.Expr:
    """v*v."""
    return cast(sp.Expr, sp.sympify(v) ** 2)


def clip(v: Any, low: Any, high: Any) -> sp.Expr:
    """v, at least `low` and at most `high`."""
    return cast(sp.Expr, minimum(maximum(v, low), high))


def leaky_relu(v: Any, slope: Any = 0.01) -> sp.Expr:
    """v where v >= 0, else `slope`*v. The default slope is PyTorch's."""
    v = sp.sympify(v)
    return cast(sp.Expr, where(v >= 0, v, slope * v))


def elu(v: Any, alpha: Any = 1.0) -> sp.Expr:
    """v where v > 0, else `alpha`*(exp(v) - 1). The default alpha is PyTorch's."""
    v = sp.sympify(v)
    return cast(sp.Expr, where(v > 0, v, alpha * (exp(minimum(v, 0)) - 1)))


def silu(v: Any) -> sp.Expr:
    """v*sigmoid(v)."""
    return cast(sp.Expr, v * sigmoid(v))


def gelu(v: Any, approximate: str = "none") -> sp.Expr:
    """v*Phi(v), Phi the normal distribution function; `approximate="tanh"` is PyTorch's tanh form."""
    v = sp.sympify(v)
    if approximate == "tanh":
        return cast(sp.Expr, 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v**3))))
    if approximate != "none":
        raise SpecError(f"gelu's approximate is 'none' or 'tanh', not {approximate!r}", where=caller())
    return cast(sp.Expr, 0.5 * v * (1 + sp.erf(0.7071067811865476 * v)))


def log_sigmoid(v: Any) -> sp.Expr:
    """log(sigmoid(v)) = -softplus(-v)."""
    return cast(sp.Expr, -softplus(-sp.sympify(v)))


def softsign(v: Any) -> sp.Expr:
    """v / (1 + abs(v))."""
    return cast(sp.Expr, v / (1 + abs(v)))


_SIXTH = sp.Rational(1, 6)


def hard_sigmoid(v: Any, slope: Any = _SIXTH, offset: Any = 0.5) -> sp.Expr:
    """clip(slope*v + offset, 0, 1). PyTorch and Keras 3 use slope 1/6, ONNX and Keras 2 use 0.2."""
    return clip(slope * sp.sympify(v) + offset, 0, 1)


def hard_tanh(v: Any, low: Any = -1, high: Any = 1) -> sp.Expr:
    """clip(v, low, high)."""
    return clip(v, low, high)


def layer_norm(v: Any, gain: Any = None, bias: Any = None, eps: Any = 1e-5) -> Any:
    """gain*(v - mean)/sqrt(var + eps) + bias over the features (Ba et al. 2016, arXiv:1607.06450, eq. 3).

    With a tuple of values the norm is joint, as if they were concatenated, and a tuple is returned; `gain`
    and `bias` are then tuples too.
    """
    values = tuple(v) if isinstance(v, (tuple, list)) else (v,)
    for part, what in ((gain, "gains"), (bias, "biases")):
        if isinstance(part, (tuple, list)) and len(part) != len(values):
            raise SpecError(
                f"layer_norm of {len(values)} values takes as many {what}, not {len(part)}",
                where=caller(),
                hint="None stands for no gain and no bias",
            )
    centre, scale = mean(*values), 1 / sqrt(var(*values) + eps)
    made = []
    for k, value in enumerate(values):
        normed = (value - centre) * scale
        g, b = (part[k] if isinstance(part, (tuple, list)) else part for part in (gain, bias))
        made.append((normed if g is None else g * normed) + (0 if b is None else b))
    return Stack(made, "layer_norm(...)") if isinstance(v, (tuple, list)) else made[0]


# ---------------------------------------------------------------------------------------------- equations


class Eq:
    """`lhs = rhs`: what a gate, or the next value of a state, is. Knows where it was written."""

    __slots__ = ("lhs", "rhs", "where")

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.where = caller()
        self.lhs, self.rhs = lhs, rhs
        if isinstance(rhs, (bool, BooleanTrue, BooleanFalse)):
            raise SpecError(
                f"the right side of {lhs} is the truth value {bool(rhs)}",
                where=self.where,
                hint="comparisons belong inside where(...)",
            )
        if isinstance(rhs, (tuple, list)):
            raise SpecError(
                f"the right side of {lhs} is a tuple of {len(rhs)} values",
                where=self.where,
                hint="unpack it first: n_a, n_b = layer_norm((a, b))",
            )
        try:
            self.rhs = expression(rhs, f"the right side of {lhs}")
        except SpecError as error:
            raise error.at(self.where) from None

    @property
    def sympy(self) -> Any:
        """The equation as `sympy.Eq` (which SymPy may fold to a truth value)."""
        return sp.Eq(self.lhs, self.rhs)

    def __repr__(self) -> str:
        return f"Eq({self.lhs}, {self.rhs})"


def names_in(expr: sp.Basic) -> list[Name]:
    """The declared names in an expression, each once, by name."""
    found: Iterable[Name] = expr.atoms(Name)
    return sorted(found, key=lambda name: (name.name, name.role))


def normalise(expr: sp.Expr) -> sp.Expr:
    """The `tanh`, `Max`, `Min`, `Piecewise`, `Heaviside` and `Mod` of SymPy in our words; `v**2.0` is `v**2`.

    SymPy writes `abs(exp(v))` as `exp(re(v))` where it does not see that `v` is real, which every value is.
    """
    expr = expr.replace(_half_float, lambda e: sp.Pow(e.base, sp.Rational(int(2 * e.exp), 2)))
    if expr.has(sp.re):
        expr = expr.replace(sp.re, lambda value: value)
    expr = expr.replace(lambda e: type(e) is sp.tanh, lambda e: tanh(*e.args))
    if not expr.has(sp.Max, sp.Min, sp.Piecewise, sp.Heaviside, sp.Mod):
        return expr
    expr = expr.replace(sp.Heaviside, lambda a, *_: step(a)).replace(sp.Mod, mod)
    for kind, binary in ((sp.Max, maximum), (sp.Min, minimum)):
        expr = expr.replace(kind, lambda *args, binary=binary: _fold(binary, args))
    return cast(sp.Expr, expr.replace(lambda e: isinstance(e, sp.Piecewise), _nested_where))


def _half_float(expr: sp.Basic) -> bool:
    """Whether `expr` is a power whose exponent is a float that means an integer or a half."""
    return isinstance(expr, sp.Pow) and bool(expr.exp.is_Float) and float(2 * expr.exp).is_integer()


def _fold(binary: Any, args: tuple[sp.Expr, ...]) -> sp.Expr:
    first, *rest = sorted(args, key=lambda a: (a.is_number, str(a)))
    for arg in rest:
        first = binary(first, arg)
    return first


def _nested_where(piecewise: sp.Piecewise) -> sp.Expr:
    *pieces, (last, condition) = piecewise.args
    if condition is not sp.true:
        raise SpecError(
            f"{piecewise} is undefined where no condition holds", hint="end it with (value, True)"
        )
    for value, test in reversed(pieces):
        last = where(test, value, last)
    return cast(sp.Expr, last)
