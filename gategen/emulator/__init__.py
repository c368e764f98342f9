"""CUDA on the CPU: runs generated `.cu` files and `_cupy.py` modules, unchanged, without a GPU.

The text of a `.cu` file is compiled by the host's C++ compiler (`cuda.h` gives it CUDA's names) and its
threads run as fibers on one thread of the host, in an order one can choose (`runtime.cpp`). A generated
`_cupy.py` runs on a stand-in for CuPy (`cupy.py`). What a GPU leaves undefined is made visible:

* memory starts as NaN: every array of `cupy.empty`, and shared memory at the start of each block;
* a barrier that not all threads of a block reach is an error that says what each of them does, not a hang;
* a write outside an array or outside dynamic shared memory is an error after the launch;
* a missing barrier gives NaN or a result that depends on `thread_order`;
* within `race_detector`, accesses that nothing puts in order are an error, whatever order ran: also where a
  release or an acquire is missing that the host, whose memory is ordered more strictly, does not need;
* blocks that wait for more of them than are alive at once (one in an ordinary launch, all in a cooperative
  one, or what `residency` says) are an error, not a hang.

`tally` counts what a device would be given to do: launches, products, and copies, also those of CuPy's own.

Waiting for another thread or block through memory needs a loop that contains `__ldcg`, `__ldcv`, an atomic,
`__nv_atomic_load_n`, `__threadfence` or `__nanosleep`: there the others get their turn. A loop over a plain
`volatile` load never ends. Not emulated: inline PTX, cooperative_groups.h, clusters, values that a weak
memory order would allow, flush-to-zero, fused multiply-add, `extern "C" { ... }` around kernels, `extern
__shared__` outside a function. Linux only; x86-64 and aarch64 switch stacks in a few instructions, others
through ucontext.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType

from gategen.emulator.build import compiler, prepare, sanitizer_environment
from gategen.emulator.errors import EmulatorError, HostError
from gategen.emulator.settings import race_detector, residency, thread_order
from gategen.emulator.tally import tally

__all__ = [
    "EmulatorError", "HostError", "compiler", "installed", "load", "prepare", "race_detector", "residency",
    "sanitizer_environment", "tally", "thread_order",
]  # fmt: skip


@contextmanager
def installed() -> Iterator[ModuleType]:
    """Within, `import cupy` gives the stand-in; afterwards whatever it gave before."""
    stand_in = import_module("gategen.emulator.cupy")
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = stand_in
    try:
        yield stand_in
    finally:
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


def load(path: str | os.PathLike[str]) -> ModuleType:
    """The generated module at `path`, running on the emulator, under a name of its own."""
    file = Path(path).resolve()
    name = f"_gategen_emulated_{file.stem}_{sha256(bytes(file)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with installed():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
