"""Mutation testing: every small change that some operator allows, a random sample of them judged.

    python tests/mutation.py enumerate package.json            # of the derivation, the planner, the backends
    python tests/mutation.py enumerate modules.json --modules  # of ten generated NumPy modules
    python tests/mutation.py run package.json --count 250 --seed 1 [--files gategen/plan/ ...]

`enumerate` needs Cosmic Ray (whose operators it uses beside five of its own) and writes all mutants; `run`
needs what the tests need. A line for each mutant says which test found it, or that it lives; the survivors
follow with what was changed, and a table by file ends the report. Where `mutants.py` has bugs that a person
thought of, here chance picks them, so some change nothing that can be observed. What became of the survivors
is told in `docs/judges.md`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mutants import (
    ADJOINT,
    CUPY,
    DERIVATION,
    MODULE_TESTS,
    ON_CUDA,
    ON_NUMPY,
    PLAN,
    PLAN_VALUES,
    PLANS,
    PRINTERS,
    PROCESSES,
    PRODUCTS,
    ROOT,
    SECOND,
    copied,
    first_failure,
)

GRAPH, INSTRUCTIONS = "tests/test_graph.py", "tests/test_instructions.py"
RANDOM = "tests/test_random_cells.py"
PACKAGE = (
    "gategen/graph",
    "gategen/plan",
    "gategen/backends/instructions.py",
    "gategen/backends/numpy.py",
    "gategen/backends/cupy",
    "gategen/backends/module.py",
)
CELLS = ("gru", "gru_after", "lstm", "caru", "ligru", "sligru", "mgu", "libru", "rnn", "gru_concat")
MODULES = tuple(f"generated/{cell}_numpy.py" for cell in CELLS)


@dataclass(frozen=True)
class Mutant:
    """`old`, which begins at character `start` of `file`, in line `line`, becomes `new`."""

    file: str
    operator: str
    line: int
    start: int
    old: str
    new: str

    def of(self, text: str) -> str:
        """The text with the change."""
        stop = self.start + len(self.old)
        assert text[self.start : stop] == self.old, f"{self.file} was changed since it was read"
        return text[: self.start] + self.new + text[stop:]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.operator.rpartition('/')[2]}"


# ---------------------------------------------------------------------------------------------- enumerating

BINARY = "Add_Sub Sub_Add Mul_Div Mul_Add Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitOr_BitAnd BitAnd_BitOr"
COMPARISON = "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Is_IsNot IsNot_Is"
UNARY = "Delete_USub Delete_Not"
OTHERS = (
    "AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr ReplaceOrWithAnd "
    "ReplaceBreakWithContinue ReplaceContinueWithBreak ExceptionReplacer NumberReplacer ZeroIterationForLoop"
)
OPERATORS = (
    *(f"core/ReplaceBinaryOperator_{name}" for name in BINARY.split()),
    *(f"core/ReplaceComparisonOperator_{name}" for name in COMPARISON.split()),
    *(f"core/ReplaceUnaryOperator_{name}" for name in UNARY.split()),
    *(f"core/{name}" for name in OTHERS.split()),
)

Change = tuple[str, int, int, str]  # the operator, from where to where, the new text


def changes_of_cosmic_ray(text: str) -> Iterator[Change]:
    """One or two replacements for each operator, of the ten that Cosmic Ray has."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.plugins import get_operator

    lines = starts_of_lines(text)
    operators = [(name, get_operator(name)()) for name in OPERATORS]

    def walk(node: Any) -> Iterator[Change]:
        for name, operator in operators:
            for index, _ in enumerate(operator.mutation_positions(node)):
                (row, column), (end_row, end_column) = node.get_start_pos_of_prefix(), node.end_pos
                parent, node.parent = node.parent, None  # or else the whole tree would be copied
                clone = copy.deepcopy(node)
                node.parent = clone.parent = parent
                mutated = operator.mutate(clone, index)
                yield name, lines[row - 1] + column, lines[end_row - 1] + end_column, mutated.get_code()
        for child in getattr(node, "children", ()):
            yield from walk(child)

    yield from walk(get_ast(text))


def changes_of_our_own(text: str) -> Iterator[Change]:
    """What Cosmic Ray has no operator for: statements gone, `+=`, `in`, filters of comprehensions."""
    lines = starts_of_lines(text)

    def begin(node: Any) -> int:
        return lines[node.lineno - 1] + characters(text, lines, node.lineno, node.col_offset)

    def end(node: Any) -> int:
        return lines[node.end_lineno - 1] + characters(text, lines, node.end_lineno, node.end_col_offset)

    def swapped(name: str, start: int, stop: int, swaps: dict[str, str]) -> Iterator[Change]:
        word = text[start:stop].strip()
        if word in swaps:
            at = text.index(word, start)
            yield name, at, at + len(word), swaps[word]

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.AugAssign):
            swaps = {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "|=": "&=", "&=": "|="}
            yield from swapped("own/AugmentedAssignment", end(node.target), begin(node.value), swaps)
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if call or isinstance(node, ast.AugAssign):
            yield "own/DeleteStatement", begin(node), end(node), "pass"
        if isinstance(node, ast.comprehension):
            for condition in node.ifs:
                start, stop = begin(condition), end(condition)
                yield "own/NegateFilter", start, stop, f"not ({text[start:stop]})"
        if isinstance(node, ast.Compare):
            swaps = {"in": "not in", "not in": "in"}
            for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
                yield from swapped("own/Membership", end(left), begin(right), swaps)


def starts_of_lines(text: str) -> list[int]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def characters(text: str, lines: Sequence[int], line: int, column: int) -> int:
    """How many characters the first `column` bytes of a line are."""
    return len(text[lines[line - 1] : lines[line]].encode()[:column].decode())


def mutants_of(file: str, text: str) -> list[Mutant]:
    """All mutants of a file that are Python and mean something else, annotations aside."""
    meaning = dump(text)
    found: dict[tuple[int, str, str], Mutant] = {}
    for operator, start, stop, new in (*changes_of_cosmic_ray(text), *changes_of_our_own(text)):
        old = text[start:stop]
        same = alike(old, new)
        start, old, new = start + same, old[same:], new[same:]
        same = alike(old[::-1], new[::-1])
        old, new = old[: len(old) - same], new[: len(new) - same]
        mutant = Mutant(file, operator, text.count("\n", 0, start) + 1, start, old, new)
        try:
            different = dump(mutant.of(text)) != meaning
        except SyntaxError:
            continue
        if different:
            found.setdefault((start, old, new), mutant)
    return sorted(found.values(), key=lambda m: (m.start, m.operator, m.new))


def alike(a: str, b: str) -> int:
    """How many characters two texts have in common before they differ."""
    return next((k for k, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), min(len(a), len(b)))


class Unannotated(ast.NodeTransformer):
    """Nothing reads annotations."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(None))
        return super().generic_visit(node)


def dump(text: str) -> str:
    return ast.dump(Unannotated().visit(ast.parse(text)))


def enumerated(files: Iterable[str]) -> list[Mutant]:
    paths = [p for name in files for p in (sorted((ROOT / name).rglob("*.py")) or [ROOT / name])]
    return [
        m for path in paths for m in mutants_of(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]


# ---------------------------------------------------------------------------------------------- judging

ALARM = 600  # seconds; no stage takes nearly so long, so a mutant that never ends is found

# The tests that see most of what a file does, from cheap to dear.
QUICK: dict[str, tuple[tuple[str, ...], ...]] = {
    "gategen/graph/adjoint.py": (DERIVATION, PLANS),
    "gategen/graph/tangent.py": (DERIVATION, PLANS),
    "gategen/graph/": ((GRAPH,), DERIVATION, ON_NUMPY),
    "gategen/plan/text.py": ((PLAN,),),
    "gategen/plan/": (PLANS, ON_NUMPY),
    "gategen/backends/cupy/": (ON_CUDA,),
    "gategen/backends/module.py": (ON_NUMPY, ON_CUDA),
    "gategen/backends/instructions.py": ((INSTRUCTIONS,), ON_NUMPY),
    "gategen/backends/": (ON_NUMPY,),
    "gategen/": (DERIVATION, PLANS),
    "generated/": (MODULE_TESTS,),  # of which `OneModule` leaves those of the cell
}
REST = {  # for what those do not find
    "gategen/plan/": (PLAN, PLAN_VALUES, PRODUCTS, RANDOM),
    "gategen/backends/": (PLAN_VALUES, PRODUCTS, *PRINTERS, "tests/test_printer.py", RANDOM),
    "gategen/": (GRAPH, ADJOINT, SECOND),
}
MODULES_OF_CELLS = (*MODULE_TESTS, CUPY)  # and these, of the cells whose generated files the mutant changes
AT_MOST = 3  # built-in ones of these cells, and as many others

TEXTS = """
import json, sys
from gategen.build import all_backends, generate
from gategen.errors import UnsupportedError
from pathlib import Path
from gategen.spec.load import load, load_all

cells = [*load_all(), *(cell for path in sorted(Path("tests/specs").glob("*.py")) for cell in load(path))]
made = {}
for cell in cells:
    for backend in all_backends():
        try:
            made[f"{cell.name} {backend}"] = generate(cell, backend)
        except UnsupportedError:
            pass
        except Exception as error:
            made[f"{cell.name} {backend}"] = repr(error)
json.dump(made, open(sys.argv[1], "w"))
"""


def texts(folder: Path, target: Path) -> dict[str, Any]:
    """What is generated for each cell and backend; what stands in place of it where that fails."""

    def work() -> int:
        entered(folder)
        sys.argv = ["texts", str(target)]
        exec(TEXTS, {"__name__": "texts"})
        return 0

    status = in_child(work, target.with_suffix(".log"))
    assert status == 0, target.with_suffix(".log").read_text("utf-8")
    return dict(json.loads(target.read_text("utf-8")))


def some_changed(folder: Path, before: Mapping[str, Any], target: Path) -> list[str]:
    """Some of the cells for which a package generates something else."""
    after = texts(folder, target)
    changed = list(dict.fromkeys(key.split()[0] for key in before if before[key] != after.get(key)))
    built_in = [cell for cell in changed if (ROOT / f"generated/{cell}_numpy.py").exists()]
    return [*built_in[:AT_MOST], *[cell for cell in changed if cell not in built_in][:AT_MOST]]


def stages_for(mutant: Mutant) -> tuple[tuple[str, ...], ...]:
    """The tests of the changed file."""
    return started(QUICK, mutant.file)


def started(by_start: Mapping[str, Any], file: str) -> Any:
    """The first entry whose key the name of the file starts with."""
    return next(entry for start, entry in by_start.items() if file.startswith(start))


class SomeCells:
    """A plugin: of the tests of modules, those of some cells."""

    def __init__(self, cells: Iterable[str]) -> None:
        self.cells = set(cells)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if self.cells & named_in(item)]


def named_in(item: Any) -> set[str]:
    """What a test is about, where it has parameters."""
    return set(map(str, item.callspec.params.values())) if hasattr(item, "callspec") else set()


class OneModule:
    """A plugin: the tests of one cell, whose module is the mutated text."""

    def __init__(self, cell: str, text: str) -> None:
        self.cell, self.text = cell, text

    def pytest_configure(self) -> None:
        host: Any = import_module("gategen.judge.host")
        plain = host.written

        def written(cell: Any, backend: str, folder: Path) -> Path:
            path = plain(cell, backend, folder)
            if cell.name == self.cell:
                path.write_text(self.text, "utf-8")
            return path

        host.written = written

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if self.concerns(item)]

    def concerns(self, item: Any) -> bool:
        """What names no cell is about the GRU."""
        given = item.callspec.params if hasattr(item, "callspec") else {}
        return given.get("name", "gru") == self.cell and "every_name" not in item.name


def plugins_for(mutant: Mutant) -> list[OneModule]:
    if mutant.file not in MODULES:
        return []
    text = mutant.of((ROOT / mutant.file).read_text("utf-8"))
    return [OneModule(Path(mutant.file).stem.removesuffix("_numpy"), text)]


def found_by(mutant: Mutant, snapshot: Path, quick: bool) -> str:
    """The test that finds a mutant; empty if it lives."""
    with tempfile.TemporaryDirectory(dir=snapshot.parent) as folder:
        here, plugins = snapshot, plugins_for(mutant)
        if mutant.file not in MODULES:
            here = copied(snapshot, Path(folder) / "checkout")
            (here.parent / "kernels").symlink_to(snapshot.parent / "kernels")
            file = here / mutant.file
            file.write_text(mutant.of(file.read_text("utf-8")), "utf-8")
        for tests in stages_for(mutant):
            if found := failed(here, tests, plugins, Path(folder) / "output"):
                return found
        if quick or mutant.file in MODULES:
            return ""
        cells = some_changed(
            here, json.loads((snapshot.parent / "texts").read_text("utf-8")), Path(folder) / "texts"
        )
        for tests, chosen in ((started(REST, mutant.file), []), (MODULES_OF_CELLS, [SomeCells(cells)])):
            if (cells or not chosen) and (found := failed(here, tests, chosen, Path(folder) / "output")):
                return found
    return LIVES if not cells else f"{LIVES}, other text for {', '.join(cells)}"


def failed(folder: Path, tests: Sequence[str], plugins: Sequence[Any], output: Path) -> str:
    """The first test that fails on the package in a folder; empty if all pass."""
    status = in_child(partial(run_tests, folder, tests, plugins), output)
    if os.WIFSIGNALED(status):
        ended = os.WTERMSIG(status) == signal.SIGALRM
        return f"{tests[0]} ({'does not end' if ended else 'crashes'})"
    code = os.WEXITSTATUS(status)
    if code == 14:  # a file that was to be imported cannot be
        return f"{tests[0]} (is not collected)"
    if code == 15:  # no test is about these cells
        return ""
    return first_failure(code, output.read_text("utf-8", "replace"))


def in_child(work: Callable[[], int], output: Path) -> int:
    """The wait status of a fork that does some work, which writes what it prints to a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 70
    try:
        signal.alarm(ALARM)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def entered(folder: Path) -> None:
    """From here on this process, and those that it starts, see the package in a folder."""
    os.chdir(folder)
    sys.path[:0] = [str(folder)]
    os.environ |= {"PYTHONPATH": str(folder), "GATEGEN_CACHE": str(folder.parent / "kernels")}
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_tests(folder: Path, tests: Sequence[str], plugins: Sequence[Any]) -> int:
    import pytest

    entered(folder)
    shown = ("-x", "-q", "-rfE", "--tb=no", "--color=no", "-p", "no:cacheprovider", "-m", "")
    try:
        import gategen
    except Exception:
        print("ERROR import gategen")
        return 12
    assert Path(gategen.__file__).parent.parent == folder, gategen.__file__
    code = 10 + pytest.main([*shown, *tests], plugins=list(plugins))
    sys.stdout.flush()
    return code


def judged(
    mutants: Sequence[Mutant],
    quick: bool,
    processes: int,
    progress: Callable[[Mutant, str, float], None],
) -> None:
    """Each mutant in a fork of this process, which has imported what takes long."""
    import hypothesis  # noqa: F401
    import jinja2  # noqa: F401
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import sympy  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="gategen_mutation_") as temporary:
        snapshot = copied(ROOT, Path(temporary) / "checkout")
        (snapshot.parent / "kernels").mkdir()
        warm(mutants, snapshot, quick)
        running: dict[int, tuple[Mutant, Path, float]] = {}
        waiting = list(enumerate(mutants))
        while waiting or running:
            if waiting and len(running) < processes:
                k, mutant = waiting.pop(0)
                answer = Path(temporary) / f"answer_{k}"
                sys.stdout.flush()
                child = os.fork()
                if not child:
                    code = 1
                    try:
                        answer.write_text(found_by(mutant, snapshot, quick), "utf-8")
                        code = 0
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        os._exit(code)
                running[child] = mutant, answer, time.perf_counter()
            else:
                child, status = os.wait()
                mutant, answer, began = running.pop(child)
                assert status == 0, f"{mutant} was not judged"
                progress(mutant, answer.read_text("utf-8"), time.perf_counter() - began)


def warm(mutants: Sequence[Mutant], snapshot: Path, quick: bool) -> None:
    """Run all tests without a mutant: they must pass, and are compiled for those that follow."""
    if mutants[0].file in MODULES:  # the package is the same for all
        sys.path.insert(0, str(snapshot))
        import_module("gategen.judge.verify")
    elif not quick:
        texts(snapshot, snapshot.parent / "texts")
    nothing = [Mutant(mutant.file, "", 0, 0, "", "") for mutant in mutants]
    for tests in dict.fromkeys(tests for mutant in nothing for tests in stages_for(mutant)):
        broken = failed(snapshot, tests, plugins_for(nothing[0]), snapshot.parent / "output")
        assert not broken, f"{broken} fails without a mutant"


# ---------------------------------------------------------------------------------------------- the report

LIVES = "LIVES"


def diff(mutant: Mutant) -> str:
    """The changed lines, before and after."""
    text = (ROOT / mutant.file).read_text("utf-8")
    first = text.rfind("\n", 0, mutant.start) + 1
    stop = mutant.start + len(mutant.old)
    last = text.find("\n", stop)
    changed = mutant.of(text)[first : last + len(mutant.new) - len(mutant.old)]
    old = [f"    - {line}" for line in text[first:last].splitlines()]
    return "\n".join([*old, *(f"    + {line}" for line in changed.splitlines())])


def table(rows: Sequence[tuple[str, bool]]) -> str:
    """How many of each file were judged and found."""
    total, found = Counter(file for file, _ in rows), Counter(file for file, yes in rows if yes)
    lines = [f"{'file':36} {'mutants':>7} {'found':>7}"]
    lines += [f"{file:36} {total[file]:7} {found[file]:7}" for file in sorted(total)]
    share = f"{100 * found.total() / total.total():.1f} %"
    return "\n".join([*lines, f"{'all':36} {total.total():7} {found.total():7}  {share}"])


def sample(every: Sequence[Mutant], arguments: argparse.Namespace) -> list[Mutant]:
    """So many of all, or of each file, in the order in which they are drawn."""
    chosen = [m for m in every if not arguments.files or m.file.startswith(tuple(arguments.files))]
    rng = random.Random(arguments.seed)
    rng.shuffle(chosen)
    if arguments.each is not None:
        rank: Counter[str] = Counter()
        chosen = [m for m in chosen if rank.update([m.file]) or rank[m.file] <= arguments.each]
    return chosen[: arguments.count]


def run(arguments: argparse.Namespace) -> int:
    every = [Mutant(**entry) for entry in json.loads(arguments.json.read_text("utf-8"))]
    chosen = sample(every, arguments)
    print(f"{len(chosen)} of {len(every)} mutants, seed {arguments.seed}")
    rows: list[tuple[str, bool]] = []
    survivors: list[Mutant] = []

    def progress(mutant: Mutant, found: str, seconds: float) -> None:
        lives = not found or found.startswith(LIVES)
        print(f"{mutant!s:62} {seconds:6.1f}  {found.removeprefix('tests/') or LIVES}", flush=True)
        rows.append((mutant.file, not lives))
        if lives:
            print(diff(mutant), flush=True)
            survivors.append(mutant)

    if package := [m for m in chosen if m.file not in MODULES]:
        judged(package, arguments.quick, arguments.processes, progress)
    if modules := [m for m in chosen if m.file in MODULES]:
        judged(modules, arguments.quick, arguments.processes, progress)
    if arguments.survivors:
        arguments.survivors.write_text(json.dumps([asdict(m) for m in survivors], indent=1), "utf-8")
    print("\nsurvivors\n" + "\n".join(f"{m}\n{diff(m)}" for m in survivors) + "\n\n" + table(rows))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    lister = commands.add_parser("enumerate")
    lister.add_argument("json", type=Path)
    lister.add_argument("--modules", action="store_true", help="of the generated modules of ten cells")
    runner = commands.add_parser("run")
    runner.add_argument("json", type=Path)
    runner.add_argument("--count", type=int, help="how many, drawn at random; without it all")
    runner.add_argument("--each", type=int, help="how many of each file")
    runner.add_argument("--processes", type=int, default=PROCESSES)
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--files", nargs="*", default=(), help="only those whose path begins so")
    runner.add_argument("--quick", action="store_true", help="leave out the last, dear stage")
    runner.add_argument("--survivors", type=Path, help="write those that live, to be run again")
    arguments = parser.parse_args()
    if arguments.command == "run":
        return run(arguments)
    mutants = enumerated(MODULES if arguments.modules else PACKAGE)
    arguments.json.write_text(json.dumps([asdict(m) for m in mutants], indent=1), "utf-8")
    print(f"{len(mutants)} mutants")
    return 0


if __name__ == "__main__":
    sys.exit(main())
