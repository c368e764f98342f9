"""The examples run, and the cells learn."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import MINUTES

from gategen.judge.host import imported, written
from gategen.judge.verify import verify
from gategen.spec.load import load

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def run(*options):
    command = [sys.executable, str(EXAMPLES / "digits.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MINUTES, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def digits():
    spec = importlib.util.spec_from_file_location("digits", EXAMPLES / "digits.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["digits"]


def test_digits_prints_a_table_and_draws_a_figure(tmp_path):
    figure = tmp_path / "curves.png"
    printed = run("--epochs", 1, "--seeds", 1, "--cells", "gru,ligru,caru", "--figure", figure)
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    assert rows["cell"] == ["cell", "parameters", "test", "accuracy", "seconds"]
    assert [rows[cell][1] for cell in ("gru", "ligru", "caru")] == ["3936", "2688", "2688"]
    assert all(0 < float(rows[cell][2]) <= 100 for cell in ("gru", "ligru", "caru"))
    assert "\x1b" not in printed
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_digits_takes_a_spec_file_and_compares_with_the_gru(tmp_path):
    cells = f"gru,mgu,{EXAMPLES / 'mycell.py'}"
    printed = run("--epochs", 1, "--seeds", 1, "--cells", cells, "--figure", tmp_path / "curves.png")
    assert "\nmycell" in printed
    assert "Smaller cells against the full GRU" in printed
    assert "67 %" in printed


def test_digits_leaves_the_figure_of_all_cells_alone(digits):
    (figure,) = (option for option in digits.main.params if option.name == "figure")
    assert figure.default == digits.ROOT / "out" / "digits.png"


def test_the_gru_learns_to_read_digits(digits):
    (gru,) = digits.modules(["gru"])
    curve = digits.train(gru, digits.digits(), hidden=32, epochs=5, seed=0)
    assert curve[0] < 0.3
    assert curve[-1] > 0.8


def test_the_classifier_has_the_gradient_of_its_loss(digits):
    import numpy as np

    (module,) = digits.modules(["lstm"])
    data = digits.digits()
    x, label = data.x[:, :16].astype(np.float64), data.label[:16]
    model = digits.Classifier(module, 6, seed=0)
    model.params = module.Params(*(p.astype(np.float64) for p in model.params))
    model.V, model.c = model.V.astype(np.float64), model.c.astype(np.float64)

    def loss():
        logits = model.forward(x, training=True)[0]
        return (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), label]).mean()

    rng = np.random.default_rng(1)
    directions = [rng.standard_normal(a.shape) for a in model.arrays()]
    grads = model.gradients(x, label)
    derived = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    sides = []
    for step in (1e-6, -2e-6):
        for a, d in zip(model.arrays(), directions, strict=True):
            a += step * d
        sides.append(loss())
    assert derived == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6)


def test_the_papers_say_what_their_fixed_parameters_hold(tmp_path):
    for name, held in (("clockwork", {"period": [1, 1, 2, 2, 4, 4, 8, 8]}),):
        (cell,) = load(EXAMPLES / "papers" / f"{name}.gate")
        module = imported(written(cell, "numpy", tmp_path))
        assert (*held,) == module.FIXED
        found = module.unpack(module.init(3, 8))
        for key, wanted in held.items():
            np.testing.assert_array_equal(found[key], wanted)


PAPERS = sorted((EXAMPLES / "papers").glob("*.gate"))


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_the_cells_of_other_papers_are_a_few_lines_and_right(path):
    (cell,) = load(path)
    assert len(PAPERS) == 13 and len(cell.equations) < 10 and cell.reference
    (result,) = verify(cell, ["numpy"])
    assert result.ok, result


# -------------------------------------------------------------------------------- the notebook

TOUR = json.loads((EXAMPLES / "tour.ipynb").read_text("utf-8"))
CODE = [cell for cell in TOUR["cells"] if cell["cell_type"] == "code"]
TEXT = ["".join(cell["source"]) for cell in TOUR["cells"] if cell["cell_type"] == "markdown"]
REFRESH = "`python tests/conformance/test_tour.py` runs the notebook and keeps what it shows"


def strings(value):
    """All strings of a part of a notebook but pictures."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not key.startswith("image/"):
                yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_the_notebook_is_short_and_was_run_from_top_to_bottom():
    assert (TOUR["nbformat"], TOUR["nbformat_minor"]) == (4, 5)
    assert 8 <= len(CODE) <= 12 and len(TEXT) >= len(CODE)
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)], REFRESH
    for cell in CODE:
        assert cell["outputs"], REFRESH
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr", output
    assert any("image/png" in output.get("data", {}) for cell in CODE for output in cell["outputs"])
    assert len(json.dumps(TOUR)) < 100_000  # what a web page shows at once


def test_the_notebook_names_no_machine_and_no_time():
    paths = re.compile(r"(?<![\w.>])(?:/|~/|[A-Z]:\\)[\w.-]+[/\\][\w.-]+")
    assert paths.search("File /usr/lib/x.py") and paths.search(r"in C:\Users\me") and paths.search("~/a/b")
    assert not [found[0] for text in strings(TOUR) if (found := paths.search(text))]
    assert not [cell["id"] for cell in CODE if "execution" in cell["metadata"]]
    assert TOUR["metadata"]["language_info"] == {"name": "python"}  # and no version of it


def test_the_links_of_the_notebook_lead_somewhere():
    links = [link for text in TEXT for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert links and all((EXAMPLES / link).exists() for link in links)


def test_the_notebook_shows_what_is_made_of_its_cell_today(monkeypatch, capsys):
    """The outputs that are the same on every machine, without Jupyter: those of the cells tagged `exact`."""
    exact = [cell for cell in CODE if "exact" in cell["metadata"].get("tags", ())]
    assert [cell["id"] for cell in exact] == ["write", "derivative", "cost", "code"]
    names, shown = {}, []
    monkeypatch.setattr(sys, "displayhook", lambda value: value is None or shown.append(value))
    for cell in exact:
        lines = ast.Interactive(ast.parse("".join(cell["source"])).body)
        exec(compile(lines, cell["id"], "single"), names)
        (output,) = cell["outputs"]
        if output["output_type"] == "stream":
            assert capsys.readouterr().out == "".join(output["text"]), REFRESH
        else:
            data = {kind: "".join(text) for kind, text in output["data"].items()}
            value = shown.pop()
            found = repr(value), value._repr_latex_(), value._repr_html_()
            assert found == (data["text/plain"], data["text/latex"], data["text/html"]), REFRESH
    assert not shown


def test_digits_takes_modules_of_c(tmp_path):
    printed = run(
        "--epochs", 1, "--seeds", 1, "--cells", "mgu", "--backend", "c", "--figure", tmp_path / "a.png"
    )
    assert "\nmgu" in printed
