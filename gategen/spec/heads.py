"""Heads of a cell that was written without their number: `Cell.with_heads(4)`, and `--set heads=4`.

Where the cell has a size `heads` of its own, the number takes its place. Elsewhere every weight of the shape
`(hidden, hidden)` becomes one in blocks, `(hidden, hidden/4)`: a head sees its own share of a vector. Other
weights stay as they are, such as those of the input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sympy as sp
from sympy.core.symbol import Str

from gategen.errors import SpecError
from gategen.spec import language as lang
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


# ---------------------------------------------------------------------------------------------- a number


def _numbered(cell: Any, count: int) -> dict[Any, Any]:
    """The number in the place of the size `heads`, wherever that stands."""
    swap: dict[Any, Any] = {lang.Count(HEADS): sp.Integer(count), Str(HEADS): Str(str(count))}
    for symbol in cell.symbols:
        if isinstance(symbol, (lang.Input, lang.Vector, lang.Matrix)):
            fields = (_counted(field, count) for field in symbol.fields)
            swap[symbol] = type(symbol)(symbol.name, *fields)
    for state in cell.states:
        initial = state.initial.xreplace(swap)
        swap |= moved(state, _counted(state.size, count), initial)
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
            'sizes ("heads", "values", "keys")',
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
