"""The stand-in's array and the functions on it, named and behaving as CuPy's.

An array is a `numpy.ndarray` that keeps to itself: it does not mix with plain NumPy arrays (CuPy would have
to copy between host and device, and refuses). Class and functions need each other, so they stand together;
the memory that they lie in is in `memory.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gategen.emulator.memory import Host, allocated

_NARROW = ("float16", "bfloat16")  # products and sums of these accumulate in float32 and round once

Shape = int | tuple[int, ...]
DType = npt.DTypeLike | None


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
        own = globals().get(func.__name__)
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
    return ndarray(sizes, kind, *allocated(kind.itemsize * int(np.prod(sizes, dtype=np.int64))))


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
