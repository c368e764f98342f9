"""Compile CUDA source with NVRTC as CuPy does; needs neither a GPU nor a driver, nor CuPy.

The compiler and CUDA's headers come from the wheels nvidia-cuda-nvrtc and nvidia-cuda-runtime.
"""

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

# What CuPy 14 passes for a RawModule, less the folders of its own headers.
CUPY_OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")

_KERNEL = re.compile(r"Compiling entry function '(\w+)'(.*?)Used (\d+) registers", re.S)
_SPILLS = re.compile(r"(\d+) bytes spill (?:stores|loads)")
_STACK = re.compile(r"(\d+) bytes stack frame")
_SHARED = re.compile(r"Compiling entry function '(\w+)'(?:(?!Compiling).)*?, (\d+) bytes smem", re.S)
_WARNING = re.compile(r"\bwarning(:| #)", re.I)


class Report(NamedTuple):
    """What NVRTC and ptxas say; registers and bytes by kernel."""

    log: str
    registers: dict[str, int]
    spill_bytes: dict[str, int]
    stack_bytes: dict[str, int]  # of arrays that no registers hold
    shared_bytes: dict[str, int]  # without what a launch asks for
    cubin_size: int

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(line for line in self.log.splitlines() if _WARNING.search(line))


class CompileError(Exception):
    """NVRTC refused the source; the message is its log."""


def compile(source: str, arch: int, options: tuple[str, ...] = ()) -> Report:
    """`source` as a cubin for sm_`arch`."""
    _, include = _toolkit()
    report = ("--ptxas-options=-v", f"-arch=sm_{arch}", f"-I{include}")
    program = ctypes.c_void_p()
    _call("CreateProgram", ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    try:
        arguments = [option.encode() for option in (*CUPY_OPTIONS, *report, *options)]
        failed = _status(
            "CompileProgram", program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)
        )
        log = _log(program)
        if failed:
            raise CompileError(log)
        size = ctypes.c_size_t()
        _call("GetCUBINSize", program, ctypes.byref(size))
    finally:
        _call("DestroyProgram", ctypes.byref(program))
    kernels = _KERNEL.findall(log)
    spills = {name: sum(map(int, _SPILLS.findall(text))) for name, text, _ in kernels}
    stack = {name: sum(map(int, _STACK.findall(text))) for name, text, _ in kernels}
    registers = {name: int(count) for name, _, count in kernels}
    shared = dict.fromkeys(registers, 0) | {name: int(count) for name, count in _SHARED.findall(log)}
    return Report(log, registers, spills, stack, shared, size.value)


def version() -> str:
    """Of NVRTC."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("Version", ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@cache
def _toolkit() -> tuple[ctypes.CDLL, Path]:
    """NVRTC, and the folder of CUDA's headers: one folder of the wheels since CUDA 13, one a wheel before."""
    spec = find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    libraries = sorted(path for root in roots for path in root.glob("*/lib/libnvrtc.so.*[0-9]"))
    headers = sorted(path.parent for root in roots for path in root.glob("*/include/cuda_fp16.h"))
    if not libraries or not headers:
        raise FileNotFoundError("NVRTC: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime")
    return ctypes.CDLL(str(libraries[-1])), headers[-1]


def _status(function: str, *arguments: object) -> int:
    return int(getattr(_toolkit()[0], f"nvrtc{function}")(*arguments))


def _call(function: str, *arguments: object) -> None:
    status = _status(function, *arguments)
    if status:
        raise RuntimeError(f"nvrtc{function}: error {status}")


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _call("GetProgramLogSize", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _call("GetProgramLog", program, text)
    return text.value.decode()
