"""The functions of the C column: as exact as they should be, vectorised, and the same C in each compiler.

Errors are in units of the last place of what should have come out.
"""

import ctypes
import math
import re
import shutil
import subprocess
from functools import cache

import mpmath
import numpy as np
import pytest

from gategen.spec.c_math import C_PARTS, POWER
from gategen.spec.elementwise import helpers
from gategen.spec.functions import NAMED, TABLE

PLAIN = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-fsyntax-only")
CALLS = {**{row.name: row.c for row in TABLE if row.c}, "pow": POWER}
OWN = ("exp", "expm1", "tanh", "sigmoid", "softplus", "log1p")  # without libm
TWO = ("mod", "maximum", "minimum", "surrogate", "pow")  # arguments
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)] or ["cc"]
FUSED = ("-march=native",)  # with products fused into sums, where the machine can
SEPARATE = ("-march=native", "-ffp-contract=off")
REALS = {"float": np.float32, "double": np.float64}

pytestmark = pytest.mark.skipif(not shutil.which(COMPILERS[0]), reason="there is no C compiler")

HEAD = "#include <math.h>\n#include <stdint.h>\n#include <string.h>\n\ntypedef REAL real;\n\n"


def written(*names: str) -> str:
    """A C file with these functions and what they call."""
    calls = (*C_PARTS, *CALLS.values())
    return HEAD + "\n\n".join(helpers([CALLS[name].name for name in names], calls)) + "\n\n"


def loops(*names: str) -> str:
    """For each a function `loop_name` that applies it to arrays."""
    made = written(*names)
    for name in names:
        call = f"{CALLS[name].name}(x[i]{', z[i]' if name in TWO else ''})"
        head = f"void loop_{name}(const long n, const real *x, const real *z, real *y)"
        made += f"{head};\n{head} {{\n    (void)z;\n    for (long i = 0; i < n; i++) y[i] = {call};\n}}\n"
    return made


def compiled(command, text, file):
    """The file that a compiler makes of a text, and what it says."""
    source = file.with_suffix(".c")
    libraries = () if {"-c", "-fsyntax-only"} & {*command} else ("-lm",)
    source.write_text(text, "utf-8")
    done = subprocess.run(
        [*command, str(source), "-o", str(file), *libraries], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def function(tmp_path_factory):
    """A function of NumPy arrays: from its name, `float` or `double`, the compiler and its options."""
    folder = tmp_path_factory.mktemp("c")

    @cache
    def library(real, compiler, options):
        file = folder / f"{real}_{compiler}_{len([*folder.iterdir()])}.so"
        command = (compiler, "-std=c99", *PLAIN, *options, f"-DREAL={real}", "-shared", "-fPIC")
        compiled(command, loops(*CALLS), file)
        return ctypes.CDLL(str(file))

    def of(name, real, compiler=COMPILERS[0], options=FUSED):
        loop = library(real, compiler, options)[f"loop_{name}"]

        def call(x, z=0.0):
            x, z = np.broadcast_arrays(np.asarray(x, REALS[real]), np.asarray(z, REALS[real]))
            x, z, y = np.ascontiguousarray(x), np.ascontiguousarray(z), np.empty(x.shape, REALS[real])
            loop(ctypes.c_long(x.size), *(ctypes.c_void_p(array.ctypes.data) for array in (x, z, y)))
            return y

        return call

    return of


def points(real, seed=0):
    """Some 100,000: special ones, small and large ones, and whatever bits may say."""
    kind = np.finfo(REALS[real])
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**64, 20_000, np.uint64).astype(np.uint32 if real == "float" else np.uint64)
    edges = [0, kind.smallest_subnormal, 3 * kind.smallest_subnormal, kind.tiny, kind.eps, kind.eps / 2]
    edges += [0.125, 0.15, 0.5, 1, math.log(2) / 2, math.log(2), 9.01, 17.5, 19.06, 38, 87.3, 88.72, 88.73]
    edges += [103.9, 104, 105, 708.4, 709.78, 709.79, 745.1, 745.2, 747, kind.max, math.inf, math.nan]
    scaled = [rng.uniform(-1, 1, 20_000) * scale for scale in (0.01, 1, 20, 110 if real == "float" else 750)]
    near = np.array([sign * edge for edge in edges for sign in (1, -1)], REALS[real])
    with np.errstate(all="ignore"):
        near = np.concatenate([near, np.nextafter(near, REALS[real](0)), np.nextafter(near, near * 2)])
    return np.concatenate([near, bits.view(REALS[real]), *(part.astype(REALS[real]) for part in scaled)])


def errors(got, want):
    """In units of the last place of what is wanted; infinite where only one of both is a NaN."""
    kind = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        nearest = want.astype(got.dtype)
        _, exponent = np.frexp(want)
        unit = np.ldexp(np.ones_like(want), np.maximum(exponent, kind.minexp + 1) - kind.nmant - 1)
        off = np.abs(got.astype(want.dtype) - want) / unit
    off = np.where(np.isnan(off), np.inf, off)
    return np.where((got == nearest) | (np.isnan(got) & np.isnan(nearest)), 0, off).astype(float)


@np.errstate(all="ignore")
def wanted(name, x):
    """What NumPy has, in its long double."""
    x = x.astype(np.longdouble)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "softplus":
        return np.where(x > 0, x, 0) + np.log1p(np.exp(-np.abs(x)))
    if name == "erf":
        return np.array([math.erf(value) for value in x.astype(float)], np.longdouble)
    return {"square": lambda v: v * v, "cube": lambda v: v * v * v}.get(name, getattr(np, name, None))(x)


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("options", [FUSED, SEPARATE], ids=["fused", "separate"])
@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_errors_are_small(function, compiler, real, options):
    x = points(real)
    at_most = {"softplus": 2.1} if real == "float" else dict.fromkeys(OWN, 4)
    for name in (*OWN, "log", "sin", "cos", "sqrt", "erf", "square", "cube", "abs"):
        got, want = function(name, real, compiler, options)(x), wanted(name, x)
        error = errors(got, want)
        worst = int(np.argmax(error))
        assert error[worst] <= at_most.get(name, 2), f"{name}({x[worst]!r}) is {got[worst]!r}"


def test_what_is_wanted_is_right():
    """mpmath agrees with NumPy's long double, or with its double where that is all there is."""
    x = np.array([1e-300, 1e-9, 0.01, 0.3, 1.7, 5.0, 40.0, 300.0])
    x = np.concatenate([x, -x])
    words = {
        "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
        "softplus": lambda v: mpmath.log1p(mpmath.exp(v)),
    }
    with mpmath.workdps(400):
        for name in ("exp", "expm1", "tanh", "sigmoid", "softplus", "log1p"):
            domain = x[x > -1] if name == "log1p" else x
            values = [words.get(name, getattr(mpmath, name, None))(mpmath.mpf(float(v))) for v in domain]
            got = wanted(name, domain).astype(float)
            assert errors(got, np.array([float(v) for v in values], np.longdouble)).max() <= 1, name


@pytest.mark.parametrize("real", REALS)
def test_powers(function, real):
    rng = np.random.default_rng(1)
    base, exponent = (
        array.astype(REALS[real]) for array in (rng.uniform(0, 9, 5000), rng.normal(0, 3, 5000))
    )
    want = np.power(base.astype(np.longdouble), exponent.astype(np.longdouble))
    assert errors(function("pow", real)(base, exponent), want).max() <= 2


@pytest.mark.parametrize("real", REALS)
def test_remainders_have_the_sign_of_the_divisor(function, real):
    a, b = np.meshgrid(np.arange(-40, 41) / 4, [-3, -0.75, 0.5, 2])
    assert np.array_equal(function("mod", real)(a, b), a - b * np.floor(a / b))


INF, NAN = math.inf, math.nan
SPECIAL = {
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (NAN, NAN)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1), (NAN, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (NAN, NAN)],
    "softplus": [(INF, INF), (-INF, 0), (NAN, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (-1.5, NAN), (INF, INF), (-INF, NAN), (NAN, NAN)],
    "log": [(1.0, 0.0), (0.0, -INF), (-1.0, NAN), (INF, INF), (NAN, NAN)],
    "relu": [(-1.0, 0.0), (2.0, 2), (INF, INF), (-INF, 0.0), (NAN, NAN)],
    "step": [(-1.0, 0), (0.0, 0), (2.0, 1), (NAN, 0)],
    "sign": [(-3.0, -1), (-0.0, 0.0), (0.0, 0.0), (3.0, 1), (NAN, NAN)],
    "abs": [(-0.0, 0.0), (-2.0, 2), (-INF, INF), (NAN, NAN)],
    "sqrt": [(4.0, 2), (-0.0, -0.0), (-1.0, NAN), (NAN, NAN)],
    "square": [(-3.0, 9), (NAN, NAN)],
    "cube": [(-3.0, -27), (NAN, NAN)],
    "erf": [(-0.0, -0.0), (INF, 1), (NAN, NAN)],
    "sin": [(-0.0, -0.0), (INF, NAN), (NAN, NAN)],
    "cos": [(0.0, 1), (INF, NAN), (NAN, NAN)],
}
SPECIAL_OF_TWO = {
    "maximum": [((1, 2), 2), ((2, 1), 2), ((NAN, 1), NAN), ((1, NAN), NAN)],
    "minimum": [((1, 2), 1), ((2, 1), 1), ((NAN, 1), NAN), ((1, NAN), NAN)],
    "surrogate": [((1, 2), 1), ((NAN, 1), NAN), ((1, NAN), 1)],
    "mod": [((5.5, 2), 1.5), ((-5.5, 2), 0.5), ((1, 0), NAN), ((NAN, 2), NAN)],
    "pow": [
        ((2, 0.5), math.sqrt(2)),
        ((0, 0), 1),
        ((-8, 1 / 3), NAN),
        ((-2, 3), -8),
        ((0, -1), INF),
        ((NAN, 1), NAN),
    ],
}


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", CALLS)
def test_special_values(function, name, compiler, real):
    table = SPECIAL_OF_TWO[name] if name in TWO else SPECIAL[name]
    arguments = np.array([x for x, _ in table]).reshape(len(table), -1).T
    want = np.array([y for _, y in table], REALS[real])
    for repeat in (1, 37):  # in a loop for the rest, and in vectors
        got = function(name, real, compiler)(*(np.tile(array, repeat) for array in arguments))
        np.testing.assert_array_equal(got, np.tile(want, repeat))
        known = ~np.isnan(got)
        assert np.array_equal(np.signbit(got[known]), np.signbit(np.tile(want, repeat)[known]))


# ---------------------------------------------------------------------------------------------- compilers


def test_every_function_of_cuda_is_one_of_c():
    assert {row.name for row in TABLE if row.cuda} == {row.name for row in TABLE if row.c}
    names = [call.name for call in (*C_PARTS, *CALLS.values())]
    assert len(set(names)) == len(names)
    assert not {*names} & {row.cuda.name for row in TABLE if row.cuda and not row.cuda.text}
    assert NAMED["relu"].c.name == "relu"


def test_lines_are_short():
    assert max(map(len, written(*CALLS).splitlines())) <= 110


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize(
    "command",
    [
        ("gcc", "-std=c99"),
        ("clang", "-std=c99"),
        ("g++", "-xc++"),
        ("clang++", "-xc++"),
        ("g++", "-xc++", "-std=c++11"),
    ],
    ids=" ".join,
)
def test_no_compiler_warns(command, real, tmp_path):
    if not shutil.which(command[0]):
        pytest.skip(f"there is no {command[0]}")
    alone = ([name] for name in CALLS) if command[0] == "clang" else ()  # it says what nothing calls
    for names in (CALLS, *alone):
        assert not compiled((*command, *STRICT, f"-DREAL={real}"), loops(*names), tmp_path / "made")


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_loops_are_vectorised(compiler, real, tmp_path):
    version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if compiler not in ("gcc", "clang") or int(version.split(".")[0]) < (14 if compiler == "clang" else 12):
        pytest.skip(f"{compiler} {version.strip()} is not known to do it")
    says = "-fopt-info-vec" if compiler == "gcc" else "-Rpass=loop-vectorize"
    for name in OWN:
        text = loops(name)
        found = compiled(
            (compiler, "-std=c99", *PLAIN, says, f"-DREAL={real}", "-c"), text, tmp_path / "made.o"
        )
        assert re.search(r"(loop vectorized|vectorized loop)", found), name


@pytest.mark.parametrize("real", REALS)
def test_nothing_is_undefined(real, tmp_path):
    """For the sanitiser of undefined behaviour, with what no language says of floats besides."""
    options = ("-std=c99", "-O1", "-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all")
    file = tmp_path / "program"
    try:
        compiled((COMPILERS[0], *options), "int main(void) { return 0; }\n", file)
    except AssertionError:
        pytest.skip("the compiler has no sanitiser")
    x = points(real)[:20_100]
    read = f"    static real x[{x.size}], y[{x.size}];\n"
    read += "    if (fread(x, sizeof(real), sizeof x / sizeof *x, stdin) != sizeof x / sizeof *x) return 1;\n"
    calls = "".join(f"    loop_{name}({x.size}, x, x, y);\n" for name in CALLS)
    text = f"#include <stdio.h>\n{loops(*CALLS)}int main(void) {{\n{read}{calls}    return 0;\n}}\n"
    compiled((COMPILERS[0], *options, f"-DREAL={real}"), text, file)
    done = subprocess.run([str(file)], input=x.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# ---------------------------------------------------------------------------------------------- all floats

# The block_NAME of a function finds the errors of 4096 floats, judged by the same function of doubles.
FLOATS = """
enum { BLOCK = 4096 };

static uint32_t worst_of(const float *got, const double *want) {
    uint32_t worst = 0;  // as bits, of which those of NaN are larger than all others
    for (int k = 0; k < BLOCK; k++) {
        const double power = double_of_bits(bits_of_double(want[k]) & 0x7FF0000000000000u);
        const double least = 1.1754943508222875e-38;  // the least that is normal
        const double unit = (power > least ? power : least) * 1.1920928955078125e-7;
        const float nearest = (float)want[k], off = (float)(fabs((double)got[k] - want[k]) / unit);
        const float unless_nan = got[k] != got[k] && nearest != nearest ? 0.0f : off;
        const float error = got[k] == nearest ? 0.0f : unless_nan;
        worst = bits_of_float(error) > worst ? bits_of_float(error) : worst;
    }
    return worst;
}
"""
EACH_FLOAT = """
static uint32_t block_NAME(const uint32_t first) {
    float x[BLOCK], got[BLOCK];
    double want[BLOCK];
    for (uint32_t k = 0; k < BLOCK; k++) x[k] = float_of_bits(first + k);
    for (int k = 0; k < BLOCK; k++) got[k] = NAME_float(x[k]);
    for (int k = 0; k < BLOCK; k++) want[k] = NAME_double((double)x[k]);
    return worst_of(got, want);
}

static void all_NAME(void) {
    uint32_t worst = 0;
    #pragma omp parallel for reduction(max: worst)
    for (uint32_t block = 0; block < 1u << 20; block += EVERY) {
        const uint32_t error = block_NAME(block * BLOCK);
        worst = error > worst ? error : worst;
    }
    printf("NAME %.4f\\n", (double)float_of_bits(worst));
}
"""
# Doubles at random: of any bits, between -1 and 1, up to 20 in size, and wherever the function changes.
DOUBLES = """
static double random_point(const uint64_t k, const double least, const double most) {
    uint64_t bits = (k + 1) * 0x9E3779B97F4A7C15u;  // SplitMix64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
    bits ^= bits >> 31;
    const double part = (double)(bits >> 11) / 9007199254740992.0;
    if (k % 4 == 0) return double_of_bits(bits);
    if (k % 4 == 1) return least + (most - least) * part;
    return (k % 4 == 2 ? 2.0 : 40.0) * (part - 0.5);
}

static double error_of(const double got, const long double want) {
    if (got == (double)want || (got != got && want != want)) return 0.0;
    int exponent;
    frexpl(want, &exponent);
    exponent = exponent > -1021 ? exponent : -1021;
    const double error = (double)ldexpl(fabsl((long double)got - want), 53 - exponent);
    return error == error ? error : (double)INFINITY;
}
"""
EACH_DOUBLE = """
static void all_NAME(void) {
    double worst = 0.0;
    #pragma omp parallel for reduction(max: worst)
    for (uint64_t k = 0; k < COUNTu; k++) {
        const double at = random_point(k, LEAST, MOST);
        const long double x = at;
        const double error = error_of(NAME_double(at), WANTED);
        worst = error > worst ? error : worst;
    }
    printf("NAME %.4f\\n", worst);
}
"""
LONG = {  # where the function changes, and what libm's long double has for it
    "exp": ("-746.0", "710.0", "expl(x)"),
    "expm1": ("-40.0", "710.0", "expm1l(x)"),
    "tanh": ("-20.0", "20.0", "tanhl(x)"),
    "sigmoid": ("-746.0", "40.0", "1.0L / (1.0L + expl(-x))"),
    "softplus": ("-746.0", "40.0", "(x > 0.0L ? x : 0.0L) + log1pl(expl(-fabsl(x)))"),
    "log1p": ("-1.0", "1000.0", "log1pl(x)"),
}


def measured(options, text, file):
    """What a program that tries every function says: the largest error of each."""
    calls = "".join(f"    all_{name}();\n" for name in OWN)
    text = f"#include <stdio.h>\n{written(*OWN)}{text}\nint main(void) {{\n{calls}    return 0;\n}}\n"
    command = ("gcc" if "gcc" in COMPILERS else COMPILERS[0], "-std=c99", *PLAIN, *options, "-DREAL=float")
    try:
        compiled((*command, "-fopenmp"), text, file)
    except AssertionError:
        compiled(command, text, file)  # on one core
    done = subprocess.run([str(file)], capture_output=True, text=True, check=True)
    print(done.stdout)
    return {name: float(error) for name, error in (line.split() for line in done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("options, every", [(FUSED, 1), (SEPARATE, 8)], ids=["fused", "separate"])
def test_all_floats(options, every, tmp_path):
    """All of them; without fused multiply-add, which most processors have, a block in eight."""
    text = FLOATS + "".join(EACH_FLOAT.replace("NAME", name).replace("EVERY", str(every)) for name in OWN)
    worst = measured(options, text, tmp_path / "floats")
    assert worst.pop("softplus") <= (1.9 if options == FUSED else 2.1)
    assert max(worst.values()) <= 2, worst


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no longer than double")
@pytest.mark.parametrize("options, count", [(FUSED, 10**8), (SEPARATE, 10**7)], ids=["fused", "separate"])
def test_many_doubles(options, count, tmp_path):
    text = DOUBLES
    for name, (least, most, value) in LONG.items():
        made = EACH_DOUBLE.replace("NAME", name).replace("WANTED", value).replace("COUNT", str(count))
        text += made.replace("LEAST", least).replace("MOST", most)
    worst = measured(options, text, tmp_path / "doubles")
    assert max(worst.values()) <= 4, worst
