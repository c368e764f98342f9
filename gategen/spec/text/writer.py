"""Cells as text: the shortest that reads as the same cell."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from gategen.errors import UnsupportedError
from gategen.spec import language as lang
from gategen.spec.cell import Array, Cell
from gategen.spec.equations import Eq
from gategen.spec.printer import ATOM, Printer
from gategen.spec.text.outline import WORDS
from gategen.spec.text.reader import PARAMETER
from gategen.spec.text.slips import slips
from gategen.spec.text.trees import UNIT


class _Text(Printer):
    """Expressions so that reading them gives the same ones."""

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, Relational) and expr.rel_op == "==":
            return f"equal({self(expr.lhs)}, {self(expr.rhs)})", ATOM
        return super().spell(expr)

    def number(self, value: sp.Number) -> tuple[str, int]:
        text, tightness = super().number(value)
        return (repr(float(value)) if value.is_Float else text), tightness

    def quoted(self, word: str) -> str:
        return f'"{word}"'

    def call(self, expr: sp.Function) -> str:
        if not isinstance(expr, lang.batch_norm):
            return super().call(expr)
        v, gain, bias, eps, momentum = expr.args
        shift = [
            self(v),
            *([self(gain)] if (gain, bias) != (1, 0) else []),
            *([self(bias)] if bias != 0 else []),
        ]
        rest = [("eps", eps, 1e-5), ("momentum", momentum, 0.1)]
        words = [f"{word}={self(value)}" for word, value, default in rest if value != default]
        return f"batch_norm({', '.join([*shift, *words])})"


def write(cell: Cell) -> str:
    """The text form of a `Cell`: reading it gives the same cell. Raises `UnsupportedError`.

    It says no name: what becomes of it in a file is another cell, and called as the file is.
    """
    if UNIT in {symbol.name for symbol in cell.symbols} and any(
        e.rhs.has(lang.unit) for e in cell.all_equations
    ):
        raise UnsupportedError(
            f"{cell.name} has a name {UNIT}, and the text form has no other word for the unit matrix"
        )
    return "\n".join([*_heading(cell.title, cell.reference, cell.name), *_body(cell)])


_COMMENTS = """\
# gategen build {name}.gate     writes generated/{name}_numpy.py and its like
# gategen verify {name}.gate    checks the derived gradients
#
# Everything is elementwise but W @ v. z = ... defines a gate, h' = ... the next value of the state h; the
# order of the equations does not matter. x is the input. Names that begin with W_ U_ V_ P_ R_ b_ c_ p_ g_
# are parameters; others are declared, on lines such as
#     inputs: x, m[1]
#     states: h, k[6] = 0.5
#     matrices: A[hidden, (hidden, input)]
#     vectors: q
#     scalars: alpha
#     constants: eps = 1e-5
"""


def draft(cell: Cell, name: str) -> str:
    """A commented file of a cell called `name` with the equations of `cell`."""
    heading = _heading(f"{name}, after {cell.name}", cell.reference, name)
    return "\n".join([*heading, _COMMENTS.format(name=name), *_body(cell), ""])


def _heading(title: str, reference: str, name: str) -> list[str]:
    """The docstring, where it says more than the name."""
    if title == name and not reference:
        return []
    quotes = '"""' if '"""' not in title + reference else "'''"
    if quotes in title + reference:
        raise UnsupportedError(
            f"the title of {name} has both kinds of quotes; the text form cannot hold them"
        )
    if not reference:
        return [f"{quotes}{title}.{quotes}"]
    return [f"{quotes}{title}.", "", *_filled(reference, 100), quotes]


def _filled(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _body(cell: Cell) -> list[str]:
    """Declarations, equations and the rule of the first step."""
    output = (
        [] if cell.outputs == (cell.states[0].next,) else [f"output: {', '.join(map(str, cell.outputs))}"]
    )
    lines = [*_lines_of(cell), *output, "", *_aligned(cell.equations, "")]
    return [*lines, "", "first:", *_aligned(cell.first, "    ")] if cell.first else lines


def _aligned(equations: Sequence[Eq], indent: str) -> list[str]:
    show = _Text({eq.lhs.name: k for k, eq in enumerate(equations)})
    width = max(len(eq.lhs.name) for eq in equations)
    return [f"{indent}{eq.lhs.name:{width}} = {show(eq.rhs)}" for eq in equations]


def _lines_of(cell: Cell) -> Iterator[str]:
    """The declarations of what does not follow from use, and of the states."""
    show = _Text()
    entries: list[tuple[str, str]] = []
    if [(x.name, x.size) for x in cell.inputs] != [("x", "input")]:
        entries += [("inputs", x.name + _bracketed(x.size, "input")) for x in cell.inputs]
    for state in cell.states:
        start = "" if state.initial == 0 else f" = {show(state.initial)}"
        entries.append(("states", state.name + _bracketed(state.size, "hidden") + start))
    undeclared = _undeclared(cell)
    for kind, word in ((lang.Matrix, "matrices"), (lang.Vector, "vectors"), (lang.Scalar, "scalars")):
        for array in cell.arrays:
            if isinstance(array.members[0], kind) and array.name not in undeclared:
                section = word if array.trainable else f"fixed {word}"
                held = f" = {array.initial}" if array.initial else ""
                entries.append((section, array.name + _extent(array) + held))
    entries += [("constants", f"{c} = {show(c.value)}") for c in cell.constants]
    for section, alike in groupby(sorted(entries, key=lambda e: WORDS.index(e[0])), lambda e: e[0]):
        yield from (f"{section}: {line}" for line in _filled_entries([entry for _, entry in alike], 90))


def _undeclared(cell: Cell) -> set[str]:
    """The parameters that need no declaration: they follow from use, and look like no slip of the pen."""
    implied = {a.name: isinstance(a.members[0], lang.Matrix) for a in cell.arrays if _follows(a)}
    matrices = {a.name for a in cell.arrays if isinstance(a.members[0], lang.Matrix)}
    values = (*(s.initial for s in cell.states), *(eq.rhs for eq in cell.all_equations))
    reads = [[symbol.name for symbol in lang.names_in(value)] for value in values]
    return implied.keys() - {slip.name for slip in slips(reads, implied, matrices)}


def _follows(array: Array) -> bool:
    """Whether role, size, training and what it begins with follow from the name and its use."""
    one = isinstance(array.members[0], lang.Scalar)
    plain = array.trainable and not array.contents and not one and not _extent(array)
    return plain and bool(PARAMETER.match(array.name))


def _extent(array: Array) -> str:
    parameter = array.members[0]
    if isinstance(parameter, lang.Matrix):
        if parameter.shape is None:
            return ""
        return f"[{', '.join(map(_size_text, array.shape))}]"
    if parameter.block:
        rows = parameter.block.rows
        return f"[{', '.join(map(_size_text, rows))}{',' * (len(rows) == 1)}]"
    return _bracketed(parameter.size, "hidden") if isinstance(parameter, lang.Vector) else ""


def _bracketed(size: lang.Extent, default: str) -> str:
    axes = size if isinstance(size, tuple) else (lang.regrouped(size),)
    return "" if axes == (default,) else f"[{', '.join(map(_size_text, axes))}]"


def _size_text(size: Any) -> str:
    if not isinstance(size, tuple):
        return str(lang.regrouped(size))
    return f"({', '.join(map(_size_text, size))}{',' * (len(size) == 1)})"


def _filled_entries(entries: Sequence[str], width: int) -> list[str]:
    """As many on a line as fit."""
    lines = [""]
    for entry in entries:
        if lines[-1] and len(lines[-1]) + len(entry) > width:
            lines.append("")
        lines[-1] += f", {entry}" if lines[-1] else entry
    return lines
