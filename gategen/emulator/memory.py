"""The memory of the stand-in's arrays, and what a kernel wrote beside them.

It starts as NaN and lies between two zones of a known pattern, so that a stray write is found.
"""

from __future__ import annotations

import ctypes
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


class Allocation(Host):
    """The bytes of one array with its zones; the ultimate `base` of the array and its views."""


def allocated(count: int) -> tuple[Allocation, int]:
    """The bytes of a new array with its zones, and where between them its `count` bytes begin."""
    if build.sanitizing():  # AddressSanitizer has zones of its own
        return np.full(count, POISON, np.uint8).view(Allocation), 0
    buffer = np.full(count + 2 * ZONE + ALIGN, PATTERN, np.uint8)
    start = -buffer.ctypes.data % ALIGN
    allocation = buffer[start : start + count + 2 * ZONE].view(Allocation)
    allocation[ZONE : ZONE + count] = POISON
    return allocation, ZONE


@contextmanager
def guarded(array: Host, complaint: Callable[[], str]) -> Iterator[int]:
    """The array's address for a kernel; then its surroundings are looked at."""
    root = _root(array)
    if isinstance(root, Allocation) or build.sanitizing():
        yield array.ctypes.data
        _check_zones(root, complaint)
        return
    # A method of NumPy made this one, without zones: let the kernel have a copy that has them.
    allocation, start = allocated(root.nbytes)
    copy = allocation.ctypes.data + start
    ctypes.memmove(copy, root.ctypes.data, root.nbytes)
    yield copy + array.ctypes.data - root.ctypes.data
    ctypes.memmove(root.ctypes.data, copy, root.nbytes)
    _check_zones(allocation, complaint)


def _root(array: Host) -> Host:
    """The allocation, or the array that owns the memory."""
    while not isinstance(array, Allocation) and isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _check_zones(root: Host, complaint: Callable[[], str]) -> None:
    if build.sanitizing():
        return
    plain = root.view(np.ndarray)
    if (plain[:ZONE] != PATTERN).any() or (plain[-ZONE:] != PATTERN).any():
        plain[:ZONE] = plain[-ZONE:] = PATTERN
        raise EmulatorError(complaint())
