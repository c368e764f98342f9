"""`gategen export`, up to where the package onnx begins: which net it is of, and what is refused or missing.

The models themselves are judged in `tests/conformance/test_onnx_export.py`.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from gategen import cli, load
from gategen.errors import GategenError, MissingError
from gategen.export import Asked, net_of
from gategen.judge.host import imported, written
from gategen.judge.problem import init_arguments
from gategen.layers import RNN
from gategen.onnx import Net, cell_of, model
from gategen.spec.load import builtins

ROOT = Path(__file__).parents[1]
SPECS = ROOT / "tests/specs"


def module(name):
    return imported(ROOT / "generated" / f"{name}_numpy.py")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """A command in an empty folder: its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gategen", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, "".join(capsys.readouterr())

    return run


@pytest.fixture
def no_onnx(monkeypatch):
    """As if the package onnx were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)


def test_without_the_package_it_says_how_to_get_it_and_exits_with_3(run, no_onnx, tmp_path):
    code, said = run("export", "gru", "--input", "3", "--hidden", "4")
    assert code == 3 and "pip install 'gategen[onnx]'" in said
    assert list(tmp_path.iterdir()) == []


def test_a_net_says_so_too(no_onnx, tmp_path):
    with pytest.raises(MissingError, match="pip install 'gategen\\[onnx\\]'"):
        RNN(module("gru"), 3, 4).to_onnx(tmp_path / "net.onnx")
    with pytest.raises(ModuleNotFoundError, match="pip install 'gategen\\[onnx\\]'"):
        RNN.from_onnx(tmp_path / "net.onnx")


def test_a_net_too_large_for_a_file_is_refused_before_anything_is_made(no_onnx):
    H = 24000
    parameters = {"W_h_l0": np.zeros((H, 1)), "U_h_l0": np.zeros((H, H)), "b_h_l0": np.zeros(H)}
    with pytest.raises(GategenError, match="the parameters take 4608384000 bytes"):
        model(Net(builtins()["rnn"], {"input": 1, "hidden": H}, parameters))


# ---------------------------------------------------------------------------------------------- which net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_tell_everything_but_the_order_of_axes(tmp_path, dtype):
    net = RNN(module("lstm_sak"), 3, 4, 2, True, projection=2, dtype=dtype, seed=5)
    net.save(tmp_path / "net.npz")
    found = net_of(builtins()["lstm_sak"], Asked(batch_first=True), str(tmp_path / "net.npz"))
    assert repr(found) == repr(net).replace("bidirectional=True", "bidirectional=True, batch_first=True")
    assert not found.training
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], array)
        assert found.state_dict()[name].dtype == dtype


def test_without_weights_it_draws_as_init_does(tmp_path):
    found = net_of(builtins()["gru"], Asked({"input": 3, "hidden": 4}, 2, True, seed=7, dtype="float64"))
    net = RNN(module("gru"), 3, 4, 2, True, seed=7, dtype="float64")
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(found.state_dict()[name], array)


def test_fixed_parameters_come_from_the_weights(tmp_path):
    cell = next(cell for cell in load(SPECS / "contents.py") if cell.name == "asked")
    with pytest.raises(GategenError, match=r"nothing tells what .* of asked holds: give --weights"):
        net_of(cell, Asked({"input": 4, "hidden": 4}))
    mine = imported(written(cell, "numpy", tmp_path))
    given = init_arguments(cell, mine, dict.fromkeys(cell.sizes, 4))
    given = {name: 0.5 * value if isinstance(value, np.ndarray) else value for name, value in given.items()}
    net = RNN(mine, **given)
    net.save(tmp_path / "net.npz")
    found = net_of(cell, Asked(), str(tmp_path / "net.npz"))
    fixed = [a.name for a in cell.arrays if not a.trainable and not a.contents]
    assert fixed and all((found.state_dict()[f"{name}_l0"] == 0.5).all() for name in fixed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gru"], "nothing tells the size hidden: give --hidden"),
        (["gru", "--hidden", "4"], "nothing tells the size input: give --input"),
        ([], "give a CELL or --equations"),
        (["gru", "--format", "tflite"], "'tflite' is not 'onnx'"),
        (["gru", "--layers", "0"], "'--layers': 0 is not in the range"),
        (["gru", "--size", "memory"], "'memory' is not NAME=N"),
        (["gru", "--size", "memory=0"], "'memory=0' is not NAME=N"),
        (["gru", "--input", "3", "--hidden", "4", "--size", "memory=3"], "gru has no size memory"),
        (["gru", "--weights", "none.npz"], "cannot read none.npz: No such file"),
        (["gru", "--weights", "text.npz"], "text.npz is no file that save wrote"),
        (["gru", "--weights", "bare.npz"], "bare.npz does not say of which net it is"),
        (["gru", "--weights", "lstm.npz"], "lstm.npz holds the weights of the cell lstm, and gru is another"),
        (["cornn", "--weights", "cornn.npz", "--set", "dt=0.5"], "has other constants"),
        (["lstm", "--weights", "lstm.npz", "--hidden", "5"], "hidden is to be 5, and in lstm.npz it is 4"),
        (["lstm", "--weights", "lstm.npz", "--layers", "2"], "to be 2 layers, and in lstm.npz there are 1"),
        (["lstm", "--weights", "lstm.npz", "--bidirectional"], "and that in lstm.npz is not"),
        (["mgu1", "--input", "3", "--hidden", "4", "--native"], "mgu1 is no cell whose weights other"),
        ([str(SPECS / "contents.py"), "--hidden", "4"], "a model is of one cell, and these are"),
        (["sru", "--hidden", "4", "--input", "3"], "x of sru has the size 'hidden', here 4"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_named_and_nothing_is_written(run, tmp_path, words, message):
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "bare.npz", W_z_l0=np.ones(3))
    RNN(module("lstm"), 3, 4).save(tmp_path / "lstm.npz")
    RNN(module("cornn"), 3, 4).save(tmp_path / "cornn.npz")
    before = sorted(tmp_path.iterdir())
    code, said = run("export", *words)
    assert code == 2 and message in said
    assert sorted(tmp_path.iterdir()) == before


# ---------------------------------------------------------------------------------------------- which cell


def test_the_cell_of_a_net_is_found_by_name_and_sum():
    for name in ("gru", "lstm"):
        assert cell_of(name, module(name).SPEC_SHA256).name == name
    assert cell_of("gru", module("gru").SPEC_SHA256, "gru") is builtins()["gru"]


def test_a_cell_that_is_not_that_of_the_net_is_refused(tmp_path):
    cell = builtins()["cornn"].with_constants(dt=0.5)
    other = imported(written(cell, "numpy", tmp_path))
    with pytest.raises(
        GategenError, match="the module cornn is not of a built-in cell: give its cell, cell="
    ):
        cell_of(other.NAME, other.SPEC_SHA256)
    assert cell_of(other.NAME, other.SPEC_SHA256, cell) is cell
    with pytest.raises(GategenError, match="the module cornn is of another cell than gru"):
        cell_of(other.NAME, other.SPEC_SHA256, "gru")
    with pytest.raises(GategenError, match="nothing"):
        cell_of(other.NAME, other.SPEC_SHA256, "nothing")
