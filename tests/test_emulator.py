"""CUDA on the CPU: right kernels give the right numbers, and each kind of wrong one is caught."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from gategen.emulator import (
    EmulatorError,
    HostError,
    build,
    compiler,
    cupy,
    installed,
    load,
    memory,
    sanitizer_environment,
    thread_order,
)
from gategen.files import CACHE

ORDERS = [("forward", 0), ("reverse", 0), ("shuffle", 1), ("shuffle", 2)]
BFLOAT16 = ml_dtypes.bfloat16
EMULATOR = Path(build.__file__).parent

ELEMENTWISE = """
__device__ inline REAL sigmoid(REAL a) { return 1 / (1 + exp(-a)); }
extern "C" __global__ void gate(const int n, const REAL* __restrict__ a,  // (n,)
                                const REAL* __restrict__ b, /* (n,) */ REAL* __restrict__ y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[i] = sigmoid(a[i]) * tanh(b[i]) + log1p(fabs(fmin(a[i], b[i])));
}
"""

BLOCK_SUM = """
extern "C" __global__ void __launch_bounds__(64) block_sum(const float* x, float* sums) {
    __shared__ float s[64];
    const int i = threadIdx.x;
    s[i] = x[blockIdx.x * 64 + i];
    __syncthreads();
    for (int k = 32; k > 0; k >>= 1) {
        if (i < k) s[i] += s[i + k];
        __syncthreads();
    }
    if (i == 0) sums[blockIdx.x] = s[0];
}
"""

GRID_SUM = """
extern "C" __global__ void grid_sum(const float* x, float* sums, float* y, unsigned* arrived) {
    extern __shared__ __align__(16) float row[];
    __shared__ float scale;
    row[threadIdx.x] = x[blockIdx.y * blockDim.x + threadIdx.x];
    if (threadIdx.x == 0) scale = 1 + blockIdx.y;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < blockDim.x; ++i) sum += row[i];
        sums[blockIdx.y] = sum;
        __threadfence();
        atomicAdd(arrived, 1u);
        while (LOAD(arrived) < gridDim.y) {}
    }
    __syncthreads();
    float total = 0;
    for (int i = 0; i < gridDim.y; ++i) total += __ldcg(sums + i);
    y[blockIdx.y * blockDim.x + threadIdx.x] = scale * total + row[threadIdx.x];
}
"""


def kernel(code, name=None, options=(), **settings):
    """The kernel called `name`, or the only one, of `code`."""
    name = name or build.signatures(code)[0].name
    return cupy.RawModule(code=code, options=options, **settings).get_function(name)


def run(body, *arrays, block=32, shared_mem=0, grid=1):
    """Run `body` as a kernel over float arrays a, b, c."""
    parameters = ", ".join(f"float* {name}" for name, _ in zip("abc", arrays, strict=False))
    code = f'extern "C" __global__ void probe({parameters}) {{\n{body}\n}}'
    kernel(code)((grid,), (block,), arrays, shared_mem=shared_mem)


def floats(*shape):
    return cupy.full(shape, np.nan, np.float32)


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ------------------------------------------------------------------------------------------ right kernels


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_elementwise_kernel_is_right_in_every_order(order, dtype):
    n = 1000
    a, b = random(n, dtype=dtype), random(n, dtype=dtype, seed=1)
    y = cupy.empty(n, dtype)
    gate = kernel(ELEMENTWISE, options=(f"-DREAL={ {4: 'float', 8: 'double'}[np.dtype(dtype).itemsize] }",))
    with thread_order(*order):
        gate((4,), (256,), (np.int32(n), cupy.asarray(a), cupy.asarray(b), y))
    expected = 1 / (1 + np.exp(-a)) * np.tanh(b) + np.log1p(np.abs(np.minimum(a, b)))
    np.testing.assert_allclose(y.get(), expected, rtol=16 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_reduction_in_shared_memory_is_right_in_every_order(order):
    x, sums = np.arange(256, dtype=np.float32), floats(4)
    with thread_order(*order):
        kernel(BLOCK_SUM)((4,), (64,), (cupy.asarray(x), sums))
    assert sums.get().tolist() == x.reshape(4, 64).sum(1).tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_move_what_cuda_moves(order):
    y = floats(7, 40)
    body = """
    const int i = threadIdx.x;
    const unsigned all = 0xffffffffu;
    a[i] = __shfl_sync(all, (float)i, 5);
    a[40 + i] = __shfl_up_sync(all, (float)i, 3);
    a[80 + i] = __shfl_down_sync(all, (float)i, 3, 8);
    a[120 + i] = __shfl_xor_sync(all, (double)i, 1);
    a[160 + i] = __popc(__ballot_sync(all, i % 3 == 0));
    a[200 + i] = __any_sync(all, i == 7) + 2 * __all_sync(all, i < 40);
    __syncwarp();
    if (i < 16) a[240 + i] = __shfl_down_sync(0x0000ffffu, i, 8, 16);
    """
    with thread_order(*order):
        run(body, y, block=40)
    i = np.arange(40)
    lane, warp = i % 32, i // 32 * 32
    up = warp + np.where(lane >= 3, lane - 3, lane)
    down = np.where(lane % 8 + 3 < 8, i + 3, i)
    votes = np.where(i < 32, 11, sum(j % 3 == 0 for j in range(32, 40)))
    any_all = np.where(i < 32, 3, 2)
    got = y.get()
    np.testing.assert_array_equal(got[:2], [warp + 5, up])
    inside = down < 40
    np.testing.assert_array_equal(got[2][inside], down[inside])
    np.testing.assert_array_equal(got[3:6], [i ^ 1, votes, any_all])
    np.testing.assert_array_equal(got[6][:16], np.where(np.arange(16) < 8, np.arange(16) + 8, np.arange(16)))


def test_a_lane_that_has_exited_does_not_hold_up_its_warp():
    y = floats(32)
    run("if (threadIdx.x >= 20) return; a[threadIdx.x] = __shfl_xor_sync(~0u, (float)threadIdx.x, 1);", y)
    assert y.get()[:20].tolist() == [i ^ 1 for i in range(20)]


@pytest.mark.parametrize("order", ORDERS)
def test_warps_may_wait_at_a_barrier_while_others_shuffle(order):
    y = floats(96)
    body = """
    float x = 1;
    for (int n = 16; n > 0; n /= 2)
        x += __shfl_xor_sync(~0u, x, n);
    __syncthreads();
    a[threadIdx.x] = x;
    """
    with thread_order(*order):
        run(body, y, block=96)
    assert y.get().tolist() == [32] * 96


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "load", ["atomicAdd(p, 0u)", "__nv_atomic_load_n(p, __NV_ATOMIC_ACQUIRE)", "__ldcg(p)"]
)
def test_blocks_of_a_cooperative_launch_can_wait_for_each_other(order, load):
    x, y, sums, arrived = random(5, 64), floats(5, 64), floats(5), cupy.zeros(1, np.uint32)
    code = GRID_SUM.replace("LOAD(arrived)", re.sub(r"\bp\b", "arrived", load))
    grid_sum = kernel(code, enable_cooperative_groups=True)
    with thread_order(*order):
        grid_sum((1, 5), (64,), (cupy.asarray(x), sums, y, arrived), shared_mem=256)
    expected = np.arange(1, 6)[:, None] * x.sum(dtype=np.float64) + x
    np.testing.assert_allclose(y.get(), expected, rtol=1e-5, atol=1e-5)
    assert arrived.get() == [5]


def test_shared_memory_in_a_template_is_shared_and_starts_as_nan():
    code = """
    template <int N> __device__ float reversed(float value, float* first) {
        __shared__ float s[N];
        if (threadIdx.x == 0) *first = s[N - 1];
        __syncthreads();
        s[threadIdx.x] = value;
        __syncthreads();
        return s[N - 1 - threadIdx.x];
    }
    extern "C" __global__ void k(float* first, float* y) {
        y[threadIdx.x] = reversed<48>(threadIdx.x, first);
    }
    """
    first, y = cupy.zeros(1, np.float32), floats(48)
    kernel(code)((1,), (48,), (first, y))
    assert np.isnan(first.get()).all()
    assert y.get().tolist() == list(range(48))[::-1]


def test_three_dimensional_grids_and_blocks_cover_everything_once():
    y = cupy.zeros((2, 3, 4, 5, 6, 7), np.int32)
    code = """
    extern "C" __global__ void k(int* y) {
        const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        y[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + block;
    }
    """
    kernel(code)((4, 3, 2), (7, 6, 5), (y,))
    assert y.get().reshape(24, 210).tolist() == [[1 + block] * 210 for block in range(24)]


def test_a_view_is_passed_as_its_address():
    y = cupy.zeros((4, 32), np.float32)
    run("a[threadIdx.x] = 1;", y[2])
    assert y.get().sum(1).tolist() == [0, 0, 32, 0]
    run("a[threadIdx.x * 4] = 1;", y.reshape(32, 4)[:, 1])
    assert y.get().reshape(32, 4).sum(0).tolist() == [8, 32, 8, 8]


def test_an_array_that_a_method_of_numpy_made_can_be_written_to():
    y = cupy.zeros((4, 8), np.float32).T.copy()
    run("a[threadIdx.x] = threadIdx.x;", y)
    assert y.get().ravel().tolist() == list(range(32))


# ------------------------------------------------------------------------------------------ half and bfloat16


def narrow_cases():
    """Every value of 16 bits, their neighbours and midpoints in float32, and random bits."""
    kinds = [
        np.arange(2**16, dtype=np.uint16).view(kind).astype(np.float32) for kind in (np.float16, BFLOAT16)
    ]
    bits = np.concatenate([value[np.isfinite(value)] for value in kinds]).view(np.int32)
    around = np.concatenate(
        [bits + step for step in (-4097, -4096, -4095, -1, 0, 1, 4095, 4096, 4097, 32768)]
    )
    noise = np.random.default_rng(0).integers(0, 2**32, 10**5, dtype=np.uint32).view(np.float32)
    values = np.concatenate([around.view(np.float32), noise])
    return values[~np.isnan(values)]


@pytest.mark.parametrize(
    ("header", "c_type", "narrow", "widen", "dtype"),
    [
        ("cuda_fp16.h", "__half", "__float2half_rn", "__half2float", np.float16),
        ("cuda_bf16.h", "__nv_bfloat16", "__float2bfloat16_rn", "__bfloat162float", BFLOAT16),
    ],
)
def test_half_and_bfloat16_round_and_widen_bit_for_bit(header, c_type, narrow, widen, dtype):
    code = f"""
    #include <{header}>
    extern "C" __global__ void k(int n, const float* x, {c_type}* y, {c_type}* cast, float* back) {{
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {{
            y[i] = {narrow}(x[i]);
            cast[i] = static_cast<{c_type}>(static_cast<double>(x[i]));
            back[i] = {widen}(y[i]);
        }}
    }}
    """
    x = narrow_cases()
    y, cast, back = (cupy.empty(x.shape, kind) for kind in (dtype, dtype, np.float32))
    kernel(code)((64,), (256,), (np.int32(x.size), cupy.asarray(x), y, cast, back))
    with np.errstate(over="ignore"):
        expected = x.astype(dtype)
    np.testing.assert_array_equal(y.get().view(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal(cast.get().view(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal(back.get().view(np.uint32), expected.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_products_and_sums_of_narrow_types_accumulate_in_float32_and_round_once(dtype):
    a, b = (cupy.asarray(random(64, 64, seed=seed).astype(dtype)) for seed in (0, 1))
    wide = (a.get().astype(np.float32) @ b.get().astype(np.float32)).astype(dtype)
    out = cupy.empty((64, 64), dtype)
    assert cupy.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out.get(), wide)
    np.testing.assert_array_equal((a @ b).get(), wide)
    total = cupy.sum(a, axis=0)
    assert total.dtype == dtype
    np.testing.assert_array_equal(total.get(), a.get().astype(np.float32).sum(0).astype(dtype))


# ------------------------------------------------------------------------------------------ planted faults


def test_a_missing_barrier_is_seen_in_some_order():
    code = BLOCK_SUM.replace("__syncthreads();\n    for", "\n    for", 1)
    assert code != BLOCK_SUM
    for order in ORDERS:
        sums = floats(4)
        with thread_order(*order):
            kernel(code)((4,), (64,), (cupy.ones(256, np.float32), sums))
        if np.isnan(sums.get()).any():
            return
    pytest.fail("no order shows the missing barrier")


def test_shared_memory_starts_as_nan_in_every_block():
    y = cupy.zeros((3, 2), np.float32)
    body = """
    __shared__ float s[32];
    extern __shared__ float d[];
    a[2 * blockIdx.x] = s[blockIdx.x];
    a[2 * blockIdx.x + 1] = d[blockIdx.x];
    s[threadIdx.x] = d[threadIdx.x] = 1;
    """
    run(body, y, grid=3, block=1, shared_mem=128)
    assert np.isnan(y.get()).all()


def test_an_empty_array_starts_as_nan():
    for dtype in (np.float16, BFLOAT16, np.float32, np.float64):
        assert np.isnan(cupy.empty((3, 4), dtype).get().astype(np.float64)).all()


def test_a_barrier_that_some_threads_exit_before_is_an_error_with_the_counts():
    message = r"probe, block \(1, 0, 0\): divergent barrier at line 3; of 64 threads 40 wait.* 24 have exited"
    with pytest.raises(EmulatorError, match=message):
        run(
            "if (blockIdx.x == 1 && threadIdx.x >= 40) return;\n__syncthreads();\na[0] = 1;",
            floats(1),
            block=64,
            grid=2,
        )


def test_waiting_at_two_different_barriers_is_an_error_with_both_lines():
    body = "if (threadIdx.x < 16)\n__syncthreads();\nelse\n__syncthreads();\na[0] = 1;"
    with pytest.raises(EmulatorError, match="wait at line 3, another came to line 5"):
        run(body, floats(1))


def test_a_barrier_beside_a_warp_collective_is_an_error():
    body = "if (threadIdx.x < 48) __syncthreads(); else a[0] = __shfl_sync(~0u, 1.0f, 0);"
    with pytest.raises(EmulatorError, match=r"divergent.* 48 wait at __syncthreads, 16 in a warp collective"):
        run(body, floats(1), block=64)


def test_a_warp_collective_with_a_wrong_mask_is_an_error():
    with pytest.raises(EmulatorError, match="masks"):
        run("a[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0);", floats(32))


def test_waiting_for_a_block_that_is_not_there_is_an_error():
    code = GRID_SUM.replace("LOAD(arrived)", "__ldcg(arrived)")
    arguments = cupy.asarray(random(2, 32)), floats(2), floats(2, 32), cupy.zeros(1, np.uint32)
    with pytest.raises(EmulatorError, match=r"no progress.*31 wait at __syncthreads.*1 poll memory"):
        kernel(code)((1, 2), (32,), arguments, shared_mem=128)


def test_a_launch_after_a_failed_one_works():
    test_a_barrier_that_some_threads_exit_before_is_an_error_with_the_counts()
    test_a_block_reduction_in_shared_memory_is_right_in_every_order(("forward", 0))


@pytest.mark.parametrize("index", ["32", "-1"])
def test_a_write_outside_an_array_is_an_error_that_names_the_parameter(index):
    with pytest.raises(
        EmulatorError, match=r"kernel probe wrote outside the array of its parameter b \(float\*\)"
    ):
        run(
            f"a[threadIdx.x] = b[threadIdx.x] = 1; if (threadIdx.x == 3) b[{index}] = 2;",
            floats(32),
            floats(32),
        )


def test_a_write_outside_an_array_without_zones_is_an_error_too():
    with pytest.raises(EmulatorError, match="parameter a"):
        run("a[threadIdx.x + 1] = 1;", floats(32).copy())


def test_a_write_outside_dynamic_shared_memory_is_an_error():
    body = "extern __shared__ float d[]; d[threadIdx.x + 1] = 1; a[threadIdx.x] = d[threadIdx.x + 1];"
    with pytest.raises(EmulatorError, match=r"outside its dynamic shared memory \(shared_mem is 128 bytes\)"):
        run(body, floats(32), shared_mem=128)


def test_a_thread_that_uses_too_much_stack_is_an_error():
    body = "volatile float large[65500]; for (int i = 0; i < 700; ++i) large[i] = i; a[0] = large[3];"
    with pytest.raises(EmulatorError, match="a thread used more than 262144 bytes of stack"):
        run(body, floats(1), block=1)


IN_SANITIZER = """
import numpy as np
from gategen.emulator import cupy
code = '''
extern "C" __global__ void probe(float* y) {
    extern __shared__ float d[];
    __shared__ float s[32];
    const int i = threadIdx.x + (INDEX);
    d[threadIdx.x] = s[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = TARGET[i];
}
'''
y = cupy.zeros(32, np.float32)
cupy.RawModule(code=code).get_function("probe")((1,), (32,), (y,), shared_mem=128)
print("ended with", y.get().sum())
"""


@pytest.mark.parametrize(
    ("target", "index", "report"),
    [
        ("s", "0", None),
        ("y", "1", r"heap-buffer-overflow[\s\S]*kernel\.cu:8"),
        ("d", "1", r"heap-buffer-overflow[\s\S]*kernel\.cu:8"),
        ("s", "1", r"kernel\.cu:8.* index 32 out of bounds"),
    ],
)
def test_a_read_out_of_bounds_is_caught_by_address_sanitizer_with_its_line(target, index, report):
    program = IN_SANITIZER.replace("TARGET", target).replace("INDEX", index)
    done = python(program, **sanitizer_environment())
    if report is None:
        assert (done.returncode, done.stdout) == (0, "ended with 32.0\n"), done.stderr
    else:
        assert done.returncode != 0
        assert re.search(report, done.stderr), done.stderr


# ------------------------------------------------------------------------------------------ arguments

MIXED = """
extern "C" __global__ void mixed(int n, long long m, float a, double b, bool c, real* y) {
    *y = b + a + c + n + m;
}
"""


def test_scalars_are_passed_with_their_own_width():
    y = cupy.zeros(1, np.float64)
    mixed = kernel(MIXED, options=("-Dreal=double",))
    mixed((1,), (1,), (np.int32(-1), 2**40, np.float32(0.5), 0.25, True, y))
    assert y.get() == [2**40 + 0.75]


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, 1, r"kernel mixed, parameter n \(int\): expected numpy.int32, got int"),
        (1, np.int32(1), r"parameter m \(long long\): expected numpy.int64, got numpy.int32"),
        (2, 0.5, r"parameter a \(float\): expected numpy.float32, got float"),
        (3, np.float32(0.5), r"parameter b \(double\): expected numpy.float64, got numpy.float32"),
        (4, 1, r"parameter c \(bool\): expected numpy.bool, got int"),
        (
            5,
            cupy.zeros(1, np.float32),
            r"parameter y \(double\*\): expected an array of float64, got an array of float32",
        ),
        (5, np.zeros(1), r"parameter y \(double\*\): .* got a numpy.ndarray, which is not on the device"),
        (5, 1.0, r"parameter y \(double\*\): expected an array of float64, got float"),
    ],
)
def test_an_argument_of_the_wrong_type_is_refused_by_name(position, value, message):
    arguments = [np.int32(1), 2, np.float32(3), 4.0, True, cupy.zeros(1, np.float64)]
    arguments[position] = value
    with pytest.raises(TypeError, match=message):
        kernel(MIXED, options=("-Dreal=double",))((1,), (1,), arguments)


def test_a_wrong_number_of_arguments_is_refused():
    with pytest.raises(TypeError, match=r"kernel mixed takes 6 arguments \(n, m, a, b, c, y\), 2 were given"):
        kernel(MIXED, options=("-Dreal=float",))((1,), (1,), (np.int32(1), 2))


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((0,), (32,), "grid"), ((1, 65536), (32,), "grid"), ((1,), (0,), "blocks"), ((1,), (1025,), "1024"),
        ((1,), (65,), "at most 64"), ((1,), (8, 16), "at most 64"),
    ],
)  # fmt: skip
def test_a_launch_that_cuda_refuses_is_refused(grid, block, message):
    code = BLOCK_SUM if "64" in message else BLOCK_SUM.replace("__launch_bounds__(64)", "")
    with pytest.raises(EmulatorError, match=message):
        kernel(code)(grid, block, (floats(256), floats(4)))


def test_much_shared_memory_wants_the_attribute_that_cupy_wants():
    probe = kernel(
        'extern "C" __global__ void k(float* y) { extern __shared__ float s[]; *y = s[15000] = 1; }'
    )
    with pytest.raises(EmulatorError, match="max_dynamic_shared_size_bytes is 49152"):
        probe((1,), (1,), (floats(1),), shared_mem=60004)
    probe.max_dynamic_shared_size_bytes = 60004
    probe((1,), (1,), (floats(1),), shared_mem=60004)


def test_kernels_of_one_text_may_have_more_static_shared_memory_together_than_one_may_have():
    body = "__shared__ float s[8000]; s[threadIdx.x] = {0}; *y = s[0];"
    code = "".join(f'extern "C" __global__ void k{k}(float* y) {{ {body.format(k)} }}\n' for k in (1, 2, 3))
    for k in (1, 2, 3):
        y = floats(1)
        kernel(code, f"k{k}")((1,), (1,), (y,))
        assert float(y[0]) == k


# ------------------------------------------------------------------------------------------ compiling


def test_a_compile_error_comes_with_the_compilers_message_and_the_line_of_the_file():
    with pytest.raises(EmulatorError, match=r"kernel\.cu:2:\d+: error: 'nothing' was not declared"):
        kernel('extern "C" __global__ void k(float* y) {\n y[0] = nothing; }')


def test_a_standard_header_is_missing_as_under_nvrtc():
    with pytest.raises(EmulatorError, match=r"cmath: No such file"):
        kernel('#include <cmath>\nextern "C" __global__ void k(float* y) {}')


def test_an_unknown_kernel_or_option_is_refused():
    with pytest.raises(EmulatorError, match="no kernel 'other'; there are: block_sum"):
        kernel(BLOCK_SUM, "other")
    with pytest.raises(EmulatorError, match="does not know the option '--nothing'"):
        kernel(BLOCK_SUM, options=("--nothing",))
    kernel(BLOCK_SUM, options=("--std=c++17", "-DX=1", "-lineinfo", "--use_fast_math"))


def test_a_kernels_signature_is_read_past_comments_and_line_breaks():
    code = """
    // extern "C" __global__ void not_this(int a)
    extern "C" __global__ void __launch_bounds__(128, 2)
    first(const float* __restrict__ a,   // (B, 3H) a, b
          int /* rows */ n)
    { }
    extern "C" __global__ __launch_bounds__(N) void second() { }
    """
    assert build.signatures(code) == (("first", ("a", "n"), 128), ("second", (), 1024))


def test_two_processes_can_compile_the_same_kernels_at_once(tmp_path):
    program = f"""
import numpy as np
from gategen.emulator import cupy
x, sums = cupy.ones(64, np.float32), cupy.zeros(1, np.float32)
cupy.RawModule(code='''{BLOCK_SUM}''').get_function("block_sum")((1,), (64,), (x, sums))
print(sums.get())
"""
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(python, program, **{CACHE: str(tmp_path)}) for _ in range(3)]
    assert [run.result().stdout for run in runs] == ["[64.]\n"] * 3, runs[0].result().stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".o", ".so"]


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a byte short": lambda data: data[:-1],
    "a bit flipped": lambda data: data[:5000] + bytes([data[5000] ^ 8]) + data[5001:],
    "something else": lambda data: b"no library",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_was_compiled_and_is_damaged_is_compiled_again(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path)
    build.build(BLOCK_SUM)
    for path in (files := list(tmp_path.iterdir())):
        path.write_bytes(damage(path.read_bytes()))
    x, sums = floats(64), floats(1)
    x[...], sums[...] = 1, 0
    kernel(BLOCK_SUM)((1,), (64,), (x, sums))
    assert float(sums.get()[0]) == 64
    assert sorted(tmp_path.iterdir()) == sorted(files)


NO_COMPILERS = {
    "false": ("exit 1", "ended with 1 and said nothing"),
    "true": ("exit 0", "wrote no file"),
    "killed": ("kill -9 $$", "ended with -9"),
    "a full disk": (
        "echo 'kernel.cu:9:1: fatal error: error writing to x.s: No space left on device' >&2; exit 1",
        "No space left on device",
    ),
    "without a part": ("echo 'fatal error: cannot execute cc1plus' >&2; exit 1", "cannot execute cc1plus"),
}


@pytest.mark.parametrize(("script", "said"), NO_COMPILERS.values(), ids=NO_COMPILERS)
def test_a_compiler_that_does_not_work_is_no_fault_of_the_kernels(tmp_path, monkeypatch, script, said):
    (program := tmp_path / "c++").write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (folder := tmp_path / "cache").mkdir()
    monkeypatch.setattr(build, "cache_folder", lambda: folder)
    monkeypatch.setattr(build, "compiler", lambda: str(program))
    with pytest.raises(HostError, match=said):
        kernel(BLOCK_SUM)
    monkeypatch.setattr(build, "prepare", lambda **_: tmp_path / "runtime.o")  # and of the kernels themselves
    with pytest.raises(HostError, match=said):
        kernel(BLOCK_SUM)
    assert not list(folder.iterdir())


def test_a_compiler_that_is_no_program_and_a_folder_that_is_gone_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "gone")
    with pytest.raises(HostError, match=r"cannot write .*gone.*No such file"):
        kernel(BLOCK_SUM)
    (program := tmp_path / "c++").write_bytes(b"")
    monkeypatch.setattr(build, "compiler", lambda: str(program))
    with pytest.raises(HostError, match="cannot be run: Permission denied"):
        kernel(BLOCK_SUM)


def test_what_cannot_be_loaded_is_no_fault_of_the_kernels_unless_they_lack_something(tmp_path, monkeypatch):
    with pytest.raises(EmulatorError, match=r"use what is not there: .*missing") as caught:
        kernel('__device__ float missing(); extern "C" __global__ void k(float* y) { y[0] = missing(); }')
    assert not isinstance(caught.value, HostError)
    (path := tmp_path / "kernels.so").write_bytes(b"no library")
    monkeypatch.setattr(build, "build", lambda *_, **__: path)
    with pytest.raises(HostError, match="cannot load compiled kernels"):
        kernel(BLOCK_SUM)


def test_stacks_can_be_switched_by_ucontext_too(monkeypatch):
    monkeypatch.setattr(build, "_RUNTIME_FLAGS", (*build._RUNTIME_FLAGS, "-DGG_UCONTEXT"))
    for order in ORDERS:
        test_a_block_reduction_in_shared_memory_is_right_in_every_order(order)


def test_the_host_has_a_compiler():
    path = compiler()
    assert path is not None
    assert shutil.which(path)


# ------------------------------------------------------------------------------------------ the stand-in


def test_installed_puts_back_what_was_there(monkeypatch):
    for before in (None, sys):
        monkeypatch.delitem(sys.modules, "cupy", raising=False)
        if before:
            monkeypatch.setitem(sys.modules, "cupy", before)
        with pytest.raises(ZeroDivisionError), installed() as stand_in:
            import cupy as imported

            assert imported is stand_in is cupy
            raise ZeroDivisionError
        assert sys.modules.get("cupy") is before


def test_load_runs_a_module_on_the_stand_in(tmp_path):
    (tmp_path / "sum_cupy.cu").write_text(BLOCK_SUM)
    (tmp_path / "sum_cupy.py").write_text(
        """
from pathlib import Path
import cupy as cp
KERNEL = cp.RawModule(code=Path(__file__).with_suffix(".cu").read_text()).get_function("block_sum")
def total(x):
    sums = cp.empty(x.size // 64, cp.float32)
    KERNEL(sums.shape, (64,), (x, sums))
    return float(sums.sum())
"""
    )
    module = load(tmp_path / "sum_cupy.py")
    assert module.total(cupy.ones(128, np.float32)) == 128
    assert sys.modules[module.__name__] is module
    (tmp_path / "bad_cupy.py").write_text("import cupy\ncupy.fft")
    with pytest.raises(AttributeError, match="fft"):
        load(tmp_path / "bad_cupy.py")


PLAIN = np.ones(3, np.float32)


@pytest.mark.parametrize(
    "mix",
    [
        lambda a: a + PLAIN,
        lambda a: PLAIN + a,
        lambda a: a @ PLAIN,
        lambda a: cupy.matmul(a, PLAIN),
        lambda a: cupy.matmul(a, a, out=PLAIN),
        lambda a: cupy.add(a, PLAIN),
        lambda a: cupy.add(a, a, out=PLAIN),
        lambda a: cupy.concatenate([a, PLAIN]),
        lambda a: cupy.where(a > 0, a, PLAIN),
        lambda a: np.add(a, a, out=PLAIN),
        lambda a: np.linalg.norm(a),
        lambda a: a.__setitem__(..., PLAIN),
        lambda a: cupy.empty_like(PLAIN),
    ],
)
def test_arrays_of_the_host_and_of_the_device_do_not_mix(mix):
    with pytest.raises(TypeError):
        mix(cupy.ones(3, np.float32))


def test_what_becomes_of_an_array_stays_on_the_device_and_keeps_its_zones():
    a = cupy.asarray(random(4, 6))
    for b in (
        a[1:3],
        a.T,
        a.reshape(6, 4),
        a[0, 0],
        a + 1,
        a.sum(),
        a.sum(0),
        a.mean(),
        cupy.stack([a, a]),
        -a,
        a @ a.T,
    ):
        assert isinstance(b, cupy.ndarray), b
        assert all((zone == memory.PATTERN).all() and zone.size for zone in memory.zones(b._host))
    assert type(a.get()) is type(cupy.asnumpy(a)) is np.ndarray
    assert a[0, 0].shape == ()
    a += 1
    a[0] = a[1]
    a[0, 0] = np.float32(3)
    assert float(a[0, 0]) == 3


def test_there_is_no_device_and_nothing_to_wait_for():
    assert cupy.cuda.runtime.getDeviceCount() == 0
    cupy.cuda.Stream.null.synchronize()
    cupy.cuda.get_current_stream().synchronize()
    cupy.cuda.Device().synchronize()
    with pytest.raises(AttributeError):
        cupy.cuda.Graph  # noqa: B018


def test_importing_the_emulator_does_not_import_numpy():
    done = python("import sys, gategen.emulator; print({'numpy', 'sympy', 'jinja2'} & sys.modules.keys())")
    assert done.stdout == "set()\n", done.stderr


def python(program, **environment):
    """Run a program in a process of its own."""
    root = str(EMULATOR.parent.parent)
    variables = os.environ | {"PYTHONPATH": root} | environment
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables)


def test_a_kernel_and_a_product_refuse_memory_of_another_device():
    kernel = cupy.RawModule(code='extern "C" __global__ void k(float* y) { y[0] = 1; }').get_function("k")
    with cupy.cuda.Device(1) as there:
        array = cupy.zeros((2, 2), "float32")
        assert array.device == array.T.device == array[0].device == array.reshape(4).device == there
        kernel((1,), (1,), (array,))
    assert array.device != cupy.cuda.Device() == cupy.zeros(1).device
    with pytest.raises(EmulatorError, match=r"runs on device 0, but y \(float\*\) is memory of device 1"):
        kernel((1,), (1,), (array,))
    with pytest.raises(EmulatorError, match="a product on device 0"):
        cupy.matmul(array, array)
    with pytest.raises(RuntimeError, match="no device 2"):
        cupy.cuda.Device(2).use()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lda": 2}, "INVALID_VALUE"),
        ({"ldb": 5}, "are not within the memory of one array"),
        ({"Ctype": 1}, "NOT_SUPPORTED"),
        ({"computeType": 70}, "NOT_SUPPORTED"),
        ({"C": "A"}, "overwrites what it reads"),
        ({"C": "host"}, "are not within the memory of one array"),
        ({"k": 0}, "INVALID_VALUE"),
    ],
)
def test_cublas_refuses_what_it_would_not_do_right(change, words):
    numbers, host = np.array([0, 1], "float32"), np.zeros((3, 3), "float32")
    a, b, c = (cupy.zeros((3, 3), "float32") for _ in range(3))
    addresses = {"A": a.data.ptr, "host": host.ctypes.data}
    given = dict(
        handle=0, transa=0, transb=0, m=3, n=3, k=3,
        alpha=numbers[1:].ctypes.data, A=a.data.ptr, Atype=0, lda=3, B=b.data.ptr, Btype=0, ldb=3,
        beta=numbers.ctypes.data, C=c.data.ptr, Ctype=0, ldc=3, computeType=68, algo=-1,
    )  # fmt: skip
    cupy.cuda.cublas.gemmEx(**given)
    with pytest.raises(EmulatorError, match=words):
        cupy.cuda.cublas.gemmEx(**given | {k: addresses.get(v, v) for k, v in change.items()})


def test_without_a_cache_nothing_is_left_in_the_temporary_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    own = {"GATEGEN_CACHE": str(tmp_path / "file" / "no"), "TMPDIR": str(tmp_path / "temporary")}
    asked = "from gategen.emulator.build import cache_folder; print(cache_folder().is_dir())"
    command = [sys.executable, "-c", asked]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n" and not list((tmp_path / "temporary").iterdir())
