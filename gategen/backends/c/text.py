"""Text of C: calls, comments, loops, and lines of at most 110 columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gategen.backends.folding import WIDTH, folded
from gategen.backends.pointwise import filled


def tidy(text: str) -> str:
    """Text of C as people write it: what is used is not called unused, and no line is too long."""
    functions = re.split(r"(?m)(?<=^\}\n)", re.sub(r"(?m)^ +#", "#", text))
    lines = (line for function in functions for line in used_alone(function).rstrip("\n").split("\n"))
    return "\n".join(part for line in lines for part in broken(line)).rstrip() + "\n"


def used_alone(function: str) -> str:
    """A function without `(void)a;` for what it uses."""
    body = function.partition("\n{\n")[2]

    def needed(found: re.Match[str]) -> str:
        return found[0] if len(re.findall(rf"\b{found[1]}\b", body)) == 1 else ""

    return re.sub(r"(?m)^ +\(void\)(\w+);\n", needed, function)


def broken(line: str) -> list[str]:
    """A line in as many as it needs; a comment beside it comes to stand above."""
    margin = line[: len(line) - len(line.lstrip())]
    if len(line) <= WIDTH:
        return [line]
    if line.lstrip().startswith("//"):
        return [f"{margin}// {part}" for part in folded([line.lstrip(" /")], WIDTH - 3 - len(margin))]
    code, beside, comment = line.partition("  // ")
    if beside:
        return [f"{margin}// {part}" for part in folded([comment], 100)] + broken(code)
    at = max(
        code.rfind(mark, len(margin) + 20, WIDTH) + len(mark) - 1 for mark in (", ", " + ", " ? ", " : ", "(")
    )
    rest = margin + "    " + code[at:].lstrip()
    return [code[:at].rstrip(), *broken(rest)] if at > len(margin) + 20 else [line]


def called_with(name: str, arguments: Sequence[str], width: int) -> list[str]:
    """The lines of a call."""
    line = f"{name}({', '.join(arguments)});"
    if len(line) <= width:
        return [line]
    inner = filled(arguments, width - 4)
    return [f"{name}(", *(f"    {part}" for part in inner[:-1]), f"    {inner[-1]});"]


def mentions(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def indented(lines: Iterable[str], by: int = 4) -> list[str]:
    return [line if line.startswith("#") else " " * by + line for line in lines]


def parallel(condition: str, lines: Sequence[str]) -> list[str]:
    """A loop of which threads take turns each, where it is worth it."""
    return ["#ifdef _OPENMP", f"#pragma omp parallel for if ({condition})", "#endif", *lines]


def commented(lines: Sequence[str]) -> list[str]:
    return [f"// {part}" for part in folded(lines, 100)]


def statement(text: str) -> list[str]:
    """A statement, which goes on in the next lines where it is long."""
    first, *others = filled_words(text, WIDTH - 10)
    return [first, *(f"    {line}" for line in others)]


def filled_words(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
