"""Logical lines, without comments and with what brackets continue; and whose mistake an error is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gategen.errors import SpecError, Where
from gategen.spec import language as lang

LENGTH = 50_000  # characters of a text
STATEMENT = 4_000  # characters of one equation or declaration
NAME = 100  # characters of a name: a misspelt one is compared with all others

NAME_A_PART = "give a part of it a name, in an equation of its own"


@dataclass(frozen=True)
class Statement:
    """One equation or declaration, as it was written but on one line and without its comment."""

    where: Where
    text: str
    indented: bool = False

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within, an error is this statement's."""
        try:
            yield
        except SpecError as error:
            raise reworded(error, self.where, self.text) from None
        except RecursionError:
            message = "this is nested too deeply"
            raise SpecError(message, where=self.where, equation=short(self.text), hint=NAME_A_PART) from None


# How the hints of the Python form read in the text form, once h.next is h'.
_REWORDED = (
    (r"\bEq\((\w+'?), \.\.\.\)", r"\1 = ..."),
    (r'\bmatrices\("(\w+)", shape=\((.*)\)\)', r"matrices: \1[\2]"),
    (r'\b\w+ = gates\("\w+"\), one more equation', "one more equation"),
    (r'\b\w+ = (\w+)\("(\w+)", size="?(\w+)"?\)', r"\1: \2[\3]"),
    (r'\b\w+ = (\w+)\("(\w+)"\)', r"\1: \2"),
    (r'\b\w+ = (\w+)\("(\w+)", trainable=False, initial=(\w+)\)', r"fixed \1: \2 = \3"),
    (r"\boutput=", "output: "),
    (r'\bsize="(\w+)"', r"[\1] behind the name"),
    (r'"(\w+)"', r"\1"),
)


def reworded(error: SpecError, where: Where | None, equation: str) -> SpecError:
    """The error, at this place, in the words of the text form."""
    message, hint = (re.sub(r"\b(\w+)\.next\b", r"\1'", words) for words in (error.message, error.hint))
    for python, text in _REWORDED:
        hint = re.sub(python, text, hint)
    return SpecError(message, where=where, equation=equation, hint=hint)


# ------------------------------------------------------------------------------------------ characters

_CODE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ +-*/@()[],.=<>:'\"")

_ANOTHER = "where(a > 0, where(b > 0, ...), ...)"
# fmt: off
_INSTEAD = {
    "^": "** for a power", "%": "mod(a, b)", ";": "each equation on its own line", "{": "(", "}": ")",
    "\\": "brackets around what continues on the next line", "!": "where(equal(a, b), ..., ...)",
    "&": _ANOTHER, "|": _ANOTHER, "~": _ANOTHER,
    # what papers and word processors have
    **dict.fromkeys("\u00b7\u22c5\u2219\u2299\u2218\u00d7\u2217", "*"),
    **dict.fromkeys("\u2212\u2013\u2014", "-"),
    **dict.fromkeys("\u2032\u2019\u02b9\u00b4", "'"), **dict.fromkeys("\u201c\u201d", '"'), "\u00f7": "/",
    "\u03c3": "sigmoid", "\u221a": "sqrt", "\u00b2": "**2", "\u00b3": "**3", "\u2264": "<=", "\u2265": ">=",
    **dict.fromkeys("\u1d40\u22a4", ".T"),
}
# fmt: on


def check_text(text: str, file: str) -> None:
    """Not too long; no control characters, nothing that changes the direction of writing."""
    if len(text) > LENGTH:
        raise SpecError(f"the text has more than {LENGTH} characters", where=Where(file, 1))
    for number, line in enumerate(text.split("\n"), 1):
        for character in line.replace("\t", " "):
            if not character.isprintable():
                message = f"the character U+{ord(character):04X} cannot be seen"
                shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)
                with Statement(Where(file, number), short(shown)).blamed():
                    raise SpecError(message, hint="remove it, or type the line anew")


def _check_code(code: str) -> None:
    """Only characters of the language, and names of a length that can be read."""
    if long := re.search(rf"(?<!\w)[A-Za-z_]\w{{{NAME},}}", code):
        raise SpecError(f"the name {short(long[0])} has more than {NAME} characters")
    for character in code:
        if character not in _CODE:
            if character not in _INSTEAD and character.isalpha():
                lang.check_name(character)  # it knows what to say of letters
            instead = _INSTEAD.get(character)
            hint = f"write {instead}" if instead else ""
            raise SpecError(f"{character} is not a character of the language", hint=hint)


# ------------------------------------------------------------------------------------------ lines


def docstring(text: str, file: str) -> tuple[str, int]:
    """What stands between the quotes that a text begins with, and where the rest begins."""
    opening = re.match(r'(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*("""|\'\'\')', text)
    if not opening:
        return "", 0
    number = text.count("\n", 0, opening.end())
    begun = Statement(Where(file, number + 1), short(text.split("\n")[number].strip()))
    closing = text.find(opening[1], opening.end())
    end = closing + len(opening[1])
    with begun.blamed():
        if closing < 0:
            raise SpecError(f"the docstring has no end: {opening[1]} is missing")
        if text[end:].partition("\n")[0].partition("#")[0].strip():
            raise SpecError("something stands behind the docstring", hint="begin a new line")
    return text[opening.end() : closing], end


def statements(text: str, start: int, file: str) -> Iterator[Statement]:
    """The logical lines from the character `start` on."""
    parts: list[str] = []
    depth, begun, indented = 0, 0, False
    for number, line in enumerate(text[start:].split("\n"), text.count("\n", 0, start) + 1):
        code = line.partition("#")[0].replace("\t", " ")
        if code.strip() and not parts:
            begun, indented = number, code.startswith(" ")
        with Statement(Where(file, number), short(code.strip())).blamed():
            _check_code(code)
            for character in code:
                depth += _opens(character)
                if depth < 0:
                    raise SpecError("a bracket is closed that was not opened")
        parts += code.split()
        if parts and not depth:
            yield _statement(parts, Where(file, begun), indented)
            parts = []
    if parts:
        raise SpecError("a bracket is not closed", where=Where(file, begun), equation=short(" ".join(parts)))


def _statement(parts: Sequence[str], where: Where, indented: bool) -> Statement:
    text = " ".join(parts)
    if len(text) > STATEMENT:
        message = f"this has more than {STATEMENT} characters"
        raise SpecError(message, where=where, equation=short(text), hint=NAME_A_PART)
    return Statement(where, text, indented)


def short(text: str) -> str:
    """What fits on a line."""
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _opens(character: str) -> int:
    return (character in "([") - (character in ")]")


def split(text: str, separator: str) -> list[str]:
    """`text` at those separators that stand in no bracket; `=` is not found in `==`, `<=`, `>=`, `:=`."""
    parts, depth, begun = [], 0, 0
    for k, character in enumerate(text):
        depth += _opens(character)
        if character != separator or depth:
            continue
        if separator == "=" and (text[:k].endswith(("=", "<", ">", ":")) or text[k + 1 :].startswith("=")):
            continue
        parts.append(text[begun:k].strip())
        begun = k + 1
    return [*parts, text[begun:].strip()]
