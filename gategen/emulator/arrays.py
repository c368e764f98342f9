"""The stand-in's array and the functions on it, named and behaving as CuPy's.

An array keeps to itself: it does not mix with plain NumPy arrays, nor become one unless it is asked to (CuPy
would have to copy between host and device, and refuses). What CuPy copies is copied, and counted by `tally`.
Arrays are on the device that was the current one when they were made; what CuPy does not do for another, it
refuses. Class and functions need each other, so they stand together; their memory is that of `memory.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import byte_bounds
from numpy.lib.mixins import NDArrayOperatorsMixin

from gategen.emulator.device import Device, current
from gategen.emulator.errors import EmulatorError
from gategen.emulator.memory import Host, allocated
from gategen.emulator.tally import note

_NARROW = ("float16", "bfloat16")  # products and sums of these accumulate in float32 and round once
_KINDS = "?bBhHiIlLqQefdFD"  # NumPy's letters of what CuPy can store, beside bfloat16

Shape = int | tuple[int, ...]
Axis = int | tuple[int, ...] | None
DType = npt.DTypeLike | None


class Pointer(NamedTuple):
    """Where an array begins."""

    ptr: int


class ndarray(NDArrayOperatorsMixin):
    """An array in memory that stands for the device's."""

    def __init__(self, memory: Host, at: int | None = None) -> None:
        """Made by the functions below, of memory with zones, on the current device or the one given."""
        self._host = memory
        self._at = current() if at is None else at

    # ---------------------------------------------------------------------------------- what it is

    @property
    def data(self) -> Pointer:
        return Pointer(self._host.ctypes.data)

    @property
    def device(self) -> Device:
        return Device(self._at)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._host.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._host.dtype

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def itemsize(self) -> int:
        return self._host.itemsize

    @property
    def nbytes(self) -> int:
        return self._host.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return self._host.strides

    @property
    def flags(self) -> Any:
        return self._host.flags

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return repr(self._host)

    def __str__(self) -> str:
        return str(self._host)

    # ---------------------------------------------------------------------------------- to and from the host

    def get(self) -> Host:
        """A copy on the host."""
        note("to the host")
        return np.array(self._host)

    def set(self, values: Host) -> None:
        """Copy from the host."""
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"set {self.dtype}{self.shape} from {values.dtype}{values.shape}")
        note("to the device")
        self._host[...] = values

    def __array__(self, *_: Any, **__: Any) -> Host:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    # ---------------------------------------------------------------------------------- views and copies

    @property
    def T(self) -> ndarray:
        return ndarray(self._host.T, self._at)

    def transpose(self, *axes: Any) -> ndarray:
        return ndarray(self._host.transpose(*axes), self._at)

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return ndarray(self._host.swapaxes(axis1, axis2), self._at)

    def squeeze(self, axis: Axis = None) -> ndarray:
        return ndarray(self._host.squeeze(axis), self._at)

    def view(self) -> ndarray:
        return ndarray(self._host.view(), self._at)

    def reshape(self, *shape: Any) -> ndarray:
        """A view where there is one, as in NumPy."""
        return _kept(self, self._host.reshape(*shape))

    def ravel(self) -> ndarray:
        return _kept(self, self._host.ravel())

    def copy(self) -> ndarray:
        return _copied(self._host)

    def astype(self, dtype: npt.DTypeLike, copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == np.dtype(dtype) else _copied(host(self), dtype)

    def fill(self, value: Any) -> None:
        host(self).fill(value)
        note("fill")

    def __iter__(self) -> Iterator[ndarray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        """As CuPy: an element is an array without axes."""
        for index in key if isinstance(key, tuple) else (key,):
            if isinstance(index, np.ndarray):
                raise IndexError("index an array of the device with numpy.ndarray")
        own = tuple(map(host, key)) if isinstance(key, tuple) else (host(key),)
        if not any(isinstance(index, np.ndarray | list) for index in own):
            return ndarray(self._host[(*own, ...) if Ellipsis not in own else own], self._at)
        note("take")
        return _placed(self._host[own])

    def __setitem__(self, key: Any, value: Any) -> None:
        refuse_host(value)
        own = tuple(map(host, key)) if isinstance(key, tuple) else host(key)
        if isinstance(value, ndarray) and _same(self._host[own], value._host):
            return  # the end of `a[key] += b`
        if isinstance(value, ndarray):
            self._host[own] = value._host  # CuPy can copy from one device to another
            note("copy")
        else:
            host(self)[own] = value
            note("fill")

    # ---------------------------------------------------------------------------------- calculating

    def sum(
        self, axis: Axis = None, dtype: DType = None, out: ndarray | None = None, keepdims: bool = False
    ) -> Any:
        return self._reduced("sum", axis, out, keepdims, dtype)

    def mean(self, axis: Axis = None, out: ndarray | None = None, keepdims: bool = False) -> Any:
        if str(self.dtype) in _NARROW:
            note("copy")  # its result is rounded by another kernel
        return self._reduced("mean", axis, out, keepdims)

    def max(self, axis: Axis = None, out: ndarray | None = None, keepdims: bool = False) -> Any:
        return self._reduced("max", axis, out, keepdims)

    def min(self, axis: Axis = None, out: ndarray | None = None, keepdims: bool = False) -> Any:
        return self._reduced("min", axis, out, keepdims)

    def any(self, axis: Axis = None, out: ndarray | None = None, keepdims: bool = False) -> Any:
        return self._reduced("any", axis, out, keepdims)

    def all(self, axis: Axis = None, out: ndarray | None = None, keepdims: bool = False) -> Any:
        return self._reduced("all", axis, out, keepdims)

    def _reduced(
        self, name: str, axis: Axis, out: ndarray | None, keepdims: bool, dtype: DType = None
    ) -> ndarray:
        narrow = str(self.dtype) in _NARROW and name in ("sum", "mean") and dtype is None
        wide = np.asarray(host(self), np.float32) if narrow else host(self)
        options = {"dtype": dtype} if dtype is not None else {}
        note(name)
        result = np.asarray(getattr(wide, name)(axis=axis, keepdims=keepdims, **options))
        return _given(result.astype(self.dtype) if narrow else result, out)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy's functions and the operators; loops and types are NumPy's, which CuPy has taken over."""
        (out,) = kwargs.pop("out", (None,))
        for value in (*inputs, kwargs.get("where")):
            refuse_host(value)
        if out is not None and not isinstance(out, ndarray):
            raise TypeError("out= wants an array of the device, not numpy.ndarray")
        if method != "__call__" or kwargs:
            raise TypeError(f"numpy.{ufunc.__name__} does not work so on arrays of the device")
        if ufunc is np.matmul:
            return matmul(inputs[0], inputs[1], out)
        own = [*map(host, inputs)]
        note(ufunc.__name__)
        if out is None:
            return _placed(np.asarray(ufunc(*own)))
        ufunc(*own, out=host(out))
        return out

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """As CuPy: NumPy's functions become the module's own of that name."""
        own = globals().get(func.__name__)
        if own is None:
            raise TypeError(f"numpy.{func.__name__} does not work on arrays of the device")
        return own(*args, **kwargs)


def empty(shape: Shape, dtype: npt.DTypeLike = float) -> ndarray:
    """An array of NaN (of ones in every bit) with its zones."""
    kind = np.dtype(dtype)
    if kind.char not in _KINDS and str(kind) != "bfloat16":
        raise ValueError(f"Unsupported dtype {kind}")
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    memory, start = allocated(kind.itemsize * int(np.prod(sizes, dtype=np.int64)))
    return ndarray(np.ndarray(sizes, kind, memory, start))


def host(value: Any) -> Any:
    """The same memory as a plain array, for the current device to work on; anything else as it is."""
    if not isinstance(value, ndarray):
        return value
    if value._at != current():
        raise ValueError(
            f"The device where the array resides ({value._at}) is different from the current device"
            f" ({current()}). Peer access is unavailable between these devices."
        )
    return value._host


def refuse_host(value: object) -> None:
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")


def _device(a: Any) -> ndarray:
    if not isinstance(a, ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    return a


def _placed(values: Host, dtype: DType = None) -> ndarray:
    """Values in memory of the device."""
    result = empty(values.shape, values.dtype if dtype is None else dtype)
    result._host[...] = values
    return result


def _copied(values: Host, dtype: DType = None) -> ndarray:
    """On the current device, also from another one."""
    note("copy")
    return _placed(values, dtype)


def _kept(before: ndarray, after: Host) -> ndarray:
    """What NumPy made of an array: the same memory if it is a view of it."""
    if np.shares_memory(before._host, after) or not after.size:
        return ndarray(after, before._at)
    return _copied(after)


def _same(a: Host, b: Host) -> bool:
    """Whether they are one array and not only equal."""
    return a.__array_interface__ == b.__array_interface__


def _given(result: Host, out: ndarray | None) -> ndarray:
    if out is None:
        return _placed(result)
    out._host[...] = result
    return out


# ------------------------------------------------------------------------------------------ making arrays


def full(shape: Shape, fill_value: Any, dtype: DType = None) -> ndarray:
    result = empty(shape, np.asarray(host(fill_value)).dtype if dtype is None else dtype)
    result.fill(host(fill_value))
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
    if isinstance(a, ndarray):
        return _copied(a._host, dtype)
    result = _placed(np.asarray(a, dtype))
    if result.size:
        note("to the device")
    return result


def asarray(a: Any, dtype: DType = None, order: str | None = None) -> ndarray:
    ready = order is None or (isinstance(a, ndarray) and a.flags.c_contiguous)
    ready = ready and isinstance(a, ndarray) and a._at == current()
    return a if ready and (dtype is None or a.dtype == np.dtype(dtype)) else array(a, dtype)


def ascontiguousarray(a: Any, dtype: DType = None) -> ndarray:
    """Unlike `asarray`, no copy on the current device of what is in order on another one."""
    if isinstance(a, ndarray) and a.flags.c_contiguous and (dtype is None or a.dtype == np.dtype(dtype)):
        return a
    return asarray(ndarray(host(a), a._at) if isinstance(a, ndarray) else a, dtype, "C")


def eye(N: int, dtype: DType = float) -> ndarray:
    note("fill")  # zeros, then the diagonal
    note("fill")
    return _placed(np.eye(N, dtype=dtype))


def arange(start: float, stop: float | None = None, step: float = 1, dtype: DType = None) -> ndarray:
    first, last = (0, start) if stop is None else (start, stop)
    note("arange")
    return _placed(np.arange(first, last, step), dtype)


def asnumpy(a: Any) -> Host:
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


# ------------------------------------------------------------------------------------------ rearranging


def concatenate(arrays: Sequence[ndarray], axis: int = 0) -> ndarray:
    return _joined(np.concatenate([host(_device(a)) for a in arrays], axis), len(arrays))


def split(array: ndarray, parts: int | Sequence[int]) -> list[ndarray]:
    """Views, one below the other: so many, or between these rows."""
    return [ndarray(part, array._at) for part in np.split(_device(array)._host, parts)]


def stack(arrays: Sequence[ndarray], axis: int = 0) -> ndarray:
    return _joined(np.stack([host(_device(a)) for a in arrays], axis), len(arrays))


def _joined(result: Host, count: int) -> ndarray:
    for _ in range(count):
        note("copy")
    return _placed(result)


def broadcast_to(a: ndarray, shape: Shape) -> ndarray:
    return ndarray(np.broadcast_to(_device(a)._host, shape), a._at)


def copyto(dst: ndarray, src: Any, *, where: ndarray | None = None) -> None:
    """Copy `src` (an array of the device, or a number) into `dst`, where `where` holds if it is given."""
    refuse_host(src)
    there = "copy" if isinstance(src, ndarray) else "fill"
    target, source = (
        (_device(dst)._host, src._host) if isinstance(src, ndarray) else (host(_device(dst)), src)
    )
    np.copyto(target, source, where=True if where is None else host(_device(where)))
    note(there if where is None else "copy_where")


# ------------------------------------------------------------------------------------------ calculating


def _ufunc(ufunc: np.ufunc, inputs: tuple[Any, ...], out: ndarray | None) -> Any:
    """Scalars may stand among the inputs, plain NumPy arrays may not, and the result is on the device."""
    for value in inputs:
        refuse_host(value)
    if not any(isinstance(value, ndarray) for value in inputs):
        inputs = tuple(map(array, inputs))
    return ufunc(*inputs, out=None if out is None else _device(out))


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


def sqrt(x: ndarray, out: ndarray | None = None) -> Any:
    return _ufunc(np.sqrt, (_device(x),), out)


def isfinite(x: ndarray, out: ndarray | None = None) -> Any:
    return _ufunc(np.isfinite, (_device(x),), out)


def matmul(x1: ndarray, x2: ndarray, out: ndarray | None = None) -> Any:
    return _product(_device(x1), _device(x2), None if out is None else _device(out))


def _product(a: ndarray, b: ndarray, out: ndarray | None) -> ndarray:
    """cuBLAS takes operands of one type, without gaps between rows or columns; its result has none either."""
    dtype = np.result_type(a.dtype, b.dtype)
    operands = [_operand(value, dtype) for value in (a, b)]
    if any(value._at != current() for value in (a, b, *([out] if out is not None else []))):
        raise EmulatorError(f"a product on device {current()} of what is not there, which CuPy lets happen")
    wide = np.dtype(np.float32) if str(dtype) in _NARROW else dtype
    result = np.matmul(*(value.astype(wide, copy=False) for value in operands)).astype(dtype, copy=False)
    if result.size:
        note("product" if a.shape[-1] else "fill")
    if out is None:
        return _placed(result)
    if result.shape != out.shape:
        raise ValueError(f"out has shape {out.shape}, the product has {result.shape}")
    direct = out.flags.c_contiguous and out.dtype == dtype and not any(_meet(out._host, o) for o in operands)
    if result.size and not direct:
        note("copy")
    out._host[...] = result
    return out


def _operand(a: ndarray, dtype: np.dtype[Any]) -> Host:
    if a.size and (a.dtype != dtype or not (a.flags.c_contiguous or a.flags.f_contiguous)):
        return _copied(a._host, dtype)._host
    return a._host


def _meet(a: Host, b: Host) -> bool:
    (first, end), (other, other_end) = byte_bounds(a), byte_bounds(b)
    return first < other_end and other < end


def sum(
    a: ndarray, axis: Axis = None, dtype: DType = None, out: ndarray | None = None, keepdims: bool = False
) -> Any:
    return _device(a).sum(axis, dtype, out, keepdims)


def where(condition: ndarray, x: Any, y: Any) -> ndarray:
    """Not of bfloat16, of which CuPy makes float32: it has no such loop."""
    for value in (x, y):
        refuse_host(value)
    result = np.where(host(_device(condition)), host(x), host(y))
    note("where")
    return _placed(result, np.float32 if str(result.dtype) == "bfloat16" else result.dtype)


def inv(a: ndarray) -> ndarray:
    """As `cupy.linalg.inv`, of float32 and float64 alone."""
    if _device(a).dtype not in (np.float32, np.float64):
        raise TypeError(f"Unsupported dtype {a.dtype}")
    note("inv")
    return _placed(np.linalg.inv(host(a)))
