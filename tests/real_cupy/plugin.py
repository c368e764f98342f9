"""`pytest -p real_cupy.plugin`: tests of the CuPy modules with the real CuPy in place of the stand-in.

CuPy runs on host memory: its CUDA is `device.cpp`. What it refuses, copies and launches is as on a GPU;
speed and concurrency are not. x86-64 Linux alone, since the functions of the CUDA runtime that CuPy carries
within itself are overwritten with jumps.
"""

import ctypes
import mmap
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gategen import emulator
from gategen.emulator import build, settings

HERE = Path(__file__).parent
_CUPY = Path(find_spec("cupy").origin).parents[1]
_UNUSED = "<cupy/complex.cuh>", "<cupy/atomics.cuh>"  # thrust needs the standard library
_NARROW = "<cupy/float16.cuh>", "<cupy/bfloat16.cuh>"
_NVRTC = "-D__CUDACC_RTC__", "-D__CUDACC_VER_MAJOR__=13", "-Dassert(x)=", "-DNULL=0"
_PRELUDE = """#include <initializer_list>
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
"""


def _library(soname: str, *flags: str, stubs: Iterable[str] = ()) -> ctypes.CDLL:
    """`device.cpp` under the name that CuPy asks for; whoever loads that name later is given this one."""
    text = (HERE / "device.cpp").read_text()
    text += "".join(f"STUB({name})\n" for name in stubs if f" {name}(" not in text)
    options = (
        "-std=c++17",
        "-O2",
        "-w",
        "-fPIC",
        "-shared",
        f"-I{build.HERE}",
        f"-Wl,-soname,{soname}",
        *flags,
    )
    path = build._cached(".so", text, options)
    return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def _wanted(library: Path) -> list[str]:
    """What a library wants of cuBLAS."""
    listed = subprocess.run(
        ["nm", "-D", "-u", str(library)], capture_output=True, text=True, check=True
    ).stdout
    return sorted(set(re.findall(r"\b(cublas\w+)", listed)))


def _redirect(library: str) -> None:
    """Every cuda... of a loaded library begins with a jump to on_host_cuda..., or aborts with its name."""
    with open("/proc/self/maps") as maps:
        base = min(int(line.split("-")[0], 16) for line in maps if library in line)
    listed = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    for match in re.finditer(r"^([0-9a-f]+) [tT] (cuda[A-Z]\w*)$", listed, re.M):
        address, name = base + int(match[1], 16), match[2]
        own = getattr(DEVICE, f"on_host_{name}", None)
        if own is None:
            text = ctypes.create_string_buffer(name.encode())
            _kept.append(text)
            code = b"\x48\xbf" + struct.pack("<Q", ctypes.addressof(text))  # mov rdi, text
            own = DEVICE.on_host_missing
        else:
            code = b""
        target = ctypes.cast(own, ctypes.c_void_p).value
        code += b"\x48\xb8" + struct.pack("<Q", target) + b"\xff\xe0"  # mov rax, target; jmp rax
        page = address - address % mmap.PAGESIZE
        length, everything = address + len(code) - page, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(length), everything):
            raise OSError(f"cannot write to {name} of {library}")
        ctypes.memmove(address, code, len(code))


def _compile(program: Any, options: Sequence[str] = (), log_stream: Any = None) -> tuple[bytes, Any]:
    """In place of NVRTC: what CuPy is given as a cubin is the path of a library of the emulator."""
    if not program.src.strip():  # CuPy tries its options out
        return b"\n", None
    return str(_built(program.src, options)).encode() + b"\0", None


def _built(text: str, options: Sequence[str]) -> Path:
    own = tuple(option for option in options if option.startswith("-D") or "std=" in option)
    if "#include <cupy/" not in text:
        return build.build(text, own)
    # A kernel of CuPy's own: its headers belong in front of the namespace that the emulator has for kernels.
    include = re.compile(r"^\s*#include (.*)\n", re.M)
    headers = [name for name in include.findall(text) if name not in _UNUSED]
    lines = "".join(f"#include {name}\n" for name in (*_NARROW, *headers))
    source = _PRELUDE + lines + build._wrapped(include.sub("\n", text))
    usual = (flag for flag in build._kernel_flags(own) if not flag.startswith("-nostdinc"))
    flags = (*usual, "-fpermissive", "-shared", f"-I{_CUPY / 'cupy/_core/include'}", *_NVRTC)
    runtime = build._cached(".o", (build.HERE / "runtime.cpp").read_text(), build._runtime_flags(False))
    return build._cached(".so", source, flags, runtime)


@contextmanager
def tally() -> Iterator[Counter[str]]:
    """What was done on the device within, in the words of gategen.emulator.tally."""
    DEVICE.on_host_forget()
    counter: Counter[str] = Counter()
    yield counter
    operations = [DEVICE.on_host_operation(i).decode() for i in range(DEVICE.on_host_count())]
    counter.update(_in_our_words(operation) for operation in operations if operation != "wait")


def _in_our_words(operation: str) -> str:
    kernel = re.fullmatch(r"kernel (?:cupy_([a-z_]+?)(?:__(\w+))?|(_tensordot\w+))", operation)
    if kernel is None:
        return operation
    name, types, product = kernel.groups()
    if product:
        return "product"
    if name == "copy" and re.match("(float|int)_", types):  # from a number
        return "fill"
    return {"true_divide": "divide"}.get(name, name)


@contextmanager
def stand_in() -> Iterator[ModuleType]:
    """The emulator's CuPy once more."""
    sys.modules["gategen.emulator.cupy"] = emulator.cupy = STAND_IN
    try:
        yield STAND_IN
    finally:
        sys.modules["gategen.emulator.cupy"] = emulator.cupy = CUPY


@contextmanager
def _thread_order(order: settings.Kind, seed: int = 0) -> Iterator[None]:
    """As gategen.emulator's, told to the device."""
    with settings.thread_order(order, seed):
        DEVICE.on_host_order(settings.ORDERS.index(order), seed)
        try:
            yield
        finally:
            DEVICE.on_host_order(0, 0)


def _installed() -> ModuleType:
    """The real CuPy, from here on wherever the stand-in would be."""
    os.environ["CUPY_CACHE_DIR"] = tempfile.mkdtemp(prefix="real-cupy-")
    os.environ["CUPY_ACCELERATORS"] = ""
    import cupy_backends.cuda.api.runtime as runtime

    _redirect(runtime.__file__)
    import cupy
    from cupy.cuda import compiler

    compiler._NVRTCProgram.compile = _compile
    cupy.cuda.set_allocator(None)  # every array is memory of its own, which starts as NaN
    product = cupy.matmul

    def host(a: Any) -> np.ndarray:
        memory = (ctypes.c_char * a.nbytes).from_address(a.data.ptr)
        return np.ndarray(a.shape, a.dtype, memory, strides=a.strides)

    def inv(a: Any) -> Any:
        """There is no cuSOLVER."""
        made = cupy.empty(a.shape, a.dtype)
        host(made)[...] = np.linalg.inv(host(cupy.ascontiguousarray(a)))
        DEVICE.on_host_note(b"inv")
        return made

    def matmul(a: Any, b: Any, out: Any = None) -> Any:
        """There is no batched cuBLAS."""
        if max(a.ndim, b.ndim) < 3 or min(a.ndim, b.ndim) < 2 or not (a.size and b.size):
            return product(a, b, out=out)
        operands = [
            value if value.flags.c_contiguous or value.flags.f_contiguous else cupy.ascontiguousarray(value)
            for value in (a, b)
        ]
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        made = cupy.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
        host(made)[...] = np.matmul(*(host(value).astype(made.dtype) for value in operands))
        DEVICE.on_host_note(b"product")
        if out is None:
            return made
        if out.flags.c_contiguous:
            host(out)[...] = host(made)
        else:
            out[...] = made
        return out

    cupy.linalg.inv = inv
    cupy.matmul = matmul
    sys.modules["gategen.emulator.cupy"] = emulator.cupy = cupy
    emulator.thread_order = _thread_order
    return cupy


_kept: list[object] = []
STAND_IN = import_module("gategen.emulator.cupy")
DEVICE = _library("libcuda.so.1")
DEVICE.on_host_operation.restype = ctypes.c_char_p
DEVICE.on_host_order.argtypes = ctypes.c_int, ctypes.c_ulonglong
(_CUBLAS,) = (_CUPY / "cupy_backends/cuda/libs").glob("cublas.*.so")
BLAS = _library("libcublas.so.13", "-DBLAS", stubs=_wanted(_CUBLAS))
LT = _library("libcublasLt.so.13", "-DBLAS")
BLAS.on_host_note_with(ctypes.cast(DEVICE.on_host_note, ctypes.c_void_p))
CUPY = _installed()
