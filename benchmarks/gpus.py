"""GPUs by their public figures, and what the model of time (`model.py`) assumes of all of them.

Every figure is that of NVIDIA's own paper on the product, which `source` names, or derived from it; product
rates are those without sparsity. What no such paper says is an assumption and stands in `Assumptions`, each
with its reason. Nothing here was measured by this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KB, MB, GB = 10**3, 10**6, 10**9
T = 10**12
ITEMSIZE = {"float64": 8, "float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
TENSOR = ("tf32", "float16", "bfloat16")  # products of these run on tensor cores


@dataclass(frozen=True)
class Gpu:
    """One product. Rates are in operations a second, a multiplication and an addition being two."""

    name: str
    arch: int  # 90: compute capability 9.0
    sms: int
    clock: float  # Hz, boost
    bandwidth: float  # bytes a second, of memory
    l2: float  # bytes
    vector: float  # float32 without tensor cores
    products: Mapping[str, float]  # matrix products by dtype; what the product cannot do is missing
    source: str

    @property
    def clusters(self) -> bool:
        """Whether blocks can share memory in clusters."""
        return self.arch in (90, 100)


def rates(*teraflops: float | None) -> dict[str, float]:
    """Of products, in the order of `ITEMSIZE`."""
    return {dtype: rate * T for dtype, rate in zip(ITEMSIZE, teraflops, strict=True) if rate is not None}


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(
            "H200", 90, 132, 1.98e9, 4800 * GB, 50 * MB, 67 * T,
            rates(67, 67, 494, 989, 989),
            "NVIDIA H200 Tensor Core GPU datasheet (SXM); SMs, clock and L2: NVIDIA H100 Tensor Core GPU "
            "Architecture (the same GH100)",
        ),
        Gpu(
            "H100", 90, 132, 1.98e9, 3350 * GB, 50 * MB, 67 * T,
            rates(67, 67, 494, 989, 989),
            "NVIDIA H100 Tensor Core GPU datasheet and Architecture (SXM5)",
        ),
        Gpu(
            "A100", 80, 108, 1.41e9, 2039 * GB, 40 * MB, 19.5 * T,
            rates(19.5, 19.5, 156, 312, 312),
            "NVIDIA A100 Tensor Core GPU datasheet and Architecture (SXM4, 80 GB)",
        ),
        Gpu(
            "RTX 4090", 89, 128, 2.52e9, 1008 * GB, 72 * MB, 82.6 * T,
            rates(1.29, 82.6, 82.6, 165.2, 165.2),
            "NVIDIA Ada GPU Architecture, appendix A (16-bit products that add up in float32)",
        ),
        Gpu(
            "T4", 75, 40, 1.59e9, 320 * GB, 4 * MB, 8.1 * T,
            rates(0.25, 8.1, None, 65, None),
            "NVIDIA T4 datasheet and Turing GPU Architecture, appendix A",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Assumptions:
    """What the model takes for granted. Seconds, bytes, or shares of a figure of the table."""

    bandwidth_reached: float = 0.9  # by copies and pointwise kernels, as large copies do
    products_reached: float = 0.8  # by large products, as cuBLAS's do
    vector_reached: float = 0.75  # by float32 without tensor cores
    mma_of_wgmma: float = 0.5  # sm_90: `mma.sync` has half the rate of wgmma, which NVIDIA's figure is of
    l2_of_sm: float = 42e9  # bytes a second that one SM reads from L2 while the others do too
    l2_latency: float = 0.35e-6  # of the first of the loads that a block waits for
    barrier: float = 1.0e-6  # between blocks, through L2: public measurements lie between 0.6 and 2.2 us
    cluster_barrier: float = 0.25e-6  # between the blocks of a cluster
    block_barrier: float = 0.05e-6  # between the threads of a block
    pointwise: float = 0.25e-6  # what follows a product in a step
    chain: float = 100  # clock cycles of a step without products: one sigmoid or tanh, loads made before
    launch: float = 2.5e-6  # what a launch adds to a run when the device has nothing else to do
    host: float = 6.5e-6  # of a launch from Python: CuPy's part is in host.py's results, 2.3 us the driver's
    resident: float = 160 * KB  # weights that a block holds in its registers, of 256 KB
    overflow: float = 150 * KB  # further weights that it holds in shared memory (with 64 KB on sm_75: none)
    units: int = 16  # rows of a weight that one product of tensor cores takes, 4 without them
    rows: int = 8  # sequences that it takes, 1 without them
    cluster: int = 16  # blocks at most


ASSUMED = Assumptions()
