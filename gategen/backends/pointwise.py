"""What CUDA and C share: expressions of single numbers, and the text around them."""

from __future__ import annotations

import textwrap
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sympy as sp

from gategen.backends.folding import WIDTH
from gategen.graph import Length, Pointwise, Value, fresh, length
from gategen.spec import language as lang
from gategen.spec.elementwise import Call, Row
from gategen.spec.language import Axes
from gategen.spec.printer import ATOM, SUM, Printer


class EntryPrinter(Printer):
    """Expressions of single numbers, every number a `real`, small powers as products."""

    def __init__(self, rank: dict[str, int], rename: dict[str, str], letters: dict[str, str]) -> None:
        super().__init__(rank, rename)
        self.letters = letters  # of the sizes, which may have the names of values

    @abstractmethod
    def real(self, text: str) -> str:
        """A number as a `real`."""

    @abstractmethod
    def call_of(self, row: Row) -> Call | None:
        """How a function of the table is applied."""

    def general_power(self, base: str, exponent: str) -> str:
        return f"pow({base}, {exponent})"

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, sp.Expr) and expr.is_number and not isinstance(expr, sp.Number):
            return self.number(sp.Float(float(expr)))  # there is no sqrt of an int
        if isinstance(expr, Length):
            return self.real(self.letters[expr.name]), ATOM
        if isinstance(expr, lang.where):
            condition, a, b = expr.args
            return f"{self(condition)} ? {self.choice(a)} : {self.choice(b)}", 0
        if isinstance(expr, lang.stop_gradient):
            return self.spell(expr.args[0])
        return super().spell(expr)

    def choice(self, expr: sp.Basic) -> str:
        """One of the two values of `where`."""
        return self.at(expr, SUM)

    def word(self, row: Row) -> str:
        call = self.call_of(row)
        assert call, f"{row.name} has no name here"
        return call.name

    def number(self, value: sp.Number) -> tuple[str, int]:
        if value.is_Integer and abs(int(value)) < 10**6:
            return str(int(value)), ATOM if value >= 0 else SUM
        return self.real(repr(float(value))), ATOM

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if exponent == 2:
            return f"square({self(base)})", ATOM
        if exponent == 3:
            return f"cube({self(base)})", ATOM
        if exponent == sp.Rational(1, 2) or exponent.could_extract_minus_sign():
            return super().power(base, exponent)
        return self.general_power(self(base), self.real(repr(float(exponent)))), ATOM


def arguments_of_functions(ops: Sequence[Pointwise], stored: Sequence[Value]) -> set[Value]:
    """The values that are nothing but the argument of one function, and so need no line of their own.

    A choice between two integers has one: a function of it would be one of integers.
    """
    read = Counter(node for op in ops for node in sp.preorder_traversal(op.expr) if isinstance(node, Value))
    calls = [call for op in ops for call in op.expr.atoms(sp.Function) if not isinstance(call, lang.where)]
    arguments = {value for call in calls for value in call.args if isinstance(value, Value)}
    made = {op.out for op in ops if not (isinstance(op.expr, lang.where) and _whole(op.expr))}
    return {v for v in arguments if read[v] == 1} & made - set(stored)


def _whole(choice: sp.Expr) -> bool:
    return all(way.is_Integer for way in choice.args[1:])


def filled(items: Sequence[str], width: int = WIDTH - 8) -> list[str]:
    """Items with commas between them, as many in a line as it holds."""
    kept = ", ".join(item.replace(" ", "\0") for item in items)
    return [line.replace("\0", " ") for line in textwrap.wrap(kept, width, break_long_words=False)]


def unique(wish: str, taken: set[str]) -> str:
    """`wish`, or `wish_` where that is taken; taken from now on."""
    name = wish if wish not in taken else fresh(f"{wish}_", taken)
    taken.add(name)
    return name


def times(rows: str, width: str) -> str:
    """`B * H`, `T * B * (H + I)`, `B`, `H`: the product, without factors that are 1 or not there."""
    if not rows or width == "1":
        return rows or width
    return f"{rows} * {grouped(width)}" if " + " in width else f"{rows} * {width}"


def grouped(size: str) -> str:
    """A size as a factor."""
    return f"({size})" if " " in size else size


# ---------------------------------------------------------------------------------------------- several axes


@dataclass(frozen=True)
class Space:
    """A number that counts the entries along some axes, the last of which go first."""

    index: str
    axes: Axes

    def along(self, part: Axes, size: Callable[[sp.Expr], str]) -> str:
        """The number of the entry along neighbouring axes alone: `k / K`, `k % K`."""
        begin = self.axes.index(part[0])
        behind = self.axes[begin + len(part) :]
        text = f"{self.index} / {grouped(size(length(behind)))}" if behind else self.index
        return f"{text} % {grouped(size(length(part)))}" if begin else text


def parted(axes: Axes, spaces: Sequence[Space]) -> list[tuple[Space, Axes]]:
    """Axes in pieces that lie beside each other in one space, each with that space."""
    made: list[tuple[Space, Axes]] = []
    for axis in axes:
        space = next(space for space in spaces if axis in space.axes)
        last, part = made[-1] if made else (None, ())
        if last == space and space.axes.index(axis) == space.axes.index(part[-1]) + 1:
            made[-1] = space, (*part, axis)
        else:
            made.append((space, (axis,)))
    return made


def entry_number(
    axes: Axes, spaces: Sequence[Space], size: Callable[[sp.Expr], str], name: Callable[[Space, Axes], str]
) -> str:
    """Which entry of a value with these axes, row-major, some places are at: `k * K + j`."""
    text = ""
    for space, part in parted(axes, spaces):
        number = name(space, part)
        text = f"{grouped(text)} * {grouped(size(length(part)))} + {number}" if text else number
    return text
