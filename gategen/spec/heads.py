"""Heads: sizes that are taken apart into them, and heads of a cell that was written without their number.

Inside a cell with an axis `hidden/heads` the size `hidden` is `heads*hidden/heads` (`in_shares`).

`Cell.with_heads(4)`, and `--set heads=4`: where the cell has a size `heads` of its own, the number takes its
place. Elsewhere every weight of the shape `(hidden, hidden)` becomes one in blocks, `(hidden, hidden/4)`: a
head sees its own share of a vector. Other weights stay as they are, such as those of the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import sympy as sp
from sympy.core.symbol import Str

from gategen.errors import SpecError
from gategen.spec import language as lang
from gategen.spec.equations import Eq
from gategen.spec.printer import text
from gategen.spec.quoting import placed

HEADS = "heads"
WIDE = ("hidden", "hidden")
WHOLE = (lang.matmat, lang.matmul, lang.transposed, lang.inverse, lang.exponential, lang.unit)
ENTRIES = "a weight in blocks stands in W @ v, alone or in what is computed of its entries, such as M * W"


def check_count(count: int) -> None:
    """That a cell can have so many heads. Raises `SpecError`."""
    if type(count) is not int or count < 2:
        message = f"heads is a whole number, 2 or more, not {count!r}"
        raise SpecError(message, hint="one head is the cell as it is written")


def swap_for_heads(cell: Any, count: int) -> dict[Any, Any]:
    """What takes the place of what in the equations of a cell with so many heads. Raises `SpecError`."""
    return _numbered(cell, count) if HEADS in cell.sizes else _in_blocks(cell, count)


# ---------------------------------------------------------------------------------------------- shares


def in_shares(equations: Sequence[Eq]) -> tuple[Mapping[str, str], Mapping[Any, Any]]:
    """What sizes are taken apart into heads: `heads*hidden/heads` for `hidden`, where a matrix of every row
    has the axes `heads` and `hidden/heads`, or something goes over `hidden/heads`. With it what takes the
    place of what in the equations. Raises `SpecError`.
    """
    used = {name for eq in equations for name in (eq.lhs, *lang.names_in(eq.rhs))}
    used |= {name.state for name in used if isinstance(name, lang.Next)}
    used |= {name for state in used if isinstance(state, lang.State) for name in lang.names_in(state.initial)}
    symbols = sorted(used, key=str)
    said: list[tuple[Any, str]] = [(symbol, axis) for symbol in symbols for axis in _axes(symbol)]
    for eq in equations:
        said += [(node, word) for node in _along(eq.rhs) for word in str(node.args[-1]).split("*")]
    whole: dict[str, str] = {}
    for source, axis in said:
        name, count = lang.shared(axis)
        if name and whole.setdefault(name, f"{count}*{axis}") != f"{count}*{axis}":
            other = whole[name].partition("*")[0]
            message = f"{name} is shared out among {other} and among {count}, in {text(source)}"
            hint = "one number of heads for all that has this size, or a size of another name"
            raise _blamed(equations, SpecError(message, hint=hint), source)
    for symbol in symbols if whole else ():
        for axis in _axes(symbol):
            if axis in whole:
                message = f"{symbol} has the axis {axis}, which is shared out elsewhere, as {whole[axis]}"
                hint = "its axes in shares too, or a size of another name"
                raise _blamed(equations, SpecError(message, hint=hint), symbol)

    def longer(field: Any) -> Any:
        if isinstance(field, tuple):
            return tuple(map(longer, field))
        if isinstance(field, lang.Block):
            return lang.Block(field.owner, field.index, longer(field.rows))
        return (
            "*".join(whole.get(part, part) for part in field.split("*")) if isinstance(field, str) else field
        )

    return whole, _resized(symbols, longer) if whole else {}


def _axes(symbol: Any) -> tuple[str, ...]:
    """The axes of a matrix of every row, as they are named."""
    size = symbol.size if isinstance(symbol, (lang.Input, lang.State)) else ()
    return tuple(map(str, size)) if isinstance(size, tuple) else ()


def _along(expr: sp.Expr) -> list[Any]:
    """What goes along an axis of a value."""
    return sorted(expr.atoms(lang.Along, lang.Over, lang.convolved), key=text)


def _resized(symbols: Iterable[Any], sized: Callable[[Any], Any]) -> dict[Any, Any]:
    """Inputs, parameters and states of other sizes, in the place of those that had them."""
    swap: dict[Any, Any] = {}
    for symbol in symbols:
        if isinstance(symbol, (lang.Input, lang.Vector, lang.Matrix)):
            swap[symbol] = type(symbol)(symbol.name, *map(sized, symbol.fields))
    for state in (symbol for symbol in symbols if isinstance(symbol, lang.State)):
        swap |= moved(state, sized(state.size), state.initial.xreplace(swap))
    return swap


def _blamed(equations: Sequence[Eq], error: SpecError, source: Any) -> SpecError:
    """At the equation in which it stands."""
    eq = next((eq for eq in equations if eq.rhs.has(source) or eq.lhs.has(source)), None)
    return placed(error, eq) if eq else error


# ---------------------------------------------------------------------------------------------- a number


def _numbered(cell: Any, count: int) -> dict[Any, Any]:
    """The number in the place of the size `heads`, wherever that stands."""
    swap: dict[Any, Any] = {lang.Count(HEADS): sp.Integer(count)}
    for word in (word for eq in cell.all_equations for word in eq.rhs.atoms(Str)):
        swap[word] = Str(str(_counted(str(word), count)))
    swap |= _resized(cell.symbols, lambda field: _counted(field, count))
    for symbol in sorted(cell.symbols, key=str):
        size = getattr(swap.get(symbol), "size", 1)
        along = size if isinstance(size, tuple) else lang.factors(size)
        if len(set(along)) < len(along):
            said = ", ".join(map(str, along))
            message = f"{symbol} would have the sizes ({said}), and sizes tell its axes apart"
            hint = f"a name for the size that is {count}, or another number of heads"
            raise _placed(cell, SpecError(message, hint=hint), symbol)
    return swap


def moved(state: lang.State, size: lang.Extent, initial: Any) -> dict[Any, Any]:
    """Another state in the place of one, and its next value in that of the next one."""
    made = lang.State(state.name, size, initial, state.fields[-1])
    made.where = state.where
    return {state: made, state.next: made.next}


def _counted(field: Any, count: int) -> Any:
    """A size, several of them, or the rows that hold a block, with the number for `heads`."""
    if isinstance(field, tuple):
        return tuple(_counted(part, count) for part in field)
    if isinstance(field, lang.Block):
        return lang.Block(field.owner, field.index, _counted(field.rows, count))
    if not isinstance(field, str):
        return field
    if field == HEADS:
        return count
    words = re.split(r"([*/])", field)
    return "".join(str(count) if word == HEADS else word for word in words)


# ---------------------------------------------------------------------------------------------- blocks


def _in_blocks(cell: Any, count: int) -> dict[Any, Any]:
    """Weights in blocks for those of the shape (hidden, hidden)."""
    chosen = [p for p in cell.parameters if isinstance(p, lang.Matrix) and cell.shapes[p.name] == WIDE]
    for message, hint, symbol in _obstacles(cell, chosen):
        raise _placed(cell, SpecError(message, hint=hint), symbol)
    if not chosen:
        raise SpecError(
            f"{cell.name} has no size heads, and no weight of the shape (hidden, hidden) to cut into blocks",
            where=cell.where,
            hint='say what has heads: a weight of the shape ("hidden", "hidden/heads"), or a state of the '
            'sizes ("heads", "hidden/heads", "keys")',
        )
    return {p: lang.Matrix(p.name, ("hidden", f"hidden/{count}"), *p.fields[1:]) for p in chosen}


def _obstacles(cell: Any, chosen: list[Any]) -> Iterator[tuple[str, str, Any]]:
    """What cannot be in blocks: a message, a hint, and what stands in the equation that is meant."""
    for p in cell.parameters:
        columns = cell.shapes[p.name][1] if isinstance(p, lang.Matrix) else ()
        if isinstance(columns, tuple) and "hidden" in columns and cell.shapes[p.name][0] == "hidden":
            said = ", ".join(map(str, columns))
            hint = f"a matrix for each of them: U @ h + W @ x for {p} @ concat(h, x)"
            yield f"{p} has the columns ({said}) side by side, which heads cannot cut into blocks", hint, p
    for p in chosen:
        if p.block and set(p.block.rows) != {"hidden"}:
            rows = ", ".join(map(str, p.block.rows))
            message = f"{p.array} has the rows ({rows}) in one array, of which heads cut some into blocks"
            yield message, "a matrix of its own for rows of another size", p
        if p.contents and p.contents.word != "number":
            message = f"{p} holds {p.contents.brief}, a whole matrix, and heads would cut it into blocks"
            yield message, "a number for what it holds, or nothing", p
    for eq in cell.all_equations:
        for node in sorted(eq.rhs.atoms(lang.matmat, lang.computed, lang.frobenius), key=text):
            taken = node.args[1] if isinstance(node, lang.matmat) else node
            mine = [p for p in chosen if p in taken.atoms(lang.Matrix)]
            if mine and node.has(*WHOLE):
                message = f"{text(node)} takes {mine[0]} whole, and heads would cut it into blocks"
                yield message, ENTRIES, node


def _placed(cell: Any, error: SpecError, symbol: Any) -> SpecError:
    """At the equation in which it stands; of an initial value at the cell."""
    users = (eq for eq in cell.all_equations if eq.rhs.has(symbol))
    eq = next(users, None)
    return placed(error, eq) if eq else error.at(cell.where)
