"""Generated modules in a folder: how they are written and imported, and where those of a backend run.

Only the NumPy module runs on complex numbers. Where there is no GPU, the emulator runs the CuPy module on the
CPU.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gategen.build import all_backends, generate
from gategen.emulator import HostError
from gategen.errors import MissingError
from gategen.spec.cell import Cell

CPU, EMULATION = "CPU", "CPU emulation"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Host:
    """Where the modules of a backend run: how one is imported, and how arrays get there and back."""

    where: str
    load: Callable[[Path], ModuleType]
    put: Callable[[Any], Any] = np.asarray
    get: Callable[[Any], Array] = np.asarray


def runnable(*, emulated: bool = False) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The backends that can run here, and for each of the others a line that says why not."""
    names, reasons = [], []
    for name in all_backends():
        try:
            host_of(name, emulated=emulated)
            names.append(name)
        except MissingError as error:
            reasons.append(f"{name} is left out: {error}")
    return tuple(names), tuple(reasons)


def gpu() -> str:
    """The name of the GPU that CuPy would use; empty without one."""
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() < 1:
            return ""
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"]
    except Exception:  # no driver, no CuPy, or one that does not load: each has errors of its own
        return ""
    return name.decode() if isinstance(name, bytes) else str(name)


def host_of(backend: str, *, emulated: bool = False) -> Host:
    """Where modules of this backend run; with `emulated`, CUDA does on the CPU whatever there is."""
    if backend == "c" and c_compiler() is None:
        raise MissingError("no C compiler to make a library: install gcc or clang, or set CC")
    if not backend.startswith("cupy"):
        return Host(CPU, imported)
    name = "" if emulated else gpu()
    if name:
        import cupy

        return Host(name, imported, cupy.asarray, cupy.asnumpy)
    from gategen import emulator

    if emulator.compiler() is None:
        raise MissingError(
            "no GPU with CuPy and no C++ compiler to emulate one: install g++ or clang++, or set CXX"
        )
    with reported():
        emulator.prepare()
    with emulator.installed() as xp:
        return Host(EMULATION, emulator.load, xp.asarray, xp.asnumpy)


def c_compiler() -> str | None:
    """The compiler that generated C modules use; None where there is none."""
    known = [shlex.split(os.environ["CC"])] if os.environ.get("CC") else [["cc"], ["gcc"], ["clang"]]
    return next((found for words in known if words and (found := shutil.which(words[0]))), None)


def imported(path: Path) -> ModuleType:
    """A generated module, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"_gategen_verified_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def written(cell: Cell, backend: str, folder: Path) -> Path:
    """The module of this cell, with the files that it reads beside it."""
    files = generate(cell, backend)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode())
    return folder / next(name for name in files if name.endswith(".py"))


class ModuleError(Exception):
    """A generated module raised something, or cannot be judged."""


@contextmanager
def reported() -> Iterator[None]:
    """Within, a host that cannot compile is a `MissingError`."""
    try:
        yield
    except HostError as error:
        raise MissingError(f"CUDA cannot be compiled for the CPU: {error}") from error


@contextmanager
def blamed() -> Iterator[None]:
    """Within, what is raised is the fault of the module, which was called as documented, or the host's."""
    try:
        with reported():
            yield
    except (ModuleError, MissingError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModuleError(f"the module raised {type(error).__name__}: {reason}") from error
