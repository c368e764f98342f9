"""What `gategen show` prints: LaTeX that can be set, plain JSON, numbers that are those of a run."""

import json
import re
from functools import cache
from html import escape, unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.mathtext import MathTextParser

from gategen.plan import plan
from gategen.plan import text as plan_as_text
from gategen.show import latex, show
from gategen.show.latex import escaped, name_latex
from gategen.spec.load import builtins, load_all
from gategen.summary import summary

SPECS = sorted(map(str, (Path(__file__).parent / "specs").glob("*.py")))
BUILTIN = dict(builtins())
CELLS = BUILTIN | {cell.name: cell for cell in load_all(SPECS)}
STAGES = ("equations", "graph", "adjoint", "plan", "kernels")
SIZES = ({"input": 5, "hidden": 3}, {"input": 1, "hidden": 4}, {"input": 7, "hidden": 1})

every_cell = pytest.mark.parametrize("name", CELLS)
built_in_cell = pytest.mark.parametrize("name", BUILTIN)
every_stage = pytest.mark.parametrize("stage", STAGES)


# ---------------------------------------------------------------------------------------------- LaTeX


@cache
def shown_latex(name: str, stage: str) -> str:
    """The LaTeX of a stage without its comments."""
    lines = show(CELLS[name], stage, "latex").splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


def assert_nested(latex: str) -> None:
    """Every brace, left and environment is closed by its own kind, in order; & stands in environments."""
    pairs = {"}": "{", r"\right": r"\left"}
    open_now: list[str] = []
    for found in re.finditer(r"\\(begin|end)\{(\w+)\}|\\(?:left|right)(?![a-z])|\\.|[{}&$]", latex):
        token = found[0]
        if token.startswith(r"\begin"):
            open_now.append(found[2])
        elif token.startswith(r"\end"):
            assert open_now and open_now.pop() == found[2], f"{token} closes nothing"
        elif token in ("{", r"\left"):
            open_now.append(token)
        elif token in pairs:
            assert open_now and open_now.pop() == pairs[token], f"{token} at {found.start()} closes nothing"
        elif token == "&":
            assert open_now and open_now[-1] in ("aligned", "cases", "pmatrix", "tabular"), (
                "& outside an environment"
            )
        elif token == "$":
            assert open_now and open_now[-1] == "tabular", "mathematics within mathematics"
    assert not open_now


@every_stage
@every_cell
def test_latex_is_nested_as_it_must_be(name, stage):
    assert_nested(shown_latex(name, stage))


@every_stage
@every_cell
def test_latex_has_no_doubled_scripts(name, stage):
    text = shown_latex(name, stage)
    group = r"\{(?:[^{}]|\{[^{}]*\})*\}"
    for script in r"\^", "_":
        assert not re.search(rf"{script}{group}\s*{script}", text)
    assert not re.search(r"'(_\{[^{}]*\})?\^", text), "a prime is a superscript"


def sides(latex: str) -> list[str]:
    """Both sides of every equation, choices by cases as one letter: mathtext has no environments."""
    text = re.sub(r"\\begin\{aligned\}|\\end\{aligned\}", "", latex)
    while r"\begin{cases}" in text:
        text = re.sub(r"\\begin\{cases\}(?:(?!\\begin).)*?\\end\{cases\}", "C", text)
    return [side for line in text.split("\\\\\n") for side in line.split(" &= ")]


PARSER = MathTextParser("path")


@cache
def set_formula(latex: str) -> None:
    """Cells share many formulas; each is set once."""
    PARSER.parse(f"${latex}$")


# Every construct is in a cell of `tests/specs`; setting all of all cells would take minutes.
SET = [(name, "equations") for name in CELLS]
SET += [
    (name, s)
    for name in CELLS
    if name not in BUILTIN or name in ("gru", "lstm", "sligru")
    for s in STAGES[1:3]
]


def entries(matrix: re.Match[str]) -> str:
    """A matrix in one line."""
    return r"\left(" + matrix[1].replace("&", ",").replace(r"\\", ";") + r"\right)"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), SET)
def test_every_formula_can_be_set(name, stage):
    # Mathtext knows no environments: of a matrix its entries are set.
    text = re.sub(r"\\begin{pmatrix}(.*?)\\end{pmatrix}", entries, shown_latex(name, stage), flags=re.DOTALL)
    for block in text.split(r"\end{aligned}"):
        for side in sides(block.strip()):
            if side.strip():
                set_formula(side.strip())


@built_in_cell
def test_the_rows_of_a_plan_have_three_columns(name):
    for line in shown_latex(name, "plan").splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 2
            assert not re.search(r"(?<!\\)[_#%]", re.sub(r"\$.*?\$", "", line)), f"not escaped: {line}"


def test_the_gradients_of_the_gru_are_those_of_a_paper():
    text = shown_latex("gru", "adjoint")
    for line in (
        r"\delta h' &= \delta h^{\leftarrow} + \delta y",
        r"\delta a_{n} &= \delta n \odot \left(1 - n^{2}\right)",
        r"\delta r &= U_{h}^{\top} \delta a_{n} \odot h",
        r"\frac{\partial L}{\partial W_{z}} &= \sum_{t, b} \delta a_{z} x^{\top}",
        r"\frac{\partial L}{\partial U_{h}} &= \sum_{t, b} \delta a_{n} \left(r \odot h\right)^{\top}",
        r"\frac{\partial L}{\partial b_{z}} &= \sum_{t, b} \delta a_{z}",
    ):
        assert f"    {line} " in f"{text} ".replace("\n", " \n"), line


@every_cell
def test_the_gradient_of_every_parameter_input_and_state_is_shown(name):
    cell, text = CELLS[name], shown_latex(name, "adjoint")
    blocked = {p.name for p in cell.parameters if isinstance(cell.shapes.get(p.name, "..")[1], tuple)}
    for p in cell.parameters:
        if p.trainable and p.name not in blocked:
            assert rf"\frac{{\partial L}}{{\partial {name_latex(p.name)}}} &=" in text
    for value in (*cell.inputs, *cell.states):
        assert rf"\delta {name_latex(value.name)} &=" in text


def test_products_are_written_where_they_are_read():
    text = shown_latex("gru", "graph")
    assert r"a_{z} &= W_{z} x + U_{z} h + b_{z}" in text
    assert "W_z_x" not in text and r"\mathrm{z\_x}" not in text


def test_a_short_forward_value_is_written_out_and_a_long_one_is_defined():
    text = shown_latex("sligru", "adjoint")
    assert text.index(r"\mathrm{square}_{U, z, h} &=") < text.index(r"\delta h' &=")
    assert r"\mathrm{hr}" not in shown_latex("gru", "adjoint")


@pytest.mark.parametrize("odd", ["A[0]", "a{b", "50%", "x&y", "w_1_2", "$x$", "a^b", "#", "~", "back\\slash"])
def test_odd_names_are_escaped(odd):
    assert_nested(rf"\begin{{tabular}}{name_latex(odd)} {escaped(odd)}\end{{tabular}}")
    bare = re.sub(r"\\.", "", name_latex(odd))
    assert not set(bare) & set("$#%~&")


def test_greek_names_are_letters():
    assert name_latex("alpha_z") == r"\alpha_{z}"
    assert name_latex("h'") == "h'"
    assert name_latex("g_h_0") == "g_{h, 0}"


# ---------------------------------------------------------------------------------------------- JSON


def assert_plain(found: Any, where: str = "") -> None:
    if isinstance(found, dict):
        for key, value in found.items():
            assert type(key) is str
            assert_plain(value, f"{where}.{key}")
    elif isinstance(found, list):
        for k, value in enumerate(found):
            assert_plain(value, f"{where}[{k}]")
    else:
        assert found is None or type(found) in (str, int, float, bool), f"{where} is {type(found)}"


@every_stage
@every_cell
def test_json_is_plain_and_comes_back_as_it_was(name, stage):
    shown = show(CELLS[name], stage, "json")
    assert_plain(shown)
    assert json.loads(json.dumps(shown)) == shown


@every_cell
def test_the_json_of_a_plan_names_only_what_it_defines(name):
    shown = show(CELLS[name], "plan", "json")
    fields = {field["name"] for field in (*shown["fields"], *shown.get("computed", ()))}
    for rule in ("step", "first", "start"):
        for way in ("forward", "backward") if shown[rule] else ():
            stages = [s for when in ("before", "loop", "after") for s in shown[rule][way][when]]
            weights = [w for s in stages for w in s.get("weights", [s["weight"]] if "weight" in s else [])]
            assert {w["field"] for w in weights} <= fields
            kinds = {"matmul", "kernel", "sum", "runningsum", "shifted"}
            kinds |= {"contraction", "outersum", "columnsum"}
            assert {s["stage"] for s in stages} <= kinds


def test_the_widths_of_a_plan_are_arithmetic_over_size_names():
    shown = show(CELLS["gru"], "plan", "json")
    names = {"hidden": 16, "input": 8}
    (stacked,) = (f for f in shown["fields"] if f["name"] == "W")
    assert [eval(part, {}, names) for part in stacked["shape"]] == [48, 8]
    assert eval(shown["summary"]["parameters"], {}, names) == 3 * (16 * 8 + 16 * 16 + 16)


def test_the_summary_of_the_equations_is_that_of_the_plan():
    for name in BUILTIN:
        summaries = [show(CELLS[name], stage, "json")["summary"] for stage in ("equations", "plan")]
        assert summaries[0] == summaries[1]


def test_the_numbers_stand_under_the_plan():
    text = show(CELLS["gru"], "plan", "text")
    assert text.splitlines()[-6] == "parameters  3 H I + 3 H^2 + 3 H"
    widths = [len(re.match(r"\S*\s+", line)[0]) for line in text.splitlines()[-6:]]
    assert all(a == b for a, b in pairwise(widths))


# -------------------------------------------------------------------------------- in a notebook


@pytest.mark.parametrize("name", ["gru", "ln_lstm", "caru_code", "libru"])
def test_a_notebook_shows_a_cell_its_derivative_and_its_plan(name):
    cell = builtins()[name]
    for shown, source in ((cell, latex.equations(cell)), (cell.adjoint(), latex.gradients(cell))):
        blocks = [line for line in source.splitlines() if not line.startswith("%")]
        typeset = shown._repr_latex_()
        assert [line for line in typeset.splitlines() if line != "$$"] == blocks
        assert typeset.count("$$") == 2 * source.count(r"\begin{aligned}")
        html = shown._repr_html_()
        assert all(escape(line) in html for line in blocks)
        assert cell.title in unescape(html)
        assert "\\" not in re.sub(r"(\${1,2}).*?\1", "", html, flags=re.S)  # what is not typeset is plain
    assert f"<td>{summary(cell).kind}</td>" in cell._repr_html_() and "H" in cell._repr_html_()
    assert str(cell.adjoint()) == show(cell, "adjoint", "text")
    assert escape(str(plan_as_text(plan(cell)))) in plan(cell)._repr_html_()  # of each plan its own
    made = plan(cell, arrays=True)
    assert unescape(made._repr_html_()) == f"<pre>{show(cell, 'plan', 'text')}</pre>"
    assert made._repr_latex_() == show(cell, "plan", "latex")
