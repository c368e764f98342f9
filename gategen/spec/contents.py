"""What `init` puts into a parameter: numbers, or a pattern that fits any size.

    identity, lower, strict_lower    of square matrices; `lower @ v` is the cumulative sum
    shift(k)                         of square matrices: entry i of `shift(k) @ v` is entry i - k of v, or 0
    rotation(k)                      of square matrices: the same with the entries of v in a ring
    0.5                              the number, everywhere
    (1, 2, 4), ((0, 1), (1, 0))      the entries of a vector, the rows of a matrix
    blocks(a, b, ...)                equal blocks along a vector, or down the diagonal of a matrix
    (identity, 0)                    of a matrix of stacked columns or rows: one for each block

They read the same in Python and in the text form. `entries` is the slow twin of what modules do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import sympy as sp

from gategen.errors import SpecError
from gategen.spec.names import Shape, Size, caller, computed, extent_of
from gategen.spec.opaque import unit

BRIEF = 40  # characters that stand within a line

WORDS = ("identity", "lower", "strict_lower", "shift(1)", "rotation(1)", "blocks(1, 2)")
OF_NUMPY = {"eye": "identity", "tri": "lower", "tril": "lower", "roll": "rotation(1)", "ones": "1"}
OF_NUMPY |= {"zeros": "0"}
SAID = f"a number, numbers such as (1, 2), {', '.join(WORDS)}"


@dataclass(frozen=True)
class Contents:
    """What stands in a parameter. `word` is one of those above, or "number", "rows" or "columns".

    args: the number; the numbers, or the rows as tuples of numbers; k; the blocks; those of stacked columns
    """

    word: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        match self.word:
            case "number":
                return repr(self.args[0])
            case "rows":
                return repr(self.args)
            case "columns":
                return f"({', '.join(map(str, self.args))}{',' * (len(self.args) == 1)})"
            case _:
                return self.word + (f"({', '.join(map(str, self.args))})" if self.args else "")

    def __matmul__(self, _: Any) -> Any:
        hint = f'S = matrices("S", trainable=False, initial={self}), then S @ v'
        raise SpecError(f"{self} is what a matrix holds, and no matrix", where=caller(), hint=hint)

    def _matrix(self, other: Any) -> Any:
        """`identity` in an expression of matrices."""
        if self.word != "identity":
            self @ other
        return computed(unit())

    def __add__(self, other: Any) -> Any:
        return self._matrix(other) + other

    def __sub__(self, other: Any) -> Any:
        return self._matrix(other) - other

    def __rsub__(self, other: Any) -> Any:
        return other - self._matrix(other)

    def __mul__(self, other: Any) -> Any:
        return self._matrix(other) * other

    def __truediv__(self, other: Any) -> Any:
        return self._matrix(other) / other

    def __neg__(self) -> Any:
        return -self._matrix(None)

    __radd__, __rmul__ = __add__, __mul__

    @property
    def brief(self) -> str:
        """What fits into a line."""
        return str(self) if len(str(self)) <= BRIEF else f"{self.word} ..."

    @property
    def shape(self) -> tuple[int, ...]:
        """Of rows."""
        return np.shape(self.args)

    @property
    def words(self) -> set[str]:
        """The words that a spec needs to say it."""
        return ({self.word} - {"number", "rows", "columns"}).union(*(part.words for part in self.parts))

    @property
    def parts(self) -> tuple[Contents, ...]:
        """The blocks, down the diagonal or side by side."""
        return self.args if self.word in ("blocks", "columns") else ()

    def column(self, k: int) -> Contents:
        """What stands in one block of stacked columns."""
        return self.args[k] if self.word == "columns" else self

    @property
    def square(self) -> bool:
        return self.word in ("shift", "rotation", *PATTERNS)


identity, lower, strict_lower = (Contents(word) for word in WORDS[:3])
PATTERNS = {pattern.word: pattern for pattern in (identity, lower, strict_lower)}


def shift(k: int) -> Contents:
    """Entry i of `shift(k) @ v` is entry i - k of v, and 0 where there is none."""
    return Contents("shift", (_whole("shift", k),))


def rotation(k: int) -> Contents:
    """Entry i of `rotation(k) @ v` is entry i - k of v, in which the first follows the last."""
    return Contents("rotation", (_whole("rotation", k),))


def _whole(word: str, k: Any) -> int:
    """How far entries are moved."""
    if isinstance(k, sp.Integer):
        k = int(k)
    if not isinstance(k, int) or isinstance(k, bool):
        raise SpecError(f"{word} takes a whole number, not {k!r}", where=caller(), hint=f"{word}(1)")
    return k


def blocks(*parts: Any) -> Contents:
    """Blocks of one size: along a vector, or down the diagonal of a matrix that is 0 elsewhere."""
    if not parts:
        raise SpecError("blocks() has no block", where=caller(), hint="blocks(1, 2, 4, 8)")
    return Contents("blocks", tuple(contents_of(part) for part in parts))


def contents_of(value: Any, columns: int = 0) -> Contents:
    """`value` as contents: itself, a number, or numbers in tuples, lists or an array. Raises `SpecError`.

    With so many stacked `columns`, a tuple of contents of each.
    """
    if isinstance(value, Contents):
        return value
    if columns and isinstance(value, (tuple, list)) and len(value) == columns:
        return Contents("columns", tuple(map(contents_of, value)))
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(rows, (tuple, list)):
        return Contents("number", (_number(rows),))
    widths = {len(row) if isinstance(row, (tuple, list)) else 0 for row in rows}
    made = tuple(tuple(map(_number, row)) if isinstance(row, (tuple, list)) else _number(row) for row in rows)
    if len(widths) != 1 or made[0] == ():
        raise SpecError(
            f"{value} has no rows of one length", where=caller(), hint="(1, 2, 3), or ((0, 1), (1, 0))"
        )
    return Contents("rows", made)


def _number(value: Any) -> float | int:
    try:
        number = float(sp.sympify(value, strict=True))
    except (sp.SympifyError, TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise SpecError(f"{value} is not what a parameter can begin with", where=caller(), hint=SAID)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


# ---------------------------------------------------------------------------------------------- sizes


def check_kind(contents: Contents, name: str, rank: int) -> None:
    """That contents are such as a scalar (rank 0), a vector (1) or a matrix (2) has. Raises `SpecError`."""
    kind = ("scalar", "vector", "matrix")[rank]
    ranks = {"number": (0, 1, 2), "rows": (len(contents.shape),), "blocks": (1, 2)}
    if rank not in ranks.get(contents.word, (2,)):
        own = ("a number", "numbers such as (1, 2)", "rows such as ((0, 1), (1, 0)), or identity")[rank]
        raise SpecError(f"{contents.brief} is not what the {kind} {name} can hold", where=caller(), hint=own)
    for part in contents.parts:
        check_kind(part, name, rank)


def sizes_told(held: Iterable[tuple[Contents, Shape]]) -> dict[str, int]:
    """What numbers that parameters hold tell of sizes with a name."""
    demands = [demand for contents, shape in held for demand in _demands(contents, shape)]
    return {d.size: d.count for d in demands if d.exact and isinstance(d.size, str)}


def check_fit(contents: Contents, name: str, shape: Shape, sizes: Mapping[str, int]) -> None:
    """That contents fit a shape, as far as `sizes` are known; `init` sees to the rest. Raises `SpecError`."""
    if shape and isinstance(shape[-1], tuple) and contents.word not in ("number", "columns"):
        message = f"{name} has {len(shape[-1])} blocks of columns, and {contents.brief} is for one"
        raise SpecError(message, hint="a tuple of contents for each of them, such as (identity, 0)")
    for demand in _demands(contents, shape):
        if not demand.met(sizes):
            hint = f"the size is {demand.said}"
            if isinstance(demand.size, str) and demand.size in sizes:
                hint = f"{demand.size} cannot be both {sizes[demand.size]} and {demand.said}"
            if demand.equal is not None:
                hint = f"it is for a square matrix, {name}[{demand.size}, {demand.size}]"
            said = ", ".join(f"({', '.join(map(str, s))})" if isinstance(s, tuple) else str(s) for s in shape)
            message = f"{name}[{said}] does not fit its contents, {contents.brief}"
            raise SpecError(message, hint=hint)


@dataclass(frozen=True)
class _Demand:
    """That a size is a multiple of `count`; with `exact`, `count` itself; with `equal`, this other size."""

    size: Size
    count: int = 1
    exact: bool = False
    equal: Size | None = None

    def met(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is, as far as is known."""
        if self.equal is not None:
            return self.size == self.equal
        own = sizes.get(str(self.size), self.size)
        return not isinstance(own, int) or (own == self.count if self.exact else own % self.count == 0)

    @property
    def said(self) -> str:
        return f"{self.count}" if self.exact else f"a multiple of {self.count}"


def _demands(contents: Contents, shape: Shape, times: int = 1) -> Iterator[_Demand]:
    """What contents ask of the sizes of so many such blocks."""
    if contents.word == "number" or not shape:
        return
    rows, *others = shape
    assert not isinstance(rows, tuple)
    for k, part in enumerate(contents.parts):
        if contents.word == "columns":
            yield from _demands(part, (rows, shape[1][k]))  # type: ignore[index]
        else:
            yield from _demands(part, shape, times * len(contents.parts))
    if contents.square:
        yield _Demand(rows, equal=others[0])  # type: ignore[arg-type]
    elif contents.word == "rows":
        for size, length in zip(shape, contents.shape, strict=True):
            yield _Demand(size, length * times, exact=True)  # type: ignore[arg-type]
    elif contents.word == "blocks":
        for size in shape:
            yield _Demand(size, times * len(contents.parts))  # type: ignore[arg-type]


def lengths(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A shape in numbers; stacked sizes are added up."""
    sums = (size if isinstance(size, tuple) else (size,) for size in shape)
    return tuple(sum(extent_of(part, sizes) for part in parts) for parts in sums)


def fitting(
    sizes: Mapping[str, int],
    held: Iterable[tuple[Contents, Shape]],
    shares: Iterable[tuple[str, Size]] = (),
) -> dict[str, int]:
    """Sizes that fit all these contents, as near above those given, and as different, as can be; of `shares`
    the first are multiples of the second.
    """
    made = dict(sizes)
    demands = [demand for contents, shape in held for demand in _demands(contents, shape)]
    demands += [_Demand(whole, extent_of(count, sizes)) for whole, count in shares]
    for _ in range(9):  # what one demand changes, another may have to change again
        for demand in demands:
            size = str(demand.size)
            if size not in made or demand.met(made):
                continue
            if demand.exact:
                made[size] = demand.count
            else:
                taken = {length for name, length in made.items() if name != size}
                multiples = count(demand.count * -(-made[size] // demand.count), demand.count)
                made[size] = next(length for length in multiples if length not in taken)
    return made


# ---------------------------------------------------------------------------------------------- values


def entries(contents: Contents, shape: Shape, sizes: Mapping[str, int]) -> np.ndarray[Any, Any]:
    """The entries, in float64. Raises ValueError where they do not fit the shape."""
    if contents.word == "columns":
        widths = zip(contents.args, shape[1], strict=True)  # type: ignore[arg-type]
        return np.hstack([entries(part, (shape[0], width), sizes) for part, width in widths])
    return _entries(contents, lengths(shape, sizes))


def _entries(contents: Contents, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    match contents.word:
        case "number":
            return np.full(shape, contents.args[0], float)
        case "rows":
            made = np.array(contents.args, float)
        case "blocks":
            made = _along([_entries(p, [n // len(contents.args) for n in shape]) for p in contents.args])
        case word:
            i, j = np.indices((shape[0], shape[0]))
            (k,) = contents.args or (0,)
            near = {"identity": i == j, "lower": i >= j, "strict_lower": i > j, "shift": i - j == k}
            made = (near[word] if word in near else (i - j - k) % max(1, shape[0]) == 0) + 0.0
    if made.shape != tuple(shape):
        raise ValueError(f"{contents.brief} does not fit the shape {tuple(shape)}")
    return made


def _along(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    made = np.zeros(np.sum([part.shape for part in parts], axis=0))
    start = np.zeros(made.ndim, int)
    for part in parts:
        made[tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))] = part
        start += part.shape
    return made
