"""Long lines over several."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 110  # columns of generated code


def listing(names: Sequence[str]) -> str:
    """One tuple, without its brackets."""
    return ", ".join(names) + ("," if len(names) == 1 else "")


def call(head: str, arguments: Sequence[str], tail: str = ")", width: int = WIDTH - 8) -> str:
    """A call in one line, or with its arguments on lines of their own where that is too long."""
    line = f"{head}{', '.join(arguments)}{tail}"
    if len(line) <= width:
        return line
    kept = ", ".join(unbroken(argument, width - 4) for argument in arguments)
    return "\n".join([head, *wrapped(kept + ",", width), tail])


def unbroken(item: str, width: int) -> str:
    """An item with blanks at which no line ends, unless no line can hold it."""
    return item.replace(" ", "\0") if len(item) < width else item


def assigned(targets: Sequence[str], value: str) -> str:
    """`a, b = value`; too many names stand within brackets."""
    line = f"{listing(targets)} = {value}"
    return line if len(line) <= WIDTH - 8 else call("(", targets, f") = {value}")


def taking(targets: Sequence[str], call_head: str) -> str:
    """`a, b = memory(`; too many names stand within brackets."""
    line = f"{listing(targets)} = {call_head}"
    return line if len(line) <= WIDTH - 8 else call("(", targets, f") = {call_head}")


def returned(values: Sequence[str]) -> str:
    """The line that returns some values as a tuple."""
    line = f"return {listing(values) or '()'}"
    return line if len(line) <= WIDTH - 8 else call("return (", values)


def together(assignments: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The lines of some assignments: one where it is short, and none waits for another."""
    line = " = ".join(", ".join(part) for part in zip(*assignments, strict=True))
    waits = any(re.search(rf"\b{name}\b", source) for name, _ in assignments for _, source in assignments)
    if line and len(line) <= 80 and not waits:
        return (line,)
    return tuple(f"{name} = {source}" for name, source in assignments)


def wrapped(items: str, width: int) -> list[str]:
    """A list as lines inside of brackets; none ends within an item that a line can hold."""
    kept = re.sub(r"\[[^]]*\]|\([^()]*\)", lambda found: unbroken(found[0], width - 4), items)
    lines = textwrap.wrap(kept, width - 4, break_long_words=False, break_on_hyphens=False)
    return ["    " + line.replace("\0", " ") for line in lines]


def commented(lines: Iterable[str]) -> list[str]:
    """Lines as comments, no longer than a line of code."""
    return [f"# {line}" for line in folded(lines)]


def folded(lines: Iterable[str], width: int = 92) -> list[str]:
    """Lines, long ones over several."""
    made: list[str] = []
    for line in lines:
        first, *rest = textwrap.wrap(line, width, break_long_words=False) or [""]
        made += [first, *(f"    {part}" for part in rest)]
    return made
