"""The house: what each module may import, so that it can be read from the ground up."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gategen
from gategen.backends import NAMES

PACKAGE = Path(gategen.__file__).parent

# From the bottom up. A module may import its own room and those on lower lines.
FLOORS = """
errors callables files
emulator
spec
graph
plan
summary
render
backends
build
judge compiled
diff
show doctor bench onnx
layers
torch
export weights_header
cli
__main__
"""
# The same within rooms: a module may import what stands before it.
ORDERS = {
    "spec": """
        recipes opaque names contents elementwise c_math functions norms convolutions declarations equations
        language printer quoting delays heads sizes weights checks text/lines text/trees text/slips
        text/outline text/expressions text/reader text/__init__ cell text/writer load __init__""",
    "graph": "ops builder check flatten weights levels evaluate text __init__ adjoint tangent",
    "plan": """
        data groups analysis share stages chains layout place write hoist ends retape compose narrow ahead
        classify newton text weights pipeline second phases overwritten loops __init__""",
    "backends": """
        comments names module folding contents interface instructions host weights functions newton second
        sigmoids pointwise numpy cupy/text cupy/sums cupy/module cupy/kernels cupy/loops cupy/persistent
        cupy/rows cupy/__init__ cupy/launches c/text c/matrices c/lines c/weights c/functions c/module
        c/__init__
        __init__""",
    "judge": "found host problem finite runner derivatives second verify __init__",
    "onnx": "nodes axes expressions steps scan native model __init__",
    "layers": "arrange files weights foreign rnn __init__",
    "torch": "names binding batches function ops transforms rnn __init__",
}

MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
FLOOR = {room: k for k, line in enumerate(FLOORS.strip().splitlines()) for room in line.split()}


def imported(module: str, within: bool = True) -> Iterator[str]:
    """The modules of this package that a module imports, also within functions, as `plan/data`."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    for node in ast.walk(tree) if within else tree.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")[1:] if name.split(".")[0] == "gategen" else []
            while parts and not (found := module_at("/".join(parts))):
                parts.pop()
            if parts:
                yield found


def module_at(path: str) -> str:
    """The module, or that of the package, which stands at a path; empty where none does."""
    return next((m for m in (path, f"{path}/__init__") if m in MODULES), "")


def room(module: str) -> str:
    return module.split("/")[0]


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in FLOOR])
def test_a_module_imports_only_from_lower_floors(module: str) -> None:
    for other in imported(module):
        same = room(other) == room(module)
        assert same or FLOOR[room(other)] < FLOOR[room(module)], f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "layers"])
def test_layers_import_nothing_of_the_other_rooms_but_within_functions(module: str) -> None:
    """Where a net is given a cell, or becomes an ONNX model: it costs nothing before."""
    assert {room(other) for other in imported(module)} <= {"layers", "onnx", "compiled"}
    assert {room(other) for other in imported(module, within=False)} <= {"layers"}


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "torch"])
def test_torch_imports_layers_and_within_functions_what_compiles_a_cell(module: str) -> None:
    assert {room(other) for other in imported(module)} <= {"torch", "layers", "compiled", "spec"}
    assert {room(other) for other in imported(module, within=False)} <= {"torch", "layers"}


def test_every_module_has_a_floor() -> None:
    homeless = {room(module) for module in MODULES} - {*FLOOR, "__init__", "cells"}
    assert not homeless


@pytest.mark.parametrize("name", ORDERS)
def test_the_modules_of_a_room_import_only_what_comes_before_them(name: str) -> None:
    order = [f"{name}/{module}" for module in ORDERS[name].split()]
    assert set(order) == {m for m in MODULES if room(m) == name}
    for k, module in enumerate(order):
        late = {other for other in imported(module) if room(other) == name} - set(order[:k])
        assert not late, f"{module} imports {sorted(late)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither inside of functions nor for the sake of types. (`gategen` itself loads by name, on use.)"""
    assert len(list(TopologicalSorter({m: set(imported(m)) for m in MODULES}).static_order())) == len(MODULES)


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "backends"])
def test_backends_do_not_import_each_other(module: str) -> None:
    own = "/".join(module.split("/")[:2])  # of a backend that is a package
    others = {f"backends/{name}" for name in NAMES} - {own}
    for other in imported(module):
        assert not any(other == backend or other.startswith(f"{backend}/") for backend in others)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_built_in_cells(module: str) -> None:
    assert not any(room(other) == "cells" for other in imported(module))


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) == "cells"])
def test_built_in_cells_import_the_language_alone(module: str) -> None:
    assert not list(imported(module)), "spell it `from gategen import ...`"
