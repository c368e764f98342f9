"""`gategen export-weights`: a compiler reads from the header what the net holds, as C takes it."""

import ctypes
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import CELLS, MINUTES

from gategen import Cell, cli
from gategen.build import generate
from gategen.errors import GategenError
from gategen.judge.host import imported, written
from gategen.judge.problem import init_arguments
from gategen.layers import RNN
from gategen.weights_header import header, lines, write

ROOT = Path(__file__).parents[1]
SPECS = ROOT / "tests/specs"
needs_a_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@cache
def module(name):
    return imported(ROOT / "generated" / f"{name}_numpy.py")


def net_of(name, *, layers=2, bidirectional=True, dtype="float32"):
    """A net with two layers in both directions, where the cell allows it."""
    sizes = dict.fromkeys(CELLS[name].sizes, 4) | {"projection": 2, "memory": 4}
    sizes = {size: sizes[size] for size in CELLS[name].sizes}
    given = init_arguments(CELLS[name], module(name), sizes)
    given = {key: value for key, value in given.items() if key not in ("seed", "dtype")}
    if "input_size" not in given:
        given["input_size"] = None
    try:
        return RNN(module(name), num_layers=layers, bidirectional=bidirectional, dtype=dtype, seed=1, **given)
    except ValueError:  # layers that do not fit on each other
        return RNN(module(name), dtype=dtype, seed=1, **given)


def compiled(folder, prefix, text, of):
    """A library with a pointer to each thing that is named."""
    source = f'#include "{prefix}_weights.h"\n'
    source += "".join(f"const void *const found_{name} = &{name};\n" for name in of)
    (folder / f"{prefix}_weights.h").write_text(text)
    (folder / "library.c").write_text(source)
    flags = "-std=c99 -Wall -Wextra -Werror -pedantic -Wcast-qual -shared -fPIC".split()
    real = ["-DREAL=double"] if "-DREAL=double" in text else []
    command = ["cc", *flags, *real, "library.c", "-o", "library.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MINUTES)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "library.so"))


def arrays_at(library, name, like):
    """The arrays that a record points to, of these shapes."""
    pointers = ctypes.c_void_p.in_dll(library, f"found_{name}").value
    found = (ctypes.c_void_p * len(like)).from_address(pointers)
    for address, array in zip(found, like, strict=True):
        room = (ctypes.c_char * array.nbytes).from_address(address)
        yield np.frombuffer(room, array.dtype).reshape(array.shape)


@needs_a_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CELLS)
def test_a_compiler_reads_the_very_numbers_of_the_net(name, dtype, tmp_path):
    net = net_of(name, dtype=dtype)
    for file, text in generate(CELLS[name], "c").items():
        (tmp_path / file).write_text(text)
    c = imported(tmp_path / f"{name}_c.py")
    suffixes = [cell.suffix for cell in net.cells]
    names = [name + suffix for suffix in suffixes]
    names += [f"{name}{cell.suffix}_buffers" for cell in net.cells if cell.buffers]
    library = compiled(tmp_path, name, header(net, CELLS[name]), names)
    for cell in net.cells:
        wanted = c.pack(module(name).unpack(cell.params))
        for found, array in zip(arrays_at(library, name + cell.suffix, wanted), wanted, strict=True):
            np.testing.assert_array_equal(found, array)
        if cell.buffers:
            for found, array in zip(
                arrays_at(library, f"{name}{cell.suffix}_buffers", cell.buffers), cell.buffers, strict=True
            ):
                np.testing.assert_array_equal(found, array)


def test_the_header_tells_all_sizes():
    net = RNN(module("lstm_sak"), 3, 4, 2, True, projection=2)
    sizes = re.findall(r"^    (\w+) = (\d+),?$", header(net, CELLS["lstm_sak"], "one"), re.M)
    assert dict(sizes) == {
        "ONE_LAYERS": "2", "ONE_DIRECTIONS": "2",
        "ONE_I_L0": "3", "ONE_H_L0": "4", "ONE_P_L0": "2",
        "ONE_I_L1": "4", "ONE_H_L1": "4", "ONE_P_L1": "2",
    }  # fmt: skip


def test_numbers_have_all_their_digits():
    numbers = [0.1, 1, -0.0, 1e-45, 3.4028235e38, 1 / 3, 123456789, 1e-5]
    (line,) = lines(np.array(numbers, np.float32))
    assert line == (
        "0.100000001f, 1.0f, -0.0f, 1.40129846e-45f, 3.40282347e+38f, 0.333333343f, 123456792.0f, "
        "9.99999975e-06f,"
    )
    assert lines(np.array([1 / 3, 2.0])) == ("0.33333333333333331, 2.0,",)
    assert lines(np.float16([0.5])) == ("0.5f,",)
    assert all(len(line) < 107 for line in lines(np.full(100, -1.2345e-30)))


@pytest.mark.parametrize("prefix", ["2x", "a-b", "float", "é", "_x"])
def test_a_name_that_c_does_not_take_is_refused(prefix):
    with pytest.raises(GategenError, match="names in C cannot begin with"):
        header(RNN(module("gru"), 3, 4), CELLS["gru"], prefix)


def test_what_is_no_number_is_named():
    net = RNN(module("gru"), 3, 4)
    net.parameters()["U_r_l0"][0, 0] = np.nan
    with pytest.raises(GategenError, match="U_r_l0 holds what is no finite number"):
        header(net, CELLS["gru"])


@needs_a_compiler
def test_a_cell_without_parameters(tmp_path):
    cell = Cell.parse("free", "inputs: x[hidden]\nstates: h\nh' = tanh(h + x)")
    for file, text in generate(cell, "c").items():
        (tmp_path / file).write_text(text)
    compiled(tmp_path, "free", header(RNN(cell, 4, 4), cell), ["free_l0"])


def test_a_net_of_a_module_of_ones_own_needs_the_cell(tmp_path):
    cell = Cell.parse("mine", "inputs: x\nstates: h\nh' = tanh(W_h @ x + U_h @ h)")
    write(tmp_path / "made.h", RNN(cell, 3, 4))
    assert "mine_U_h_l0[16]" in (tmp_path / "made.h").read_text()
    other = cell.with_heads(2)
    net = RNN(imported(written(other, "numpy", tmp_path)), 3, 4)
    with pytest.raises(GategenError, match="the module mine is not of a built-in cell: give its cell, cell="):
        write(tmp_path / "mine.h", net)
    write(tmp_path / "mine.h", net, cell=other)
    assert "mine_U_h_l0[8]" in (tmp_path / "mine.h").read_text()


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """`gategen export-weights` in an empty folder: its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gategen", "export-weights", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, "".join(capsys.readouterr())

    return run


def test_the_weights_of_a_file_become_a_header(run, tmp_path):
    net = RNN(module("lstm"), 3, 4, 2, True, dtype="float64", seed=3)
    net.save("net.npz")
    assert run("lstm", "--weights", "net.npz") == (0, "wrote lstm_weights.h\n")
    assert (tmp_path / "lstm_weights.h").read_text() == header(net, CELLS["lstm"])
    assert (
        run("lstm", "--weights", "net.npz", "--prefix", "one", "--out", "one.h", "--dtype", "float32")[0] == 0
    )
    single = RNN(module("lstm"), 3, 4, 2, True)
    single.load_state_dict(net.state_dict())
    assert (tmp_path / "one.h").read_text() == header(single, CELLS["lstm"], "one")


def test_without_weights_they_are_random_and_it_says_so(run, tmp_path):
    code, said = run("gru", "--input", "3", "--hidden", "4", "--layers", "2", "--seed", "7")
    assert code == 0 and "its parameters are random: --weights takes those of a net" in said
    assert (tmp_path / "gru_weights.h").read_text() == header(
        RNN(module("gru"), 3, 4, 2, seed=7), CELLS["gru"]
    )


def test_only_force_overwrites_what_is_not_gategens(run, tmp_path):
    words = ["gru", "--input", "3", "--hidden", "4", "--out", "net.h"]
    (tmp_path / "net.h").write_text("// mine\n")
    code, said = run(*words)
    assert code == 2 and "net.h was not written by gategen (no header): only force overwrites it" in said
    assert (tmp_path / "net.h").read_text() == "// mine\n"
    assert run(*words, "--force")[0] == 0
    assert run(*words, "--seed", "1")[0] == 0  # it is gategen's now
    assert [path.name for path in tmp_path.iterdir()] == ["net.h"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gru"], "nothing tells the size hidden: give --hidden"),
        ([], "give a CELL or --equations"),
        (["gru", "--weights", "none.npz"], "cannot read none.npz: No such file"),
        (["gru", "--weights", "lstm.npz"], "lstm.npz holds the weights of the cell lstm, and gru is another"),
        (["lstm", "--weights", "lstm.npz", "--hidden", "5"], "hidden is to be 5, and in lstm.npz it is 4"),
        (["lstm", "--weights", "lstm.npz", "--prefix", "2"], "names in C cannot begin with '2'"),
        (["lstm", "--weights", "lstm.npz", "--out", "no/net.h"], "cannot write no/net.h: No such file"),
        ([str(SPECS / "contents.py"), "--hidden", "4"], "a header is of one cell, and these are"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named_and_nothing_is_written(run, tmp_path, words, message):
    RNN(module("lstm"), 3, 4).save("lstm.npz")
    code, said = run(*words)
    assert code == 2 and message in said
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.npz"]
