"""The house: what each module may import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gategen
from gategen.backends import NAMES

PACKAGE = Path(gategen.__file__).parent

# From the bottom up. A module may import its own room and those on lower lines.
FLOORS = """
errors callables emulator
language
printer
sizes text
cell
load
graph
adjoint
tangent
plan
summary
render
backends
build
verify
diff
show doctor bench
cli
__main__
"""
PLAN = """
data groups share stages chains layout place write hoist ends retape compose ahead classify text
pipeline __init__
"""

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
FLOOR = {room: k for k, line in enumerate(FLOORS.strip().splitlines()) for room in line.split()}


def imported(module: str) -> Iterator[str]:
    """The modules of this package that a module imports, as `plan/data`."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")[1:] if name.split(".")[0] == "gategen" else []
            while parts and not is_module(parts):
                parts.pop()
            if parts:
                yield "/".join(parts)


def is_module(parts: list[str]) -> bool:
    path = PACKAGE.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def room(module: str) -> str:
    return module.split("/")[0]


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in FLOOR])
def test_a_module_imports_only_from_lower_floors(module: str) -> None:
    for other in imported(module):
        same = room(other) == room(module)
        assert same or FLOOR[room(other)] < FLOOR[room(module)], f"{module} imports {other}"


def test_every_module_has_a_floor() -> None:
    homeless = {room(module) for module in MODULES} - {*FLOOR, "__init__", "cells", "layers", "torch"}
    assert not homeless


def test_passes_import_only_what_comes_before_them() -> None:
    order = PLAN.split()
    assert {f"plan/{name}" for name in order} == {m for m in MODULES if room(m) == "plan"}
    for k, name in enumerate(order):
        passes = {other.split("/")[1] for other in imported(f"plan/{name}") if other.startswith("plan/")}
        assert passes <= set(order[:k]), f"plan/{name} imports {sorted(passes - set(order[:k]))}"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "backends"])
def test_backends_do_not_import_each_other(module: str) -> None:
    others = {f"backends/{name}" for name in NAMES} - {module}
    for other in imported(module):
        assert not any(other == backend or other.startswith(f"{backend}/") for backend in others)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_built_in_cells(module: str) -> None:
    assert not any(room(other) == "cells" for other in imported(module))


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "cells"])
def test_built_in_cells_import_the_language_alone(module: str) -> None:
    assert not list(imported(module)), "spell it `from gategen import ...`"
