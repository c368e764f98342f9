"""Finding specs, and where a mistake in one is reported."""

import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from gategen import Cell, SpecError
from gategen.spec.load import builtins, load, load_all

SPEC = """
from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes `spec.py` into the current directory: the usual declarations and then `text`, from line 8 on."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="spec.py"):
        Path(name).write_text(SPEC + textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return name

    return write


def refused(target):
    with pytest.raises(SpecError) as caught:
        load(target)
    return caught.value


# --------------------------------------------------------------------------------------------- built-in cells


def test_a_built_in_name_gives_that_cell():
    (cell,) = load("lstm")
    assert isinstance(cell, Cell) and cell.name == "lstm"


def test_a_cell_is_itself():
    (cell,) = load("gru")
    assert load(cell) == (cell,)
    assert load_all([cell, "lstm", "gru"]) == (cell, *load("lstm"))


@pytest.mark.parametrize("target", [None, 3, b"gru", ("gru",)], ids=repr)
def test_what_is_no_cell_no_name_and_no_path_is_refused_by_its_type(target):
    with pytest.raises(TypeError, match=f"a cell is a Cell, .*, not {type(target).__name__}"):
        load(target)


@pytest.mark.parametrize("name", builtins())
def test_every_built_in_cell_is_found_by_its_name(name):
    assert load(name) == (builtins()[name],)


def test_no_two_files_define_a_cell_of_one_name():
    module = import_module("gategen.spec.load")
    families = [module._builtins_in(stem) for stem in module._builtin_stems()]
    assert sum(map(len, families)) == len(builtins())


def test_a_cell_of_a_family_file_is_found_by_its_name():
    assert load("gru_type2")[0].name == "gru_type2"


def test_without_targets_all_built_in_cells_are_meant():
    assert load_all() == tuple(builtins().values())


def test_a_cell_given_twice_is_loaded_once():
    assert [cell.name for cell in load_all(["gru", "lstm", "gru"])] == ["gru", "lstm"]


def test_one_built_in_cell_is_loaded_without_importing_the_others():
    code = "import sys; from gategen import load; load('gru'); print('gategen.cells.lstm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_name_is_answered_with_similar_ones():
    error = refused("gru_befor")
    assert "no built-in cell 'gru_befor'" in error.message and "gru_before" in error.hint


def test_a_name_that_only_occurs_as_a_symbol_is_no_cell():
    assert "no built-in cell 'x'" in refused("x").message


def test_a_file_given_without_its_ending_is_pointed_at(write):
    write("", "mine.py")
    assert "mine.py" in refused("mine").hint


# ---------------------------------------------------------------------------------------------- spec files


def test_a_file_gives_every_cell_in_order_of_definition(write):
    cells = load(
        write("""
            second = Cell("b", Eq(h.next, tanh(W @ x + U @ h)))
            first = Cell("a", Eq(h.next, tanh(W @ x + U @ h + b)))
        """)
    )
    assert [cell.name for cell in cells] == ["b", "a"]


def test_cells_in_a_list_are_found_and_two_names_of_one_cell_are_one(write):
    cells = load(
        write("""
            family = [Cell(name, Eq(h.next, tanh(W @ x + U @ h))) for name in ("a", "b")]
            best = family[1]
        """)
    )
    assert [cell.name for cell in cells] == ["a", "b"]


def test_two_cells_of_one_name_are_refused(write):
    error = refused(
        write("""
            one = Cell("a", Eq(h.next, tanh(W @ x + U @ h)))
            two = Cell("a", Eq(h.next, tanh(W @ x + U @ h + b)))
        """)
    )
    assert "two cells are called 'a'" in error.message
    assert str(error.where) == "spec.py:9" and "spec.py:8" in error.hint


def test_a_spec_may_import_what_lies_beside_it(write):
    Path("beside_the_spec.py").write_text("scale = 2\n")
    cells = load(write('from beside_the_spec import scale\na = Cell("a", Eq(h.next, scale * (W @ x) + h))'))
    assert cells[0].name == "a"


def test_a_spec_leaves_nothing_in_sys_modules_and_sys_path(write):
    modules, path = set(sys.modules), list(sys.path)
    load(write('a = Cell("a", Eq(h.next, tanh(W @ x + U @ h)))'))
    assert set(sys.modules) == modules and sys.path == path


def test_a_spec_may_define_a_dataclass_with_text_annotations(write):
    name = write("")
    Path(name).write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Sizes:\n    wide: int = 3\n" + SPEC + 'a = Cell("a", Eq(h.next, W @ x + U @ h))\n'
    )
    assert load(Path(name))[0].name == "a"


def test_a_path_object_is_a_path(write):
    write('a = Cell("a", Eq(h.next, tanh(W @ x + U @ h)))')
    assert load(Path("spec.py"))[0].where.file == "spec.py"


# ---------------------------------------------------------------------------------------------- mistakes


MISTAKES = {
    "a cell is wrong": ('a = Cell("a", Eq(h.next, W + h))', 8, "W is a matrix and stands without @", "W @ x"),
    "an error of Python": ("size = 1 / 0", 8, "ZeroDivisionError: division by zero", ""),
    "deeper in the file": ("def f():\n    return [][1]\n\nf()", 9, "IndexError", ""),
    "a sum before @": ('a = Cell("a", Eq(h.next, (x + h) @ (b * h)))', 8, "@", "must be one matrix|sum of"),
    "a misspelled function": ("y = tahn(x)", 8, "NameError: name 'tahn' is not defined", "tanh"),
    "a function not imported": ("y = softplus(x)", 8, "softplus", "from gategen import softplus"),
    "an undeclared name": ("y = qqqq * x", 8, "qqqq", "declare it"),
    "an attribute of another symbol": ("y = h.next.next", 8, "next", ""),
    "a misspelled attribute": ("y = h.nxt", 8, "nxt", "next"),
    "a misspelled import": ("from gategen import sigmod", 8, "sigmod", "sigmoid"),
    "a comparison used as a condition": ("y = 1 if x > 0 else 2", 8, "truth value", "where"),
    "a function of NumPy": ("import numpy\ny = numpy.exp(x)", 9, "ufunc", "from gategen import exp"),
    "a comparison as a number": ("y = x * (h > 0)", 8, "unsupported operand", "where(h > 0, h, 0)"),
    "a wrong start": (
        'k = states("k", initial=x)\na = Cell("a", Eq(k.next, x))',
        8,
        "reads the input x",
        "it may",
    ),
    "a start of another size": (
        'v = vectors("v", size="rank")\nk = states("k", initial=v)\na = Cell("a", Eq(k.next, W @ x))',
        9,
        "k has size hidden, its initial value rank",
        "one size",
    ),
    "a missing module": ("import no_such_module_here", 8, "No module named 'no_such_module_here'", ""),
    "a syntax error": ("y = = 2", 8, "SyntaxError: invalid syntax", ""),
    "an unclosed bracket": ("y = (1,", 8, "SyntaxError: '(' was never closed", ""),
    "an end of the program": ("import sys\nsys.exit(3)", 9, "ends the program", ""),
    "an error that is no Exception": ("class Stop(BaseException): ...\n\n\nraise Stop(1)", 11, "Stop: 1", ""),
    "an end of a generator": ("raise GeneratorExit", 8, "GeneratorExit", ""),
    "an endless recursion": ("def f():\n    f()\nf()", 9, "RecursionError", ""),
    "an assertion": ('assert x == 1, "not\\n  one"', 8, "AssertionError: not one", ""),
}


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_at_its_line_with_the_source(write, text, line, message, hint):
    error = refused(write(text))
    assert str(error.where) == f"spec.py:{line}"
    assert message in error.message
    assert any(part in error.hint for part in hint.split("|"))
    assert error.equation
    assert "Traceback" not in str(error)


def test_an_error_without_its_own_place_quotes_the_line_of_the_file(write):
    assert refused(write("size = 1 / 0  # a comment")).equation == "size = 1 / 0  # a comment"


def test_the_path_is_shown_as_it_was_given(write, tmp_path):
    write("y = 1 / 0")
    assert refused("./spec.py").where.file == "./spec.py"
    assert refused(str(tmp_path / "spec.py")).where.file == str(tmp_path / "spec.py")


def test_a_file_without_a_cell_is_refused(write):
    assert "no Cell" in refused(write("y = 1")).message


def test_a_missing_file_is_named():
    assert "no/such.py: there is no such file" in refused("no/such.py").message


@pytest.mark.parametrize("name", ["{}", "{}.py", "{}.gate", "folder/{}.gate", "/{}"])
def test_a_name_that_no_file_system_takes_is_refused(name):
    message = refused(name.format("a" * 5000)).message
    assert "File name too long" in message or "there is no built-in cell" in message


def test_an_interrupt_of_a_spec_is_one_of_the_user(write):
    with pytest.raises(KeyboardInterrupt):
        load(write("raise KeyboardInterrupt"))


@pytest.mark.parametrize("target", [f"{'a' * 300}.gate", f"{'a/' * 3000}b.py", f"{'a' * 300}/b"])
def test_a_path_that_is_too_long_is_refused(target):
    assert "name too long" in refused(target).message


def test_the_name_of_a_cell_may_be_too_long_for_a_file():
    assert "there is no built-in cell" in refused("a" * 300).message


def test_a_directory_is_refused(tmp_path):
    (tmp_path / "cells.py").mkdir()
    assert "directory" in refused(tmp_path / "cells.py").message
    assert "directory" in refused(f"{tmp_path}/").message


def test_an_unreadable_file_is_refused(write, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    write("")
    monkeypatch.setattr("gategen.spec.load.read_file", denied)
    assert "spec.py: Permission denied" in refused("spec.py").message


def test_text_that_is_not_utf_8_is_placed(tmp_path):
    path = tmp_path / "spec.py"
    path.write_bytes(b"# one\n# caf\xe9\n")
    error = refused(path)
    assert error.where.line == 2 and "UTF-8" in error.message


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "spec.py"
    path.write_text(SPEC + 'a = Cell("a", Eq(h.next, W @ x + U @ h))\n', encoding="utf-8-sig")
    assert load(path)[0].name == "a"


def test_a_null_byte_is_refused(tmp_path):
    path = tmp_path / "spec.py"
    path.write_bytes(b"x = 1\0")
    assert "spec.py" in str(refused(path))


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "spec.txt"
    path.write_text(SPEC)
    assert "ends in .py or .gate" in refused(path).message


# ---------------------------------------------------------------------------------------------- text form


@pytest.fixture
def gate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def gate(text, name="mine.gate"):
        Path(name).write_text(text, encoding="utf-8")
        return name

    return gate


def test_a_gate_file_gives_the_cell_that_is_called_like_it(gate):
    (cell,) = load(gate("h' = tanh(W_h @ x + U_h @ h)"))
    assert cell.name == "mine" and str(cell.where) == "mine.gate:1"


def test_a_gate_file_may_name_its_cell(gate):
    assert load(gate("name: another\nh' = W_h @ x + h"))[0].name == "another"
    assert load(gate("name: another\nh' = W_h @ x + h", "not a name.gate"))[0].name == "another"


def test_a_gate_file_that_is_not_called_like_a_cell_must_name_it(gate):
    error = refused(gate("h' = W_h @ x + h", "my-cell.gate"))
    assert str(error.where) == "my-cell.gate:1" and "'my-cell' is not a name" in error.message
    assert "name: mine" in error.hint


def test_a_mistake_in_a_gate_file_is_reported_at_its_line(gate):
    error = refused(gate("states: h\n\nh' = W_h @ x + q"))
    assert str(error) == (
        "mine.gate:3: q is not known\n    h' = W_h @ x + q\n    hint: declare what it is: "
        "constants: q = 0.1, a number; inputs: q[1], read at every step; vectors: q, trained"
    )


def test_a_missing_gate_file_and_one_that_is_not_utf_8_are_named(tmp_path):
    assert "there is no such file" in refused("no/such.gate").message
    (tmp_path / "cell.gate").write_bytes(b"# one\n# caf\xe9\n")
    assert refused(tmp_path / "cell.gate").where.line == 2


def test_a_gate_file_given_without_its_ending_is_pointed_at(gate):
    gate("h' = W_h @ x + h")
    assert "mine.gate" in refused("mine").hint


def test_a_text_inside_a_python_spec_is_blamed_itself(write):
    error = refused(write("""mine = Cell.parse("mine", "h' = W_h @ x + q")"""))
    assert str(error.where) == "<text>:1" and error.equation == "h' = W_h @ x + q"
