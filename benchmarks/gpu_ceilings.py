"""For `gpu.py`: what the device can do at best. Copies, products, launches, barriers between blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gpu_device import Device, seconds, storage, tf32  # the neighbour file
from gpu_scale import Scale

SOURCE = Path(__file__).with_name("gpu_ceilings.cu")
TURNS = 5
Measure = Callable[[], dict[str, Any]]
DTYPES = ("float16", "bfloat16", "tf32", "float32", "float64")


def ceilings(on: Device, scale: Scale) -> Iterator[tuple[dict[str, Any], Measure]]:
    """What is measured, and how."""
    yield {"what": "copy"}, lambda: copy(on, scale.copied)
    yield {"what": "launch"}, lambda: launch(on, scale.launches)
    for dtype in DTYPES:
        yield {"what": "product", "dtype": dtype}, partial(product, on, dtype, scale)
    most = scale.blocks or int(on.cp.cuda.Device().attributes["MultiProcessorCount"])
    for blocks in group_sizes(most):
        told = {"what": "barrier", "blocks": blocks, "groups": most // blocks}
        yield told, partial(barrier, on, blocks, most // blocks, scale.rounds)


def group_sizes(most: int) -> Sequence[int]:
    """Powers of two, and all blocks that run at once with one on each SM."""
    return [*(1 << k for k in range(most.bit_length()) if 1 << k < most), most]


def copy(on: Device, count: int) -> dict[str, Any]:
    """Bytes a second that a large copy reads and writes."""
    drawn = np.random.default_rng(0).standard_normal(min(count, 1 << 22), "float32")
    source, target = on.put(np.resize(drawn, count)), on.cp.empty(count, "float32")
    on.cp.copyto(target, source)
    taken = [seconds(on, lambda: on.cp.copyto(target, source), cold=False) for _ in range(TURNS)]
    return {"bytes": 8 * count, "seconds": taken, "bytes a second": 8 * count / median(taken)}


def launch(on: Device, count: int) -> dict[str, Any]:
    """A kernel that does nothing, many times: on the device, and what the host takes to ask for it."""
    kernel = kernels(on, cooperative=False).get_function("nothing")

    def many() -> None:
        for _ in range(count):
            kernel((1,), (32,), ())

    many()
    on.wait()
    began = time.perf_counter()
    many()
    asked = time.perf_counter() - began
    on.wait()
    taken = [seconds(on, many, cold=False) / count for _ in range(TURNS)]
    return {"seconds": taken, "seconds of the host": asked / count}


def product(on: Device, dtype: str, scale: Scale) -> dict[str, Any]:
    """Operations a second of a large product, by cuBLAS, with sums as the modules have them."""
    n = scale.product if dtype in ("float32", "float64") else scale.narrow_product
    kind = storage(dtype)
    drawn = np.random.default_rng(0).standard_normal((n, n), "float32").astype(kind)
    a, b, out = on.put(drawn), on.put(drawn.T), on.cp.empty((n, n), kind)

    def run() -> None:
        gemm(on, dtype, n, a, b, out)

    with tf32(on, dtype == "tf32"):
        run()
        taken = [seconds(on, run, cold=False) for _ in range(TURNS)]
    return {"n": n, "seconds": taken, "flops a second": 2 * n**3 / median(taken)}


def gemm(on: Device, dtype: str, n: int, a: Any, b: Any, out: Any) -> None:
    cublas, runtime = on.cp.cuda.cublas, on.cp.cuda.runtime
    kinds = {
        "float32": runtime.CUDA_R_32F, "tf32": runtime.CUDA_R_32F, "float64": runtime.CUDA_R_64F,
        "float16": runtime.CUDA_R_16F, "bfloat16": runtime.CUDA_R_16BF,
    }  # fmt: skip
    compute = {
        "tf32": cublas.CUBLAS_COMPUTE_32F_FAST_TF32, "float64": cublas.CUBLAS_COMPUTE_64F,
    }.get(dtype, cublas.CUBLAS_COMPUTE_32F)  # fmt: skip
    numbers = np.array([0, 1], "float64" if dtype == "float64" else "float32")
    zero, one, kind = numbers.ctypes.data, numbers[1:].ctypes.data, kinds[dtype]
    cublas.gemmEx(
        on.cp.cuda.get_cublas_handle(), 0, 0, n, n, n, one, a.data.ptr, kind, n, b.data.ptr, kind, n,
        zero, out.data.ptr, kind, n, compute, cublas.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ barriers


def kernels(on: Device, cooperative: bool = True) -> Any:
    """Those of `gpu_ceilings.cu`; of a cooperative launch all blocks are there at once, or it is an error."""
    return on.cp.RawModule(
        code=SOURCE.read_text(), options=("-std=c++17",), enable_cooperative_groups=cooperative
    )


def barrier(on: Device, blocks: int, groups: int, rounds: int) -> dict[str, Any]:
    """Seconds of one barrier of groups of so many blocks, from the difference of long and short runs."""
    checked_barriers(on, blocks, groups, min(rounds, 100))
    kernel = kernels(on).get_function("barriers")
    arrived = on.cp.zeros(32 * groups, "uint32")

    def run(count: int) -> float:
        arrived.fill(0)
        arguments = (np.uint32(count), arrived)
        return seconds(on, lambda: kernel((1, blocks, groups), (256,), arguments), cold=False)

    run(rounds)
    taken = [(run(2 * rounds) - run(rounds)) / rounds for _ in range(TURNS)]
    return {"seconds": taken}


def checked_barriers(on: Device, blocks: int, groups: int, rounds: int) -> dict[str, Any]:
    """Nothing, if no block came out of a barrier before its neighbour was in."""
    arrived, said = on.cp.zeros(32 * groups, "uint32"), on.cp.zeros(blocks * groups, "uint32")
    wrong = on.cp.zeros(1, "uint32")
    kernel = kernels(on).get_function("checked_barriers")
    kernel((1, blocks, groups), (256,), (np.uint32(rounds), arrived, said, wrong))
    count = int(on.get(wrong)[0])
    assert count == 0, f"blocks came out of a barrier {count} times before others were in"
    return {}
