"""Finding and loading specs: built-in cells by name, `.py` and `.gate` files by path.

A `.py` file is a Python program and is executed; whatever goes wrong in it becomes a `SpecError` at the line
of the file that caused it. A `.gate` file is text and only read (`gategen.spec.text`).
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

import gategen
from gategen.errors import GategenError, SpecError, Where
from gategen.files import read_file
from gategen.spec import language as lang
from gategen.spec import text
from gategen.spec.cell import BUILTINS as _BUILTINS
from gategen.spec.cell import Cell
from gategen.spec.quoting import warn
from gategen.spec.recipes import RECIPES

Target = str | os.PathLike[str] | Cell  # a built-in cell by name, a spec file by path, a text, a cell itself

_ENDINGS = (".py", ".gate")
_IS_TEXT = re.compile(r"\n|\w' *=")
_MODULE = "_gategen_spec"  # under which a spec file runs, and which `sys.modules` then forgets


def load(target: Target) -> tuple[Cell, ...]:
    """The built-in cell of that name, or every cell of the spec file at that path, in order of definition.

    A str with the equation of a state, such as `h' = ...`, or of several lines is itself the text of a .gate
    file; its cell is called `cell` where it gives no name. A cell is itself. Raises `SpecError`, or TypeError
    for what is none of these.
    """
    if isinstance(target, Cell):
        return (target,)
    if not isinstance(target, (str, os.PathLike)):
        given = type(target).__name__
        raise TypeError(f"a cell is a Cell, the name of a built-in one, or the path of a file, not {given}")
    if isinstance(target, str) and _IS_TEXT.search(target):
        spec = text.read(target)
        return (Cell.from_text(spec, spec.name or "cell"),)
    path = os.fspath(target)
    if isinstance(target, os.PathLike) or _looks_like_path(path):
        return _from_file(path)
    return (_builtin(path),)


def load_one(target: Target) -> Cell:
    """The cell of that name, or the only one of a file. Raises `GategenError` where it holds several."""
    cells = load(target)
    if len(cells) > 1:
        names = ", ".join(cell.name for cell in cells)
        raise GategenError(f"{target} holds {len(cells)} cells, and one is wanted here: {names}")
    return cells[0]


def load_each(targets: Target | Iterable[Target]) -> tuple[Cell, ...]:
    """The cells of one or several names, paths and cells, each once."""
    given = (targets,) if isinstance(targets, (str, os.PathLike, Cell)) else targets
    return tuple(dict.fromkeys(cell for target in given for cell in load(target)))


def load_all(targets: Iterable[Target] = ()) -> tuple[Cell, ...]:
    """The same; of none, all built-in ones."""
    return load_each(targets) or tuple(builtins().values())


def builtins() -> dict[str, Cell]:
    """The built-in cells by name."""
    cells: dict[str, Cell] = {}
    for stem in _builtin_stems():
        cells |= _builtins_in(stem)
    return cells


# ------------------------------------------------------------------------------------------ built-in cells


def _builtin(name: str) -> Cell:
    found = find_builtin(name)
    if found is None:
        raise SpecError(f"there is no built-in cell {name!r}", hint=_advice(name))
    return found


def find_builtin(name: str) -> Cell | None:
    """One built-in cell; None where there is none of this name. Only files that mention it are imported."""
    stems = [
        stem for stem in _builtin_stems() if f'"{name}"' in (_BUILTINS / f"{stem}.py").read_text("utf-8")
    ]
    for stem in sorted(stems, key=lambda stem: stem != name):
        cells = _builtins_in(stem)
        if name in cells:
            return cells[name]
    return None


def _advice(name: str) -> str:
    for ending in _ENDINGS:
        if os.path.isfile(f"{name}{ending}"):
            return f"a file is given by its path: {name}{ending}"
    close = difflib.get_close_matches(name.casefold(), builtins(), n=3)
    return (
        f"did you mean {' or '.join(close)}?"
        if close
        else "`gategen list` shows them; a file ends in .py or .gate"
    )


def _builtin_stems() -> list[str]:
    return sorted(path.stem for path in _BUILTINS.glob("*.py") if not path.stem.startswith("_"))


def _builtins_in(stem: str) -> dict[str, Cell]:
    return _cells_in(vars(import_module(f"gategen.cells.{stem}")), stem)


# ------------------------------------------------------------------------------------------ spec files


def _looks_like_path(target: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return Path(target).suffix in _ENDINGS or not separators.isdisjoint(target)


def _from_file(shown: str) -> tuple[Cell, ...]:
    """Every cell of the file `shown`, which errors quote as the user wrote it."""
    source = _source(shown)
    if Path(shown).suffix == ".gate":
        return (_from_text(source, shown),)
    lines = source.splitlines()
    namespace = _run(_compiled(source, shown), shown, lines)
    cells = _cells_in(namespace, shown)
    if not cells:
        raise SpecError(f"{shown}: there is no Cell in this file", hint='my_cell = Cell("my_cell", Eq(...))')
    _warn_of_unused(namespace, cells.values(), shown)
    return tuple(cells.values())


def _from_text(source: str, shown: str) -> Cell:
    """The cell of a text, called as the file is where it does not say a name."""
    spec = text.read(source, shown)
    try:
        name = spec.name or lang.check_name(Path(shown).stem)
    except SpecError as error:
        hint = "rename the file, or add a line such as name: mine"
        raise SpecError(error.message, where=spec.where, hint=hint) from None
    return Cell.from_text(spec, name)


def _warn_of_unused(namespace: Mapping[str, Any], cells: Iterable[Cell], shown: str) -> None:
    """Names that the spec declares and no cell of it uses."""
    used = {(symbol.role, symbol.name) for cell in cells for symbol in cell.symbols}  # whatever its size now
    values = [value[0] if isinstance(value, lang.Stack) else value for value in namespace.values()]
    for name in dict.fromkeys(value for value in values if isinstance(value, lang.Name)):
        known = (name.role, name.name) in used or isinstance(
            name, (lang.Next, lang.Past, lang.Count, lang.Step)
        )
        if not known:
            shown_name = name.array if isinstance(name, lang.Parameter) else name
            warn(f"{shown_name} is declared but no equation uses it", Where(shown, 1))


def _source(shown: str) -> str:
    if Path(shown).suffix not in _ENDINGS and os.path.isfile(shown):
        raise SpecError(f"{shown}: a spec file ends in .py or .gate")
    try:
        data = read_file(shown)
    except FileNotFoundError:
        raise SpecError(f"{shown}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = "this is a directory" if os.path.isdir(shown) else getattr(error, "strerror", None) or error
        raise SpecError(f"{shown}: {reason}", hint="give the path of one .py or .gate file") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(
            "this is not UTF-8 text", where=Where(shown, line), hint="save the file as UTF-8"
        ) from None


def _compiled(source: str, shown: str) -> CodeType:
    try:
        return compile(source, shown, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = Where(shown, error.lineno or 1)
        raise SpecError(
            f"SyntaxError: {error.msg}", where=where, equation=(error.text or "").strip()
        ) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise SpecError(f"{shown}: this is not a Python program: {error}") from None


def _run(code: CodeType, shown: str, lines: list[str]) -> dict[str, Any]:
    """The names that the program defines."""
    module = ModuleType(_MODULE)
    module.__file__ = shown
    folder = Path(shown).resolve().parent
    with _registered(module), _importing_from(folder), redirect_stdout(sys.stderr):  # ours is for results
        try:
            exec(code, vars(module))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            placed = _placed(error, shown, lines, vars(module))
            raise placed from (None if isinstance(error, SpecError) else error)
    return vars(module)


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    """Within, `sys.modules` knows the module: decorators such as `dataclass` look there."""
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Within, a spec can import what lies beside it; last, so that a file there hides no library."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _cells_in(namespace: Mapping[str, Any], shown: str) -> dict[str, Cell]:
    """The cells among the values, and in lists, tuples and dictionaries among them, by name."""
    cells: dict[str, Cell] = {}
    for cell in _cells_among(tuple(namespace.values())):
        if cells.setdefault(cell.name, cell) is not cell:
            raise SpecError(
                f"two cells are called {cell.name!r}",
                where=cell.where or Where(shown, 1),
                hint=f"the first is at {cells[cell.name].where}; files are named after the cell",
            )
    return cells


def _cells_among(values: Iterable[Any]) -> Iterator[Cell]:
    for value in values:
        if isinstance(value, Cell):
            yield value
        elif type(value) in (list, tuple, dict):
            inner = value.values() if isinstance(value, dict) else value
            yield from (cell for cell in inner if isinstance(cell, Cell))


# ------------------------------------------------------------------------------------------ what went wrong

_COMPARISON = r"'(Strict)?(Greater|Less)Than'|'Equality'|'Boolean(True|False)'"
_UNDECLARED = "declare it with inputs, states, gates, matrices, vectors, scalars or constants"


def _placed(error: BaseException, shown: str, lines: list[str], namespace: Mapping[str, Any]) -> SpecError:
    """Whatever a spec file raised, as a `SpecError` at the deepest of its lines that had a part in it."""
    own = Where(shown, _deepest_line(error.__traceback__, shown))
    if isinstance(error, SpecError):
        where = error.where or own
        return error.at(own, _line(lines, where.line) if where.file == shown else "")
    if isinstance(error, SystemExit):
        return SpecError("the file ends the program here", where=own, equation=_line(lines, own.line))
    message = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return SpecError(message, where=own, equation=_line(lines, own.line), hint=_hint(error, namespace))


def _deepest_line(traceback: TracebackType | None, shown: str) -> int:
    line = 1
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == shown:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _line(lines: list[str], number: int) -> str:
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _hint(error: BaseException, namespace: Mapping[str, Any]) -> str:
    """What to write instead, where it can be guessed."""
    match error:
        case TypeError() if "for @: " in str(error):
            return "the left side of @ must be one matrix: W @ x + U @ x, not (W + U) @ x"
        case TypeError() if found := re.search(r"loop of ufunc .* no callable (\w+) method", str(error)):
            word = found[1] if found[1] in gategen.__all__ else "tanh"
            return f"NumPy knows no symbols: from gategen import {word}"
        case TypeError() if "unsupported operand" in str(error) and re.search(_COMPARISON, str(error)):
            return "a comparison is not a number: where(h > 0, h, 0), not (h > 0) * h"
        case TypeError() if "truth value" in str(error):
            return (
                "a comparison has no value before the cell runs: where(a > 0, ..., ...); "
                "the larger of two is maximum(a, b)"
            )
        case TypeError() if "object is not iterable" in str(error):
            return "a vector is one symbol: over its features run sum_(v), max_(v), mean(v) and cumsum(v)"
        case ValueError() if "values to unpack" in str(error):
            return "as many names on the left as there are values on the right"
        case NameError(name=str(name)) if name in gategen.__all__:
            return f"from gategen import {name}"
        case NameError(name=str(name)) if name in RECIPES:
            return RECIPES[name]
        case NameError(name="hidden" | "input" as name):
            return f'size("{name}") is how many features the size {name} has'
        case NameError(name=str(name)):
            return _did_you_mean(name, [*namespace, *gategen.__all__]) or _UNDECLARED
        case AttributeError(name=str(name), obj=value) if value is not None:
            words = ("next", "T") if isinstance(value, lang.Name) else dir(value)
            known = [word for word in words if hasattr(value, word) and not word.startswith("_")]
            return _did_you_mean(name, known)
        case ImportError() if found := re.match(r"cannot import name '(\w+)' from 'gategen'", str(error)):
            return _did_you_mean(found[1], gategen.__all__)
    return ""


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else ""
