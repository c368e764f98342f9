"""Races between threads of a kernel are found whatever the order that ran; right kernels have none."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gategen import emulator
from gategen.cli import commands
from gategen.emulator import EmulatorError, cupy
from gategen.judge import host
from gategen.judge.runner import Runner
from gategen.judge.verify import look_for_races, verify
from gategen.plan import persists, plan, row_by_row
from gategen.spec.load import builtins, load

ORDERS = [("forward", 0), ("reverse", 0), ("shuffle", 1)]
SPECS = Path(__file__).parent / "specs"

# A step of each time is shared out among the blocks of a row of the grid, which wait for each other after it.
PERSISTENT = """
__device__ void wait_for_all(unsigned* arrived, unsigned goal) {
    __syncthreads();  // A
    if (threadIdx.x == 0) {
        __nv_atomic_fetch_add(arrived, 1u, __NV_ATOMIC_RELEASE, __NV_THREAD_SCOPE_DEVICE);
        while (int(__nv_atomic_load_n(arrived, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE) - goal) < 0) {}
    }
    __syncthreads();  // B
}
extern "C" __global__ void rnn(
    const float* U, const float* x, float* h, unsigned* arrived, const int T, const int B, const int H)
{
    extern __shared__ float own[];
    const int blocks = gridDim.x, units = (H + blocks - 1) / blocks, first = blockIdx.x * units;
    arrived += blockIdx.y;
    x += blockIdx.y * B * H;
    h += blockIdx.y * B * H;
    for (int i = threadIdx.x; i < units * H; i += blockDim.x) own[i] = U[first * H + i];
    __syncthreads();  // C
    const int rows = gridDim.y * B;
    for (int t = 0; t < T; ++t) {
        const float* now = h + SLOT(t) * rows * H;
        float* next = h + SLOT(t + 1) * rows * H;
        for (int i = threadIdx.x; i < units * B; i += blockDim.x) {
            const int k = i % units, b = i / units;
            float sum = x[(t * rows + b) * H + first + k];
            for (int j = 0; j < H; ++j) sum += own[k * H + j] * __ldcg(now + b * H + j);
            next[b * H + first + k] = tanh(sum);
        }
        wait_for_all(arrived, (t + 1) * blocks);
    }
}
"""
T, B, H, BLOCKS, GROUPS, SLOTS = 6, 2, 12, 3, 2, 3


def persistent(code: str = PERSISTENT, slots: int = SLOTS, launches: int = 1) -> float:
    """Run it, and say how far it is from NumPy."""
    code = re.sub(r"SLOT\(([^()]*)\)", rf"((\1) % {slots})", code)
    kernel = cupy.RawModule(code=code, enable_cooperative_groups=True).get_function("rnn")
    rng = np.random.default_rng(0)
    U = (rng.standard_normal((H, H)) / H**0.5).astype("f4")
    x = rng.standard_normal((T, GROUPS * B, H)).astype("f4")
    h, arrived = cupy.zeros((slots, GROUPS * B, H), "f4"), cupy.zeros(GROUPS, "u4")
    sizes = map(np.int32, (T, B, H))
    arguments = cupy.asarray(U), cupy.asarray(x), h, arrived, *sizes
    for _ in range(launches):
        kernel((BLOCKS, GROUPS), (32,), arguments, shared_mem=4 * H * H // BLOCKS)
    expected = np.zeros((GROUPS * B, H), "f4")
    for t in range(T):
        expected = np.tanh(x[t] + expected @ U.T)
    return float(np.abs(h.get()[T % slots] - expected).max())


OTHERS = "a[31 - threadIdx.x]"
SIGNAL = """
if (threadIdx.x == 0) { a[0] = 1; RELEASE atomicAdd(n, 1u); }
else { while (atomicAdd(n, 0u) == 0) {} ACQUIRE a[threadIdx.x] = a[0]; }
"""


def changed(old: str, new: str = "") -> str:
    code = PERSISTENT.replace(old, new)
    assert code != PERSISTENT
    return code


def races(body: str, grid: int = 1, block: int = 32, shared_mem: int = 0) -> str:
    """What is said of a kernel over the zeros a (float) and n (unsigned); empty where there is nothing."""
    code = f'extern "C" __global__ void probe(float* a, unsigned* n) {{\n{body}\n}}'
    kernel = cupy.RawModule(code=code, enable_cooperative_groups=True).get_function("probe")
    try:
        with emulator.race_detector():
            arguments = cupy.zeros(256, "f4"), cupy.zeros(256, "u4")
            kernel((grid,), (block,), arguments, shared_mem=shared_mem)
    except EmulatorError as error:
        return str(error)
    return ""


# ------------------------------------------------------------------------------------------ right kernels


@pytest.mark.parametrize("order", ORDERS)
def test_a_right_barrier_of_the_grid_has_no_race(order):
    with emulator.race_detector(), emulator.thread_order(*order):
        assert persistent() < 1e-5


@pytest.mark.parametrize(
    "body",
    [
        "a[threadIdx.x] = 1; __syncthreads(); a[32 + threadIdx.x] = a[31 - threadIdx.x];",
        "a[threadIdx.x] = 1; __syncwarp(); a[32 + threadIdx.x] = a[31 - threadIdx.x];",
        "__shared__ float s[32]; s[threadIdx.x] = 1; __syncthreads(); a[threadIdx.x] = s[31 - threadIdx.x];",
        "((char*)a)[threadIdx.x] = 1;",  # four of them are one float
        "atomicAdd(n, 1u); __nv_atomic_add(n, 1u, __NV_ATOMIC_RELAXED);",
        "float own[4] = {1, 2, 3, 4}; float* p = own; p[threadIdx.x % 4] = 2; a[threadIdx.x] = own[1];",
        SIGNAL.replace("RELEASE", "__threadfence();").replace("ACQUIRE", "__threadfence();"),
    ],
)
def test_what_is_ordered_is_no_race(body):
    assert races(body) == ""


def test_what_one_launch_writes_the_next_may_read():
    code = 'extern "C" __global__ void next(float* a) { a[threadIdx.x] = a[31 - threadIdx.x + 32 * STEP]; }'
    a = cupy.zeros(64, "f4")
    with emulator.race_detector():
        kernel = cupy.RawModule(code=code, options=("-DSTEP=1",)).get_function("next")
        for _ in range(2):
            kernel((1,), (32,), (a,))


def test_a_released_value_is_passed_on_through_a_third_block():
    """What a thread acquired, it releases too, and a change of the value that orders nothing keeps that."""
    pass_on = """
    if (threadIdx.x) return;
    if (blockIdx.x == 0) { a[0] = 1; __nv_atomic_store_n(n, 1u, __NV_ATOMIC_RELEASE); }
    if (blockIdx.x == 1) {
        while (__nv_atomic_load_n(n, __NV_ATOMIC_ACQUIRE) == 0) {}
        __nv_atomic_store_n(n + 1, 1u, __NV_ATOMIC_RELEASE);
    }
    if (blockIdx.x == 2) { while (__nv_atomic_load_n(n + 1, __NV_ATOMIC_RELAXED) == 0) {} CHANGE; }
    if (blockIdx.x == 3) {
        while (__nv_atomic_load_n(n + 1, __NV_ATOMIC_RELAXED) != 2) {}
        __nv_atomic_load_n(n + 1, __NV_ATOMIC_ACQUIRE);
        a[1] = a[0];
    }
    """
    assert races(pass_on.replace("CHANGE", "atomicAdd(n + 1, 1u)"), grid=4) == ""
    broken = pass_on.replace("CHANGE", "__nv_atomic_store_n(n + 1, 2u, __NV_ATOMIC_RELAXED)")
    assert "race for entry 0 of a" in races(broken, grid=4)


# ------------------------------------------------------------------------------------------ planted faults

PLANTED = {
    "no release": changed("__NV_ATOMIC_RELEASE", "__NV_ATOMIC_RELAXED"),
    "no acquire": changed("__NV_ATOMIC_ACQUIRE", "__NV_ATOMIC_RELAXED"),
    "a scope too small": changed("__NV_THREAD_SCOPE_DEVICE", "__NV_THREAD_SCOPE_BLOCK"),
    "no barrier before arriving": changed("__syncthreads();  // A"),
    "no barrier after waiting": changed("__syncthreads();  // B"),
    "no barrier after loading": changed("__syncthreads();  // C"),
    "waits for one block too few": changed("(t + 1) * blocks", "(t + 1) * blocks - 1"),
    "waits for no block": changed("wait_for_all(arrived, (t + 1) * blocks);", "__syncthreads();"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_a_barrier_of_the_grid_is_found_in_every_order(fault):
    for order in ORDERS:
        error = pytest.raises(EmulatorError, match="kernel rnn, race for")
        with emulator.race_detector(), emulator.thread_order(*order), error:
            persistent(PLANTED[fault])


@pytest.mark.parametrize("fault", ["no release", "no acquire", "a scope too small"])
def test_faults_of_memory_order_do_not_show_in_the_numbers(fault):
    """On the CPU; so nothing but the detector can tell."""
    for order in ORDERS:
        with emulator.thread_order(*order):
            assert persistent(PLANTED[fault]) < 1e-5


def test_one_slot_for_the_state_is_a_write_before_others_have_read():
    with (
        emulator.race_detector(),
        pytest.raises(EmulatorError, match=r"writes at line 28 what .* read at line 27"),
    ):
        persistent(slots=1)


def test_a_counter_of_the_launch_before_lets_blocks_through():
    with emulator.race_detector(), pytest.raises(EmulatorError, match=r"race for entry \d+ of h"):
        persistent(launches=2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("a[threadIdx.x / 2] = 1;", r"entry 0 of a \(float\*\): thread \(1, 0, 0\) of block \(0, 0, 0\) wr"),
        ("a[0] = 1;", "writes at line 2 what thread .* wrote at line 2"),
        (f"a[threadIdx.x] = 1;\na[32] = {OTHERS};", "reads at line 3 what thread .* wrote at line 2"),
        (f"a[32] = a[threadIdx.x];\n{OTHERS} = 1;", "writes at line 3 what thread .* read at line 2"),
        ("__shared__ float s[32]; s[threadIdx.x] = 1; a[threadIdx.x] = s[31 - threadIdx.x];", "for shared"),
        ("extern __shared__ float d[]; a[threadIdx.x] = d[0]; d[threadIdx.x] = 1;", "for shared"),
        (f"a[threadIdx.x] = __shfl_sync(~0u, 1.0f, 0); a[32 + threadIdx.x] = {OTHERS};", "entry"),
        ("atomicAdd(n, 1u); a[threadIdx.x] = n[0];", "entry 0 of n"),
        ("if (threadIdx.x == 3) n[0] = 0; atomicAdd(n, 1u);", "entry 0 of n"),
        ("((char*)a)[threadIdx.x / 2] = 1;", "entry 0 of a"),
        (SIGNAL.replace("ACQUIRE", "__threadfence();"), "reads at line 4 what thread .* wrote at line 3"),
        (SIGNAL.replace("RELEASE", "__threadfence();"), "reads at line 4 what thread .* wrote at line 3"),
    ],
)
def test_a_race_within_a_block_is_found_with_its_lines(body, words):
    body = body.replace("RELEASE", "").replace("ACQUIRE", "")
    assert re.search(words, races(body, shared_mem=128))


@pytest.mark.parametrize(
    "body",
    [
        "a[threadIdx.x] = 1;",
        "if (blockIdx.x == 0) a[threadIdx.x] = 1; else a[32 + threadIdx.x] = a[threadIdx.x];",
        "if (blockIdx.x == 1) a[threadIdx.x] = 1; else a[32 + threadIdx.x] = a[threadIdx.x];",
        # a fence for the block alone
        "if (blockIdx.x == 0) { a[threadIdx.x] = 1; __threadfence_block(); atomicAdd(n, 1u); }"
        "else { while (atomicAdd(n, 0u) < 32) {} __threadfence(); a[32 + threadIdx.x] = a[threadIdx.x]; }",
        "__nv_atomic_add(n, 1u, __NV_ATOMIC_RELAXED, __NV_THREAD_SCOPE_BLOCK);",
    ],
)
def test_a_race_between_blocks_is_found(body):
    found = races(body, grid=2)
    assert "of block (0, 0, 0)" in found and "of block (1, 0, 0)" in found


def test_a_race_comes_with_the_calls_that_led_there():
    code = """
    __device__ __noinline__ void put(float* p, float value) { *p = value; }
    __device__ __noinline__ void twice(float* p) {
        put(p, 1);
        put(p + 1, 2);
    }
    extern "C" __global__ void probe(float* a) {
        twice(a + threadIdx.x);
    }
    """
    with emulator.race_detector(), pytest.raises(EmulatorError, match=r"line 2 \(called from line [45], 8\)"):
        cupy.RawModule(code=code).get_function("probe")((1,), (2,), (cupy.zeros(3, "f4"),))


# ------------------------------------------------------------------------------------------ generated modules

CELLS = {**builtins(), **{cell.name: cell for path in sorted(SPECS.glob("*.py")) for cell in load(path)}}


def searched(name: str, folder: Path, stepwise: bool = False, pattern: str = "", other: str = "") -> None:
    """Look for races in the modules of a cell, after a change of its kernels; `stepwise`, a launch a step."""
    cell, there = CELLS[name], host.host_of("cupy", emulated=True)
    exact = Runner(cell, host.imported(host.written(cell, "numpy", folder)), host.host_of("numpy"))
    module = host.written(cell, "cupy", folder)
    kernels, count = re.subn(pattern, other, module.with_suffix(".cu").read_text(), count=1)
    assert count
    module.with_suffix(".cu").write_text(kernels)
    if stepwise:
        module.write_text(in_steps(module.read_text()))
    look_for_races(exact, Runner(cell, there.load(module), there), 0)


def in_steps(text: str) -> str:
    """A module that launches each step by itself."""
    return text.replace("BLOCKS = None", "BLOCKS = 0")


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_no_cell_has_a_race(name, tmp_path):
    searched(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, cell in CELLS.items()
        if persists(plan(cell).step.forward) or row_by_row(plan(cell).step.forward)
    ],
)
def test_no_cell_has_a_race_where_each_step_is_launched(name, tmp_path):
    searched(name, tmp_path, stepwise=True)


@pytest.mark.parametrize("name", ["gru", "ln_lstm"])
@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r"(const Index k = i % \w+)", r"\1 / 2"),  # two threads for one unit, none for others
        (r"(part\[threadIdx.y\]\[threadIdx.x\] = total;\s*)__syncthreads\(\);", r"\1"),
        (r"(__syncthreads\(\);[^}]*)__syncthreads\(\);", r"\1"),
        (r"blockIdx\.x \* 32 \+ threadIdx\.x", "threadIdx.x"),  # every block sums the first columns
    ],
)
def test_a_fault_in_a_generated_kernel_is_a_race(name, pattern, other, tmp_path):
    with pytest.raises(host.ModuleError, match=rf"EmulatorError: kernel {name}_\w+, race for"):
        searched(name, tmp_path, True, pattern, other)


def test_verify_looks_for_races_where_it_is_asked_to(monkeypatch):
    monkeypatch.setattr(host, "gpu", lambda: "a GPU, which is not asked")
    ran = CliRunner().invoke(commands, ["verify", "rnn", "--race"], standalone_mode=False)
    assert ran.return_value == 0 and "CPU emulation" in ran.output
    ran = CliRunner().invoke(commands, ["verify", "rnn", "--race", "--backend", "numpy"])
    assert ran.exit_code == 2 and "--race looks at CUDA kernels" in ran.output


def test_a_race_makes_a_cell_wrong_though_its_gradients_are_right(monkeypatch):
    """Several threads compute the same unit, and write the same number."""
    right = host.generate
    pattern = r"const Index i = ([^;]*);\s*if \(i >= (.*)\) return;"

    def files(cell, backend):
        made = right(cell, backend).items()
        made = {name: re.sub(pattern, r"const Index i = (\1) % (\2);", text, count=1) for name, text in made}
        return {name: in_steps(text) for name, text in made.items()}

    monkeypatch.setattr(host, "generate", files)
    assert verify(CELLS["rnn"], ["cupy"])[0].ok
    (result,) = verify(CELLS["rnn"], ["cupy"], race=True)
    assert not result.ok and "race for entry" in result.note


# ------------------------------------------------------------------------------------------ residency


@pytest.mark.parametrize("order", ORDERS)
def test_more_blocks_than_a_device_holds_at_once_are_a_deadlock_if_they_wait_for_each_other(order):
    with emulator.thread_order(*order):
        with emulator.residency(BLOCKS * GROUPS):
            assert persistent() < 1e-5
        words = r"no progress.*\(a deadlock: 4 blocks have not started, as at most 2 are alive at once\)"
        with emulator.residency(BLOCKS - 1), pytest.raises(EmulatorError, match=words):
            persistent()
        assert persistent() < 1e-5


def test_a_goal_that_no_block_reaches_is_a_deadlock_too():
    with pytest.raises(EmulatorError, match="no progress: the threads that still run wait"):
        persistent(changed("(t + 1) * blocks", "(t + 1) * blocks + 1"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blocks", [1, 2, 7, 100])
def test_blocks_that_do_not_wait_for_each_other_run_however_many_are_alive(order, blocks):
    code = """
    extern "C" __global__ void sums(const float* x, float* y) {
        __shared__ float s[32];
        s[threadIdx.x] = x[32 * blockIdx.x + threadIdx.x];
        __syncthreads();
        float sum = 0;
        for (int i = 0; i < 32; ++i) sum += s[i];
        y[32 * blockIdx.x + threadIdx.x] = sum;
    }
    """
    x = np.arange(7 * 32, dtype="f4")
    for cooperative in (False, True):
        y = cupy.zeros(x.size, "f4")
        kernel = cupy.RawModule(code=code, enable_cooperative_groups=cooperative).get_function("sums")
        with emulator.thread_order(*order), emulator.residency(blocks):
            kernel((7,), (32,), (cupy.asarray(x), y))
        np.testing.assert_array_equal(y.get(), np.repeat(x.reshape(7, 32).sum(1), 32))


def test_settings_hold_within_their_block_alone():
    with pytest.raises(ValueError, match="at least 1; not 0"):
        emulator.residency(0)
    with pytest.raises(ZeroDivisionError), emulator.residency(1), emulator.race_detector():
        raise ZeroDivisionError
    assert persistent(PLANTED["no release"]) < 1e-5
