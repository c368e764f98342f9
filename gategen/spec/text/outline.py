"""The parts of a text: declarations and equations, before any name has a role."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gategen.errors import SpecError, Where
from gategen.spec import language as lang
from gategen.spec.text.lines import Statement, split
from gategen.spec.text.trees import Budget, parsed

EQUATIONS = 200
KINDS = ("inputs", "states", "matrices", "vectors", "scalars", "constants")
FIXED = ("fixed matrices", "fixed vectors", "fixed scalars")
WORDS = ("name", *KINDS, *FIXED, "output", "first")

_EXAMPLES = {
    "inputs": "inputs: x, m[1], w[memory]",
    "states": "states: h, k[6] = -0.25",
    "matrices": "matrices: A, C[rank, hidden], D[hidden, (hidden, input)], S = lower",
    "vectors": "vectors: q, e[1], a[memory], b = 1",
    "scalars": "scalars: alpha, gamma = 0.5",
    "constants": "constants: eps = 1e-5, beta = 1",
}


@dataclass(frozen=True)
class Declaration:
    """One name of a line such as `states: h, k[6] = 1`."""

    kind: str
    name: str
    statement: Statement
    size: Any = None  # a name or a number; of a matrix two of them, or of tuples of them
    value: ast.expr | None = None
    trainable: bool = True


@dataclass(frozen=True)
class Target:
    """A name that is given a value, or put out; `primed` where it is the next value of a state."""

    name: str
    primed: bool
    statement: Statement


@dataclass(frozen=True)
class Equation:
    """`z = ...`; several targets take a tuple apart."""

    targets: tuple[Target, ...]
    value: ast.expr
    statement: Statement


@dataclass(frozen=True)
class Outline:
    """Everything that a text says, by kind."""

    name: str
    declarations: tuple[Declaration, ...]
    output: tuple[Target, ...]
    equations: tuple[Equation, ...]
    first: tuple[Equation, ...]

    @property
    def targets(self) -> list[Target]:
        return [target for equation in (*self.equations, *self.first) for target in equation.targets]

    @property
    def expressions(self) -> list[tuple[ast.expr, Statement]]:
        """Every expression, the initial values of states included."""
        valued = [d for d in self.declarations if d.kind in ("states", "constants")]
        starts = [(d.value, d.statement) for d in valued if d.value is not None]
        return [*starts, *((eq.value, eq.statement) for eq in (*self.equations, *self.first))]


def outline(statements: Iterable[Statement], file: str) -> Outline:
    """The parts of a text. Raises `SpecError`."""
    found = _sections(statements)
    budget = Budget()
    made = Outline(
        _name(found["name"]),
        tuple(_declarations(found, budget)),
        tuple(_target(part, statement) for statement, body in found["output"] for part in _entries(body)),
        tuple(_equation(statement, body, budget) for statement, body in found[""]),
        tuple(_equation(statement, body, budget) for statement, body in found["first"]),
    )
    if not made.equations:
        hint = "h' = tanh(W_h @ x + U_h @ h + b_h)"
        raise SpecError("there is no equation", where=Where(file, 1), hint=hint)
    for target in made.targets[EQUATIONS:]:
        with target.statement.blamed():
            raise SpecError(f"there are more than {EQUATIONS} equations")
    return made


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A hint, where one of the words is close."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else ""


# ------------------------------------------------------------------------------------------ sections

Part = tuple[Statement, str]  # what an error quotes, and what stands behind the word of the section


def _sections(statements: Iterable[Statement]) -> dict[str, list[Part]]:
    """What belongs to each word; equations of the step belong to none."""
    found: dict[str, list[Part]] = {word: [] for word in (*WORDS, "")}
    word = ""
    for statement in statements:
        if statement.indented:
            if not word:
                with statement.blamed():
                    raise SpecError(
                        "this line is indented", hint="only what belongs to a word such as first: is"
                    )
            found[word].append((statement, statement.text))
            continue
        header = re.match(r"([A-Za-z][\w ]*?) ?:(?!=) ?(.*)", statement.text)
        word = _word(header[1], statement) if header else ""
        body = header[2] if header else statement.text
        if body:
            found[word].append((statement, body))
    return found


def _word(word: str, statement: Statement) -> str:
    if word in WORDS:
        return word
    with statement.blamed():
        if word == "gates":
            raise SpecError("gates are not declared", hint="what an equation defines is a gate")
        hint = did_you_mean(word, WORDS) or f"there are: {', '.join(WORDS)}"
        raise SpecError(f"there is no line {word}: in the text form", hint=hint)


def _name(parts: Sequence[Part]) -> str:
    for statement, _ in parts[1:]:
        with statement.blamed():
            raise SpecError("the cell is named twice", hint="name it once")
    for statement, body in parts:
        with statement.blamed():
            return lang.check_name(body)
    return ""


def _entries(body: str) -> list[str]:
    return split(body.removesuffix(","), ",")


# ------------------------------------------------------------------------------------------ declarations


def _declarations(found: Mapping[str, Sequence[Part]], budget: Budget) -> Iterator[Declaration]:
    seen: dict[str, Declaration] = {}
    for word in (*KINDS, *FIXED):
        for statement, body in found[word]:
            for entry in _entries(body):
                with statement.blamed():
                    made = _declaration(word.removeprefix("fixed "), entry, statement, budget)
                    known = seen.setdefault(made.name, made)
                    if known is not made:
                        message = f"{made.name} is declared twice, first at {known.statement.where}"
                        raise SpecError(message, hint="declare it once, or give one of them another name")
                yield replace(made, trainable=word not in FIXED)


def _declaration(kind: str, entry: str, statement: Statement, budget: Budget) -> Declaration:
    left, *values = split(entry, "=")
    match = re.fullmatch(r"([^\[\]]*?) ?(?:\[(.*)\])?", left)
    size = None if match is None or match[2] is None else _size(parsed(match[2], budget))
    wrong = (
        match is None
        or len(values) > 1
        or (kind == "constants" and not values)
        or (kind == "inputs" and values)
        or (kind in ("scalars", "constants") and size is not None)
        or (kind == "matrices" and size is not None and not (isinstance(size, tuple) and len(size) == 2))
    )
    if wrong or match is None:
        raise SpecError(f"{entry or 'nothing'} is not a declaration of {kind}", hint=_EXAMPLES[kind])
    value = parsed(values[0], budget) if values else None
    return Declaration(kind, lang.check_name(match[1]), statement, size, value)


def _size(tree: ast.expr) -> Any:
    """Names and numbers, in tuples as the text has them."""
    match tree:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=int(number)) if type(number) is int:
            return number
        case ast.Tuple(elts=parts):
            return tuple(map(_size, parts))
        case ast.BinOp(op=ast.Mult()):
            return f"{_size(tree.left)}*{_size(tree.right)}"
        case ast.BinOp(op=ast.Div(), left=ast.Name(), right=ast.Name() | ast.Constant()):
            return f"{_size(tree.left)}/{_size(tree.right)}"
    raise SpecError(
        "a size is a name or a whole number", hint="hidden, input, 6, hidden/heads, or a name of your own"
    )


# ------------------------------------------------------------------------------------------ equations


def _equation(statement: Statement, body: str, budget: Budget) -> Equation:
    with statement.blamed():
        left, *rest = split(body, "=")
        if not rest:
            raise SpecError(
                "this is neither an equation nor a declaration", hint="z = ..., h' = ..., states: h"
            )
        if len(rest) > 1:
            raise SpecError("an equation has one =", hint="each equation stands on a line of its own")
        if not rest[0]:
            raise SpecError("nothing stands on the right of =", hint=f"{left or 'z'} = ...")
        value = parsed(rest[0], budget)
    return Equation(tuple(_target(part, statement) for part in split(left, ",")), value, statement)


def _target(part: str, statement: Statement) -> Target:
    match = re.fullmatch(r"(\w+)( ?'|\.next)?", part)
    with statement.blamed():
        if match is None:
            message = f"a name, or a name with ', is given a value, not {part or 'nothing'}"
            raise SpecError(message, hint="z = ... for a gate z, h' = ... for a state h")
        return Target(lang.check_name(match[1]), bool(match[2]), statement)
