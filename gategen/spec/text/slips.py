"""Slips of the pen: parameters that no line declares, by names that are hardly meant.

A name that is declared is meant. `writer` declares what would be warned of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MATRIX = re.compile(r"[WU]_")  # how names begin that papers give to matrices alone


@dataclass(frozen=True)
class Slip:
    """A name that is hardly meant, and the equation, by its place, where that shows."""

    name: str
    at: int
    message: str


def slips(reads: Sequence[Sequence[str]], implied: Mapping[str, bool], matrices: set[str]) -> list[Slip]:
    """What looks like a slip in equations that read these names.

    `implied` tells of undeclared parameters whether they are matrices; `matrices` are all matrices.
    """
    first = {name: k for k, names in reversed(list(enumerate(reads))) for name in names}
    uses = Counter(read for names in reads for read in set(names))
    found = [
        Slip(name, first[name], message)
        for name in implied
        if name in first
        for message in [*_elementwise(name, implied, matrices), *_misspelt(name, reads, implied, uses)][:1]
    ]
    known = {slip.name for slip in found}
    return found + [slip for slip in _borrowed(reads, implied) if slip.name not in known]


def _elementwise(name: str, implied: Mapping[str, bool], matrices: set[str]) -> Iterator[str]:
    """`U_h * h`, a vector with the name of a matrix."""
    stems = {other.partition("_")[0] for other in matrices}
    if not implied[name] and (MATRIX.match(name) or name.partition("_")[0] in stems):
        yield (
            f"{name} stands without @ and is a vector, elementwise; a matrix is meant? {name} @ v "
            f"(a line vectors: {name} says that it is not)"
        )


def _misspelt(
    name: str, reads: Sequence[Sequence[str]], implied: Mapping[str, bool], uses: Counter[str]
) -> Iterator[str]:
    """`b_hh` where `b_h` is meant: read once, and one letter more or less than another parameter."""
    if uses[name] != 1:
        return
    for other in implied:
        doubted = uses[other] > 1 or len(name) > len(other)  # of two that are read once the longer one
        if implied[other] != implied[name] or not doubted or not _one_letter(name, other):
            continue
        if not any(name in names and other in names for names in reads):
            yield f"{name} is a parameter of its own and read once; is {other} meant? (a declaration says no)"


def _one_letter(a: str, b: str) -> bool:
    """Whether one of two names has one letter more; a digit is none: gates are numbered."""
    short, long = sorted((a, b), key=len)
    if len(long) != len(short) + 1:
        return False
    return any(not c.isdigit() and long[:k] + long[k + 1 :] == short for k, c in enumerate(long))


def _borrowed(reads: Sequence[Sequence[str]], implied: Mapping[str, bool]) -> Iterator[Slip]:
    """`W_n @ x + U_z @ h + b_n` beside an equation that reads `U_z` too, and no `U_n` anywhere."""
    uses = Counter(read for names in reads for read in set(names))
    for k, names in enumerate(reads):
        ends = {name: name.partition("_")[2] for name in dict.fromkeys(names) if name in implied}
        for name, end in ends.items():
            others = {other for read, other in ends.items() if read != name}
            if len(ends) < 3 or len(others) != 1 or end in others or uses[name] < 2:
                continue
            meant = f"{name.partition('_')[0]}_{others.pop()}"
            if meant not in implied:
                message = f"{name} is read here and elsewhere; is {meant} meant? (a declaration says no)"
                yield Slip(name, k, message)
