"""What `init` does beside drawing numbers: it writes what the cell states, and asks for what is fixed.

Patterns are made by NumPy on the host, for both backends.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from gategen.backends.folding import WIDTH, call, listing
from gategen.backends.module import Module
from gategen.backends.names import contents_argument
from gategen.spec.cell import Array, Cell
from gategen.spec.contents import Contents


@dataclass(frozen=True)
class Asked:
    """A fixed parameter whose contents the cell does not state: an argument of `init`."""

    argument: str
    array: str


@dataclass(frozen=True)
class Filling:
    """What `init` puts into parameters."""

    fixed: str  # the line that names all parameters that training does not change
    asked: tuple[Asked, ...]
    said: tuple[str, ...]  # lines of the docstring of `init`
    call: str  # the line that returns the parameters, empty where all are drawn
    blocks: bool  # whether there are contents of several blocks


def filling(module: Module) -> Filling:
    arrays = module.cell.arrays
    asked = [Asked(contents_argument(module.cell, a.name), a.name) for a in arrays if asks(a)]
    values = [f"{a.name}={value(module, a)}" for a in arrays if a.contents]
    values += [f"{a.array}={a.argument}" for a in asked]
    lines = stated(module.cell)
    for a in (a for a in arrays if asks(a)):
        shape = f"({', '.join(dims(module, a.shape))}{',' * (len(a.shape) == 1)})"
        argument = contents_argument(module.cell, a.name)
        lines.append(f"{argument}: {shape}, fixed; the cell does not state what it holds.")
    fixed = [f'"{a.name}"' for a in arrays if not a.trainable]
    return Filling(
        fixed=call("FIXED = (", fixed, ",)" if len(fixed) == 1 else ")", WIDTH) if fixed else "",
        asked=tuple(asked),
        said=tuple(part for line in lines for part in textwrap.wrap(line, 100, subsequent_indent="    ")),
        call=call("return filled(", ["params", *values]) if values else "",
        blocks=any(re.search(r"\bblocks\(", line) for line in values),
    )


def asks(array: Array) -> bool:
    """Whether `init` asks for what is in it."""
    return not array.trainable and not array.contents


def brief(array: Array) -> str:
    """`S = lower`, in few words."""
    said = array.initial if len(array.contents) > 1 else array.contents[0].brief
    return f"{array.name} = {said}" if len(said) <= 60 else f"{array.name} = numbers"


def stated(cell: Cell) -> list[str]:
    """What fixed parameters hold, and what trained ones begin with, in words."""
    held = {
        trained: [brief(a) for a in cell.arrays if a.contents and a.trainable == trained]
        for trained in (False, True)
    }
    said = [("fixed", held[False]), ("at first", held[True])]
    return [f"{when}: {', '.join(what)}." for when, what in said if what]


# ---------------------------------------------------------------------------------------------- values


def value(module: Module, array: Array) -> str:
    """The contents of an array, as Python text."""
    if len(set(array.contents)) == 1 and array.contents[0].word == "number":
        return repr(array.contents[0].args[0])
    sizes, *others = array.shape if array.stacked else (array.shape[:1], *array.shape[1:])
    assert isinstance(sizes, tuple)
    parts = []
    for rows, contents in zip(sizes, array.contents, strict=True):
        if contents.word == "columns":
            (columns,) = others
            assert isinstance(columns, tuple)
            widths = zip(contents.args, columns, strict=True)
            made = [entries(part, dims(module, (rows, width))) for part, width in widths]
            parts.append(f"np.hstack(({listing(made)}))")
        else:
            parts.append(entries(contents, dims(module, (rows, *others))))
    return f"np.concatenate(({listing(parts)}))" if array.stacked else parts[0]


def dims(module: Module, shape: Sequence[object]) -> tuple[str, ...]:
    """The axes of an array as Python text."""
    sums = (size if isinstance(size, tuple) else (size,) for size in shape)
    return tuple(" + ".join(module.names.letter(part) for part in parts) for parts in sums)


_PATTERNS = {"identity": "np.eye({})", "lower": "np.tri({})", "strict_lower": "np.tri({}, k=-1)"}


def entries(contents: Contents, shape: tuple[str, ...]) -> str:
    """An array of these contents; where they do not fit the shape, one that `filled` refuses."""
    match contents.word, contents.args:
        case "number", (number,):
            return f"np.full(({', '.join(shape)}{',' * (len(shape) == 1)}), {number!r})"
        case "rows", rows:
            return repr(rows)
        case "shift", (k,):
            return f"np.eye({shape[0]}, k={-k})"
        case "rotation", (k,):
            return f"np.roll(np.eye({shape[0]}), {k}, axis=0)"
        case "blocks", parts:
            shape = tuple(map(divided, shape, repeat(len(parts))))
            numbers = all(part.word == "number" for part in parts)
            if numbers and len(shape) == 1:
                return f"np.repeat({tuple(part.args[0] for part in parts)!r}, {shape[0]})"
            made = [entries(part, shape) for part in parts]
            if len(made) > 2 and len(set(made)) == 1:
                return f"blocks(*[{made[0]}] * {len(made)})"
            return f"blocks({', '.join(made)})"
        case word, _:
            return _PATTERNS[word].format(shape[0])


def divided(size: str, count: int) -> str:
    if size.isdigit():
        return str(int(size) // count)
    return f"{size} // {count}" if size.isidentifier() else f"({size}) // {count}"
