"""`gategen.compile`: the module that `build` would have written, without a file of the user's own."""

import inspect
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import gategen
from gategen import GategenError, SpecError, emulator
from gategen.build import generate
from gategen.layers import RNN
from gategen.spec.load import builtins

TEXT = "name: mine\nh' = tanh(W_h @ x + U_h @ h + b_h)\n"


@pytest.fixture
def cache(tmp_path):
    """A cache of its own, for processes of their own."""
    return {**os.environ, "GATEGEN_CACHE": str(tmp_path / "cache")}


def python(program: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["gru", "ligru", "caru"])
def test_the_text_is_that_of_build(name):
    module = gategen.compile(name)
    assert Path(module.__file__).read_text("utf-8") == generate(builtins()[name], "numpy")[f"{name}_numpy.py"]


def test_a_cell_a_name_a_path_and_a_text_are_the_same_module(tmp_path):
    path = tmp_path / "mine.gate"
    path.write_text(TEXT)
    cell = gategen.load(path)[0]
    module = gategen.compile(cell)
    assert module is gategen.compile(path) is gategen.compile(str(path)) is gategen.compile(TEXT)
    assert gategen.compile("gru") is gategen.compile(builtins()["gru"]) is not module
    assert gategen.compile("h' = tanh(W_h @ x + U_h @ h)").NAME == "cell"
    assert gategen.compile(cell.renamed("other")) is not module


def test_the_source_and_a_traceback_can_be_read():
    module = gategen.compile(TEXT)
    assert "np.tanh" in inspect.getsource(module.forward)
    with pytest.raises(ValueError, match="expected") as raised:
        module.forward(module.init(2, 3), np.zeros((2, 2), "float32"))
    assert 'raise ValueError(f"x has shape' in "".join(traceback.format_exception(raised.value))


def test_the_cuda_of_a_cell_lies_beside_its_module():
    with emulator.installed():
        module = gategen.compile(TEXT, "cupy")
    assert Path(module.__file__).with_suffix(".cu").read_text("utf-8") == module.SOURCE
    assert module is gategen.compile(TEXT, backend="cupy")


def test_a_layer_takes_a_cell_and_pickle_finds_its_module_in_another_process(tmp_path, cache):
    net = RNN(gategen.load(TEXT)[0], 2, 3, seed=0)
    assert RNN("gru", 2, 3).module is gategen.compile("gru")
    make = f"import gategen, pickle, sys; from gategen.layers import RNN; net = RNN({TEXT!r}, 2, 3, seed=0); "
    python(make + f"pickle.dump(net, open({str(tmp_path / 'net')!r}, 'wb'))", cache)
    read = f"import pickle; net = pickle.load(open({str(tmp_path / 'net')!r}, 'rb')); "
    found = python(read + "print(net.parameters()['b_h_l0'].tobytes().hex())", cache)
    assert found.strip() == net.parameters()["b_h_l0"].tobytes().hex()
    assert pickle.loads(pickle.dumps(net)).module is net.module


def test_what_is_in_the_cache_is_made_once_and_mended_where_it_is_damaged(cache):
    program = f"import gategen; module = gategen.compile({TEXT!r}); print(module.__file__)"
    path = Path(python(program, cache).strip())
    before = path.stat().st_mtime_ns
    assert python(program, cache).strip() == str(path) and path.stat().st_mtime_ns == before
    text = path.read_text("utf-8")
    path.write_text(text[: len(text) // 2])
    python(program, cache)
    assert path.read_text("utf-8") == text


def test_without_a_folder_for_the_cache_it_works_all_the_same(tmp_path):
    (tmp_path / "file").write_text("")
    env = {**os.environ, "GATEGEN_CACHE": str(tmp_path / "file" / "cache"), "TMPDIR": str(tmp_path)}
    program = f"import gategen; print(gategen.compile({TEXT!r}).__file__)"
    assert Path(python(program, env).strip()).is_relative_to(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_what_is_wrong_is_said():
    with pytest.raises(SpecError, match="no built-in cell 'grue'"):
        gategen.compile("grue")
    with pytest.raises(SpecError, match=r"<text>:2: .*"):
        gategen.compile("name: mine\nh' = tanh(W_h @ x +\n")
    with pytest.raises(TypeError, match="a cell is a Cell"):
        gategen.compile(3)
    with pytest.raises(GategenError, match="no backend 'jax'"):
        gategen.compile("gru", "jax")


def test_the_fastest_module_on_a_cpu_is_that_of_c_and_numpys_without_a_compiler(cache):
    program = """
        from gategen.compiled import fastest
        module = fastest("mgu")
        print(hasattr(module, "library"), module.init(2, 3).W.shape)
    """
    program = "\n".join(line.strip() for line in program.splitlines())
    assert python(program, cache) == "True (6, 2)\n"
    alone = {**cache, "GATEGEN_CACHE": cache["GATEGEN_CACHE"] + "2", "PATH": "", "CC": ""}
    assert python(program, alone) == "False (6, 2)\n"


def test_a_module_of_c_and_a_layer_of_it_compute_what_numpys_do():
    x = np.random.default_rng(0).standard_normal((7, 3, 4))
    nets = [
        RNN(gategen.compile("lstm", backend), 4, 5, 2, bidirectional=True, dtype="float64", seed=1)
        for backend in ("numpy", "c")
    ]
    runs = [net(x, lengths=[7, 2, 0]) for net in nets]
    grads = [net.backward(np.ones_like(y), None) for net, (y, _) in zip(nets, runs, strict=True)]
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(grads[1].params.values(), grads[0].params.values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)
