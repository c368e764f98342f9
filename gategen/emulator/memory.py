"""The stand-in's array: a `numpy.ndarray` that keeps to itself, as CuPy's does.

It does not mix with plain NumPy arrays (CuPy would have to copy between host and device, and refuses).  Its
memory starts as NaN and lies between two zones of a known pattern, so that a kernel's stray write is found.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from gategen.emulator import build
from gategen.emulator.errors import EmulatorError

ZONE = 1024  # bytes on either side
ALIGN = 256
PATTERN = 0xA5
POISON = 0xFF  # a NaN in every floating-point type

Host = np.ndarray[Any, np.dtype[Any]]
_NARROW = ("float16", "bfloat16")  # products and sums of these accumulate in float32 and round once


class Allocation(Host):
    """The bytes of one array with its zones; the ultimate `base` of the array and its views."""


class ndarray(Host):
    """An array in memory that stands for the device's."""

    def get(self) -> Host:
        """A copy on the host."""
        return np.array(self.view(np.ndarray))

    def set(self, values: Host) -> None:
        """Copy from the host."""
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"set {self.dtype}{self.shape} from {values.dtype}{values.shape}")
        self.view(np.ndarray)[...] = values

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        outputs = kwargs.pop("out", ())
        for value in (*inputs, *outputs, kwargs.get("where")):
            refuse_host(value)
        if any(type(out) is np.ndarray for out in outputs):
            raise TypeError("out= wants an array of the device, not numpy.ndarray")
        if _accumulates(ufunc, method) and kwargs.get("dtype") is None:
            result = _in_float32(ufunc, method, inputs, kwargs)
        else:
            result = getattr(ufunc, method)(*map(host, inputs), **kwargs, **_host_outputs(outputs))
            if outputs:
                return outputs[0] if len(outputs) == 1 else outputs
        if outputs:
            outputs[0].view(np.ndarray)[...] = result
            return outputs[0]
        return tuple(map(adopt, result)) if isinstance(result, tuple) else adopt(result)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """As CuPy: NumPy's functions become the module's own of that name."""
        from gategen.emulator import cupy

        own = getattr(cupy, func.__name__, None)
        if own is None:
            raise TypeError(f"numpy.{func.__name__} does not work on arrays of the device")
        return own(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(host(self))

    def __str__(self) -> str:
        return str(host(self))

    def __getitem__(self, key: Any) -> Any:
        """As CuPy: an element is an array without axes."""
        for index in key if isinstance(key, tuple) else (key,):
            if type(index) is np.ndarray:
                raise IndexError("index an array of the device with numpy.ndarray")
        result = super().__getitem__(key)
        if isinstance(result, np.ndarray):
            return result
        return super().__getitem__((*key, ...) if isinstance(key, tuple) else (key, ...))

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse_host(value)
        super().__setitem__(key, value)


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> ndarray:
    """An array of NaN (of ones in every bit) with its zones."""
    kind = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    count = kind.itemsize * int(np.prod(sizes, dtype=np.int64))
    if build.sanitizing():  # AddressSanitizer has zones of its own
        return ndarray(sizes, kind, np.full(count, POISON, np.uint8).view(Allocation))
    buffer = np.full(count + 2 * ZONE + ALIGN, PATTERN, np.uint8)
    start = -buffer.ctypes.data % ALIGN
    allocation = buffer[start : start + count + 2 * ZONE].view(Allocation)
    allocation[ZONE : ZONE + count] = POISON
    return ndarray(sizes, kind, allocation, offset=ZONE)


def adopt(values: Any, dtype: npt.DTypeLike | None = None) -> ndarray:
    """A copy of host values on the device."""
    source = host(values) if dtype is None else np.asarray(host(values), dtype)
    plain = np.asarray(source)
    result = empty(plain.shape, plain.dtype)
    result.view(np.ndarray)[...] = plain
    return result


def host(value: Any) -> Any:
    """The same memory as a plain array; anything else as it is."""
    return value.view(np.ndarray) if isinstance(value, ndarray) else value


def refuse_host(value: object) -> None:
    if isinstance(value, np.ndarray) and not isinstance(value, ndarray) and value.ndim:
        raise TypeError(f"Unsupported type {type(value)}")


def _accumulates(ufunc: np.ufunc, method: str) -> bool:
    return ufunc is np.matmul or (ufunc is np.add and method == "reduce")


def _in_float32(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Narrow operands are widened and the result is rounded once."""
    operands = tuple(map(host, inputs))
    dtype = np.result_type(*operands)
    if str(dtype) not in _NARROW:
        return getattr(ufunc, method)(*operands, **kwargs)
    wide = (np.asarray(value, np.float32) for value in operands)
    return np.asarray(getattr(ufunc, method)(*wide, **kwargs)).astype(dtype)


def _host_outputs(outputs: tuple[Any, ...]) -> dict[str, Any]:
    return {"out": tuple(map(host, outputs))} if outputs else {}


# ------------------------------------------------------------------------------------------ around a launch


@contextmanager
def guarded(array: ndarray, complaint: Callable[[], str]) -> Iterator[int]:
    """The array's address for a kernel; then its surroundings are looked at."""
    root = _root(array)
    if isinstance(root, Allocation) or build.sanitizing():
        yield array.ctypes.data
        _check_zones(root, complaint)
        return
    # A method of NumPy made this one, without zones: let the kernel have a copy that has them.
    copy = empty(root.nbytes, np.uint8)
    ctypes.memmove(copy.ctypes.data, root.ctypes.data, root.nbytes)
    yield copy.ctypes.data + array.ctypes.data - root.ctypes.data
    ctypes.memmove(root.ctypes.data, copy.ctypes.data, root.nbytes)
    _check_zones(_root(copy), complaint)


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
