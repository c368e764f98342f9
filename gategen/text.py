'''The text form of a cell: equations as a paper prints them, read without executing anything.

    """LSTM with a projected state.

    H. Sak, A. Senior, F. Beaufays 2014, arXiv:1402.1128
    """
    states: r[projection], c
    i  = sigmoid(W_i @ x + R_i @ r + p_i * c + b_i)
    f  = sigmoid(W_f @ x + R_f @ r + p_f * c + b_f)
    c' = f * c + i * tanh(W_g @ x + R_g @ r + b_g)
    o  = sigmoid(W_o @ x + R_o @ r + b_o)
    r' = P_r @ (o * tanh(c'))

**Lines.** `#` begins a comment. Whatever stands in parentheses continues on the next line. The text may begin
with a docstring: its first paragraph is the title, the rest is the reference.

**Equations.** `z = ...` defines a gate, `h' = ...` gives the next value of a state, and `h'` on the right reads
it. `n_a, n_b = layer_norm((U_a @ h, U_b @ h))` defines two gates. Order does not matter. Expressions are those
of the Python form: `+ - * / **`, `W @ v`, `W.T @ v`, comparisons inside `where`, and the functions that gategen
exports, with their keyword arguments; `Abs Max Min Heaviside erf` are known too.

**Roles follow from use.** What an equation defines is a gate, or with `'` a state; `x` is the input; a name that
begins with one of `W U V P R b c p g` and `_` is a matrix where it stands left of `@`, otherwise a vector of size
`hidden`. Everything else is declared, each kind on its own line or with its entries on indented lines below:

    name: mine                           where it is not the name of the file
    inputs: x, m[1], w[memory]           read at every step; the first is the sequence; size `input` unless given
    states: h, k[6] = -0.25, s = 2 * b_s   carried; size `hidden`, start 0 unless given
    matrices: A, C[rank, hidden], D[hidden, (hidden, input)]    the last meets concat(h, x)
    vectors: q, e[1], a[memory]          size `hidden` unless given
    scalars: alpha                       one trained number
    fixed matrices: E                    not trained; so `fixed vectors` and `fixed scalars`
    constants: eps = 1e-5, beta = 1      numbers that --set changes
    output: y, c'                        the next value of the first state unless given
    first:                               equations used instead in the first step without a given state
        h' = W_n @ x + b_n

How it is safe: the text is cut into lines here, Python's `ast.parse` makes a tree of each expression, and a tree
that holds anything but the nodes, names and functions listed in this module is refused. Nothing is looked up
outside these lists. Lengths, depths and numbers are limited (`LENGTH`, `DEPTH`, ...), and what SymPy could take
long over, such as `10**10**10`, is refused before SymPy sees it.

This module makes `Eq`s. That they form a cell is checked by `Cell`, whose words `Spec.blamed` puts into the text
form.
'''

from __future__ import annotations

import ast
import difflib
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar

import sympy as sp
from sympy.core.relational import Relational

from gategen import language as lang
from gategen.errors import SpecError, UnsupportedError, Where
from gategen.language import Eq
from gategen.printer import ATOM, Printer

LENGTH = 50_000  # characters of a text
STATEMENT = 4_000  # characters of one equation or declaration
EQUATIONS = 200
NODES = 2_000  # names, numbers, operations and calls of all equations together
DEPTH = 30  # of nesting in one expression
EXPONENT = 1_000
BITS = 1_000  # of a numerator or a denominator; a float ends at 1024

# ------------------------------------------------------------------------------------------ what is read


@dataclass(frozen=True)
class Statement:
    """One equation or declaration as it was written: no comment, on one line."""

    where: Where
    text: str
    indented: bool = False

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within, an error is this statement's."""
        try:
            yield
        except SpecError as error:
            raise _reworded(error, self.where, self.text) from None


@dataclass(frozen=True)
class Spec:
    """What a text says: the arguments of `Cell`, and where each thing was said."""

    name: str
    title: str
    reference: str
    equations: tuple[Eq, ...]
    first: tuple[Eq, ...]
    output: tuple[lang.Name, ...] | None
    declared: tuple[tuple[lang.Name, Where], ...]
    statements: tuple[Statement, ...] = field(repr=False)
    where: Where

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within, an error speaks the text form and quotes the text."""
        try:
            yield
        except SpecError as error:
            written = {statement.where: statement.text for statement in self.statements}
            where = error.where or self.where
            raise _reworded(error, where, written.get(where, error.equation)) from None
        except RecursionError:
            raise SpecError(
                "the equations are nested too deeply", where=self.where, hint=_NAME_A_PART
            ) from None


_NAME_A_PART = "give a part of it a name, in an equation of its own"

# How the hints of the Python form read in the text form.
_REWORDED = (
    (r"\bEq\((\w+)(?:\.next)?, \.\.\.\) for a gate \w+, Eq\((\w+)\.next, \.\.\.\)", r"\1 = ... for a gate \1, \2' = ..."),
    (r"\bEq\((\w+)\.next, (\.\.\.)\)", r"\1' = \2"),
    (r"\bEq\((\w+), (\.\.\.)\)", r"\1 = \2"),
    (r"\b(\w+)\.next\b", r"\1'"),
    (r'\bmatrices\("(\w+)", shape=\((.*)\)\)', r"matrices: \1[\2]"),
    (r'\b\w+ = (\w+)\("(\w+)"\)', r"\1: \2"),
    (r"gates: (\w+), one more equation (.*) and output=\w+", r"one more equation \2 and output: \1"),
    (r"\boutput=", "output: "),
    (r'\bsize="(\w+)"', r"name[\1]"),
    (r'"(\w+)"', r"\1"),
)  # fmt: skip


def _reworded(error: SpecError, where: Where, equation: str) -> SpecError:
    message, hint = re.sub(r"\b(\w+)\.next\b", r"\1'", error.message), error.hint
    for python, text in _REWORDED:
        hint = re.sub(python, text, hint)
    return SpecError(message, where=where, equation=equation, hint=hint)


def read(text: str, file: str = "<text>") -> Spec:
    """What `text` says; errors name the line as one of `file`. Executes nothing. Raises `SpecError`."""
    if not isinstance(text, str):
        raise SpecError(f"the text of a cell is a str, not {type(text).__name__}")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if len(text) > LENGTH:
        raise SpecError(f"the text has more than {LENGTH} characters", where=Where(file, 1))
    _check_characters(text, file)
    docstring, start = _docstring(text, file)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", docstring.strip())]
    statements = tuple(_statements(text, start, file))
    outline = _outline(statements, file)
    symbols = _symbols(outline)
    with _of_all(outline.output):
        output = tuple(_target(symbols, name, primed) for name, primed, _ in outline.output)
    return Spec(
        outline.name,
        paragraphs[0].removesuffix("."),
        " ".join(paragraphs[1:]),
        _equations(outline.equations, symbols),
        _equations(outline.first, symbols),
        output or None,
        tuple((symbols[d.name], d.statement.where) for d in outline.declarations),
        statements,
        Where(file, 1),
    )


# ------------------------------------------------------------------------------------------ lines

_CODE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ +-*/@()[],.=<>:'\"")
_INSTEAD = {
    **dict.fromkeys("·⋅∙⊙∘×∗", "*"), **dict.fromkeys("−–—", "-"), **dict.fromkeys("′’ʹˊ", "'"),
    **dict.fromkeys("“”", '"'), "σ": "sigmoid", "²": "**2", "³": "**3", "ᵀ": ".T", "⊤": ".T", "√": "sqrt",
    "≤": "<=", "≥": ">=", "÷": "/", "^": "** for a power", "{": "( )", "}": "( )", "%": "mod(a, b)",
    "\\": "parentheses around what continues on the next line", ";": "each equation on its own line",
    "!": "where(equal(a, b), ...) the other way round", "&": "where(a > 0, where(b > 0, ...), ...)",
    "|": "where(a > 0, ..., where(b > 0, ...))", "~": "where(..., ...) the other way round",
}  # fmt: skip


def _check_characters(text: str, file: str) -> None:
    """Only what can be seen: no control characters, nothing that changes the direction of writing."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.isprintable():
            for character in line.replace("\t", " "):
                if not character.isprintable():
                    message = f"the character U+{ord(character):04X} cannot be seen"
                    raise SpecError(
                        message, where=Where(file, number), hint="remove it or type the line anew"
                    )


def _docstring(text: str, file: str) -> tuple[str, int]:
    """The docstring and the number of characters up to its end; none is empty."""
    opening = re.match(r'(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*("""|\'\'\')', text)
    if not opening:
        return "", 0
    closing = text.find(opening[1], opening.end())
    where = Where(file, text.count("\n", 0, opening.end()) + 1)
    if closing < 0:
        raise SpecError(f"the docstring has no end: {opening[1]} is missing", where=where)
    end = closing + len(opening[1])
    rest = text[end:].partition("\n")[0]
    if rest.partition("#")[0].strip():
        raise SpecError("something stands behind the docstring", where=where, hint="begin a new line")
    return text[opening.end() : closing], end


def _statements(text: str, start: int, file: str) -> Iterator[Statement]:
    """The logical lines behind the character `start`."""
    number = text.count("\n", 0, start)
    parts: list[str] = []
    depth, begun, indented = 0, number, False
    for number, line in enumerate(text[start:].split("\n"), number + 1):
        code = line.partition("#")[0].replace("\t", " ")
        where = Where(file, number)
        if code.strip() and not parts:
            begun, indented = number, code[0] == " " and start < len(text)
        depth = _depth_after(code, depth, where)
        parts += code.split()
        if parts and not depth:
            yield _statement(parts, Where(file, begun), indented)
            parts = []
    if parts:
        raise SpecError("a bracket is never closed", where=Where(file, begun), equation=" ".join(parts)[:100])


def _depth_after(code: str, depth: int, where: Where) -> int:
    """How many brackets are open behind `code`, of which every character is one of the language."""
    for character in code:
        if character not in _CODE:
            instead = _INSTEAD.get(character)
            with Statement(where, code.strip()).blamed():
                if not character.isascii() and not instead:
                    lang.check_name(character)
                hint = f"write {instead}" if instead else ""
                raise SpecError(f"{character} is not a character of the language", hint=hint)
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            raise SpecError("a bracket is closed that was not opened", where=where, equation=code.strip())
    return depth


def _statement(parts: Sequence[str], where: Where, indented: bool) -> Statement:
    text = " ".join(parts)
    if len(text) > STATEMENT:
        message = f"an equation has more than {STATEMENT} characters"
        raise SpecError(message, where=where, equation=f"{text[:60]} ...", hint=_NAME_A_PART)
    return Statement(where, text, indented)


def _split(text: str, separator: str) -> list[str]:
    """`text` at those separators that stand in no bracket; `=` is not found in `==`, `<=`, `>=`."""
    parts, depth, begun = [], 0, 0
    for k, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == separator and not depth:
            if separator == "=" and (text[k - 1 : k] in ("=", "<", ">", ":") or text[k + 1 : k + 2] == "="):
                continue
            parts.append(text[begun:k].strip())
            begun = k + 1
    return [*parts, text[begun:].strip()]


# ------------------------------------------------------------------------------------------ outline

Target = tuple[str, bool, Statement]  # a name, whether with ', where


@dataclass(frozen=True)
class Declaration:
    """One name of a line such as `states: h[6] = 1`."""

    kind: str
    name: str
    statement: Statement
    size: Any = None  # names, numbers and tuples of them
    value: ast.expr | None = None
    trainable: bool = True


@dataclass(frozen=True)
class Equation:
    """`z = ...`; several targets take a tuple apart."""

    targets: tuple[Target, ...]
    value: ast.expr
    statement: Statement


@dataclass(frozen=True)
class Outline:
    """The parts of a text, before anything has a role."""

    name: str
    declarations: tuple[Declaration, ...]
    output: tuple[Target, ...]
    equations: tuple[Equation, ...]
    first: tuple[Equation, ...]

    @property
    def all_equations(self) -> tuple[Equation, ...]:
        return (*self.equations, *self.first)

    @property
    def expressions(self) -> list[tuple[ast.expr, Statement]]:
        """Every expression, those of initial values included."""
        starts = [(d.value, d.statement) for d in self.declarations if d.value is not None]
        return starts + [(eq.value, eq.statement) for eq in self.all_equations]


_DECLARED = ("inputs", "states", "matrices", "vectors", "scalars", "constants")
_FIXED = ("fixed matrices", "fixed vectors", "fixed scalars")
_SECTIONS = ("name", *_DECLARED, *_FIXED, "output", "first")


def _outline(statements: Iterable[Statement], file: str) -> Outline:
    found: dict[str, list[Statement]] = {section: [] for section in (*_SECTIONS, "")}
    section = ""
    for statement in statements:
        header = re.match(r"([A-Za-z_][\w ]*?) ?:(?!=) ?(.*)", statement.text)
        if not header or (statement.indented and section):
            if statement.indented and not section:
                with statement.blamed():
                    raise SpecError(
                        "this line is indented", hint="only what belongs to a line such as first: is indented"
                    )
            section = section if statement.indented else ""
            found[section].append(statement)
            continue
        section = _section(header[1], statement)
        if header[2]:
            found[section].append(Statement(statement.where, header[2]))
    budget = _Budget()
    outline = Outline(
        _name(found["name"]),
        tuple(_declarations(found, budget)),
        tuple(_lhs(part, s) for s in found["output"] for part in _entries(s)),
        tuple(_equation(s, budget) for s in found[""]),
        tuple(_equation(s, budget) for s in found["first"]),
    )
    if not outline.equations:
        raise SpecError(
            "there is no equation", where=Where(file, 1), hint="h' = tanh(W_h @ x + U_h @ h + b_h)"
        )
    if len(outline.all_equations) > EQUATIONS:
        raise SpecError(f"there are more than {EQUATIONS} equations", where=Where(file, 1))
    return outline


def _section(words: str, statement: Statement) -> str:
    if words in _SECTIONS:
        return words
    with statement.blamed():
        hint = _did_you_mean(words, _SECTIONS) or f"there are: {', '.join(_SECTIONS)}"
        hint = "a name with an equation is a gate; it is not declared" if words == "gates" else hint
        raise SpecError(f"{words}: is not a line of the text form", hint=hint)


def _name(statements: Sequence[Statement]) -> str:
    for statement in statements[1:]:
        with statement.blamed():
            raise SpecError("the cell is named twice")
    for statement in statements:
        with statement.blamed():
            return lang.check_name(statement.text)
    return ""


def _entries(statement: Statement) -> list[str]:
    return _split(statement.text.rstrip().removesuffix(","), ",")


def _declarations(found: Mapping[str, Sequence[Statement]], budget: _Budget) -> Iterator[Declaration]:
    seen: dict[str, Declaration] = {}
    for section in (*_DECLARED, *_FIXED):
        for statement in found[section]:
            for entry in _entries(statement):
                with statement.blamed():
                    made = _declaration(section, entry, statement, budget)
                    if seen.setdefault(made.name, made) is not made:
                        raise SpecError(
                            f"{made.name} is declared twice, first at {seen[made.name].statement.where}",
                            hint="declare it once, or give one of them another name",
                        )
                yield made


def _declaration(section: str, entry: str, statement: Statement, budget: _Budget) -> Declaration:
    kind = section.removeprefix("fixed ")
    left, *rest = _split(entry, "=")
    match = re.fullmatch(r"([^\[\]]*?) ?(\[.*\])?", left)
    if match is None or len(rest) > 1:
        raise SpecError(f"{entry} is not a declaration", hint=_EXAMPLES[kind])
    name = lang.check_name(match[1])
    size = _size(_parsed(match[2], budget)) if match[2] else None
    value = _parsed(rest[0], budget) if rest else None
    sized = kind in ("inputs", "states", "matrices", "vectors")
    if (size is not None and not sized) or (value is None) == (kind == "constants"):
        raise SpecError(f"{entry} is not a declaration of {kind}", hint=_EXAMPLES[kind])
    if value is not None and kind not in ("states", "constants"):
        raise SpecError(
            f"{name} is one of the {kind} and is not given a value", hint="only states and constants are"
        )
    if size is not None and (kind == "matrices") != (len(size) == 2):
        raise SpecError(f"{entry} is not a declaration of {kind}", hint=_EXAMPLES[kind])
    return Declaration(kind, name, statement, size, value, section == kind)


_EXAMPLES = {
    "inputs": "inputs: x, m[1], w[memory]",
    "states": "states: h, k[6] = -0.25",
    "matrices": "matrices: A, C[rank, hidden], D[hidden, (hidden, input)]",
    "vectors": "vectors: q, e[1], a[memory]",
    "scalars": "scalars: alpha, gamma",
    "constants": "constants: eps = 1e-5, beta = 1",
}


def _size(tree: ast.expr) -> Any:
    """Names and numbers, in tuples as the text has them."""
    match tree:
        case ast.Name(id=name):
            return name
        case ast.Constant(value=int(number)) if type(number) is int:
            return number
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(map(_size, parts))
    raise SpecError("a size is a name or a whole number", hint="hidden, input, 6, or a name of your own")


def _equation(statement: Statement, budget: _Budget) -> Equation:
    with statement.blamed():
        left, *rest = _split(statement.text, "=")
        if not rest:
            raise SpecError(
                "this is neither an equation nor a declaration", hint="z = ..., h' = ..., states: h"
            )
        if len(rest) > 1:
            raise SpecError("an equation has one =", hint="each equation stands on its own line")
        if not rest[0]:
            raise SpecError("nothing stands on the right of =", hint=f"{left} = ...")
        value = _parsed(rest[0], budget)
    return Equation(tuple(_lhs(part, statement) for part in _split(left, ",")), value, statement)


def _lhs(part: str, statement: Statement) -> Target:
    match = re.fullmatch(r"(.*?)( ?'|\.next)?", part)
    with statement.blamed():
        if match is None or not re.fullmatch(r"\w+", match[1]):
            raise SpecError(
                f"on the left stands a name, or a name with ', not {part or 'nothing'}",
                hint="z = ... for a gate z, h' = ... for a state h",
            )
        return lang.check_name(match[1]), bool(match[2]), statement


# ------------------------------------------------------------------------------------------ trees


class _Budget:
    """What is left of `NODES`."""

    def __init__(self) -> None:
        self.left = NODES


_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult, ast.Pow, ast.USub, ast.UAdd)
_RELATIONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: sp.StrictLessThan, ast.LtE: sp.LessThan, ast.Gt: sp.StrictGreaterThan, ast.GtE: sp.GreaterThan,
}  # fmt: skip
_NODES = (
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Call, ast.Tuple,
    ast.List, ast.keyword, ast.Load, *_OPERATORS, *_RELATIONS,
)  # fmt: skip
_SWITCH = "where(a > 0, b, c); for two conditions where(a > 0, where(b > 0, ...), ...)"
_REFUSED: dict[type[ast.AST], tuple[str, str]] = {
    ast.IfExp: ("if ... else", _SWITCH), ast.BoolOp: ("and, or", _SWITCH), ast.And: ("and", _SWITCH),
    ast.Or: ("or", _SWITCH), ast.Not: ("not", _SWITCH), ast.Eq: ("==", "where(equal(a, b), ...)"),
    ast.FloorDiv: ("//", "a division is a / b"), ast.Lambda: ("lambda", ""), ast.NamedExpr: (":=", ""),
    ast.Starred: ("*", "list the arguments"), ast.Slice: ("a slice", "one whole number: b[0]"),
    ast.JoinedStr: ("a string", ""), ast.ListComp: ("for", ""), ast.GeneratorExp: ("for", ""),
}  # fmt: skip


def _parsed(text: str, budget: _Budget) -> ast.expr:
    """The tree of an expression, every node of which is known. Raises `SpecError` without a place."""
    primed = re.sub(r"(?<=\w) ?'", ".next", text)
    if "'" in primed:
        raise SpecError("' stands behind no name", hint="h' is the next value of a state h")
    try:
        with warnings.catch_warnings():  # Python's on style, such as 1if
            warnings.simplefilter("ignore")
            tree = ast.parse(primed.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        hint = "a product is W @ x for a matrix W, z * h elementwise"
        raise SpecError(f"this cannot be read: {reason}", hint=hint) from None
    _check_tree(tree, budget)
    return tree


def _check_tree(tree: ast.expr, budget: _Budget) -> None:
    pending: list[tuple[ast.AST, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if not isinstance(node, _NODES):
            what, hint = _REFUSED.get(type(node), (type(node).__name__, ""))
            raise SpecError(f"{what} has no place in an expression", hint=hint)
        budget.left -= isinstance(node, ast.expr)
        if depth > DEPTH or budget.left < 0:
            limit = f"nested more than {DEPTH} deep" if depth > DEPTH else f"of more than {NODES} parts"
            raise SpecError(f"the expression is {limit}", hint=_NAME_A_PART)
        for child in ast.iter_child_nodes(node):
            pending.append((child, depth + (not _continues(node, child))))


_LEVELS: dict[type[ast.operator], int] = {ast.Add: 1, ast.Sub: 1, ast.Mult: 2, ast.Div: 2}


def _continues(node: ast.AST, child: ast.AST) -> bool:
    """Whether `child` is the beginning of the sum or product `node`: `a + b` in `a + b - c`."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(child, ast.BinOp)
        and child is node.left
        and _LEVELS.get(type(node.op), 0) == _LEVELS.get(type(child.op), -1)
    )


def _names(tree: ast.expr) -> dict[str, bool]:
    """The names that a tree reads, and whether left of `@`; those of functions are left out."""
    found: dict[str, bool] = {}
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    left = {
        id(_core(n.left))
        for n in ast.walk(tree)
        if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in called:
            found[node.id] = found.get(node.id, False) or id(node) in left
    return found


def _core(tree: ast.expr) -> ast.expr:
    """`A` of `A`, `A.T`, `A[0]`."""
    while isinstance(tree, (ast.Attribute, ast.Subscript)):
        tree = tree.value
    return tree


# ------------------------------------------------------------------------------------------ roles

_IMPLIED = re.compile(r"[WUVPRbcpg]_")


def _symbols(outline: Outline) -> dict[str, lang.Name]:
    """Every name with its role. The order in which inputs and states are made is their order in the cell."""
    declared = {d.name: d for d in outline.declarations}
    primed = dict.fromkeys(name for eq in outline.all_equations for name, prime, _ in eq.targets if prime)
    states = {d.name: d for d in outline.declarations if d.kind == "states"}
    for eq in outline.all_equations:
        for name, prime, statement in eq.targets:
            if prime and name not in declared:
                states.setdefault(name, Declaration("states", name, statement))
    _check_targets(outline, {d.name: d.kind for d in outline.declarations} | dict.fromkeys(states, "states"))
    gates = {name for eq in outline.all_equations for name, prime, _ in eq.targets if not prime}
    symbols: dict[str, lang.Name] = {}
    implied = _implied(outline, {*declared, *primed, *gates})
    if "x" in implied:
        symbols["x"] = lang.inputs("x")
    for declaration in outline.declarations:
        if declaration.kind != "states":
            with declaration.statement.blamed():
                symbols[declaration.name] = _declared(declaration, symbols)
    symbols |= {name: kind(name) for name, kind in implied.items() if name != "x"}
    symbols |= {name: lang.gates(name) for name in sorted(gates)}
    starts = dict(symbols)
    for name, declaration in states.items():
        with declaration.statement.blamed():
            symbols[name] = _declared(declaration, starts)
    return symbols


def _check_targets(outline: Outline, kinds: Mapping[str, str]) -> None:
    """That an equation defines what may be defined."""
    for eq in outline.all_equations:
        for name, primed, statement in eq.targets:
            kind = kinds.get(name, "")
            with statement.blamed():
                if kind == "states" and not primed:
                    raise SpecError(f"{name} on the left is the old state", hint=f"{name}' = ...")
                if kind not in ("", "states"):
                    raise SpecError(
                        f"{name} is one of the {kind} and cannot be assigned",
                        hint=f"an equation gives a gate or the next value of a state: {name}0 = ...",
                    )


def _implied(outline: Outline, known: set[str]) -> dict[str, Callable[[str], Any]]:
    """Undeclared names that nothing defines, and what they become."""
    found: dict[str, Callable[[str], Any]] = {}
    for tree, statement in outline.expressions:
        for name, left in _names(tree).items():
            if name in known:
                continue
            with statement.blamed():
                lang.check_name(name)
                if name == "x":
                    found[name] = lang.inputs
                elif not _IMPLIED.match(name):
                    raise SpecError(f"{name} is not known", hint=_advice(name, left, {*known, *found}))
                elif found.get(name) is not lang.matrices:
                    found[name] = lang.matrices if left else lang.vectors
    return found


def _advice(name: str, left: bool, known: Iterable[str]) -> str:
    if name in _CALLS:
        return f"a function has arguments: {_CALLS[name].text}"
    kind = "matrices" if left else "vectors"
    declare = f"declare it, such as {kind}: {name}"
    close = difflib.get_close_matches(name, [*known, *_CALLS], n=1)
    return f"did you mean {close[0]}? Otherwise {declare}" if close else declare


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _declared(declaration: Declaration, symbols: Mapping[str, lang.Name]) -> Any:
    name, size = declaration.name, declaration.size
    value = None if declaration.value is None else _Builder(symbols).value(declaration.value)
    match declaration.kind:
        case "inputs":
            return lang.inputs(name, size or "input")
        case "states":
            state = lang.states(name, size or "hidden", 0 if value is None else value)
            state.where = declaration.statement.where
            return state
        case "matrices":
            return lang.matrices(name, size, declaration.trainable)
        case "vectors":
            return lang.vectors(name, size or "hidden", declaration.trainable)
        case "scalars":
            return lang.scalars(name, declaration.trainable)
    return lang.constants(**{name: value})


def _target(symbols: Mapping[str, lang.Name], name: str, primed: bool) -> Any:
    symbol = symbols.get(name)
    if symbol is None:
        raise SpecError(f"{name} is not known", hint=_did_you_mean(name, symbols) or f"{name} = ...")
    if primed and not isinstance(symbol, lang.State):
        raise SpecError(f"{name} is a {symbol.role} and has no next value", hint=f"{name} without '")
    return symbol.next if primed else symbol  # type: ignore[attr-defined]


@contextmanager
def _of_all(targets: Sequence[Target]) -> Iterator[None]:
    """Within, an error is that of the line of the first target."""
    try:
        yield
    except SpecError as error:
        statement = targets[0][2]
        raise _reworded(error, statement.where, f"output: {statement.text}") from None


def _equations(equations: Iterable[Equation], symbols: Mapping[str, lang.Name]) -> tuple[Eq, ...]:
    build = _Builder(symbols)
    made: list[Eq] = []
    for equation in equations:
        with equation.statement.blamed():
            values = build.values(equation.value, len(equation.targets))
            for (name, primed, statement), value in zip(equation.targets, values, strict=True):
                eq = Eq(_target(symbols, name, primed), value)
                eq.where = statement.where
                made.append(eq)
    return tuple(made)


# ------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True)
class Call:
    """A function of the text form: what to call, and how people write it."""

    function: Callable[..., Any]
    text: str  # "leaky_relu(v, slope=0.01)"

    @property
    def variadic(self) -> bool:
        return "..." in self.text

    @property
    def parameters(self) -> list[tuple[str, bool]]:
        """Names, and whether they may be left out."""
        inside = self.text.partition("(")[2].rstrip(")").split(", ")
        return [(part.partition("=")[0], "=" in part) for part in inside]


def _folded(binary: Any) -> Callable[..., sp.Expr]:
    """`Max` and `Min` of several values, without SymPy's search for an order among them."""

    def fold(first: sp.Expr, *rest: sp.Expr) -> sp.Expr:
        for value in rest:
            first = binary(first, value)
        return first

    return fold


def _unevaluated(function: Any) -> Callable[[sp.Expr], sp.Expr]:
    """SymPy looks for the sign of an expression with effort without limit; nobody needs it here."""
    return lambda v: function(v, evaluate=bool(v.is_number))


_SIGNATURES = """
sigmoid(v)  tanh(v)  relu(v)  leaky_relu(v, slope=0.01)  elu(v, alpha=1)  silu(v)  gelu(v, approximate="none")
softplus(v)  log_sigmoid(v)  softsign(v)  hard_sigmoid(v, slope=1/6, offset=0.5)  hard_tanh(v, low=-1, high=1)
exp(v)  log(v)  log1p(v)  sqrt(v)  sin(v)  cos(v)  square(v)  maximum(a, b)  minimum(a, b)  where(condition, a, b)
equal(a, b)  clip(v, low, high)  mod(a, b)  stop_gradient(v)  concat(a, ...)  sum_(a, ...)  mean(a, ...)
var(a, ...)  layer_norm(v, gain=None, bias=None, eps=1e-5)
batch_norm(v, gain=1, bias=0, eps=1e-5, momentum=0.1)
"""
_CALLS = {
    text.partition("(")[0]: Call(getattr(lang, text.partition("(")[0]), text)
    for text in re.findall(r"\w+\([^)]*\)", _SIGNATURES)
} | {
    "abs": Call(_unevaluated(sp.Abs), "abs(v)"),
    "Abs": Call(_unevaluated(sp.Abs), "Abs(v)"),
    "sign": Call(_unevaluated(sp.sign), "sign(v)"),
    "Max": Call(_folded(lang.maximum), "Max(a, ...)"),
    "Min": Call(_folded(lang.minimum), "Min(a, ...)"),
    "Heaviside": Call(lang.step, "Heaviside(v)"),
    "erf": Call(sp.erf, "erf(v)"),
}  # fmt: skip
_TUPLES = {("layer_norm", "v"), ("layer_norm", "gain"), ("layer_norm", "bias")}


@dataclass(frozen=True)
class _Builder:
    """Expressions from trees, by the words of `gategen.language`."""

    symbols: Mapping[str, lang.Name]

    def values(self, tree: ast.expr, number: int) -> tuple[sp.Expr, ...]:
        """As many expressions as there are names on the left."""
        if number == 1:
            return (self.value(tree),)
        parts = tuple(map(self.value, tree.elts)) if isinstance(tree, ast.Tuple) else self.any(tree)
        if not isinstance(parts, tuple) or len(parts) != number:
            given = len(parts) if isinstance(parts, tuple) else 1
            raise SpecError(
                f"{number} names stand on the left and {given} on the right",
                hint="n_a, n_b = layer_norm((a, b))",
            )
        return parts

    def value(self, tree: ast.expr) -> sp.Expr:
        """One elementwise value."""
        made = self.any(tree)
        if isinstance(made, tuple):
            names = ", ".join(f"n_{k}" for k in range(len(made)))
            raise SpecError(f"this is a tuple of {len(made)} values", hint=f"take it apart: {names} = ...")
        if isinstance(made, lang.Transposed):
            raise SpecError(f"{made} can only stand on the left of @", hint=f"{made} @ v")
        if not isinstance(made, sp.Expr):
            raise SpecError("a comparison is not a value", hint="where(a > 0, b, c)")
        return _settled(made)

    def any(self, tree: ast.expr) -> Any:
        """An expression, a tuple of them, a comparison or a transposed matrix."""
        match tree:
            case ast.Constant(value=number) if type(number) in (int, float):
                return sp.sympify(number, strict=True)
            case ast.Constant(value=value):
                raise SpecError(f"{value!r} has no place in an expression")
            case ast.Name(id=name):
                return self.name(name)
            case ast.Attribute(value=inner, attr="T"):
                return self.matrix(inner).T
            case ast.Attribute(value=ast.Name(id=name), attr="next"):
                return _target({name: self.name(name)}, name, True)
            case ast.Attribute(attr=attribute):
                hint = "W.T is a transposed matrix, h' the next value of a state"
                raise SpecError(f".{attribute} has no place in an expression", hint=hint)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int(k))) if type(k) is int:
                return self.part(self.name(name), k)
            case ast.Subscript() | ast.List():
                raise SpecError("[ ] takes a name in front and one whole number inside", hint="b[0]")
            case ast.Tuple(elts=parts):
                return tuple(map(self.value, parts))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self.value(inner)
            case ast.UnaryOp(op=ast.UAdd(), operand=inner):
                return self.value(inner)
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                return self.matrix(left) @ self.operand(left, right)
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return _power(self.value(left), self.value(right))
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return sp.Add(*self.terms(tree))
            case ast.BinOp():
                return sp.Mul(*self.factors(tree))
            case ast.Compare():
                return self.comparison(tree)
            case ast.Call(func=ast.Name(id=name)):
                return self.call(name, tree)
        raise SpecError("only a function of gategen can be called", hint="tanh(v)")

    def name(self, name: str) -> lang.Name:
        if name not in self.symbols:  # the only ones that have no role yet
            raise SpecError(
                f"an initial value reads the state {name}",
                hint="it may be an expression of numbers, constants, vectors and scalars",
            )
        return self.symbols[name]

    @staticmethod
    def part(symbol: Any, index: int) -> Any:
        """`A[0]`, where the language has it."""
        if not hasattr(symbol, "__getitem__"):
            raise SpecError(f"{symbol} has no parts: {symbol}[{index}]", hint=f"{symbol}")
        try:
            return symbol[index]
        except IndexError:
            raise SpecError(f"{symbol} has no part {index}", hint="the first is 0") from None

    def matrix(self, tree: ast.expr) -> Any:
        """What stands on the left of `@`."""
        core = tree.value if isinstance(tree, ast.Attribute) and tree.attr == "T" else tree
        made = self.any(core) if isinstance(core, (ast.Name, ast.Subscript)) else None
        if not isinstance(made, lang.Matrix):
            raise SpecError(
                f"the left side of @ must be one matrix, not {ast.unparse(tree)}",
                hint="a sum of matrices is a sum of products, (2*W) @ x is 2*(W @ x), and v * x is elementwise",
            )
        return made if core is tree else made.T

    def operand(self, left: ast.expr, right: ast.expr) -> sp.Expr:
        """What stands on the right of `@`."""
        made = self.any(right)
        if isinstance(made, (lang.Matrix, lang.Transposed)):
            raise SpecError(
                f"{made} on the right of @ is a matrix",
                hint=f"multiply by the vector first: {ast.unparse(left)} @ ({made} @ v)",
            )
        return self.value(right)

    def terms(self, tree: ast.expr) -> list[sp.Expr]:
        """The terms of a sum."""
        found: list[sp.Expr] = []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub)):
            term = self.value(tree.right)
            found.append(term if isinstance(tree.op, ast.Add) else -term)
            tree = tree.left
        return [self.value(tree), *reversed(found)]

    def factors(self, tree: ast.expr) -> list[sp.Expr]:
        """The factors of a product, so that SymPy sees them at once: it would multiply 2 * (1 - z) out."""
        found: list[sp.Expr] = []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Mult, ast.Div)):
            factor = self.value(tree.right)
            found.append(factor if isinstance(tree.op, ast.Mult) else _power(factor, sp.S.NegativeOne))
            tree = tree.left
        minus = isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub)
        first = [sp.S.NegativeOne, self.value(tree.operand)] if minus else [self.value(tree)]  # type: ignore[attr-defined]
        return [*first, *reversed(found)]

    def comparison(self, tree: ast.Compare) -> Relational:
        if len(tree.ops) > 1:
            raise SpecError("a comparison has two sides", hint=_SWITCH)
        left, right = self.value(tree.left), self.value(tree.comparators[0])
        if left.is_number and right.is_number:
            raise SpecError("a comparison of two numbers depends on no value", hint="where(h > 0, ...)")
        return _RELATIONS[type(tree.ops[0])](left, right, evaluate=False)

    def call(self, name: str, tree: ast.Call) -> Any:
        if name not in _CALLS:
            if name in self.symbols:
                message, hint = (
                    f"{name} is not a function",
                    f"a product is written: {name} * (...), W @ (...)",
                )
            else:
                message, hint = f"there is no function {name}", _did_you_mean(name, _CALLS)
            raise SpecError(message, hint=hint or f"there are: {', '.join(_CALLS)}")
        call = _CALLS[name]
        given = [(None, arg) for arg in tree.args] + [(word.arg, word.value) for word in tree.keywords]
        names = _bound(call, [word for word, _ in given])
        made = [(word, self.argument(name, word, arg)) for word, (_, arg) in zip(names, given, strict=True)]
        if call.variadic:
            return call.function(*(value for _, value in made))
        values = dict(made)
        required = [values.pop(parameter) for parameter, optional in call.parameters if not optional]
        return call.function(*required, **values)

    def argument(self, function: str, name: str, tree: ast.expr) -> Any:
        if (function, name) == ("where", "condition"):
            made = self.any(tree)
            if not isinstance(made, Relational):
                raise SpecError("the condition of where() must be one comparison", hint=_SWITCH)
            return made
        if (function, name) == ("gelu", "approximate") and isinstance(tree, ast.Constant):
            return tree.value
        if (function, name) in _TUPLES and isinstance(tree, (ast.Tuple, ast.List)):
            return tuple(self.argument("layer_norm", name, part) for part in tree.elts)
        if (function, name) in _TUPLES - {("layer_norm", "v")} and isinstance(tree, ast.Constant):
            return None if tree.value is None else self.value(tree)
        return self.value(tree)


def _bound(call: Call, words: Sequence[str | None]) -> list[str]:
    """The name of the parameter that each argument is for; None stands for an argument without keyword."""
    parameters = [name for name, _ in call.parameters]
    if call.variadic:
        if any(words) or not words:
            raise SpecError(f"{call.text} takes at least one value and no keywords")
        return ["a"] * len(words)
    bound = [word or (parameters[k] if k < len(parameters) else "") for k, word in enumerate(words)]
    for word in bound:
        if word not in parameters:
            problem = f"has no argument {word}" if word else "has fewer arguments"
            raise SpecError(f"{call.text} {problem}", hint=_did_you_mean(word, parameters) or call.text)
        if bound.count(word) > 1:
            raise SpecError(f"{call.text}: {word} is given twice", hint=call.text)
    missing = [name for name, optional in call.parameters if not optional and name not in bound]
    if missing:
        raise SpecError(f"{call.text}: {missing[0]} is missing", hint=call.text)
    return bound


# ------------------------------------------------------------------------------------------ numbers

_TOO_LARGE = "a number is too large"
_MODEST = "numbers lie between 1e-300 and 1e300; exponents between -1000 and 1000"


def _settled(expr: sp.Expr) -> sp.Expr:
    """`expr`; where it is a number, one of a size that a float can have, and without sums of irrational parts.

    Whether such a sum is 0 SymPy decides with effort without limit, hence it becomes a float.
    """
    coefficient = expr.as_coeff_Mul()[0] if isinstance(expr, sp.Mul) else expr
    if isinstance(coefficient, sp.Rational) and max(abs(coefficient.p), coefficient.q).bit_length() > BITS:
        raise SpecError(_TOO_LARGE, hint=_MODEST)
    if isinstance(expr, sp.Pow) and expr.exp.is_number and abs(expr.exp) > EXPONENT:
        raise SpecError("an exponent is too large", hint=_MODEST)
    if isinstance(expr, sp.Rational) or not expr.is_number:
        return expr
    value = expr.evalf()
    if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo, sp.I):
        what = "real" if value.has(sp.I) else "finite"
        raise SpecError(f"a number is not {what}", hint=_MODEST if what == "finite" else "")
    if not isinstance(value, sp.Float):
        return expr
    if value != 0 and not -BITS < sp.log(abs(value), 2) < BITS:
        raise SpecError(_TOO_LARGE, hint=_MODEST)
    simple = all(
        part.is_Number or all(arg.is_Rational for arg in part.args) for part in sp.Mul.make_args(expr)
    )
    return expr if simple and not isinstance(expr, sp.Add) else value


def _power(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """`base**exponent`, unless SymPy would compute a number of many digits."""
    if exponent.is_number:
        size = abs(exponent.evalf())
        if not (size.is_Float or size.is_Rational) or size > EXPONENT:
            raise SpecError("an exponent is too large", hint=_MODEST)
        coefficient = base.as_coeff_Mul()[0]
        if isinstance(coefficient, sp.Rational):
            bits = max(abs(coefficient.p), coefficient.q).bit_length() - 1
            if bits * size > BITS:
                raise SpecError(_TOO_LARGE, hint=_MODEST)
    return _settled(base**exponent)


# ------------------------------------------------------------------------------------------ writing


class _Text(Printer):
    """Expressions so that reading them gives the same ones."""

    functions: ClassVar[dict[str, str]] = {"Abs": "abs", "step": "Heaviside"}

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, Relational) and expr.rel_op == "==":
            return f"equal({self(expr.lhs)}, {self(expr.rhs)})", ATOM
        return super().spell(expr)

    def number(self, value: sp.Number) -> tuple[str, int]:
        text, tightness = super().number(value)
        return (repr(float(value)) if value.is_Float else text), tightness

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


def write(cell: Any) -> str:
    """The text form of a `Cell`: reading it gives the same cell. Raises `UnsupportedError`."""
    return "\n".join([*_heading(cell.title, cell.reference, cell.name), f"name: {cell.name}", *_body(cell)])


_COMMENTS = """\
# gategen build {name}.gate     writes generated/{name}_numpy.py and its like
# gategen verify {name}.gate    checks the derived gradients
#
# Everything is elementwise but W @ v. z = ... defines a gate, h' = ... the next value of the state h; the order
# of the equations does not matter. x is the input. Names that begin with W_ U_ V_ P_ R_ b_ c_ p_ g_ are parameters;
# others are declared, on lines such as
#     inputs: x, m[1]
#     states: h, k[6] = 0.5
#     matrices: A[hidden, (hidden, input)]
#     vectors: q
#     scalars: alpha
#     constants: eps = 1e-5
"""


def draft(cell: Any, name: str) -> str:
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


def _body(cell: Any) -> list[str]:
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


def _lines_of(cell: Any) -> Iterator[str]:
    """The declarations of what does not follow from use, and of the states."""
    show = _Text()
    entries: list[tuple[str, str]] = []
    if [(x.name, x.size) for x in cell.inputs] != [("x", "input")]:
        entries += [("inputs", x.name + _bracketed(x.size, "input")) for x in cell.inputs]
    for state in cell.states:
        start = "" if state.initial == 0 else f" = {show(state.initial)}"
        entries.append(("states", state.name + _bracketed(state.size, "hidden") + start))
    for kind, word in ((lang.Matrix, "matrices"), (lang.Vector, "vectors"), (lang.Scalar, "scalars")):
        for parameter in cell.parameters:
            if isinstance(parameter, kind) and not _follows(parameter):
                section = word if parameter.trainable else f"fixed {word}"
                entries.append((section, parameter.name + _extent(parameter)))
    entries += [("constants", f"{c} = {show(c.value)}") for c in cell.constants]
    for section, alike in groupby(sorted(entries, key=lambda e: _SECTIONS.index(e[0])), lambda e: e[0]):
        yield from (f"{section}: {line}" for line in _filled_entries([entry for _, entry in alike], 90))


def _follows(parameter: Any) -> bool:
    """Whether role, size and training follow from the name and its use."""
    return bool(_IMPLIED.match(parameter.name)) and parameter.trainable and not _extent(parameter)


def _extent(parameter: Any) -> str:
    if isinstance(parameter, lang.Matrix):
        return "" if parameter.shape is None else f"[{', '.join(map(_size_text, parameter.shape))}]"
    return _bracketed(parameter.size, "hidden") if isinstance(parameter, lang.Vector) else ""


def _bracketed(size: lang.Size, default: str) -> str:
    return "" if size == default else f"[{size}]"


def _size_text(size: Any) -> str:
    if not isinstance(size, tuple):
        return str(size)
    return f"({', '.join(map(_size_text, size))}{',' * (len(size) == 1)})"


def _filled_entries(entries: Sequence[str], width: int) -> list[str]:
    """As many on a line as fit."""
    lines = [""]
    for entry in entries:
        if lines[-1] and len(lines[-1]) + len(entry) > width:
            lines.append("")
        lines[-1] += f", {entry}" if lines[-1] else entry
    return lines
