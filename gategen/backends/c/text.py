"""Text of C: calls, comments, loops, and lines of at most 110 columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gategen.backends.folding import WIDTH, folded
from gategen.backends.pointwise import filled


def tidy(text: str) -> str:
    """Text of C as people write it: what is used is not called unused, and no line is too long."""
    functions = re.split(r"(?m)(?<=^\}\n)", re.sub(r"(?m)^ +#", "#", text))
    lines = (line for function in functions for line in without_unused(function).rstrip("\n").split("\n"))
    return "\n".join(part for line in lines for part in broken(line)).rstrip() + "\n"


def without_unused(function: str) -> str:
    """A function without what only moves along: arrays that nothing reads, `(void)a;` for what is used."""
    head, brace, body = function.partition("\n{\n")
    if not brace:
        return function
    while True:
        idle = next((name for name in dict.fromkeys(LOCAL.findall(body)) if is_idle(name, body)), None)
        if idle is None:
            break
        body = re.sub(rf"(?m)^ *([\w *]*[ *])?{idle} [-+]?= .*;.*\n| *\(void\){idle};\n", "", body)
    signature = re.sub(r"(?m)^(//|#).*", "", head.rpartition("\n\n")[2])
    for name in dict.fromkeys(re.findall(r"(?!void\b)\b(\w+)(?=[,)])", signature)):
        if is_idle(name, body):
            body = re.sub(rf"(?m)^ *{name} [-+]= .*;\n| *\(void\){name};\n", "", body)
            body = f"    (void){name};\n{body}"
        else:
            body = re.sub(rf"(?m)^ *\(void\){name};\n", "", body)
    return head + brace + body


LOCAL = re.compile(r"(?m)^ *(?:const )?(?:real|size_t) [*\w ]*?(\w+) = .*;")


def is_idle(name: str, body: str) -> bool:
    """Whether a name is only declared, moved along and called unused."""
    idle = rf"^ *([\w *]*[ *])?{name} [-+]?= [^;]*;|\(void\){name};|//.*"
    rest = re.sub(rf"(?m){idle}", lambda found: found[0].partition("= ")[2] if "= " in found[0] else "", body)
    return re.search(rf"(?<!->)\b{name}\b", rest) is None  # a member of a struct is another thing


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


def statement(text: str, width: int = WIDTH - 10) -> list[str]:
    """A statement, which goes on in the next lines where it is long, but not at a null character."""
    first, *others = (line.replace("\0", " ") for line in filled_words(text, width))
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
