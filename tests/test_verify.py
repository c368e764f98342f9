"""`verify` finds wrong gradients, and finds nothing wrong with right ones."""

import math
import shutil
import sys
import textwrap
from dataclasses import replace

import pytest

import gategen.build
from gategen import (
    Cell,
    Eq,
    cli,
    concat,
    emulator,
    inputs,
    matrices,
    maximum,
    relu,
    scalars,
    sigmoid,
    states,
    step,
    stop_gradient,
    surrogate,
    tanh,
    vectors,
    where,
)
from gategen.judge.host import MissingError
from gategen.judge.problem import FURTHER, LENGTHS, SIZES, B, T, settings
from gategen.judge.verify import verify
from gategen.spec.load import builtins, load

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")


def checked(cell, backend="numpy", **options):
    (result,) = verify([cell], [backend], **options)
    return result


@pytest.fixture
def mutated(monkeypatch):
    """Appends code to every generated module; `right_backward` is what was there."""

    def mutate(code):
        def files(cell, backend):
            made = gategen.build.generate(cell, backend)
            added = f"\n\nright_backward = backward\n\n\n{textwrap.dedent(code)}"
            return {name: text + added if name.endswith(".py") else text for name, text in made.items()}

        monkeypatch.setattr("gategen.judge.host.generate", files)

    return mutate


# ---------------------------------------------------------------------------------------------- right


@pytest.mark.slow
@pytest.mark.parametrize("name", builtins())
def test_every_built_in_cell_is_right_on_numpy(name):
    result = checked(builtins()[name])
    assert result.ok, result
    assert result.complex_step < 1e-11
    most = 1e-7 if name == "ntm" else 1e-8  # off by rounding: one more order changes nothing
    assert (result.finite_difference is None) if name == "li_spiking" else result.finite_difference < most
    assert (result.cell, result.backend, result.where) == (name, "numpy", "CPU")
    assert result.gradient and result.seconds > 0


@pytest.mark.parametrize("seed", range(3))
def test_kinks_do_not_look_like_mistakes(seed):
    kinked = Cell(
        "kinked", Eq(h.next, relu(W @ x + U @ h) + maximum(b * h, W @ x) - where(h > 0.1, h, 2 * h))
    )
    assert checked(kinked, seed=seed).ok


def test_a_cell_with_everything_around_it_is_right():
    mask, e = inputs("mask", size=1), inputs("e", size="extra")
    s = states("s", initial=2 * b)
    p = states("p", size="projection")
    A, Q = matrices("A Q")
    alpha = scalars("alpha")
    everything = Cell(
        "everything",
        Eq(h.next, mask * tanh(A @ concat(h, e) + alpha * s) + (1 - mask) * h),
        Eq(s.next, sigmoid(W @ x + U @ h.next + b)),
        Eq(p.next, Q @ s.next + p / 2),
        output=(p.next, h.next),
    )
    result = checked(everything)
    assert result.ok, result


def test_stop_gradient_is_judged_by_the_complex_step_alone():
    result = checked(Cell("stopped", Eq(h.next, tanh(W @ x + U @ stop_gradient(h)) + h * b)))
    assert result.ok and result.finite_difference is None


def test_a_surrogate_is_judged_by_the_complex_step_alone():
    result = checked(Cell("spiking", Eq(h.next, surrogate(step(W @ x + U @ h), tanh(W @ x + U @ h)) + h * b)))
    assert result.ok and result.finite_difference is None


def test_the_results_are_the_same_every_time():
    first, second = (replace(checked(load("gru")[0]), seconds=0) for _ in range(2))
    assert first == second


@pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["gru", "caru", "ligru"])
def test_the_cuda_text_is_right_where_there_is_no_gpu(name, monkeypatch):
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    result = checked(builtins()[name], "cupy")
    assert result.ok, result
    assert result.where == "CPU emulation"


@pytest.mark.parametrize("name", ["gru", "caru", "ligru", "rglru", "lstm"])
def test_second_derivatives_are_right(name):
    result = checked(builtins()[name], "numpy_jvp")
    assert result.ok, result
    assert result.complex_step < 1e-11 and result.finite_difference < 1e-8
    assert (result.backend, result.where) == ("numpy_jvp", "CPU")


@pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")
def test_the_cuda_text_of_second_derivatives_is_right_and_free_of_races(monkeypatch):
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    (result,) = verify(builtins()["caru"], "cupy_jvp", race=True)
    assert result.ok and result.where == "CPU emulation", result


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ("dot_h_next += s_2", "dot_h_next -= s_2", "wrong tangent of"),
        ("dot_d_hr += more_dot_d_hr", "pass", "finite differences are off"),
        ("return Grads(", "raise KeyError('x')\n    return Grads(", "raised KeyError"),
    ],
)
def test_a_bug_in_a_module_of_second_derivatives_is_found(old, new, note, tmp_path):
    cell = builtins()["gru"]
    gategen.build(cell, ["numpy", "numpy_jvp"], tmp_path)
    path = tmp_path / "gru_numpy_jvp.py"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    (result,) = verify(cell, "numpy_jvp", out=tmp_path)
    assert not result.ok and note in result.note and result.judged == str(path)


@pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")
def test_a_wrong_forward_of_the_other_backend_is_found(monkeypatch):
    """Wrong in both directions, so that its gradients fit its outputs."""

    def files(cell, backend):
        other = load("gru_before")[0].with_constants() if backend == "cupy" else cell
        return gategen.build.generate(other, backend)

    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    monkeypatch.setattr("gategen.judge.host.generate", files)
    result = checked(load("gru")[0], "cupy")
    assert not result.ok and "forward differs from the NumPy module" in result.note


# ---------------------------------------------------------------------------------------------- settings


def test_all_sizes_differ():
    sizes = [T, B, *SIZES.values(), *FURTHER]
    assert len(set(sizes)) == len(sizes)


def test_lengths_hold_nothing_one_all_and_a_repeat():
    assert len(LENGTHS) == B and {0, 1, T} <= set(LENGTHS) and len(set(LENGTHS)) < B


@pytest.mark.parametrize(("name", "count"), [("gru", 2), ("caru", 4), ("ligru", 4)])
def test_the_optional_arguments_are_tried_where_they_matter(name, count):
    assert len(list(settings(builtins()[name]))) == count


# ---------------------------------------------------------------------------------------------- wrong


BACKWARD = """
LESS = np.array([1, 1, 1, 1, 0])[:, None, None]

def backward(params, tape, d_y, d_final=None):
    grads = right_backward(params, tape, d_y, d_final)
    p, x, h = unpack(grads.params), grads.x, grads.initial.h
    {}
    return grads._replace(x=x, initial=States(h))
"""
MUTANTS = {
    "x a little too large": ("x = x * (1 + 1e-8)", "x"),
    "x of the wrong sign": ("x = -x", "x"),
    "x of the wrong shape": ("x = x[:, :1]", "x"),
    "one entry of a matrix": ('p["U_r"][2, 3] += 1e-6', "U_r"),
    "two matrices swapped": ('p["U_z"][...], p["U_r"][...] = p["U_r"].copy(), p["U_z"].copy()', "U_"),
    "a matrix transposed": ('p["U_h"][...] = p["U_h"].T.copy()', "U_h"),
    "a bias of 0": ('p["b_z"][...] = 0', "b_z"),
    "a NaN": ('p["W_h"][0, 0] = np.nan', "W_h"),
    "the initial state of 0": ("h = 0 * h", "initial h"),
    "the final state's gradient ignored": ("return right_backward(params, tape, d_y)", ""),
    "the last step ignored": ("d_y = d_y * LESS; return right_backward(params, tape, d_y, d_final)", ""),
}


@pytest.mark.parametrize(("line", "gradient"), MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_gradient_is_found_and_named(mutated, line, gradient):
    mutated(BACKWARD.format(line))
    result = checked(load("gru")[0])
    assert not result.ok
    assert result.complex_step > 1e-10 and gradient in result.gradient
    assert result.note.startswith("wrong gradient of ")


def test_a_gradient_wrong_only_with_lengths_is_found_and_says_so(mutated):
    mutated(BACKWARD.format("x = x + 1e-6 * (tape.finished is not None)"))
    assert "with lengths=(1, 5, 0, 1)" in checked(load("gru")[0]).note


def test_a_gradient_wrong_only_at_the_first_step_rule_is_found_and_says_so(mutated):
    mutated(BACKWARD.format("x = x + 1e-6 * (not tape.given)"))
    assert "with initial=None" in checked(load("caru")[0]).note


def test_a_module_that_writes_into_what_it_is_given_is_wrong(mutated):
    mutated(BACKWARD.format("d_y[-1] = 0"))
    assert "read-only" in checked(load("gru")[0]).note


def test_a_module_that_raises_is_wrong(mutated):
    mutated("del backward")
    result = checked(load("gru")[0])
    assert not result.ok and "AttributeError" in result.note and math.isinf(result.complex_step)


def test_a_failed_verification_ends_with_1(mutated, monkeypatch, capsys, tmp_path):
    mutated("del backward")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "rnn", "--backend", "numpy"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert caught.value.code == 1
    assert out.splitlines()[1].startswith("rnn\tnumpy\tCPU\tinf\t") and out.rstrip().endswith("WRONG")
    assert "AttributeError" in err


# ---------------------------------------------------------------------------------------------- which files


@pytest.fixture
def gru_there(tmp_path):
    """The module of the GRU, built into a folder; `verify` there on NumPy."""
    gategen.build.build(load("gru"), ["numpy"], tmp_path)
    return tmp_path / "gru_numpy.py"


def test_the_file_that_is_there_is_judged_and_named(gru_there, tmp_path):
    assert checked(load("gru")[0], out=tmp_path).judged == str(gru_there)
    assert checked(load("gru")[0], out=tmp_path).ok
    for fresh in (checked(load("gru")[0]), checked(load("gru_before")[0], out=tmp_path)):
        assert fresh.ok and fresh.judged == "fresh text"


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ("np.multiply(d_h, k_n, out=d_n)", "np.add(d_h, k_n, out=d_n)", "wrong gradient of "),
        ("h_next *= z", "h_next *= 1 - z", "forward differs from the NumPy module"),
        ("def backward", "def back", "the module raised AttributeError"),
        ("# what is not finite", "# What is not finite", ""),
    ],
)
def test_an_edited_file_is_judged_as_it_is_and_never_ok(gru_there, tmp_path, old, new, note):
    text = gru_there.read_text()
    assert old in text
    gru_there.write_text(text.replace(old, new))
    result = checked(load("gru")[0], out=tmp_path)
    assert not result.ok and result.judged == str(gru_there)
    assert result.note.startswith(note) and bool(result.note) == bool(note)
    assert result.differs == f"{gru_there} is not what `build` writes: edited, or of another version"


@pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")
def test_edited_cuda_is_judged_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    gategen.build.build(load("rnn"), ["cupy"], tmp_path)
    cuda = tmp_path / "rnn_cupy.cu"
    right, wrong = cuda.read_text(), cuda.read_text().replace("tanh(", "sin(")
    assert wrong != right
    cuda.write_text(wrong)
    result = checked(load("rnn")[0], "cupy", out=tmp_path)
    assert not result.ok and result.note and "rnn_cupy.cu is not what `build` writes" in result.differs
    cuda.unlink()
    result = checked(load("rnn")[0], "cupy", out=tmp_path)
    assert not result.ok and not result.note and "rnn_cupy.cu is missing beside" in result.differs


def test_the_file_of_another_cell_is_not_executed(gru_there, tmp_path):
    other = gategen.build.generate(load("gru_before")[0], "numpy")["gru_before_numpy.py"]
    for text, words in (
        (other + "\nraise SystemExit\n", "is of another cell of this name, or of other equations"),
        ("raise SystemExit\n", "was not written by gategen"),
    ):
        gru_there.write_text(text)
        result = checked(load("gru")[0], out=tmp_path)
        assert not result.ok and not result.note and result.judged == "fresh text"
        assert words in result.differs


def test_the_command_judges_the_folder_of_build_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gategen", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out.splitlines()[-1].split("\t"), err

    monkeypatch.chdir(tmp_path)
    judging = "verify", "gru", "--backend", "numpy"
    assert (row := run(*judging)[1])[-2] == "fresh text" and row[-1] == "ok"
    run("build", "gru", "--backend", "numpy")
    assert (row := run(*judging)[1])[-2].endswith("gru_numpy.py") and row[-1] == "ok"
    file = tmp_path / "generated" / "gru_numpy.py"
    file.write_text(file.read_text() + "\n")
    code, row, err = run(*judging)
    assert code == 1 and row[-1] == "DIFFERS" and "edited, or of another version" in err and "--check" in err
    assert run(*judging, "--fresh")[0] == 0


def test_a_row_is_printed_as_soon_as_it_is_known(monkeypatch, capsys):
    result = checked(load("rnn")[0])

    def slowly(*args, **options):
        yield result
        assert capsys.readouterr().out.splitlines()[1].startswith("rnn\tnumpy")
        yield result

    monkeypatch.setattr("gategen.judge.verify.verified", slowly)
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "rnn", "--backend", "numpy"])
    with pytest.raises(SystemExit):
        cli.main()
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_names_paths_and_cells_can_be_verified_alike(tmp_path):
    (path := tmp_path / "mine.gate").write_text("h' = tanh(W_h @ x + U_h @ h + b_h)\n")
    for cells in ("rnn", load("rnn")[0], path, str(path)):
        (result,) = verify(cells, "numpy")
        assert (result.cell, result.ok) == ("mine" if "mine" in str(cells) else "rnn", True)
    assert [result.cell for result in verify([path, "rnn"], "numpy")] == ["mine", "rnn"]


# ---------------------------------------------------------------------------------------------- where it runs


def test_without_gpu_and_compiler_the_exit_code_is_3(monkeypatch, capsys):
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    monkeypatch.setattr("gategen.emulator.compiler", lambda: None)
    with pytest.raises(MissingError, match="install g"):
        verify(load("gru"), ["cupy"])
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "gru", "--backend", "cupy"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 3
    assert "install g++" in capsys.readouterr().err


@pytest.fixture
def no_room(tmp_path, monkeypatch):
    """A compiler to which the disk is full as soon as it has compiled what all kernels are linked with."""
    said = "kernel.cu:1:1: fatal error: error writing to k.s: No space left on device"
    script = f'case "$*" in *-shared*) echo "{said}" >&2; exit 1;; *) exec {emulator.compiler()} "$@";; esac'
    (program := tmp_path / "c++").write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    monkeypatch.setattr("gategen.emulator.build.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("gategen.emulator.build.compiler", lambda: str(program))


def test_a_full_disk_while_compiling_is_no_wrong_gradient(no_room, monkeypatch, capsys):
    with pytest.raises(MissingError, match="No space left on device"):
        verify("rnn", "cupy")
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "rnn", "--fresh"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert caught.value.code == 3 and "WRONG" not in out and "numpy" in out
    assert err.startswith("gategen: CUDA cannot be compiled for the CPU: ")


def test_a_compiler_that_does_not_work_is_none(monkeypatch, capsys):
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    monkeypatch.setattr("gategen.emulator.build.compiler", lambda: shutil.which("false"))
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "rnn", "--fresh"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert not caught.value.code and "cupy" not in out
    assert err.startswith("gategen: cupy is left out: CUDA cannot be compiled for the CPU: ")


def test_without_gpu_and_compiler_numpy_is_verified_and_the_rest_mentioned(monkeypatch, capsys):
    monkeypatch.setattr("gategen.judge.host.gpu", lambda: "")
    monkeypatch.setattr("gategen.emulator.compiler", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "rnn"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert not caught.value.code and [line.split("\t")[1] for line in out.splitlines()] == [
        "backend",
        "numpy",
    ]
    assert err.startswith("gategen: cupy is left out:")
