"""A stand-in for the part of CuPy that generated modules use, on host memory.

`gategen.emulator.installed()` puts this module where `import cupy` finds it.  What is not here does not
exist, so a generated module that comes to need more of CuPy is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numpy import bool_, dtype, float16, float32, float64, int32, int64, newaxis

from gategen.emulator.launch import Kernel, Library
from gategen.emulator.memory import Host, adopt, empty, host, ndarray, refuse_host

__all__ = [
    "RawModule", "add", "arange", "array", "asarray", "ascontiguousarray", "asnumpy", "bool_",
    "broadcast_to", "concatenate", "copyto", "cuda", "divide", "dtype", "empty", "empty_like", "float16",
    "float32", "float64", "full", "int32", "int64", "isfinite", "matmul", "maximum", "minimum",
    "multiply", "ndarray", "newaxis", "ones", "stack", "subtract", "sum", "where", "zeros", "zeros_like",
]  # fmt: skip

Shape = int | tuple[int, ...]
DType = npt.DTypeLike | None


# ------------------------------------------------------------------------------------------ making arrays


def full(shape: Shape, fill_value: Any, dtype: DType = None) -> ndarray:
    result = empty(shape, np.asarray(host(fill_value)).dtype if dtype is None else dtype)
    result.view(np.ndarray).fill(fill_value)
    return result


def zeros(shape: Shape, dtype: DType = float) -> ndarray:
    return full(shape, 0, dtype)


def ones(shape: Shape, dtype: DType = float) -> ndarray:
    return full(shape, 1, dtype)


def empty_like(a: ndarray, dtype: DType = None) -> ndarray:
    return empty(_device(a).shape, a.dtype if dtype is None else dtype)


def zeros_like(a: ndarray, dtype: DType = None) -> ndarray:
    return zeros(_device(a).shape, a.dtype if dtype is None else dtype)


def array(a: Any, dtype: DType = None) -> ndarray:
    return adopt(a, dtype)


def asarray(a: Any, dtype: DType = None, order: str | None = None) -> ndarray:
    ready = order is None or (isinstance(a, ndarray) and a.flags.c_contiguous)
    if isinstance(a, ndarray) and ready and (dtype is None or a.dtype == np.dtype(dtype)):
        return a
    return adopt(a, dtype)


def ascontiguousarray(a: Any, dtype: DType = None) -> ndarray:
    result = asarray(a, dtype)
    return result if result.flags.c_contiguous else adopt(result)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: DType = None) -> ndarray:
    first, last = (0, start) if stop is None else (start, stop)
    return adopt(np.arange(first, last, step), dtype)


def asnumpy(a: Any) -> Host:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


# ------------------------------------------------------------------------------------------ rearranging


def concatenate(arrays: Sequence[ndarray], axis: int = 0) -> ndarray:
    return adopt(np.concatenate([host(_device(a)) for a in arrays], axis))


def stack(arrays: Sequence[ndarray], axis: int = 0) -> ndarray:
    return adopt(np.stack([host(_device(a)) for a in arrays], axis))


def broadcast_to(a: ndarray, shape: Shape) -> ndarray:
    return np.broadcast_to(host(_device(a)), shape).view(ndarray)


def copyto(dst: ndarray, src: Any, *, where: ndarray | None = None) -> None:
    """Copy `src` (an array of the device, or a number) into `dst`, where `where` holds if it is given."""
    value = host(_device(src)) if isinstance(src, np.ndarray) else src
    mask: Any = True if where is None else host(_device(where))
    np.copyto(host(_device(dst)), value, where=mask)


# ------------------------------------------------------------------------------------------ calculating


def _device(a: Any) -> ndarray:
    if not isinstance(a, ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    return a


def _ufunc(ufunc: np.ufunc, inputs: tuple[Any, ...], out: ndarray | None) -> Any:
    """Scalars may stand among the inputs, plain NumPy arrays may not, and the result is on the device."""
    for value in inputs:
        refuse_host(value)
    if out is not None:
        return ufunc(*inputs, out=_device(out))
    return asarray(ufunc(*inputs))


def add(x1: Any, x2: Any, out: ndarray | None = None) -> Any:
    return _ufunc(np.add, (x1, x2), out)


def subtract(x1: Any, x2: Any, out: ndarray | None = None) -> Any:
    return _ufunc(np.subtract, (x1, x2), out)


def multiply(x1: Any, x2: Any, out: ndarray | None = None) -> Any:
    return _ufunc(np.multiply, (x1, x2), out)


def divide(x1: Any, x2: Any, out: ndarray | None = None) -> Any:
    return _ufunc(np.divide, (x1, x2), out)


def maximum(x1: Any, x2: Any, out: ndarray | None = None) -> Any:
    return _ufunc(np.maximum, (x1, x2), out)


def minimum(x1: Any, x2: Any, out: ndarray | None = None) -> Any:
    return _ufunc(np.minimum, (x1, x2), out)


def isfinite(x: ndarray, out: ndarray | None = None) -> Any:
    return _ufunc(np.isfinite, (_device(x),), out)


def matmul(x1: ndarray, x2: ndarray, out: ndarray | None = None) -> Any:
    return _ufunc(np.matmul, (_device(x1), _device(x2)), out)


def sum(
    a: ndarray,
    axis: int | tuple[int, ...] | None = None,
    dtype: DType = None,
    out: ndarray | None = None,
    keepdims: bool = False,
) -> Any:
    options: dict[str, Any] = {"dtype": dtype} if dtype is not None else {}
    return _device(a).sum(axis=axis, out=out, keepdims=keepdims, **options)


def where(condition: ndarray, x: Any, y: Any) -> ndarray:
    for value in (x, y):
        refuse_host(value)
    return adopt(np.where(host(_device(condition)), host(x), host(y)))


# ------------------------------------------------------------------------------------------ kernels, device


class RawModule:
    """CUDA source, compiled for the host when the first kernel is asked for."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        enable_cooperative_groups: bool = False,
    ) -> None:
        if backend != "nvrtc":
            raise ValueError(f"the emulator stands in for backend 'nvrtc', not {backend!r}")
        self.code, self.options = code, options
        self.enable_cooperative_groups = enable_cooperative_groups
        self._library: Library | None = None

    def compile(self) -> None:
        self._library = self._library or Library(self.code, self.options)

    def get_function(self, name: str) -> Kernel:
        self.compile()
        assert self._library is not None
        return self._library.kernel(name, self.enable_cooperative_groups)


class _Stream:
    """Everything is done when a call returns."""

    null: ClassVar[_Stream]

    def synchronize(self) -> None:
        pass


_Stream.null = _Stream()


class _Device:
    def __init__(self, device: int = 0) -> None:
        self.id = device

    def synchronize(self) -> None:
        pass


class _Runtime:
    @staticmethod
    def getDeviceCount() -> int:
        return 0


class cuda:
    """What stands for the package `cupy.cuda`."""

    Stream = _Stream
    Device = _Device
    runtime = _Runtime

    @staticmethod
    def get_current_stream() -> _Stream:
        return _Stream.null
