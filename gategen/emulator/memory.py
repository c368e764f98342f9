"""The memory of the stand-in's arrays, and what a kernel wrote beside them.

It starts as NaN and lies between two zones of a known pattern, so that a stray write is found.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from gategen.emulator import build
from gategen.emulator.device import current
from gategen.emulator.errors import EmulatorError

ZONE = 1024  # bytes on either side
ALIGN = 256
PATTERN = 0xA5
POISON = 0xFF  # a NaN in every floating-point type

Host = np.ndarray[Any, np.dtype[Any]]


_alive: dict[int, tuple[int, int]] = {}  # by address: the bytes of an array, and its device


def allocated(count: int) -> tuple[Host, int]:
    """The bytes of a new array with its zones, and where between them its `count` bytes begin."""
    if build.sanitizing():  # AddressSanitizer has zones of its own
        buffer, start = np.full(count, POISON, np.uint8), 0
    else:
        buffer = np.full(count + 2 * ZONE + ALIGN, PATTERN, np.uint8)
        start = _unaligned(buffer) + ZONE
        buffer[start : start + count] = POISON
    address = buffer.ctypes.data + start
    _alive[address] = count, current()
    finalize(buffer, _alive.pop, address)
    return buffer, start


def matrix(address: int, kind: npt.DTypeLike, shape: tuple[int, int], step: int) -> Host:
    """Rows in the memory of one array, `step` entries from each to the next, as a kernel is told of them."""
    rows, columns = shape
    size = np.dtype(kind).itemsize
    bytes = ((rows - 1) * step + columns) * size
    begin = max((start for start in _alive if start <= address), default=0)
    count, device = _alive.get(begin, (0, current()))
    if address + bytes > begin + count:
        raise EmulatorError(f"{rows} rows of {columns}, {step} apart, are not within the memory of one array")
    if device != current():
        raise EmulatorError(f"a product on device {current()} of memory of device {device}")
    own = np.ctypeslib.as_array((ctypes.c_ubyte * bytes).from_address(address))
    return np.ndarray(shape, kind, own, strides=(step * size, size))


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
