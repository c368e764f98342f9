"""A stand-in for the part of CuPy that generated modules use, on host memory.

`gategen.emulator.installed()` puts this module where `import cupy` finds it.  What is not here does not
exist, so a generated module that comes to need more of CuPy is noticed.
"""

from __future__ import annotations

from typing import ClassVar

from numpy import bool_, dtype, float16, float32, float64, int32, int64, newaxis

from gategen.emulator import arrays, cublas
from gategen.emulator.arrays import (
    add,
    arange,
    array,
    asarray,
    ascontiguousarray,
    asnumpy,
    broadcast_to,
    concatenate,
    copyto,
    divide,
    empty,
    empty_like,
    eye,
    full,
    isfinite,
    matmul,
    maximum,
    minimum,
    multiply,
    ndarray,
    ones,
    split,
    sqrt,
    stack,
    subtract,
    sum,
    where,
    zeros,
    zeros_like,
)
from gategen.emulator.device import Device, held_at_once
from gategen.emulator.launch import Kernel, Library, kernel_at
from gategen.emulator.settings import current

__all__ = [
    "RawModule",
    "add",
    "arange",
    "array",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "bool_",
    "broadcast_to",
    "concatenate",
    "copyto",
    "cuda",
    "divide",
    "dtype",
    "empty",
    "empty_like",
    "eye",
    "float16",
    "float32",
    "float64",
    "full",
    "int32",
    "int64",
    "isfinite",
    "linalg",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "ndarray",
    "newaxis",
    "ones",
    "split",
    "sqrt",
    "stack",
    "subtract",
    "sum",
    "where",
    "zeros",
    "zeros_like",
]  # fmt: skip


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
        self._library = Library(code, options)

    def compile(self) -> None:
        self._library.compiled()

    def get_function(self, name: str) -> Kernel:
        return self._library.kernel(name, self.enable_cooperative_groups)


class _Stream:
    """Everything is done when a call returns."""

    null: ClassVar[_Stream]

    def synchronize(self) -> None:
        pass


_Stream.null = _Stream()


class _Runtime:
    CUDA_R_16BF, CUDA_R_16F = cublas.CUDA_R_16BF, cublas.CUDA_R_16F
    CUDA_R_32F, CUDA_R_64F = cublas.CUDA_R_32F, cublas.CUDA_R_64F

    @staticmethod
    def getDeviceCount() -> int:
        return 0


class _Driver:
    @staticmethod
    def occupancyMaxActiveBlocksPerMultiprocessor(function: int, threads: int, shared: int) -> int:
        """One where `residency` says how many blocks are alive, each on a processor of its own."""
        held = held_at_once(threads, shared + kernel_at(function).static_shared)
        return min(held, 1) if current().residency else held


class linalg:
    """What stands for the module `cupy.linalg`."""

    inv = staticmethod(arrays.inv)


class cuda:
    """What stands for the package `cupy.cuda`."""

    Stream = _Stream
    Device = Device
    runtime = _Runtime
    driver = _Driver
    cublas = cublas

    @staticmethod
    def get_cublas_handle() -> int:
        return 0

    @staticmethod
    def get_current_stream() -> _Stream:
        return _Stream.null
