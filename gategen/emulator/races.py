"""What races.h found in a launch, in words."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gategen.emulator import build


class Side(ctypes.Structure):
    """As struct Side in runtime.h."""

    _fields_ = (
        ("thread", ctypes.c_ulonglong),
        ("writes", ctypes.c_ulonglong),
        ("frames", ctypes.c_ulonglong * 16),
    )


class RaceReport(ctypes.Structure):
    """As struct RaceReport in runtime.h."""

    _fields_ = (("address", ctypes.c_ulonglong), ("access", Side), ("other", Side))


class Extent(NamedTuple):
    """The sizes of a launch."""

    grid: Sequence[int]
    block: Sequence[int]


def described(
    library: ctypes.PyDLL, path: Path, extent: Extent, place: Callable[[int], str]
) -> tuple[str, ...]:
    """A sentence for each pair of lines; `place` names what lies at an address."""
    found, report = list[RaceReport](), RaceReport()
    while len(found) < library.gg_races(len(found), ctypes.byref(report)):
        found.append(RaceReport.from_buffer_copy(report))
    return tuple(
        f"race for {place(race.address)}: {_side(path, race.access, extent, 'writes', 'reads')}"
        f" what {_side(path, race.other, extent, 'wrote', 'read')}, and nothing puts one before the other"
        for race in found
    )


def _side(path: Path, side: Side, extent: Extent, writes: str, reads: str) -> str:
    x, y, z = extent.block
    block, thread = divmod(side.thread, x * y * z)
    who = f"thread {_index(thread, extent.block)} of block {_index(block, extent.grid)}"
    return f"{who} {writes if side.writes else reads}{_at(path, side)}"


def _index(number: int, sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, _ = sizes
    return number % x, number // x % y, number // (x * y)


def _at(path: Path, side: Side) -> str:
    """Its line, and those of the calls that led there."""
    places = [place for place in side.frames if place]
    lines = [str(line) for chain in build.lines(path, places) for line in chain]
    called = f" (called from line {', '.join(lines[1:])})" if lines[1:] else ""
    return f" at line {lines[0]}{called}" if lines else ""
