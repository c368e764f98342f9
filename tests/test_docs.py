"""README and the pages under `docs/`: every command and snippet runs as printed, in a copy that stays clean.

The language of a block says what is done with it. `console` has commands after `$` and what they print, where
`...` stands for anything; `python` is run, `gate` is read, `sh` is an installation. `text` and `bibtex` are
not run, and neither is the excerpt of generated code. A block behind `<!-- slow -->` takes long. One behind
`<!-- needs torch -->` runs where that package is installed, as it is where `tests/conformance` runs.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
from helpers import MINUTES

from gategen import Cell, __version__, emulator
from gategen.cli import commands
from gategen.spec import language as lang
from gategen.spec.load import builtins

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES["README"].read_text("utf-8")
BLOCK = re.compile(r"(?:<!-- (slow|needs \w+) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
EXCERPT = re.compile(r"<!-- docs/excerpt.py: begin -->.*?<!-- end -->", re.S)
LANGUAGES = {"console", "python", "gate", "sh", "text", "bibtex"}

needs_git = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="needs a checkout and git"
)
needs_a_compiler = pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")


@dataclass(frozen=True)
class Block:
    mark: str  # slow, needs torch
    language: str
    text: str

    @property
    def slow(self):
        return self.mark == "slow"

    @property
    def needs(self):
        """The package that it needs, beside those of gategen's tests."""
        return self.mark.removeprefix("needs ") if self.mark.startswith("needs ") else ""


def blocks(page):
    text = EXCERPT.sub("", PAGES[page].read_text("utf-8"))
    return [Block(*found) for found in BLOCK.findall(text)]


def git(folder, *words):
    who = ("-c", "user.name=reader", "-c", "user.email=reader@example.org")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def copy(tmp_path):
    """What a clone of this checkout holds, with what is not yet committed."""
    folder = tmp_path / "clone"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "copy")
    return folder


def run(folder, *command, code=0):
    """What a command prints where the environment of these tests is active."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=MINUTES)
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sessions(text):
    """The commands of a console, and what is printed after each."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def pattern(output):
    """As a regular expression, in which `...` is anything."""
    anything = re.escape(output).replace(re.escape("...\n"), r"(?:.*\n)?").replace(re.escape("..."), ".*")
    return re.compile(anything, re.S)


def follow(block, folder):
    """One block, as a reader would."""
    if block.language == "console":
        for command, output in sessions(block.text):
            printed = run(folder, "bash", "-c", command, code=int(": different\n" in output))
            assert pattern(output).fullmatch(printed), f"$ {command}\n{printed}\nis not\n{output}"
    elif block.language == "python":
        printed = run(folder, "python", "-c", block.text)
        if printed.startswith("right:"):  # the cell of one's own learns
            assert float(printed.split()[-1]) > 0.9
    elif block.language == "gate":
        assert Cell.parse("cell", block.text)


@needs_git
@needs_a_compiler
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_and_leaves_the_tree_clean(page, copy):
    for block in blocks(page):
        if not block.slow and (not block.needs or importlib.util.find_spec(block.needs)):
            follow(block, copy)
    assert git(copy, "status", "--porcelain") == ""


@needs_git
@pytest.mark.slow
def test_what_takes_long_on_a_page_runs_and_leaves_the_tree_clean(copy):
    slow = [block for page in PAGES for block in blocks(page) if block.slow]
    assert slow
    for block in slow:
        follow(block, copy)
    assert git(copy, "status", "--porcelain") == ""


@needs_git
@pytest.mark.slow
def test_the_first_installation_of_the_readme_runs_and_leaves_the_tree_clean(copy):
    """The second one is the command that `.ci/run` takes from README, and runs these very tests."""
    first, second = (block.text for block in blocks("README") if block.language == "sh")
    assert "pip install -e '.[test]'" in second and "pytest" in second
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(["bash", "-c", first], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "learning curves: " in done.stdout and (copy / "out" / "digits.png").is_file()
    assert git(copy, "status", "--porcelain") == ""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES


def test_a_console_that_prints_something_else_is_noticed(tmp_path):
    follow(Block("", "console", "$ echo a; echo b\n...\nb\n$ echo c\nc\n"), tmp_path)
    for wrong in ("$ echo a\nb\n", "$ echo a\n", "$ false\n", "$ echo a; echo b\n...\na\n"):
        with pytest.raises(AssertionError):
            follow(Block("", "console", wrong), tmp_path)


# -------------------------------------------------------------------------------- what the pages say


def test_the_excerpt_in_the_readme_is_generated():
    spec = importlib.util.spec_from_file_location("excerpt", ROOT / "docs" / "excerpt.py")
    excerpt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(excerpt)
    assert excerpt.shown() == excerpt.block(), (
        f"`python docs/excerpt.py` puts into README what is generated now:\n\n{excerpt.block()}"
    )


def test_the_equations_in_the_readme_are_those_of_the_gru():
    (equations,) = (block.text for block in blocks("README") if block.language == "gate")
    assert Cell.parse("gru", equations).text() == builtins()["gru"].text()


def test_the_cell_on_the_page_is_that_of_the_example():
    (spec,) = (block.text for block in blocks("own-cell") if "mycell = Cell(" in block.text)
    assert spec in (ROOT / "examples" / "mycell.py").read_text("utf-8")


def test_the_functions_on_the_page_are_in_the_language():
    page = PAGES["own-cell"].read_text("utf-8")
    listed = re.findall(r"^\* \*\*(?:Functions|Reductions).*?(?=^\*|\n\n)", page, re.M | re.S)
    words = {word for part in listed for quoted in re.findall(r"`([^`]*)`", part) for word in quoted.split()}
    assert len(words) > 25 and all(callable(getattr(lang, word, None)) for word in words)


def test_the_commands_on_the_page_are_those_there_are():
    overview = blocks("command-line")[0].text
    assert set(re.findall(r"^gategen ([\w-]+)", overview, re.M)) == set(commands.commands)


def test_the_catalogue_has_every_cell():
    table = re.findall(r"^\| (`.*?) \|", PAGES["cells"].read_text("utf-8"), re.M)
    listed = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(builtins())
    assert f"\n{len(listed)} cells come with it" in README


def test_links_lead_somewhere():
    for path in PAGES.values():
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text("utf-8")):
            file, _, anchor = target.partition("#")
            other = (path.parent / file).resolve() if file else path
            assert other.exists(), f"{path.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)", other.read_text("utf-8"), re.M)
                assert anchor in {title.lower().replace(" ", "-") for title in titles}, target


def test_every_page_is_in_the_readme():
    assert all(f"](docs/{page}.md)" in README for page in PAGES if page != "README")


def test_the_version_to_cite_is_this_one():
    assert f"version = {{{__version__}}}" in README


def test_the_seconds_in_the_readme_were_measured():
    results = json.loads((ROOT / "benchmarks" / "results" / "build.json").read_text("utf-8"))["results"]
    seconds = {one["what"]: median(one["seconds"]) for one in results}
    text = " ".join(README.split())
    for before, what, after in (
        ("The installation took ", "pip install -e '.[examples]' in a new environment", " s"),
        ("`gategen build` ", "gategen build (every cell)", " s"),
        ("the training ", "python examples/digits.py", " s"),
        ("The tests took ", "pytest -n auto", " s"),
        ("checks every gradient of the GRU in about ", "gategen verify gru", " s"),
    ):
        assert f"{before}{seconds[what]:.0f}{after}" in text, f"{what}: {seconds[what]:.0f} s"


# -------------------------------------------------------------------------------- where modules are found


def test_generated_is_found_where_the_current_folder_is_on_the_path(tmp_path):
    """From `python -c`, but not from a script in another folder, as the page of limits says."""
    (tmp_path / "generated").mkdir()
    (tmp_path / "generated" / "one_numpy.py").write_text("NAME = 'one'\n")
    (tmp_path / "scripts").mkdir()
    program = "from generated import one_numpy; print(one_numpy.NAME)"
    (tmp_path / "scripts" / "use.py").write_text(program)

    def prints(*words, **more):
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more
        command = [sys.executable, "-S", *words]  # without the checkout that is installed here
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True).stdout

    assert prints("-c", program) == prints("scripts/use.py", PYTHONPATH=".") == "one\n"
    assert prints("scripts/use.py") == ""


def test_the_extras_for_cuda_bring_what_bfloat16_and_cupy_need():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("cuda12", "cuda13"):
        assert {"ml-dtypes>=0.5", "numpy>=2.1.2"} <= set(extras[name])
