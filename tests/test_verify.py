"""`verify` finds wrong gradients, and finds nothing wrong with right ones."""

import math
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
    stop_gradient,
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
    assert result.complex_step < 1e-11 and result.finite_difference < 1e-8
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
    monkeypatch.setattr(sys, "argv", ["gategen", "verify", "rnn", "--backend", "numpy"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert caught.value.code == 1
    assert out.splitlines()[1].startswith("rnn\tnumpy\tCPU\tinf\t") and out.rstrip().endswith("WRONG")
    assert "AttributeError" in err


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
