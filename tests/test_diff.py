"""`gategen diff`: which cells are the same function, under which names, and where others part."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
from helpers import cell_of

import gategen
from gategen import (
    Cell,
    Eq,
    cli,
    concat,
    constants,
    exp,
    gates,
    inputs,
    log,
    matrices,
    relu,
    scalars,
    sigmoid,
    states,
    tanh,
    vectors,
    where,
)
from gategen.diff import ALIKE, CHANGED, DIFFERENT, MOVED, SAME, UNLIKE, diff, text
from gategen.diff.normal import Normal
from gategen.diff.reading import Reading, merged
from gategen.show.export import difference
from gategen.spec import language as lang
from gategen.spec.load import builtins, load_all

SPECS = sorted(map(str, (Path(__file__).parent / "specs").glob("*.py")))
BUILTIN = dict(builtins())
CELLS = BUILTIN | {cell.name: cell for cell in load_all(SPECS)}

pytestmark = pytest.mark.filterwarnings("ignore::gategen.errors.SpecWarning")
every_cell = pytest.mark.parametrize("name", CELLS)

x, mask = inputs("x"), inputs("mask", size=1)
h, c = states("h c")
W, V, P = matrices("W V P", shape=("hidden", "input"))
U = matrices("U", shape=("hidden", "hidden"))
b, d, e, g = vectors("b d e g")
z, n = gates("z n")


def of(*names: str) -> Any:
    return diff(*(CELLS[name] for name in names))


def marks(found: Any) -> str:
    return "".join(line.mark for line in found.equations)


def renamed(cell: Cell, seed: int = 0, shuffle: bool = True) -> Cell:
    """The same cell under other names, its equations in another order."""
    rng = np.random.default_rng(seed)
    letters = iter(rng.permutation(400))
    swap: dict[Any, Any] = {}
    constant = {k: k for k in cell.constants}
    for symbol in sorted(cell.symbols - constant.keys(), key=str):
        if not isinstance(symbol, (lang.Next, lang.State, lang.Count)):
            swap[symbol] = type(symbol)(f"q{next(letters)}", *symbol.fields)
    for state in cell.states:
        new = lang.State(f"q{next(letters)}", state.size, state.initial.xreplace(swap), state.fields[-1])
        swap |= {state: new, state.next: new.next}

    def equations(given: Any) -> list[Eq]:
        made = [Eq(eq.lhs.xreplace(swap), eq.rhs.xreplace(swap)) for eq in given]
        return [made[k] for k in rng.permutation(len(made))] if shuffle else made

    outputs = tuple(symbol.xreplace(swap) for symbol in cell.outputs)
    return Cell("other", *equations(cell.equations), output=outputs, first=equations(cell.first))


# ---------------------------------------------------------------------------------------------- the same


@every_cell
def test_a_cell_is_the_same_as_itself(name):
    found = of(name, name)
    assert (found.verdict, found.error) == (SAME, 0)
    assert set(marks(found)) == {ALIKE}
    assert all(ours == theirs for ours, theirs in found.renaming)


@every_cell
def test_a_cell_is_the_same_under_other_names_and_in_another_order(name):
    found = diff(CELLS[name], renamed(CELLS[name]))
    assert found.verdict == SAME
    unread = {MOVED} if name == "told" else set()  # an equation that nothing reads
    assert set(marks(found)) == {ALIKE, *unread}
    started = {symbol for state in CELLS[name].states for symbol in state.initial.free_symbols}
    idle = started if CELLS[name].first else set()  # an own start that a first-step rule does without
    names = {a.name for a in CELLS[name].arrays if not idle.intersection(a.members)}
    if name == "vanishing":
        names -= {"U"}  # which multiplies nothing but 0
    assert {ours.split("[")[0] for ours, _ in found.renaming} >= names


def test_states_can_trade_their_places():
    i, f, o = gates("i f o")
    W_i, W_f, W_g, W_o, U_i, U_f, U_g, U_o = matrices("W_i W_f W_g W_o U_i U_f U_g U_o")
    b_i, b_f, b_g, b_o = vectors("b_i b_f b_g b_o")
    swapped = cell_of(
        Eq(h.next, f * h + i * n),
        Eq(c.next, o * tanh(h.next)),
        Eq(i, sigmoid(b_i + U_i @ c + W_i @ x)),
        Eq(f, sigmoid(b_f + U_f @ c + W_f @ x)),
        Eq(o, sigmoid(b_o + U_o @ c + W_o @ x)),
        Eq(n, tanh(b_g + U_g @ c + W_g @ x)),
        output=c.next,
    )
    found = diff(CELLS["lstm"], swapped)
    assert found.verdict == SAME
    assert {("h", "c"), ("c", "h"), ("g", "n")} <= set(found.renaming)


def test_an_mgu_under_other_names_is_found():
    V_n, R_n, V_u, R_u = matrices("V_n R_n V_u R_u")
    copy = cell_of(
        Eq(c.next, c + z * (n - c)),
        Eq(n, tanh(V_n @ x + R_n @ (c * z) + d)),
        Eq(z, sigmoid(V_u @ x + R_u @ c + e)),
    )
    found = diff(CELLS["mgu"], copy)
    assert found.verdict == SAME
    assert {("W_f", "V_u"), ("U_h", "R_n"), ("b_h", "d"), ("f", "z"), ("h", "c")} <= set(found.renaming)


PAIRS = {
    "factored": ((1 - z) * h + z * tanh(U @ h), h + z * (tanh(U @ h) - h)),
    "spread over a product": (U @ (h + z) + W @ x, U @ h + W @ x + U @ z),
    "a number through a product": (U @ (2 * h), 2 * (U @ h)),
    "a power": ((h + z) ** 2, h**2 + 2 * h * z + z**2),
    "an odd function": (tanh(-(U @ h) - b), -tanh(U @ h + b)),
    "a sigmoid": (sigmoid(-(U @ h) - b), 1 - sigmoid(U @ h + b)),
    "a fraction": ((h + z) / (1 + h**2), h / (h**2 + 1) + z / (h**2 + 1)),
    "a comparison": (where(h > z, h, b), where(z < h, h, b)),
    "a decimal": (0.5 * h, h / 2),
    "arguments of a maximum": (gategen.maximum(h, z), gategen.maximum(z, h)),
    "a root": (gategen.sqrt(h**2 + 1) * gategen.sqrt(h**2 + 1), h**2 + 1),
}


@pytest.mark.parametrize("what", PAIRS)
def test_the_same_expression_in_another_form_is_the_same(what):
    one, other = (cell_of(Eq(z, sigmoid(W @ x)), Eq(h.next, rhs)) for rhs in PAIRS[what])
    found = diff(one, other)
    assert (found.verdict, found.note) == (SAME, "")
    assert Normal()(one.equations[-1].rhs) == Normal()(other.equations[-1].rhs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (gategen.sqrt(h**2), h),
        (abs(h), h),
        (sigmoid(h), tanh(h)),
        (h - z, z - h),
        (where(h > 0, h, 0), where(h < 0, h, 0)),
        (U @ (z * h), z * (U @ h)),
        (gategen.mean(h), gategen.sum_(h)),
    ],
    ids=str,
)
def test_what_only_looks_alike_is_different(one, other):
    found = diff(*(cell_of(Eq(z, sigmoid(W @ x)), Eq(h.next, rhs)) for rhs in (one, other)))
    assert found.verdict == DIFFERENT


def test_gates_that_are_written_out_make_no_difference():
    short = cell_of(Eq(h.next, sigmoid(W @ x + b) * h))
    long = cell_of(Eq(z, sigmoid(W @ x + b)), Eq(h.next, z * h))
    found = diff(short, long)
    assert found.verdict == SAME
    assert [line.mark for line in found.equations] == [MOVED, MOVED]


def test_equal_numbers_are_the_last_word():
    one = cell_of(Eq(h.next, sigmoid(W @ x + U @ h)))
    other = cell_of(Eq(h.next, 1 / (1 + exp(-(W @ x + U @ h)))))
    found = diff(one, other)
    assert found.verdict == SAME and found.error < 1e-12
    assert found.note == "equal on random numbers; no common form was found"


def test_constants_are_compared_by_value():
    def leaky(**value: float) -> Cell:
        return cell_of(Eq(h.next, tanh(constants(**value) * (W @ x) + U @ h)))

    assert diff(leaky(alpha=0.5), leaky(beta=0.5)).verdict == SAME
    assert diff(leaky(alpha=0.5), leaky(alpha=0.25)).verdict == DIFFERENT


# ---------------------------------------------------------------------------------------------- parameters


WORDS = {
    "leaky_relu": (lang.leaky_relu(h, 0.2), where(h >= 0, h, 0.2 * h)),
    "elu": (lang.elu(h), where(h > 0, h, exp(lang.minimum(h, 0)) - 1)),
    "silu": (lang.silu(h), h * sigmoid(h)),
    "gelu": (lang.gelu(h), h * (1 + sp.erf(h * 0.7071067811865476)) / 2),
    "log_sigmoid": (lang.log_sigmoid(h), -lang.softplus(-h)),
    "softsign": (lang.softsign(h), h / (1 + abs(h))),
    "hard_sigmoid": (lang.hard_sigmoid(h, 0.2), lang.clip(0.2 * h + 0.5, 0, 1)),
    "hard_tanh": (lang.hard_tanh(h), lang.clip(h, -1, 1)),
    "layer_norm": (lang.layer_norm(h, g, b), g * (h - lang.mean(h)) / lang.sqrt(lang.var(h) + 1e-5) + b),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_word_is_its_formula_but_is_printed_as_a_word(name):
    word, formula = (cell_of(Eq(h.next, tanh(W @ x) + expr)) for expr in WORDS[name])
    assert diff(word, formula).verdict == SAME
    assert f"{name}(h" in word.text()[0] and name not in formula.text()[0]


def test_gru_and_gru_before_differ_by_the_sign_of_z():
    found = of("gru", "gru_before")
    assert found.verdict == CHANGED and found.error < 1e-12
    assert {(ours, theirs) for ours, theirs in found.renaming if ours != theirs} == {
        ("W_z", "-W_z"), ("U_z", "-U_z"), ("b_z", "-b_z"), ("z", "1 - z"),
    }  # fmt: skip
    assert marks(found) == "   ~"


def test_gru_and_gru_concat_differ_by_stacking():
    found = of("gru", "gru_concat")
    assert found.verdict == CHANGED and found.error < 1e-12
    assert {("U_h", "A_h[:, block 0]"), ("W_h", "A_h[:, block 1]")} <= set(found.renaming)


def test_the_same_stacking_is_no_change():
    assert diff(CELLS["gru_concat"], renamed(CELLS["gru_concat"])).verdict == SAME


def test_columns_stacked_in_the_other_order_are_a_change():
    A = matrices("A", shape=("hidden", ("hidden", "input")))
    B = matrices("B", shape=("hidden", ("input", "hidden")))
    one, other = cell_of(Eq(h.next, tanh(A @ concat(h, x)))), cell_of(Eq(h.next, tanh(B @ concat(x, h))))
    assert diff(one, other).verdict == CHANGED


def test_two_biases_that_are_only_added_are_one():
    one = cell_of(Eq(h.next, tanh(W @ x + b + U @ h + d)))
    other = cell_of(Eq(h.next, tanh(W @ x + U @ h + g)))
    found = diff(one, other)
    assert found.verdict == CHANGED and found.error < 1e-12
    assert ("b + d", "g") in found.renaming


def test_two_biases_that_also_stand_alone_are_not_one():
    one = cell_of(Eq(h.next, tanh(W @ x + b + U @ h + d) + b))
    other = cell_of(Eq(h.next, tanh(W @ x + U @ h + g) + g))
    assert diff(one, other).verdict == DIFFERENT


@pytest.mark.parametrize(
    ("right", "same"),
    [
        ("tanh(W_h @ x + b_h + c_h)", True),
        ("tanh(W_h @ x + c_h + 2 * b_h)", False),  # not so where they weigh differently
        ("tanh(W_h @ x + b_h * c_h)", False),
        ("tanh(W_h @ x) * (b_h + c_h)**2", True),
        ("tanh(W_h @ x) * (b_h**2 + c_h**2)", False),
        ("tanh(W_h @ x) * b_h * h + tanh(W_h @ x) * c_h * h", True),
        ("tanh(W_h @ x + b_h + c_h) + sigmoid(h * b_h + h * c_h)", True),
        ("tanh(W_h @ x + b_h + c_h) + sigmoid(h * b_h - h * c_h)", False),
        ("tanh(W_h @ x + b_h + c_h) + b_h", False),
        ("sqrt(exp(b_h + c_h) + (W_h @ x)**2)", True),
        ("tanh(W_h @ x + b_h + c_h + p_h)", True),  # and of three
        ("W_h @ x + tanh(R_h @ h + V_h @ h)", True),  # matrices of one operand
        ("W_h @ x + tanh(R_h @ h + V_h @ tanh(h))", False),
    ],
)
def test_parameters_are_one_where_their_sum_is_all_that_counts(right, same):
    cell = Cell.parse("cell", f"h' = {right}")
    dropped = merged(Reading(cell)).dropped
    assert bool(dropped) == same
    assert diff(cell, cell).verdict == SAME


def test_of_many_that_look_alike_those_that_are_left_are_paired_in_their_order(monkeypatch):
    def text(gate: str, factor: int) -> str:
        lines = [f"{gate}{k} = sigmoid(W_{gate}{k} @ x + b_{gate}{k})" for k in range(6)]
        total = " + ".join(f"{gate}{k} * {gate}{k + 1}" for k in range(0, 6, 2))
        return "\n".join([*lines, f"h' = {factor} * tanh(U_{gate} @ h + {total})"])

    left, right = Cell.parse("one", text("z", 1)), Cell.parse("other", text("u", 2))
    one_by_one = diff(left, right)
    monkeypatch.setattr(importlib.import_module("gategen.diff.match"), "LOOKS", -1)
    at_once = diff(left, right)
    assert at_once.verdict == DIFFERENT and ("W_z3", "W_u3") in at_once.renaming
    assert at_once == one_by_one


def test_what_is_not_trained_is_not_changed():
    fixed = vectors("fixed", trainable=False)
    one = cell_of(Eq(h.next, tanh(W @ x + b + U @ h + fixed)))
    assert diff(one, cell_of(Eq(h.next, tanh(W @ x + U @ h + g)))).verdict == DIFFERENT


def test_two_matrices_on_one_vector_are_one():
    one = cell_of(Eq(h.next, tanh(W @ x + V @ x + U @ h)))
    found = diff(one, cell_of(Eq(h.next, tanh(W @ x + U @ h))))
    assert found.verdict == CHANGED
    assert any(ours in ("V + W", "W + V") and theirs == "W" for ours, theirs in found.renaming)


@pytest.mark.parametrize("pair", [("gru", "gru_before"), ("gru_after", "gru"), ("mgu", "gru")], ids="-".join)
def test_the_answer_does_not_depend_on_the_side(pair):
    assert of(*pair).verdict == of(*pair[::-1]).verdict


# ---------------------------------------------------------------------------------------------- different


def test_the_reset_gate_before_and_after_the_product():
    found = of("gru", "gru_after")
    assert found.verdict == DIFFERENT
    assert found.first.left.startswith("n = tanh(") and found.first.right.startswith("n = tanh(")
    assert marks(found) == "~~!~"


def test_gru_cho_has_no_biases():
    found = of("gru", "gru_cho")
    assert found.verdict == DIFFERENT
    assert found.first.left == "z = sigmoid(W_z @ x + U_z @ h + b_z)"
    assert marks(found) == "!!!~"


def test_caru_and_its_code_differ_in_the_first_step_alone():
    found = of("caru", "caru_code")
    assert found.verdict == DIFFERENT and found.error > 1e-3
    assert set(marks(found)) == {ALIKE}
    assert [line.mark for line in found.first_step] == [UNLIKE]
    assert found.first == found.first_step[0]


def test_a_rule_for_the_first_step_on_one_side_alone_is_a_difference():
    without = cell_of(*CELLS["caru"].equations)
    for found in (diff(CELLS["caru"], without), diff(without, CELLS["caru"])):
        assert found.verdict == DIFFERENT
        assert [line.mark for line in found.first_step] == [UNLIKE]


def test_another_initial_value_is_a_difference_of_the_first_step():
    one, other = (states("s", initial=value) for value in (0, 1))
    found = diff(*(cell_of(Eq(s.next, tanh(W @ x + U @ s))) for s in (one, other)))
    assert found.verdict == DIFFERENT and set(marks(found)) == {ALIKE}
    assert found.first == found.first_step[0]
    assert (found.first.left, found.first.right) == ("s starts from 0", "s starts from 1")


def test_other_outputs_are_a_difference():
    equations = Eq(z, sigmoid(W @ x + U @ h)), Eq(h.next, z * h + W @ x)
    found = diff(cell_of(*equations), cell_of(*equations, output=z))
    assert found.verdict == DIFFERENT
    assert (found.first.left, found.first.right) == ("output h'", "output z")


@pytest.mark.parametrize("name", BUILTIN)
def test_a_wrong_equation_is_the_one_that_is_named(name):
    cell = BUILTIN[name]
    k = len(cell.equations) // 3
    wrong = [Eq(eq.lhs, eq.rhs + sp.Rational(int(j == k), 3)) for j, eq in enumerate(cell.equations)]
    found = diff(cell, Cell("wrong", *wrong, output=cell.outputs, first=cell.first))
    assert found.verdict == DIFFERENT and found.error > 1e-6
    assert [line.mark for line in found.equations] == [UNLIKE if j == k else ALIKE for j in range(len(wrong))]


def test_a_wrong_equation_is_found_under_other_names_too():
    cell = BUILTIN["gru"]
    wrong = [
        Eq(e.lhs, e.rhs if e.lhs.name != "n" else e.rhs.subs(gates("r"), gates("z"))) for e in cell.equations
    ]
    found = diff(cell, renamed(Cell("wrong", *wrong), seed=3))
    assert [line.mark for line in found.equations] == list("  ! ")


def test_a_missing_gate_is_shown_alone():
    found = of("mgu", "gru")
    assert [(line.left == "", line.mark) for line in found.equations][-1] == (True, UNLIKE)
    assert found.error is None


def test_inputs_of_other_sizes_do_not_correspond():
    wide = inputs("wide")
    one = cell_of(Eq(h.next, tanh(W @ x + U @ h) * mask))
    other = cell_of(Eq(h.next, tanh(W @ x + U @ h) * gategen.mean(wide)))
    found = diff(one, other)
    assert (found.verdict, found.error) == (DIFFERENT, None)


def test_what_is_trained_on_one_side_alone_is_said():
    fixed = matrices("W", shape=("hidden", "input"), trainable=False)
    found = diff(cell_of(Eq(h.next, tanh(W @ x + U @ h))), cell_of(Eq(h.next, tanh(fixed @ x + U @ h))))
    assert (found.verdict, found.note) == (SAME, "trained on one side alone: W")


def test_scalars_are_drawn_like_everything_else():
    alpha, beta = scalars("alpha"), scalars("beta")
    one = cell_of(Eq(h.next, alpha * tanh(W @ x + U @ h)))
    assert diff(one, cell_of(Eq(h.next, tanh(W @ x + U @ h) * beta))).error == 0
    assert diff(one, cell_of(Eq(h.next, beta**2 * tanh(W @ x + U @ h)))).verdict == DIFFERENT


def test_a_domain_that_is_left_on_both_sides_alike_is_no_difference():
    one = cell_of(Eq(h.next, log(W @ x)))
    found = diff(one, cell_of(Eq(h.next, log(P @ x))))
    assert found.verdict == SAME


# ---------------------------------------------------------------------------------------------- shown


def test_the_text_marks_what_differs_and_says_what_corresponds():
    lines = text(of("gru", "gru_after")).splitlines()
    assert lines[0] == "gru and gru_after: different"
    assert [line[0] for line in lines if " = " in line and line[0] in "!~" and line[1] == " "] == list("~~!~")
    assert "    b_r = b_r + c_r" in lines
    at = lines.index("first difference:")
    assert lines[at + 1].startswith("    gru        n = ") and lines[at + 2].startswith("    gru_after  n = ")


def test_long_equations_stand_below_each_other():
    lines = text(of("ligru", "sligru")).splitlines()
    assert any(line.startswith("! ligru  ") for line in lines)
    assert any(line.startswith("! sligru ") for line in lines)


def test_the_json_is_plain():
    shown = difference(of("caru", "caru_code"))
    assert json.loads(json.dumps(shown)) == shown
    assert shown["verdict"] == "different"
    assert [row["mark"] for row in shown["first_step"]] == ["different"]


def test_diff_is_a_name_of_the_package():
    assert gategen.diff(BUILTIN["gru"], BUILTIN["gru"]).same


def test_names_paths_and_cells_can_be_compared_alike(tmp_path):
    (path := tmp_path / "mine.gate").write_text("h' = tanh(W_h @ x + U_h @ h + b_h)\n")
    assert gategen.diff("gru", BUILTIN["gru"]).same
    assert not gategen.diff("gru", "gru_after").same
    assert gategen.diff(path, str(path)).left == "mine"
    cells = "gru", "lstm"
    (two := tmp_path / "two.py").write_text("\n".join(f"from gategen.cells.{c} import {c}" for c in cells))
    with pytest.raises(gategen.GategenError, match="holds 2 cells, and one is wanted here: gru, lstm"):
        gategen.diff("gru", two)


# ---------------------------------------------------------------------------------------------- command line


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gategen", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return (caught.value.code or 0, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("pair", "code"), [(("gru", "gru"), 0), (("gru", "gru_before"), 0), (("gru", "gru_after"), 1)]
)
def test_the_exit_code_is_the_answer(run, pair, code):
    found, out, err = run("diff", *pair)
    assert (found, err) == (code, "")
    assert out.startswith(f"{pair[0]} and {pair[1]}: ")


@pytest.mark.parametrize(
    "arguments", [("gru",), ("gru", "no_such_cell"), ("gru", "two.py"), ("gru", "gru", "gru")]
)
def test_wrong_usage_ends_with_2(run, tmp_path, arguments):
    (tmp_path / "two.py").write_text(
        "from gategen import *\nx, h = inputs('x'), states('h')\nW = matrices('W')\n"
        "a = Cell('a', Eq(h.next, W @ x + h))\nb = Cell('b', Eq(h.next, W @ x - h))\n"
    )
    code, out, err = run("diff", *arguments)
    assert (code, out) == (2, "") and err.strip()


def test_a_file_can_be_compared_with_a_built_in_cell(run):
    run("new", "mine", "--from", "lstm")
    code, out, _ = run("diff", "mine.py", "lstm", "--format", "json")
    assert (code, json.loads(out)["verdict"]) == (0, "same")


def test_the_answer_is_the_same_in_every_run(tmp_path):
    answers = set()
    for seed in range(3):
        done = subprocess.run(
            [sys.executable, "-m", "gategen", "diff", "lstm", "gru"],
            capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "")
        answers.add(done.stdout)
    assert len(answers) == 1


def test_relu_has_no_sign_to_lose():
    one = cell_of(Eq(h.next, relu(W @ x + U @ h)))
    assert diff(one, cell_of(Eq(h.next, -relu(-(W @ x) - U @ h)))).verdict == DIFFERENT


def test_two_cells_of_one_name_are_told_apart():
    mine = Cell.parse("lstm", "states: h\nh' = tanh(W_h @ x + U_h @ h)", file="folder/mine.gate")
    found = diff(mine, CELLS["lstm"])
    assert (found.left, found.right) == ("lstm (mine.gate)", "lstm (built-in)")
    assert text(found).startswith("lstm (mine.gate) and lstm (built-in): different")
