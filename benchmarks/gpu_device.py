"""What `gpu.py` measures on: CuPy and a GPU, or with `--emulate` the project's stand-in, without one.

Times are taken by events of the device. The stand-in has none: there the clock of the host runs instead, so
that every line is gone through, and what it says is thrown away.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cpu import ROOT, loaded  # the neighbour file

from gategen import emulator

WITHOUT = "Without a GPU, --emulate goes through the same script."
COLD = 2  # the cache of the device is filled with so many times its size before a call


class Missing(Exception):
    """Something that is not there, and what to do about it."""


@dataclass(frozen=True)
class Device:
    """CuPy, how generated modules are loaded, and PyTorch where it can run on the same device."""

    cp: Any
    emulated: bool
    torch: Any = None
    scratch: Any = None  # what is written to before a call, so that its inputs are not in a cache

    @property
    def place(self) -> str:
        """PyTorch's name of it."""
        return "cpu" if self.emulated else "cuda"

    def load(self, path: Path) -> ModuleType:
        """A generated module, of its own."""
        return emulator.load(path) if self.emulated else loaded(path)

    def module(self, cell: str) -> ModuleType:
        return self.load(ROOT / "generated" / f"{cell}_cupy.py")

    def put(self, array: Any) -> Any:
        return self.cp.asarray(np.ascontiguousarray(array))

    def get(self, array: Any) -> Any:
        return self.cp.asnumpy(array)

    def wait(self) -> dict[str, Any]:
        """Nothing, once all that was asked of the device is done; it raises where a kernel failed."""
        self.cp.cuda.Device().synchronize()
        return {}

    def free(self) -> None:
        """Hand memory that nothing holds back to the driver: CuPy and PyTorch each have a pool."""
        if not self.emulated:
            self.cp.get_default_memory_pool().free_all_blocks()
            if self.torch:
                self.torch.cuda.empty_cache()


def device(emulate: bool, torch: bool = False) -> Device:
    """What is there, or `Missing` with a sentence."""
    cp = import_module("gategen.emulator.cupy") if emulate else real_cupy()
    found = found_torch(emulate) if torch else None
    return Device(cp, emulate, found, cp.empty(1 if emulate else COLD * cache_bytes(cp), "uint8"))


def real_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        raise Missing(
            "CuPy is not installed: pip install -e '.[cuda13]' or, for a driver of CUDA 12, '.[cuda12]'. "
            f"{WITHOUT}"
        )
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise Missing(f"CuPy finds no GPU: {error}. {WITHOUT}") from error
    if count < 1:
        raise Missing(f"CuPy finds no GPU. {WITHOUT}")
    return cupy


def cache_bytes(cp: Any) -> int:
    """Of L2."""
    return int(cp.cuda.Device().attributes["L2CacheSize"])


def found_torch(emulate: bool) -> Any:
    """PyTorch; None where it is missing or sees no GPU."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if emulate:
        torch.set_num_threads(1)
        return torch
    return torch if torch.cuda.is_available() else None


# ------------------------------------------------------------------------------------------ facts


def facts(on: Device) -> dict[str, Any]:
    """The device, its driver and what runs on it."""
    if on.emulated:
        return {"device": {"name": "emulator"}, "versions": {"numpy": np.__version__}}
    runtime = on.cp.cuda.runtime
    told = runtime.getDeviceProperties(on.cp.cuda.Device().id)
    name = told["name"].decode() if isinstance(told["name"], bytes) else str(told["name"])
    versions = {
        "cupy": on.cp.__version__,
        "numpy": np.__version__,
        "driver": driver(),
        "cuda of the driver": runtime.driverGetVersion(),
        "cuda runtime": runtime.runtimeGetVersion(),
        "nvrtc": ".".join(map(str, on.cp.cuda.nvrtc.getVersion())),
    }
    if on.torch:
        versions["torch"] = on.torch.__version__
        versions["cuda of torch"] = str(on.torch.version.cuda)
        versions["cudnn"] = on.torch.backends.cudnn.version()
    return {
        "device": {
            "name": name,
            "sms": told["multiProcessorCount"],
            "memory": told["totalGlobalMem"],
            "l2": told["l2CacheSize"],
            "arch": int(on.cp.cuda.Device().compute_capability),
        },
        "versions": versions,
    }


def driver() -> str:
    """The version of NVIDIA's driver as Linux tells it; empty elsewhere."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except OSError:
        return ""
    return next((word for word in first.split() if word[:1].isdigit() and "." in word), "")


# ------------------------------------------------------------------------------------------ the clock


def seconds(on: Device, run: Callable[[], object], cold: bool = True) -> float:
    """Of one call; with `cold` nothing that it reads is in a cache."""
    if cold:
        on.scratch.fill(0)
    if on.emulated:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    begin, end = on.cp.cuda.Event(), on.cp.cuda.Event()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(1e-3 * on.cp.cuda.get_elapsed_time(begin, end))


def in_turns(
    on: Device, runs: Mapping[str, Callable[[], object]], most: int, budget: float
) -> dict[str, list[float]]:
    """Seconds of each, a number a turn: after two calls to warm up, all in turns, at least 3 of them."""
    for run in runs.values():
        run()
    on.wait()
    once = sum(seconds(on, run) for run in runs.values())
    turns = max(3, min(most, int(budget / max(once, 1e-9))))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            found[name].append(float(f"{seconds(on, run):.4g}"))
    return found


@contextmanager
def tf32(on: Device, allowed: bool) -> Iterator[None]:
    """Whether products of float32 may be those of TF32, here and in PyTorch."""
    before = os.environ.get("CUPY_TF32")
    os.environ["CUPY_TF32"] = str(int(allowed))
    if on.torch:
        on.torch.backends.cudnn.allow_tf32 = allowed
        on.torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUPY_TF32"]
        else:
            os.environ["CUPY_TF32"] = before


def storage(dtype: str) -> np.dtype[Any]:
    """The dtype of arrays; `tf32` is one of products only."""
    if dtype == "bfloat16":
        import ml_dtypes

        narrow: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return narrow
    return np.dtype("float32" if dtype == "tf32" else dtype)
