"""From a text to the arguments of `Cell`: every name gets its role, every equation its expressions."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

from gategen.errors import SpecError, Where
from gategen.spec import language as lang
from gategen.spec.contents import OF_NUMPY, PATTERNS, SAID, WORDS
from gategen.spec.language import Eq
from gategen.spec.recipes import RECIPES
from gategen.spec.text.expressions import FUNCTIONS, Builder, next_of
from gategen.spec.text.lines import NAME_A_PART, Statement, check_text, docstring, reworded, statements
from gategen.spec.text.outline import Declaration, Equation, Outline, Target, did_you_mean, outline
from gategen.spec.text.slips import slips
from gategen.spec.text.trees import names

PARAMETER = re.compile(r"[WUVPRbcpg]_")  # how the name of an undeclared parameter begins


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
    doubts: tuple[tuple[str, Where], ...]
    where: Where
    statements: tuple[Statement, ...] = field(repr=False)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Within, an error speaks the text form and quotes the text."""
        try:
            yield
        except SpecError as error:
            where = error.where or self.where
            written = {statement.where: statement.text for statement in self.statements}
            raise reworded(error, where, written.get(where, error.equation)) from None
        except RecursionError:
            message = "the equations are nested too deeply, or wait for each other in too long a row"
            raise SpecError(message, where=self.where, hint=NAME_A_PART) from None


def read(text: str, file: str = "<text>") -> Spec:
    """What `text` says; errors name lines of `file`. Executes nothing. Raises `SpecError`."""
    if not isinstance(text, str):
        raise SpecError(f"the text of a cell is a str, not {type(text).__name__}")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    check_text(text, file)
    text = dedent(text)  # as it stands within a program
    described, start = docstring(text, file)
    title, *reference = [" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", described.strip())]
    lines = tuple(statements(text, start, file))
    parts = outline(lines, file)
    symbols = _symbols(parts)
    return Spec(
        parts.name,
        title.removesuffix("."),
        " ".join(reference),
        tuple(_equations(parts.equations, symbols)),
        tuple(_equations(parts.first, symbols)),
        tuple(_output(symbols, target) for target in parts.output) or None,
        tuple((s, d.statement.where) for d in parts.declarations for s in _members(symbols[d.name])),
        tuple(_doubts(parts, symbols)),
        lines[0].where,
        lines,
    )


def _members(symbol: Any) -> tuple[lang.Name, ...]:
    """A name, or those of stacked rows."""
    return tuple(symbol) if isinstance(symbol, lang.Stack) else (symbol,)


def _equations(equations: Iterable[Equation], symbols: Mapping[str, lang.Name]) -> Iterator[Eq]:
    build = Builder(symbols)
    for equation in equations:
        with equation.statement.blamed():
            values = build.values(equation.value, len(equation.targets))
            for target, value in zip(equation.targets, values, strict=True):
                made = Eq(_symbol(symbols, target), value)
                made.where = equation.statement.where
                yield made


def _symbol(symbols: Mapping[str, lang.Name], target: Target) -> lang.Name:
    with target.statement.blamed():
        if target.name not in symbols:
            hint = did_you_mean(target.name, symbols) or f"add {target.name} = ..."
            raise SpecError(f"{target.name} is not known", hint=hint)
        symbol = symbols[target.name]
        return next_of(symbol) if target.primed else symbol


def _output(symbols: Mapping[str, lang.Name], target: Target) -> lang.Name:
    symbol = _symbol(symbols, target)
    with target.statement.blamed():
        if isinstance(symbol, lang.State):
            raise SpecError(f"output {symbol} is the old state", hint=f"output: {symbol}'")
        if not isinstance(symbol, (lang.Gate, lang.Next)):
            raise SpecError(
                f"output {symbol} is neither a gate nor the next value of a state",
                hint=f"y = {symbol}, output: y",
            )
    return symbol


# ------------------------------------------------------------------------------------------ roles


def _symbols(parts: Outline) -> dict[str, lang.Name]:
    """Every name with its role. Inputs and states are made in the order that they have in the cell."""
    declared = {d.name: d for d in parts.declarations}
    states = {d.name: d for d in parts.declarations if d.kind == "states"}
    for target in parts.targets:
        if target.primed and target.name not in declared:
            states.setdefault(target.name, Declaration("states", target.name, target.statement))
    gates = dict.fromkeys(target.name for target in parts.targets if not target.primed)
    _check_targets(parts, {**{d.name: d.kind for d in parts.declarations}, **dict.fromkeys(states, "states")})
    kinds = {**dict.fromkeys(gates, "gates"), **{d.name: d.kind for d in declared.values()}}
    _check_python(parts, kinds | dict.fromkeys(states, "states"))
    implied = _implied(parts, {*declared, *states, *gates})
    symbols: dict[str, lang.Name] = {}
    if "x" in implied:  # before the declared inputs: the first is the sequence
        symbols["x"] = lang.inputs("x")
    for declaration in parts.declarations:
        if declaration.kind != "states":
            symbols[declaration.name] = _declared(declaration, symbols)
    symbols |= {name: declare(name) for name, declare in implied.items() if name != "x"}
    symbols |= {name: lang.gates(name) for name in gates}
    return symbols | {name: _declared(declaration, symbols) for name, declaration in states.items()}


def _check_targets(parts: Outline, kinds: Mapping[str, str]) -> None:
    """That each equation defines what may be defined."""
    for target in parts.targets:
        name, kind = target.name, kinds.get(target.name)
        with target.statement.blamed():
            if kind == "states" and not target.primed:
                raise SpecError(f"{name} on the left is the old state", hint=f"{name}' = ...")
            if kind not in (None, "states"):
                hint = "an equation gives a gate or the next value of a state"
                raise SpecError(f"{name} is one of the {kind} and cannot be assigned", hint=hint)


def _implied(parts: Outline, known: set[str]) -> dict[str, Callable[[str], Any]]:
    """What undeclared names become that no equation defines."""
    found: dict[str, Callable[[str], Any]] = {}
    sizes = _sizes(parts)
    for tree, statement in parts.expressions:
        for name, left in names(tree).items():
            if name in known:
                continue
            with statement.blamed():
                lang.check_name(name)
                if name == "x":
                    found[name] = lang.inputs
                elif name in sizes and not (left and PARAMETER.match(name)):
                    found[name] = lang.size
                elif not PARAMETER.match(name):
                    raise SpecError(f"{name} is not known", hint=_advice(name, left, {*known, *found}))
                elif left or name not in found:
                    found[name] = lang.matrices if left else lang.vectors
    return found


def _check_python(parts: Outline, kinds: Mapping[str, str]) -> None:
    """That no gate of another step is read, as in `z[t - 1]`, and no module, as in `np.tanh(x)`."""
    for tree, statement in parts.expressions:
        for node in ast.walk(tree):
            with statement.blamed():
                match node:
                    case ast.Subscript(slice=ast.Constant()):
                        continue
                    case ast.Subscript(value=ast.Name(id=name)) if kinds.get(name) == "gates":
                        message = f"{ast.unparse(node)}: a step reads its inputs and the states before it"
                        hint = f"for {name} of the step before: states: q, q' = {name}; then it is q"
                        raise SpecError(message, hint=hint)
                    case ast.Call(func=ast.Attribute(attr=word)) if not _known(node.func, kinds):
                        message = f"{ast.unparse(node.func)}: no module stands before a function"
                        raise SpecError(message, hint=_function(word))


def _known(tree: ast.AST, kinds: Mapping[str, str]) -> bool:
    """Whether what an attribute is of is a name of the cell, and no module."""
    while isinstance(tree, ast.Attribute):
        tree = tree.value
    return not isinstance(tree, ast.Name) or tree.id in {"x", *kinds} or bool(PARAMETER.match(tree.id))


def _function(word: str) -> str:
    """What to write for a function of a library."""
    if word in FUNCTIONS:
        return FUNCTIONS[word].text
    return RECIPES.get(word) or did_you_mean(word, FUNCTIONS) or f"there are: {', '.join(FUNCTIONS)}"


def _doubts(parts: Outline, symbols: Mapping[str, Any]) -> Iterator[tuple[str, Where]]:
    """What looks like a slip of the pen, and where."""
    declared = {d.name for d in parts.declarations}
    undeclared = {
        name: isinstance(symbol, lang.Matrix)
        for name, symbol in symbols.items()
        if isinstance(symbol, lang.Parameter) and name not in declared
    }
    reads = [list(names(tree)) for tree, _ in parts.expressions]
    for slip in slips(reads, undeclared, _matrices(symbols)):
        yield slip.message, parts.expressions[slip.at][1].where


def _matrices(symbols: Mapping[str, Any]) -> set[str]:
    return {name for name, symbol in symbols.items() if isinstance(_members(symbol)[0], lang.Matrix)}


def _advice(name: str, left: bool, known: Iterable[str]) -> str:
    """What to write instead of a name that is not known."""
    stem, _, end = name.partition("_")
    if name in FUNCTIONS:
        return f"a function has arguments: {FUNCTIONS[name].text}"
    if name in PATTERNS:
        return f"{name} is what a matrix holds: fixed matrices: S = {name}; then S @ v"
    if name == "t":
        return "the step stands in x[t-1] alone; the time that has passed is an input: inputs: t[1]"
    if end in ("t", "prev", "old", "new", "next") and stem in {"x", *known}:
        return f"{stem} is written without the step; of a state {stem}, {stem}' is the new value"
    declare = f"declare it, such as matrices: {name}"
    if not left and not name[0].isupper():
        declare = (
            f"declare what it is: constants: {name} = 0.1, a number; inputs: {name}[1], read at every step; "
            f"vectors: {name}, trained"
        )
    meant = did_you_mean(name, [*sorted(known), *FUNCTIONS])
    return f"{meant} Otherwise {declare}" if meant else declare


def _sizes(parts: Outline) -> set[str]:
    """The names of sizes."""
    found, waiting = {"input", "hidden"}, [d.size for d in parts.declarations]
    while waiting:
        size = waiting.pop()
        waiting += size if isinstance(size, tuple) else ()
        found |= {size} if isinstance(size, str) else set()
    return found


def _declared(declaration: Declaration, symbols: Mapping[str, lang.Name]) -> lang.Name:
    """The symbol of a declaration; initial values may use `symbols`."""
    name, size = declaration.name, declaration.size
    with declaration.statement.blamed():
        tree = declaration.value
        given = {} if tree is None else names(tree)
        if declaration.kind == "constants" and given:
            raise SpecError(f"constant {name} must be a number, not an expression of {next(iter(given))}")
        value: Any = None
        if tree is not None and declaration.kind in ("matrices", "vectors", "scalars"):
            value = _contents(tree)
        elif tree is not None:
            value = Builder(symbols).value(tree)
        made: Any
        match declaration.kind:
            case "inputs":
                made = lang.inputs(name, "input" if size is None else size)
            case "states":
                made = lang.states(name, "hidden" if size is None else size, 0 if value is None else value)
                made.where = declaration.statement.where
            case "matrices":
                made = lang.matrices(name, size, declaration.trainable, value)
            case "vectors":
                size = "hidden" if size is None else size
                made = lang.vectors(name, size, declaration.trainable, value)
            case "scalars":
                made = lang.scalars(name, declaration.trainable, value)
            case _:
                made = lang.constants(**{name: value})
    return made  # type: ignore[no-any-return]


def _contents(tree: ast.expr) -> Any:
    """What a parameter begins with: a word, numbers, or a tuple of such."""
    match tree:
        case ast.Name(id=word) if word in PATTERNS:
            return PATTERNS[word]
        case ast.Tuple(elts=parts):
            return tuple(map(_contents, parts))
        case ast.Call(func=ast.Name(id="shift"), args=[k], keywords=[]):
            return lang.shift(Builder({}).value(k))
        case ast.Call(func=ast.Name(id="rotation"), args=[k], keywords=[]):
            return lang.rotation(Builder({}).value(k))
        case ast.Call(func=ast.Name(id="blocks"), args=parts, keywords=[]):
            return lang.blocks(*map(_contents, parts))
    read = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in FUNCTIONS]
    for word in read:
        hint = OF_NUMPY.get(word) or did_you_mean(word, WORDS) or SAID
        raise SpecError(f"{word} is not what a parameter can begin with", hint=hint)
    return Builder({}).value(tree)
