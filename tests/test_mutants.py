"""The tests find deliberate bugs: those of `mutants.py` that can be run in reasonable time."""

from collections import Counter

import pytest
from mutants import (
    COMPILED,
    DERIVATIONS,
    LOWERING,
    MUTANTS,
    PLANNING,
    ROOT,
    SECONDS,
    VECTORS,
    Mutant,
    judge,
    main,
    patched,
)

CHOSEN = (*DERIVATIONS[::4], *PLANNING[::6], *LOWERING[::6], *SECONDS[::6], *COMPILED[::8], *VECTORS[::5])


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_bug_is_still_one(mutant: Mutant) -> None:
    """Its text is there, and once."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert patched(text, mutant) != text


def test_there_are_bugs_everywhere() -> None:
    counts = Counter(mutant.file.rpartition("/")[0] for mutant in MUTANTS)
    assert len(DERIVATIONS) >= 11 and len(PLANNING) >= 8 and len(LOWERING) >= 8
    assert counts["gategen/backends"] >= 8 and counts["gategen/plan"] >= 10
    assert counts["templates/python"] >= 6 and counts["templates/cupy"] >= 2
    assert len({str(mutant) for mutant in MUTANTS}) == len(MUTANTS)


def test_a_bug_whose_text_is_gone_is_an_error() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        patched("nothing", MUTANTS[0])


def test_what_is_no_bug_lives(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the tests would fail for another reason than the patch."""
    harmless = Mutant(
        "gategen/graph/adjoint.py", "only a comment", "class _Adjoint:", "class _Adjoint:  # harmless"
    )
    monkeypatch.setattr("mutants.STAGES", ())
    monkeypatch.setattr("mutants.MUTANTS", (harmless,))
    assert main([]) == 1
    assert "LIVES" in capsys.readouterr().out


@pytest.mark.slow
def test_twenty_deliberate_bugs_are_found() -> None:
    results = judge(CHOSEN)
    assert len(results) >= 20
    assert not [str(result.mutant) for result in results if not result.found_by]
