"""The command line: exit codes, what is printed where, and that it never shows a traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest
from helpers import MINUTES
from test_build import FakeBackend

from gategen import __version__, backends, cli, compile
from gategen.spec.load import builtins

SPEC = """
from gategen import Cell, Eq, constants, inputs, matrices, states, tanh

x = inputs("x")
h = states("h")
W, U = matrices("W U")
beta = constants(beta=1)
mine = Cell("mine", Eq(h.next, tanh(beta * (W @ x) + U @ h)), title="My own")
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gategen", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        return (code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def fake(monkeypatch):
    """Replaces the backends by one called fake."""
    monkeypatch.setattr(backends, "find", FakeBackend)
    monkeypatch.setattr(backends, "NAMES", ("fake",))


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "mine.py").write_text(SPEC)
    return "mine.py"


def program(*arguments, **options):
    """The real program."""
    command = [sys.executable, "-m", "gategen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


# ---------------------------------------------------------------------------------------------- the frame


def test_help_lists_the_commands_and_needs_no_large_library():
    code = (
        "import sys; sys.argv = ['gategen', '--help']\nfrom gategen.cli import main\n"
        "try: main()\nfinally: print(sorted({'sympy', 'numpy', 'rich', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    for command in ("list", "show", "build", "verify", "export", "export-weights", "new", "bench", "doctor"):
        assert f"\n  {command} " in done.stdout


def test_python_m_is_the_same_program():
    done = program("--version")
    assert (done.returncode, done.stdout) == (0, f"gategen {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("show",),
        ("show", "gru", "--stage", "soup"),
        ("show", "gru", "--format", "soup"),
        ("show", "no_such_cell"),
        ("show", "no_such_file.py"),
        ("build", "gru", "--backend", "fortran"),
        ("build", "gru", "--set", "beta"),
        ("build", "gru", "--set", "beta=much"),
        ("build", "gru", "--set", "beta=2"),
        ("build", "--no-such-option"),
        ("new", "two words"),
        ("new", "random"),
        ("new", "class"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_says_why_on_stderr(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.strip() and "Traceback" not in err


def test_a_wrong_spec_is_reported_with_place_equation_and_hint(run, tmp_path):
    (tmp_path / "wrong.py").write_text(SPEC.replace("U @ h)", "U * h)"))
    code, out, err = run("show", "wrong.py")
    assert (code, out) == (2, "")
    first, equation, hint = err.rstrip().split("\n")
    assert first == "wrong.py:8: U is a matrix and stands without @"
    assert equation.startswith("    h' = tanh(") and hint == "    hint: U @ h"


def test_a_broken_pipe_ends_quietly():
    command = f"{sys.executable} -m gategen show gru --stage graph --format json | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[", "")


def test_a_closed_stdout_ends_quietly():
    command = [sys.executable, "-m", "gategen", "list"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_told_of():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "gategen", "show", "gru"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "gategen: cannot write the output: No space left on device\n"


def test_a_stdout_that_is_closed_from_the_start_is_no_error():
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m gategen list >&-"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "gru", "--seed", "-1"), "--seed"),
        (("build", "ligru", "--set", "eps=nan"), "eps must be a finite number"),
        (("build", "ligru", "--set", "eps=1e400"), "eps must be a finite number"),
        (("build", "ligru", "--set", f"eps={'9' * 5000}"), "with a number for a value"),
        (("show", "GRU"), "did you mean gru"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said_briefly(run, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err and len(err) < 400 and "click" not in err


def test_control_c_ends_quietly(tmp_path):
    # One long sleep would go on where the signal comes just before it.
    endless = "import time\nprint('running', flush=True)\nwhile True:\n    time.sleep(0.1)\n"
    (tmp_path / "slow.py").write_text(endless)
    command = [sys.executable, "-m", "gategen", "show", str(tmp_path / "slow.py")]

    # A shell has what it runs in the background ignore the signal, and children inherit that.
    def heard() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=heard, **pipes) as running:
        late = threading.Timer(MINUTES, running.kill)
        late.start()
        try:
            assert running.stderr.readline() == "running\n"  # what a spec prints
            running.send_signal(signal.SIGINT)
            _, err = running.communicate()
        finally:
            late.cancel()
            running.kill()
    assert running.returncode == 130
    assert err.strip() == ""


# ---------------------------------------------------------------------------------------------- list and show


def test_list_is_a_name_a_tab_and_a_title_where_nobody_looks(run):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert out == "".join(f"{cell.name}\t{cell.title}\n" for cell in builtins().values())


def test_list_keeps_brackets_in_titles_on_a_terminal(run, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run("list")
    assert "[h, x]" in out and "\t" not in out


def test_show_prints_the_equations(run):
    code, out, _ = run("show", "gru")
    assert code == 0
    assert "\nz  = sigmoid(W_z @ x + U_z @ h + b_z)\n" in out
    assert "\nh' = " in out


def test_show_prints_the_first_step_rule(run):
    assert "\nfirst:\n    h' = " in run("show", "caru")[1]


@pytest.mark.parametrize("name", builtins())
def test_what_show_prints_is_a_file_of_the_same_cell(run, tmp_path, name):
    _, out, _ = run("show", name)
    (tmp_path / "another.gate").write_text(out)
    assert run("show", "another.gate") == (0, out, "")


def test_show_takes_every_cell_of_a_file(run, spec, tmp_path):
    with open(tmp_path / spec, "a") as file:
        file.write('other = Cell("other", Eq(h.next, W @ x + U @ h))\n')
    _, out, _ = run("show", spec, "--format", "json")
    assert [cell["name"] for cell in json.loads(out)] == ["mine", "other"]


@pytest.mark.parametrize("name", builtins())
@pytest.mark.parametrize("stage", ["equations", "graph", "adjoint", "plan", "kernels"])
def test_every_stage_of_every_cell_has_a_text(run, name, stage):
    code, out, err = run("show", name, "--stage", stage)
    assert (code, err) == (0, "") and out.strip()


@pytest.mark.parametrize("stage", ["equations", "graph", "adjoint", "plan", "kernels"])
def test_json_is_json(run, stage):
    shown = json.loads(run("show", "gru", "--stage", stage, "--format", "json")[1])
    assert shown["name"] == "gru" if stage in ("equations", "plan", "kernels") else shown[0]["ops"]


def test_json_has_the_sizes_that_were_inferred(run):
    shown = json.loads(run("show", "gru", "--format", "json")[1])
    assert shown["parameters"]["W_z"] == {
        "role": "matrix",
        "shape": ["hidden", "input"],
        "trainable": True,
        "initial": None,
    }
    assert shown["equations"][0] == {"name": "z", "expression": "sigmoid(W_z @ x + U_z @ h + b_z)"}


def test_latex_distinguishes_the_two_products(run):
    _, out, _ = run("show", "gru", "--format", "latex")
    assert r"n &= \tanh\left(W_{h} x + U_{h} \left(r \odot h\right) + b_{h}\right)" in out
    assert out.count(r"\begin{aligned}") == 1


# ---------------------------------------------------------------------------------------------- build


def test_build_tells_what_it_wrote(run, fake, tmp_path):
    code, out, err = run("build", "gru")
    files = [os.path.join("generated", f"gru_fake.{ending}") for ending in ("py", "txt")]
    assert (code, err) == (0, "") and out.startswith("".join(f"wrote {file}\n" for file in files) + "cell\t")
    code, out, _ = run("build", "gru")
    assert code == 0 and out.startswith("2 files are up to date\ncell\t")


def test_build_ends_with_a_table_of_what_the_cells_come_to(run, fake):
    header, gru, rnn = run("build", "gru", "rnn")[1].splitlines()[-3:]
    assert header.split("\t")[:3] == ["cell", "class", "parameters"]
    assert gru.split("\t")[:3] == ["gru", "recurrent", "3 H I + 3 H^2 + 3 H"]
    assert rnn.split("\t")[5:] == ["1 a step + 1", "1 a step + 3", "4 H"]


def test_build_without_cells_builds_all(run, fake, tmp_path):
    assert run("build", "--out", "there")[0] == 0
    assert len(list((tmp_path / "there").iterdir())) == 2 * len(builtins())


def test_check_prints_a_diff_and_ends_with_1(run, fake, tmp_path):
    run("build", "gru")
    path = tmp_path / "generated" / "gru_fake.py"
    path.write_text(path.read_text().replace("two", "2"))
    code, out, err = run("build", "gru", "--check")
    assert code == 1
    assert out.startswith("--- generated/gru_fake.py\n+++ ") and "-2\n+two\n" in out
    assert err == "1 of 2 files are stale\n"
    run("build", "gru")
    assert run("build", "gru", "--check")[:2] == (0, "2 files are up to date\n")


def test_a_file_of_somebody_else_ends_with_2_unless_forced(run, fake, tmp_path):
    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "gru_fake.py").write_text("mine\n")
    code, out, err = run("build", "gru")
    assert (code, out) == (2, "") and "gru_fake.py was not written by gategen" in err
    assert run("build", "gru", "--force")[0] == 0


def test_set_changes_a_constant(run, spec, monkeypatch):
    seen = []

    class Noting(FakeBackend):
        def files(self, plan):
            seen.append({c.name: c.value for c in plan.cell.constants})
            return super().files(plan)

    monkeypatch.setattr(backends, "find", Noting)
    assert run("build", spec, "gru", "--backend", "numpy", "--set", "beta=2")[0] == 0
    assert run("build", spec, "--backend", "numpy", "--set", "beta=-1e-3")[0] == 0
    assert seen == [{"beta": 2}, {}, {"beta": -1e-3}]


def test_set_knows_the_constants(run, spec, fake):
    code, _, err = run("build", spec, "--set", "gamma=2")
    assert code == 2 and "constants: beta" in err


def test_set_evaluates_no_code(run, spec, fake):
    assert run("build", spec, "--set", "beta=__import__('os').getpid()")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends.NAMES)
def test_the_same_bytes_come_out_of_every_run(tmp_path, backend):
    texts = set()
    for seed in range(8):
        out = tmp_path / str(seed)
        done = program(
            "build", "gru", "lstm", "sligru", "--backend", backend, "--out", str(out),
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        texts.add(tuple((path.name, path.read_bytes()) for path in sorted(out.iterdir())))
    assert len(texts) == 1


# ---------------------------------------------------------------------------------------------- verify


def test_verify_prints_a_row_of_tabs_for_every_cell(run):
    code, out, err = run("verify", "gru", "rnn", "--backend", "numpy")
    assert (code, err) == (0, "")
    header, *rows = (line.split("\t") for line in out.splitlines())
    assert header[:4] == ["cell", "backend", "where", "complex step"]
    assert [(row[0], row[2], row[-1]) for row in rows] == [("gru", "CPU", "ok"), ("rnn", "CPU", "ok")]


def test_a_new_spec_can_be_built_and_verified_at_once(run):
    assert run("new", "mine", "--from", "caru")[0] == 0
    assert run("build", "mine.py", "--backend", "numpy")[0] == 0
    assert run("verify", "mine.py", "--backend", "numpy")[0] == 0
    assert run("build", "mine.py", "--backend", "numpy", "--check")[0] == 0


# ---------------------------------------------------------------------------------------------- text form

ELMAN = "h' = tanh(W_h @ x + U_h @ h + b_h)"


def test_a_gate_file_is_shown_built_and_verified(run, tmp_path):
    (tmp_path / "mine.gate").write_text(ELMAN)
    assert ELMAN in run("show", "mine.gate")[1]
    assert run("build", "mine.gate", "--backend", "numpy")[0] == 0
    assert (tmp_path / "generated" / "mine_numpy.py").exists()
    assert run("verify", "mine.gate", "--backend", "numpy")[0] == 0


def test_a_cell_can_be_written_on_the_command_line(run, tmp_path):
    code, out, _ = run("build", "--equations", ELMAN, "--name", "mine", "--backend", "numpy")
    assert code == 0 and out.startswith(f"wrote {os.path.join('generated', 'mine_numpy.py')}\n")
    assert ELMAN in run("show", "--equations", ELMAN)[1]
    code, out, _ = run("verify", "--equations", ELMAN, "--name", "mine", "--backend", "numpy")
    assert code == 0 and out.splitlines()[1].startswith("mine\tnumpy")


def test_equations_may_stand_in_several_options_lines_and_parts(run):
    parts = ("states: h[6]", "z = sigmoid(W_z @ x)", "h' = z * h")
    separated = [("--equations", joint.join(parts)) for joint in ("; ", ";", "\n")]
    repeated = tuple(word for part in parts for word in ("--equations", part))
    shown = {run("show", *given)[:2] for given in (*separated, repeated)}
    assert len(shown) == 1 and shown.pop()[0] == 0


@pytest.mark.parametrize("command", ["show", "build", "verify"])
def test_a_mistake_in_equations_names_the_option(run, command):
    code, out, err = run(command, "--equations", f"{ELMAN}; z = q")
    assert (code, out) == (2, "")
    assert err == (
        "--equations:2: q is not known\n    z = q\n    hint: declare what it is: "
        "constants: q = 0.1, a number; inputs: q[1], read at every step; vectors: q, trained\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("build", "gru", "--equations", ELMAN),
        ("build", "gru", "rnn", "--name", "mine"),
        ("build", "rnn", "--name", "gru"),
        ("verify", "gru", "--set", "nothing=1"),
        ("diff", "gru", "gru", "--set", "nothing=1"),
        ("show", "--name", "mine"),
        ("build", "--equations", ELMAN, "--name", "two words"),
        ("build", "--equations", ELMAN, "--name", "../mine"),
        ("build", "--equations", ""),
        ("new", "mine-1.gate"),
    ],
    ids=" ".join,
)
def test_equations_used_wrongly_end_with_2(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.strip() and "Traceback" not in err


@pytest.mark.parametrize("name", builtins())
def test_new_writes_the_text_form_of_the_same_equations(run, name):
    code, out, err = run("new", "mine.gate", "--from", name)
    assert (code, err) == (0, "") and out.startswith("wrote mine.gate")
    mine, theirs = (json.loads(run("show", cell, "--format", "json")[1]) for cell in ("mine.gate", name))
    assert mine["name"] == "mine"
    for key in ("equations", "first", "states", "outputs", "constants", "inputs", "parameters"):
        assert mine[key] == theirs[key]


def test_new_overwrites_no_gate_file(run, tmp_path):
    assert run("new", "mine.gate")[0] == 0
    before = (tmp_path / "mine.gate").read_text()
    assert run("new", "mine.gate", "--from", "lstm")[0] == 2
    assert (tmp_path / "mine.gate").read_text() == before


# ---------------------------------------------------------------------------------------------- bench


def test_bench_prints_a_row_for_every_cell(run, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    code, out, _ = run("bench", "gru", "ligru")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["cell", "gru", "ligru"]


def test_bench_calls_inputs_and_sizes_as_the_module_does(run, tmp_path, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    (tmp_path / "odd.py").write_text(
        "from gategen import Cell, Eq, batch_norm, inputs, matrices, states, tanh\n"
        "x, s, h, c = inputs('x'), inputs('state', size='hidden'), states('h'), states('c', size='k')\n"
        "W, V = matrices('W'), matrices('V', shape=('k', 'hidden'))\n"
        "K = matrices('K', shape=('hidden', 'k'))\n"
        "odd = Cell('odd', Eq(h.next, tanh(W @ batch_norm(x) + s + K @ c)), Eq(c.next, tanh(V @ h)))\n"
    )
    code, out, _ = run("bench", "odd.py")
    assert code == 0 and "odd" in out


def test_bench_does_without_torch(run, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    monkeypatch.setattr("gategen.bench.find_spec", lambda name: None)
    code, out, _ = run("bench", "rnn")
    assert code == 0 and out.splitlines()[1].split("\t")[3:6] == ["-", "-", "-"]


def test_bench_has_a_column_of_c(run, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    code, out, _ = run("bench", "rnn")
    header, row = (line.split("\t") for line in out.splitlines())
    assert code == 0 and header[2] == "C ms" and len(header) == len(row)
    assert float(row[2]) > 0 if any(map(shutil.which, ("cc", "gcc", "clang"))) else row[2] == "-"


def test_bench_does_without_a_compiler_of_c(run, monkeypatch):
    def library(dtype):
        raise RuntimeError("no compiler")

    def compiled(cell, backend="numpy"):
        return SimpleNamespace(library=library) if backend == "c" else compile(cell)

    monkeypatch.setattr("gategen.bench.RUNS", 1)
    monkeypatch.setattr("gategen.bench.compile", compiled)
    code, out, _ = run("bench", "rnn")
    row = out.splitlines()[1].split("\t")
    assert code == 0 and float(row[1]) > 0 and row[2] == row[5] == "-"


# ---------------------------------------------------------------------------------------------- new


@pytest.mark.parametrize("name", builtins())
def test_new_writes_a_spec_of_the_same_equations(run, name):
    code, out, err = run("new", f"my_{name}", "--from", name)
    assert (code, err) == (0, "") and out.startswith(f"wrote my_{name}.py")
    mine, theirs = (json.loads(run("show", cell, "--format", "json")[1]) for cell in (f"my_{name}.py", name))
    for key in ("equations", "first", "states", "outputs", "constants", "inputs"):
        assert mine[key] == theirs[key]


def test_new_keeps_everything_that_a_spec_can_say(run, tmp_path):
    (tmp_path / "rich.py").write_text(
        textwrap.dedent("""
        from gategen import *
        from sympy import Heaviside

        x = inputs("x")
        mask = inputs("mask", size=1)
        h, c = states("h c")
        p = states("p", size="projection", initial=0.5)
        b0, v = vectors("b0 v")
        s = states("s", initial=2 * b0 + 1)
        W, U, Q = matrices("W U Q")
        A = matrices("A", shape=("hidden", ("hidden", "input")), trainable=False)
        alpha = scalars("alpha")
        k = constants(k=3)
        g, q = gates("g q")
        rich = Cell(
            "rich",
            Eq(g, where(equal(mask, 0), gelu(W @ x) * alpha, Heaviside(h)) - 2 * (U @ (b0 * h))),
            Eq(q, Q.T @ (g / 2) + A.T @ h - W.T @ s if False else Q.T @ (g / 2)),
            Eq(h.next, A @ concat(h, x) + mean(c) - v * (Q @ p) / (1 + square(c)) ** 1.5),
            Eq(c.next, c * k * sqrt(mask + h.next**2)),
            Eq(p.next, p - minimum(q, 0.1)),
            Eq(s.next, stop_gradient(s) / sqrt(2 + s**2)),
            output=(h.next, q),
            title='A "quoted" one',
        )
        """)
    )
    assert run("new", "poor", "--from", "rich.py")[0] == 0
    mine, theirs = (json.loads(run("show", cell, "--format", "json")[1]) for cell in ("poor.py", "rich.py"))
    for key in set(mine) - {"name", "title", "reference", "parameters", "summary"}:
        assert mine[key] == theirs[key], key
    assert dict(sorted(mine["parameters"].items())) == dict(sorted(theirs["parameters"].items()))


def test_new_overwrites_nothing(run, tmp_path):
    (tmp_path / "mine.py").write_text("precious\n")
    code, _, err = run("new", "mine")
    assert code == 2 and "mine.py exists" in err
    assert (tmp_path / "mine.py").read_text() == "precious\n"


def test_new_takes_the_name_with_its_ending_too(run, tmp_path):
    assert run("new", "mine.py")[0] == 0
    assert (tmp_path / "mine.py").exists()


def test_new_writes_lines_that_say_what_to_do(run, tmp_path):
    run("new", "mine")
    text = (tmp_path / "mine.py").read_text()
    assert "gategen build mine.py" in text and "gategen verify mine.py" in text
    assert text.count("\n# ") >= 5


# ---------------------------------------------------------------------------------------------- doctor


def test_doctor_says_of_everything_whether_it_was_found(run):
    code, out, _ = run("doctor")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [
        "NumPy",
        "SymPy",
        "CuPy",
        "GPU",
        "C++ compiler",
        "C compiler",
        "PyTorch",
        "ONNX",
    ]
    assert all(len(row) == 3 and all(row) for row in rows)


def test_what_a_spec_prints_does_not_stand_among_the_results(run, spec, tmp_path):
    path = tmp_path / spec
    path.write_text("print('loading')\n" + path.read_text())
    code, out, err = run("show", spec, "--format", "json")
    assert code == 0 and json.loads(out)["name"] == "mine" and err == "loading\n"


def test_build_says_that_it_overwrites_what_was_edited(run, tmp_path):
    run("build", "rnn", "--backend", "numpy")
    path = tmp_path / "generated" / "rnn_numpy.py"
    path.write_text(path.read_text() + "mine = 1\n")
    code, _, err = run("build", "rnn", "--backend", "numpy")
    assert (
        code == 0 and err.startswith("gategen: overwriting what was edited by hand") and "rnn_numpy.py" in err
    )


def test_constants_can_be_set_wherever_a_cell_is_given(run, spec, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    assert json.loads(run("show", spec, "--set", "beta=3", "--format", "json")[1])["constants"] == {"beta": 3}
    assert "constants: beta = 3\n" in run("show", spec, "--set", "beta=3")[1]
    assert json.loads(run("show", spec, "--name", "other", "--format", "json")[1])["name"] == "other"
    assert run("verify", spec, "--set", "beta=3", "--name", "other")[1].splitlines()[1].startswith("other\t")
    assert run("bench", spec, "--set", "beta=3", "--name", "other")[1].splitlines()[1].startswith("other\t")
    one = "constants: beta=1\nh' = tanh(beta * (W_h @ x) + U_h @ h)"
    with open("one.gate", "w") as file:
        file.write(one.replace("beta=1", "beta=3"))
    assert run("diff", "one.gate", spec)[0] == 1
    assert run("diff", "one.gate", spec, "--set", "beta=2")[0] == 0


def test_heads_can_be_set_wherever_a_cell_is_given(run, spec, tmp_path, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    given = ("--set", "heads=4")
    shown = run("show", spec, *given, "--set", "beta=3")[1]
    assert "matrices: U[hidden, hidden/4], W\n" in shown and "constants: beta = 3\n" in shown
    (tmp_path / "one.gate").write_text(shown)
    assert run("show", "one.gate")[1] == shown
    assert run("diff", "slstm", "slstm_heads", *given)[0] == 0
    assert run("diff", "slstm", "slstm_heads")[0] == 1
    assert run("build", "slstm", *given, "--backend", "numpy")[0] == 0
    assert {path.name for path in (tmp_path / "generated").iterdir()} == {"slstm_numpy.py"}
    code, out, _ = run("verify", "slstm", *given, "--backend", "numpy")
    assert code == 0 and "slstm_numpy.py" in out
    assert run("build", "slstm", *given, "--backend", "numpy", "--check")[0] == 0
    assert run("build", "slstm", "--backend", "numpy", "--check")[0] == 1
    assert run("bench", "lstm", *given)[1].splitlines()[1].split("\t")[3] == "-"  # torch has no heads
    shape = json.loads(run("show", "lstm", *given, "--format", "json")[1])["parameters"]["U_f"]["shape"]
    assert shape == ["hidden", "hidden/4"]


@pytest.mark.parametrize(
    "command, reason",
    [
        (("show", "gru", "--set", "heads=2.5"), "heads is a whole number, not 2.5"),
        (("show", "gru", "--set", "heads=1"), "heads is a whole number, 2 or more, not 1"),
        (("show", "gru", "--set", "heads=nan"), "heads must be a finite number"),
        (("build", "gla", "--set", "heads=4"), "with heads=4: gla has no size heads, and no weight"),
        (("verify", "cayley_rnn", "--set", "heads=4"), "takes U_h whole, and heads would cut it into blocks"),
        (("diff", "lstm", "gru_concat", "--set", "heads=4"), "A_r has the columns (hidden, input)"),
    ],
)
def test_heads_that_a_cell_cannot_have_are_refused(run, command, reason):
    code, _, err = run(*command)
    assert code == 2 and reason in err


def test_a_constant_that_is_called_heads_is_a_constant(run):
    text = "constants: heads = 2\nh' = tanh(W_h @ x + heads * (U_h @ h))"
    code, out, _ = run("show", "--equations", text, "--set", "heads=3.5")
    assert code == 0 and "constants: heads = 3.5\n" in out and "hidden/" not in out


def test_a_cell_with_other_constants_can_have_a_name_of_its_own_and_is_verified_under_it(run, tmp_path):
    asked = ("cornn", "--set", "dt=0.5", "--name", "slow", "--backend", "numpy")
    assert run("build", *asked)[0] == 0
    assert {path.name for path in (tmp_path / "generated").iterdir()} == {"slow_numpy.py"}
    code, out, _ = run("verify", *asked)
    assert code == 0 and "slow_numpy.py" in out
    assert run("build", *asked, "--check")[0] == 0


@pytest.mark.parametrize("columns", ["80", "40"])
def test_a_narrow_terminal_cuts_no_name_of_a_cell(run, fake, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = run("build", "lstm_peephole", "libru_geomean", "gru")[1]
    assert {"lstm_peephole", "libru_geomean", "gru"} <= {line.split(" ")[0] for line in out.splitlines()}


def test_bench_measures_the_sizes_and_threads_that_are_asked_for(run, monkeypatch):
    monkeypatch.setattr("gategen.bench.RUNS", 1)
    sizes = ("--steps", "3", "--batch", "2", "--input", "5", "--hidden", "7")
    assert run("bench", "rnn", *sizes)[1].splitlines()[1].endswith("\tT=3 B=2 I=5 H=7 float32")
    assert run("bench", "rnn", "--hidden", "0")[0] == 2
    assert run("bench", "rnn", "--threads", "1")[0] == 2  # NumPy has its threads already
    done = program("bench", "rnn", *sizes, "--threads", "1", timeout=MINUTES)
    assert done.returncode == 0 and done.stdout.splitlines()[1].endswith("float32 threads=1")
