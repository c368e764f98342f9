"""Every file in `bad_specs/` breaks one rule, and its first lines say with which words gategen refuses it.

# expects: <how the message begins>
# hint: <a part of the hint>          left out where none is needed
# line: <the line the message names>  left out where the whole file is meant
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

import gategen
from gategen.errors import SpecError

FOLDER = Path(__file__).parent / "bad_specs"
NO_PLACE = {"no_cell.py"}
NO_EQUATION = {"no_cell.py", "two_cells_of_one_name.py", "no_equation.gate"}


@dataclass(frozen=True)
class Expected:
    """What the first lines of a broken spec promise."""

    message: str
    hint: str
    line: int | None


def expected(path: Path) -> Expected:
    said = dict.fromkeys(("expects", "hint", "line"), "")
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, value = line.removeprefix("# ").partition(": ")
        if not (line.startswith("# ") and colon and key in said):
            break
        said[key] = value.strip()
    return Expected(said["expects"], said["hint"], int(said["line"]) if said["line"] else None)


def refusal(path: Path) -> SpecError:
    with pytest.raises(SpecError) as caught:
        gategen.load(str(path))
    return caught.value


every_bad_spec = pytest.mark.parametrize(
    "path",
    sorted(path for path in FOLDER.iterdir() if path.suffix in (".py", ".gate")),
    ids=lambda path: path.name,
)


@every_bad_spec
def test_a_broken_spec_is_refused_in_the_promised_words(path: Path) -> None:
    error, want = refusal(path), expected(path)
    assert want.message, f"{path.name} must begin with '# expects: ...'"
    assert error.message.removeprefix(f"{path}: ").startswith(want.message)
    assert want.hint in error.hint
    if "Error: " not in want.message:  # Python's own errors explain themselves, or not
        assert bool(want.hint) == bool(error.hint), f"{path.name} does not promise the hint {error.hint!r}"


@every_bad_spec
def test_a_broken_spec_is_refused_at_the_line_that_breaks_it(path: Path) -> None:
    error, want = refusal(path), expected(path)
    if path.name in NO_PLACE:
        assert want.line is None and str(path) in error.message
        return
    assert error.where is not None
    assert (error.where.file, error.where.line) == (str(path), want.line)
    assert str(error).startswith(f"{path}:{want.line}: ")


@every_bad_spec
def test_a_refusal_shows_the_equation_and_nothing_of_gategen(path: Path) -> None:
    error = refusal(path)
    assert error.equation or path.name in NO_EQUATION
    for word in ("Traceback", "site-packages", "matvec("):
        assert word not in str(error).replace(str(path), "")


def test_the_words_of_an_error_stand_in_one_order() -> None:
    error = SpecError("it is wrong", equation="z = 1", hint="write 2")
    assert str(error) == "it is wrong\n    z = 1\n    hint: write 2"
    assert isinstance(error, ValueError)


def test_a_placed_error_keeps_its_first_place() -> None:
    from gategen.errors import Where

    error = SpecError("it is wrong").at(Where("spec.py", 3), "z = 1")
    assert str(error.at(Where("other.py", 9), "r = 2")) == "spec.py:3: it is wrong\n    z = 1"
