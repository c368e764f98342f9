"""The words that declare names: `x = inputs("x")`, `W, U = matrices("W U")`, `eps = constants(eps=1e-5)`.

An error points at the declaring line. What the names are is in `names.py`; that they are used once and in one
role is for the cell to check.
"""

from __future__ import annotations

import itertools
from numbers import Real
from typing import Any, TypeVar

import sympy as sp

from gategen.errors import SpecError
from gategen.spec.contents import Contents, check_fit, check_kind, contents_of
from gategen.spec.functions import normalise
from gategen.spec.names import (
    Block,
    Constant,
    Count,
    Extent,
    Gate,
    Input,
    Matrix,
    Name,
    Scalar,
    Shape,
    Size,
    Stack,
    State,
    Vector,
    caller,
    check_name,
    expression,
    factors,
    shared,
)

N = TypeVar("N", bound=Name)

_SERIAL = itertools.count()


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


def _declare_rows(
    kind: type[N], names: str, rows: Any, field: Any, trainable: bool, initial: Any, rank: int
) -> Any:
    """Each name as a `Stack` of blocks, whose generated names are `A_0`, `A_1`; `field` is made of a size."""
    sizes = tuple(map(_size, rows))
    if not sizes:
        raise SpecError("stacked rows need at least one size", where=caller(), hint='("hidden",) * 4')
    each = tuple(initial) if isinstance(initial, (tuple, list)) else (initial,) * len(sizes)
    if len(each) != len(sizes):
        raise SpecError(
            f"{names} has {len(sizes)} blocks of rows, but initial has {len(each)}",
            where=caller(),
            hint="initial=(0, 1, ...), one for every block, or one for all of them",
        )
    columns = field("")[1:] if rank == 2 else ()
    contents = [
        _contents(value, names, rank, (size, *columns)) for value, size in zip(each, sizes, strict=True)
    ]
    owners = _declare(Name, names)
    made = [
        Stack(
            (
                _declare(kind, f"{owner}_{k}", field(size), held, Block(owner.name, k, sizes), trainable)
                for k, (size, held) in enumerate(zip(sizes, contents, strict=True))
            ),
            owner.name,
        )
        for owner in (owners if isinstance(owners, tuple) else (owners,))
    ]
    return made[0] if len(made) == 1 else tuple(made)


def _contents(initial: Any, names: str, rank: int, shape: Shape | None = None) -> Contents | None:
    """What some names begin with, if that is said; sizes that are inferred are for the cell to check."""
    if initial is None:
        return None
    try:
        columns = shape[-1] if shape else ()
        made = contents_of(initial, len(columns) if isinstance(columns, tuple) else 0)
        check_kind(made, names, rank)
        check_fit(made, names, shape or (), {})
    except SpecError as error:
        raise error.at(caller()) from None
    return made


def _size(size: Size) -> Size:
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 1:
            raise SpecError(f"a size is at least 1, not {size}", where=caller(), hint='size="hidden"')
        return size
    if not isinstance(size, str):
        raise SpecError(f"a size is a name or an integer, not {size!r}", where=caller(), hint='size="hidden"')
    if len(factors(size)) > 1:
        return "*".join(str(_size(factor)) for factor in factors(size))
    whole, count = shared(size)
    try:
        if whole and isinstance(count, int):
            _size(count)
        elif whole:
            check_name(str(count))
        check_name(whole or size)
    except SpecError as error:
        raise error.at(caller()) from None
    return size


def _extent(names: str, size: Extent) -> Extent:
    """One size, or two different ones of a matrix."""
    if not isinstance(size, (tuple, list)):
        return _size(size)
    made = tuple(map(_size, size))
    for part in made:
        whole, count = shared(part)
        if whole and (count not in made or whole in made):
            raise SpecError(
                f"{names} is a matrix of every row, and {part} is the share of each of {count}, "
                + (f"beside all of {whole}" if whole in made else "which is no axis of it"),
                where=caller(),
                hint=f'all {count} of them, each with its share: size=("{count}", "{part}", "keys")',
            )
    parts = [factor for size in made for factor in factors(size)]
    if len(made) not in (2, 3) or len(set(parts)) != len(parts) or len(parts) != len(made) or 1 in made:
        raise SpecError(
            f"{names} is a matrix of every row and has two different sizes, or three, not {made!r}",
            where=caller(),
            hint='size=("hidden", "keys"); where both are as long, `keys` is a name for that length too',
        )
    return made


def size(name: str) -> Count:
    """How many features a size has, as a number: `q / sqrt(size("keys"))`."""
    if not isinstance(name, str):
        hint = 'size("hidden")'
        raise SpecError(f"size() takes the name of a size, not {name!r}", where=caller(), hint=hint)
    try:
        return Count(check_name(name))
    except SpecError as error:
        raise error.at(caller()) from None


def inputs(names: str, size: Extent = "input") -> Any:
    """Values read at every step, `(T, B, size)`; the first input of a cell is the sequence `x`.

    With two sizes, `("nodes", "input")`, or three, it is a matrix for every row, as a state may be.
    """
    return _declare(Input, names, _extent(names, size))


def states(names: str, size: Extent = "hidden", initial: Any = 0) -> Any:
    """Values carried from step to step, `(B, size)`; `initial` is a number or an expression of parameters.

    With two sizes, `("hidden", "keys")`, each is a matrix `C` for every row, `(B, hidden, keys)`: `C @ k`,
    `C.T @ v`, `outer(v, k)`, and beside matrices of both sizes a vector of one of them stands in every column
    or row. With three it is a matrix for every head, `("heads", "hidden/heads", "keys")`: vectors of the size
    `"hidden"` have a part for every head then, as those of the size `"heads*keys"` have, and one of the size
    `"heads"` has a number for each.
    """
    start = normalise(expression(initial, f"the initial value of {names}"))
    made = _declare(State, names, _extent(names, size), start)
    for state in made if isinstance(made, tuple) else (made,):
        state.where = caller()
    return made


def gates(names: str) -> Any:
    """Intermediate values, each defined by exactly one equation; their size is inferred."""
    return _declare(Gate, names)


def matrices(names: str, shape: Any = None, trainable: bool = True, initial: Any = None) -> Any:
    """Weights for `@`; `shape` is `(rows, columns)` in size names, inferred from use when left out.

    Columns may be a tuple of sizes, for `A @ concat(h, x)`: `("hidden", ("hidden", "input"))`. With a tuple
    of rows, `(("hidden",) * 4, "input")`, `A @ x` is a tuple of as many vectors, and `A[0]` a matrix.

    With the columns `"hidden/heads"` a matrix is block-diagonal: `R @ h` multiplies the share that each head
    has of h by a block of its own, and the blocks lie one below the other, `(hidden, hidden/heads)`.

    `initial` is what `init` puts there instead of random numbers: `identity`, `lower`, `strict_lower`,
    `shift(k)`, `rotation(k)`, `blocks(a, b, ...)`, a number, or rows of numbers (see `contents.py`); of
    stacked rows a tuple has one for each. With `trainable=False` that is what the matrix is, and where
    `initial` is left out, `init` asks for it by name.
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
            return _declare_rows(
                Matrix, names, rows, lambda size: (size, columns), bool(trainable), initial, 2
            )
        shape = _size(rows), columns
    return _declare(Matrix, names, shape, _contents(initial, names, 2, shape), None, bool(trainable))


def vectors(
    names: str, size: Size | tuple[Size, ...] = "hidden", trainable: bool = True, initial: Any = None
) -> Any:
    """Biases, gains, peepholes, diagonal recurrences, `(size,)`; a tuple of them for a tuple of sizes.

    `initial` is as for `matrices`: a number, numbers, or `blocks(1, 2, 4, 8)`.
    """
    if isinstance(size, (tuple, list)):
        return _declare_rows(Vector, names, size, lambda part: part, bool(trainable), initial, 1)
    size = _size(size)
    return _declare(Vector, names, size, _contents(initial, names, 1, (size,)), None, bool(trainable))


def scalars(names: str, trainable: bool = True, initial: Any = None) -> Any:
    """One number each, `()`, broadcast; `initial` is what `init` gives it instead of a random one."""
    return _declare(Scalar, names, _contents(initial, names, 0), None, bool(trainable))


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
