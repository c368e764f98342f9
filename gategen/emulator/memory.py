"""The memory of the stand-in's arrays, and what a kernel wrote beside them.

It starts as NaN and lies between two zones of a known pattern, so that a stray write is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gategen.emulator import build
from gategen.emulator.errors import EmulatorError

ZONE = 1024  # bytes on either side
ALIGN = 256
PATTERN = 0xA5
POISON = 0xFF  # a NaN in every floating-point type

Host = np.ndarray[Any, np.dtype[Any]]


def allocated(count: int) -> tuple[Host, int]:
    """The bytes of a new array with its zones, and where between them its `count` bytes begin."""
    if build.sanitizing():  # AddressSanitizer has zones of its own
        return np.full(count, POISON, np.uint8), 0
    buffer = np.full(count + 2 * ZONE + ALIGN, PATTERN, np.uint8)
    start = _unaligned(buffer) + ZONE
    buffer[start : start + count] = POISON
    return buffer, start


@contextmanager
def guarded(array: Host, complaint: Callable[[], str]) -> Iterator[int]:
    """The array's address for a kernel; then its surroundings are looked at."""
    yield array.ctypes.data
    if build.sanitizing():
        return
    for zone in zones(array):
        if (zone != PATTERN).any():
            zone[:] = PATTERN
            raise EmulatorError(complaint())


def zones(array: Host) -> tuple[Host, Host]:
    """In front of and behind the bytes that the array is a view of."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    start = _unaligned(root)
    return root[start : start + ZONE], root[len(root) - ALIGN + start - ZONE : len(root) - ALIGN + start]


def _unaligned(buffer: Host) -> int:
    return -buffer.ctypes.data % ALIGN
