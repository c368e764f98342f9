"""NVIDIA's compiler takes the generated CUDA for every architecture, without a warning or a spill."""

import json
from pathlib import Path

import nvrtc
import pytest
import registers
import table
from registers import ARCHITECTURES, STORAGES
from test_cupy_matrices import CELLS as MATRICES
from test_tally import ALL_AT_ONCE, CELLS

from gategen.build import generate
from gategen.emulator import cupy

ROOT = Path(__file__).parent.parent
GENERATED = sorted((ROOT / "generated").glob("*.cu"))
FIRST = (90, "float32")
TABLE = json.loads(registers.RESULTS.read_text("utf-8"))
ROWS = {
    (name, storage, arch, kind): numbers
    for name, cell in TABLE["registers"].items()
    for kind, storages in cell["kernels"].items()
    for storage, of in storages.items()
    for arch, numbers in of.items()
}


def targets():
    """Each file for `FIRST`, and for every type on one architecture, in turns: neighbours have others."""
    for k, file in enumerate(GENERATED):
        yield pytest.param(file, *FIRST, id=f"{file.stem}-{FIRST[0]}-{FIRST[1]}")
        for n, storage in enumerate(STORAGES):
            arch = ARCHITECTURES[(k + n) % len(ARCHITECTURES)]
            if (arch, storage) != FIRST:
                yield pytest.param(
                    file, arch, storage, id=f"{file.stem}-{arch}-{storage}", marks=pytest.mark.slow
                )


SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) spills(const double* x, double* y, int n) {
    double a[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) a[i] = x[i * n];
    for (int t = 0; t < n; ++t)
#pragma unroll
        for (int i = 0; i < 64; ++i) a[i] = a[i] * a[(i + 1) % 64] + x[t];
#pragma unroll
    for (int i = 0; i < 64; ++i) y[i * n] = a[i];
}
extern "C" __global__ void small(float* y) { y[threadIdx.x] = 1; }
"""

# Expressions over float f, double d, int i, unsigned u, unsigned* p, and the type NVRTC gives them.
TYPES = {
    "fmax(f, f)": "float", "fmax(d, d)": "double", "fmax(f, i)": "float", "max(f, d)": "double",
    "max(i, i)": "int", "max(i, u)": "unsigned", "exp(f)": "float", "exp(d)": "double", "abs(f)": "float",
    "abs(i)": "int", "pow(f, 2)": "float", "pow(f, f)": "float", "pow(d, i)": "double", "isnan(f)": "int",
    "isfinite(d)": "int", "rsqrt(f)": "float", "rsqrt(d)": "double", "fma(f, f, f)": "float",
    "copysign(f, d)": "double", "log1p(f)": "float", "erf(d)": "double", "floor(f)": "float",
    "fmod(f, f)": "float", "normcdf(f)": "float", "exp10(f)": "float", "__ldcg(p)": "unsigned",
    "atomicAdd(p, 1)": "unsigned", "__shfl_sync(~0u, f, 0)": "float", "__ballot_sync(~0u, i)": "unsigned",
    "threadIdx.x": "unsigned", "sizeof(f)": "size_t", "__float2half_rn(f)": "__half",
    "__half2float(__half(d))": "float", "__half(f) * __half(f)": "__half", "static_cast<__half>(i)": "__half",
    "static_cast<double>(__half(f))": "double", "__float2bfloat16_rn(f)": "__nv_bfloat16",
    "max(__half(f), f)": "float", "exp(__nv_bfloat16(f))": "float", "__half(f) < __half(f)": "bool",
    "__nv_atomic_load_n(p, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE)": "unsigned",
    "__nv_atomic_fetch_add(p, u, __NV_ATOMIC_RELEASE, __NV_THREAD_SCOPE_DEVICE)": "unsigned",
}  # fmt: skip
# And what it refuses.
REFUSED = ("exp(i)", "fmax(f, d)", "pow(f, d)", "max(f, i)", "INFINITY", "M_PI", "int64_t(0)")

HEADERS = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
template <class A, class B> struct Same { static const bool value = false; };
template <class A> struct Same<A, A> { static const bool value = true; };
extern "C" __global__ void k(float f, double d, int i, unsigned u, unsigned* p) {
"""


def test_there_is_generated_cuda():
    assert GENERATED


@pytest.mark.parametrize(("file", "arch", "storage"), targets())
def test_generated_cuda_compiles_without_warning_or_spill(file, arch, storage):
    source = file.read_text()
    report = nvrtc.compile(source, arch, STORAGES[storage])
    assert report.warnings == ()
    assert report.registers
    assert not any(report.spill_bytes.values()), report.spill_bytes
    if (storage, arch) in registers.targets():
        is_as_in_the_table(file.stem.removesuffix("_cupy"), storage, arch, registers.worst(source, report))


def is_as_in_the_table(name, storage, arch, found):
    """`python benchmarks/registers.py` writes it anew; another compiler may take other registers."""
    told = {kind: row for (*key, kind), row in ROWS.items() if key == [name, storage, str(arch)]}
    if nvrtc.version() != TABLE["nvrtc"]:
        told, found = ({kind: rest for kind, (_, *rest) in each.items()} for each in (told, found))
    assert found == told


def test_the_table_has_every_cell_and_architecture_and_no_spill():
    wanted = {
        (file.stem.removesuffix("_cupy"), storage, str(arch), kind)
        for file in GENERATED
        for kind in registers.kinds(file.read_text()).values()
        for storage, arch in registers.targets()
    }
    assert ROWS.keys() == wanted
    assert {kind for *_, kind in ROWS} == set(registers.KINDS)
    assert all(0 < taken <= 255 and spilled == 0 for taken, _, _, spilled in ROWS.values())


def test_the_table_in_the_documentation_is_that_of_the_results():
    text = (ROOT / "docs" / "cuda.md").read_text("utf-8")
    assert f"{table.REGISTERS}\n{table.registers_table(TABLE)}\n{table.END}" in text


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "mamba" else pytest.mark.slow) for n in MATRICES]
)
def test_cuda_of_matrices_compiles_without_warning_or_spill(name):
    for backend in ("cupy", "cupy_jvp"):
        source = generate(MATRICES[name], backend)[f"{name}_{backend}.cu"]
        report = nvrtc.compile(source, 90, STORAGES["bfloat16"])
        assert report.warnings == ()
        assert not any(report.spill_bytes.values()), report.spill_bytes


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "lru" else pytest.mark.slow) for n in ALL_AT_ONCE.split()]
)
def test_second_derivatives_of_all_steps_at_once_compile_without_warning_or_spill(name):
    """They have most registers: many arrays are fetched ahead."""
    source = generate(CELLS[name], "cupy_jvp")[f"{name}_cupy_jvp.cu"]
    report = nvrtc.compile(source, 90, STORAGES["float64"])
    assert report.warnings == ()
    assert not any(report.spill_bytes.values()), report.spill_bytes


def test_registers_and_spills_are_read_from_the_log():
    report = nvrtc.compile(SPILLING, 90)
    assert report.registers.keys() == report.spill_bytes.keys() == {"spills", "small"}
    assert report.spill_bytes["spills"] > 0
    assert report.spill_bytes["small"] == 0
    assert 0 < report.registers["small"] < report.registers["spills"] <= 32
    assert report.cubin_size > 1000


def test_a_warning_is_found_in_the_log():
    source = 'extern "C" __global__ void k(int* y) { int unused; y[0] = 1; }'
    assert len(nvrtc.compile(source, 90).warnings) == 1


def test_an_error_comes_with_the_compilers_text():
    with pytest.raises(nvrtc.CompileError, match=r'kernel.cu\(1\): error: identifier "nothing" is undefined'):
        nvrtc.compile('extern "C" __global__ void k(int* y) { y[0] = nothing; }', 90)


def test_the_emulator_gives_expressions_the_types_that_nvrtc_gives_them():
    checks = (f'static_assert(Same<decltype({e}), {t}>::value, "{e}");\n' for e, t in TYPES.items())
    source = HEADERS + "".join(checks) + "}"
    nvrtc.compile(source.replace("size_t", "unsigned long"), 90)
    cupy.RawModule(code=source).compile()


@pytest.mark.parametrize("expression", REFUSED)
def test_the_emulator_refuses_what_nvrtc_refuses(expression):
    source = HEADERS + f"auto y = {expression}; }}"
    with pytest.raises(nvrtc.CompileError):
        nvrtc.compile(source, 90)
    with pytest.raises(RuntimeError, match="could not compile"):
        cupy.RawModule(code=source).compile()
