"""Long lines over several."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 110  # columns of generated code


def together(names: Sequence[str]) -> str:
    """One tuple, without its brackets."""
    return ", ".join(names) + ("," if len(names) == 1 else "")


def call(head: str, arguments: Sequence[str], tail: str = ")") -> str:
    """A call in one line, or with its arguments on lines of their own where that is too long."""
    line = f"{head}{', '.join(arguments)}{tail}"
    if len(line) <= WIDTH - 8:
        return line
    return "\n".join([head, *wrapped(", ".join(arguments) + ",", WIDTH - 8), tail])


def wrapped(items: str, width: int) -> list[str]:
    """A list as lines inside of brackets; none ends within an item."""
    kept = re.sub(r"\[[^]]*\]", lambda found: found[0].replace(" ", "\0"), items)
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
