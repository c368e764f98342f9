"""The table of elementwise functions: a new activation is one row of it and nothing else."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gategen
from gategen import emulator
from gategen.backends.cupy.text import CUDA_WORDS
from gategen.backends.names import GLOBALS, WORDS
from gategen.spec.elementwise import Call, called, helpers
from gategen.spec.functions import TABLE

ROOT = Path(__file__).parents[1]
FUNCTIONS = [row for row in TABLE if row.evaluate]  # others are made of them

ROW = '''
    Row(
        "isru(v)",
        elementwise(
            "isru",
            "v / sqrt(1 + v**2).",
            lambda v: v / sp.sqrt(1 + v**2),
            lambda y, v: (1 - y**2) ** sp.Rational(3, 2),
        ),
        evaluate=lambda a: a / np.sqrt(1 + a * a),
        numpy=helper("""
            def isru(a: np.ndarray, out: np.ndarray) -> None:
                out[...] = a / np.sqrt(1 + a * a)
        """),
        cuda=helper("__device__ inline real isru(real a) { return a / sqrt(1 + square(a)); }"),
        latex=r"\\iota",
        parity="odd",
    ),
'''
# One parameter has the name of the helper.
SPEC = """
from gategen import Cell, Eq, gates, inputs, isru, matrices, states, vectors

x, h, n = inputs("x"), states("h"), gates("n")
W, U = matrices("W U")
b = vectors("isru")
cell = Cell("bent", Eq(n, isru(W @ x + U @ h + b)), Eq(h.next, 0.5 * h + isru(0.5) * n))
"""
PROGRAM = """
import json, pickle, sys
import gategen
from gategen import Cell, diff, emulator, load, verify
from gategen.build import generate
from gategen.show import export, latex
from gategen.spec.text.writer import write

(cell,) = load("bent.py")
mirrored = Cell.parse("mirrored", "matrices: W, U\\nvectors: b\\nn = -isru(-(W @ x + U @ h + b))\\n"
                                  "h' = 0.5 * h + isru(0.5) * n")
results = verify(cell, ["numpy", *(["cupy"] if emulator.compiler() else [])])
print(json.dumps({
    "gategen": gategen.__file__,
    "verified": {result.backend: [result.ok, result.complex_step] for result in results},
    "files": {name: text for backend in ("numpy", "cupy") for name, text in generate(cell, backend).items()},
    "text": write(cell),
    "read": Cell.parse("bent", write(mirrored)).text() == mirrored.text(),
    "pickled": pickle.loads(pickle.dumps(cell)).text() == cell.text(),
    "latex": latex.equations(cell) + latex.gradients(cell),
    "json": export.graphs(cell),
    "listed": "isru" in gategen.__all__,
    "mirrored": diff(cell, mirrored).verdict,
}))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a copy of gategen says of a cell, whose table has one row more."""
    folder = tmp_path_factory.mktemp("table")
    for part in ("gategen", "templates"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "gategen/spec/functions.py"
    before, place = file.read_text("utf-8"), "    # made of these\n"
    assert before.count(place) == 1
    file.write_text(before.replace(place, ROW.lstrip("\n") + place), "utf-8")
    (folder / "bent.py").write_text(SPEC, "utf-8")
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["gategen"]).is_relative_to(folder)
    return found


def test_a_new_activation_is_one_row_for_both_backends(said):
    for backend, (ok, error) in said["verified"].items():
        assert ok and error < 1e-10, backend
    assert set(said["verified"]) == {"numpy", *(["cupy"] if emulator.compiler() else [])}
    assert "isru(" in said["files"]["bent_numpy.py"] and "\ndef isru(a" in said["files"]["bent_numpy.py"]
    kernels = said["files"]["bent_cupy.cu"]
    assert (
        kernels.count("__device__ inline real isru(") == kernels.count("__device__ inline real square(") == 1
    )


def test_its_derivative_reads_what_was_saved(said):
    """(1 - n**2)**1.5, of the gate itself."""
    assert "np.power(" in said["files"]["bent_numpy.py"] and "pow(" in said["files"]["bent_cupy.cu"]
    assert r"\left(1 - n^{2}\right)" in said["latex"]


def test_it_is_printed_and_read(said):
    assert "n  = isru(W @ x + U @ h + isru)" in said["text"]
    assert r"n &= \iota\left(W x + U h + \mathrm{isru}\right)" in said["latex"]
    assert "isru(" in json.dumps(said["json"])
    assert said["read"] and said["pickled"] and said["listed"]
    assert said["mirrored"] == "same"


def test_a_name_of_a_spec_gives_way_to_its_helper(said):
    assert "isru_: np.ndarray" in said["files"]["bent_numpy.py"]


# ---------------------------------------------------------------------------------------------- the rows


def test_every_function_has_one_row():
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    assert {row.name for row in TABLE if row.public} <= {*gategen.__all__} <= {*dir(gategen)}


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.name)
def test_a_row_is_complete(row):
    """Both languages have it; CUDA has a notation of its own for a choice, and nothing to detach."""
    assert row.numpy and (row.cuda or row.name in ("where", "stop_gradient"))
    assert isinstance(row.apply, type)


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.numpy and row.numpy.text], ids=lambda row: row.name
)
def test_a_helper_defines_its_name_and_writes_out(row):
    (made,) = ast.parse(row.numpy.text).body
    assert isinstance(made, ast.FunctionDef) and made.name == row.numpy.name
    assert made.args.args[-1].arg == "out"
    assert {row.numpy.name} <= WORDS & GLOBALS


def test_no_name_of_a_kernel_is_that_of_a_device_function():
    assert {row.cuda.name for row in TABLE if row.cuda} <= CUDA_WORDS


def test_a_helper_brings_those_that_it_calls():
    calls = [
        Call("a", "def a(): b()"),
        Call("b", "def b(): np.c()"),
        Call("c", "def c(): 0"),
        Call("d"),
        None,
    ]
    assert helpers(["a", "d"], calls) == ("def a(): b()", "def b(): np.c()")
    assert called("real(a) * np.tanh(b) + half.get(c)") == ["real"]
