"""The elementwise functions in C: what the table in `functions.py` calls there, and the parts of those.

The texts are C99 and C++ alike. They stand between `typedef REAL real;`, which is float or double, and the
loops that call them, and need <math.h>, <stdint.h> and <string.h>. exp, expm1, tanh, sigmoid, softplus and
log1p have no branch and call nothing, so that a compiler which inlines them can vectorise such a loop; the
other functions are libm's. They count on what -ffast-math takes away: sums in the order that is written, each
rounded to its type, and NaN. Products may be fused with sums, or not.

Each polynomial is the one whose function has the smallest largest error, relative to its value. The Remez
exchange finds it, with mpmath in 60 digits: solve for coefficients with which the error has one size, and one
sign after the other, at one point more than there are coefficients; move the points to where the error is
largest; repeat. Then the coefficients are rounded. `tests/test_c_math.py` measures what comes of it.
"""

from __future__ import annotations

import re
from string import Template
from textwrap import dedent

from gategen.spec.elementwise import Call

_TYPES = ({"T": "float", "U": "uint32_t", "f": "f"}, {"T": "double", "U": "uint64_t", "f": ""})
_NUMBERS = {  # in float and in double
    "digits": ("23", "52"),  # of a number, behind its first
    "bias": ("127u", "1023u"),  # of its exponent
    "twice_bias": ("254u", "2046u"),
    "integers": ("12582912.0f", "6755399441055744.0"),  # 1.5 * 2^digits
    "per_log2": ("1.44269504f", "1.4426950408889634"),  # 1 / log(2)
    "log2_high": ("0.693145752f", "0.6931471805598903"),  # log(2) = high + low; high * n is exact
    "log2_low": ("1.42860677e-6f", "5.497923018708371e-14"),
}


def _function(text: str) -> Call:
    """The function that a text defines."""
    lines = dedent(text).strip("\n")
    found = re.search(r"^static inline \w+ (\w+)\(", lines, re.MULTILINE)
    assert found, f"no function is defined in {lines!r}"
    return Call(found[1], lines)


def _pair(text: str, **numbers: tuple[str, str]) -> Call:
    """A function of floats and the same of doubles, below one comment; `numbers` are those of each.

    It goes by the name of the first. What the second calls is found by what the first calls.
    """
    comment, _, body = dedent(text).strip("\n").partition("static ")
    made = [
        Template("static " + body).substitute(
            words, **{name: pair[k] for name, pair in {**_NUMBERS, **numbers}.items()}
        )
        for k, words in enumerate(_TYPES)
    ]
    return _function(comment + "\n".join(made))


def _polynomial(coefficients: str) -> str:
    """Lines that make p the polynomial in z with these coefficients, of which the constant comes last."""
    first, *rest = coefficients.split()
    return "\n    ".join([f"p = {first};", *(f"p = p * z + {number};" for number in rest)])


def _real(name: str, of_float: str, of_double: str) -> Call:
    """A function of a real that has one name for floats and one for doubles; the compiler knows which."""
    choice = f"sizeof(real) == sizeof(float) ? (real){of_float}((float)x) : (real){of_double}((double)x)"
    return _function(f"static inline real {name}(const real x) {{\n    return {choice};\n}}")


# ---------------------------------------------------------------------------------------------- parts

C_PARTS: tuple[Call, ...] = (
    _pair("""
        // The bits of a number.
        static inline $U bits_of_$T(const $T x) {
            $U bits;
            memcpy(&bits, &x, sizeof bits);
            return bits;
        }
    """),
    _pair("""
        // The number with some bits.
        static inline $T ${T}_of_bits(const $U bits) {
            $T x;
            memcpy(&x, &bits, sizeof x);
            return x;
        }
    """),
    _pair("""
        // x / log(2), rounded to an integer n, as n + 1.5 * 2^23, or 1.5 * 2^52. Numbers of that size are
        // integers, and the last bits of theirs are those of n. A cast would be undefined where x is NaN.
        static inline $T shifted_$T(const $T x) { return x * $per_log2 + $integers; }
    """),
    _pair(
        """
        // exp(z) - 1 - r where z = r - low is between -log(2) / 2 and log(2) / 2: for x it is
        // x - n * log(2), and r is exact. What comes of it is small beside r, and so is its error.
        static inline $T exp_tail_$T(const $T r, const $T low) {
            const $T z = r - low;
            $T $polynomial
            return z * z * p - low;
        }
        """,
        polynomial=(
            _polynomial("1.3882534e-3f 8.3665205e-3f 4.16672e-2f 0.16666543f 0.49999997f"),
            _polynomial("""
                2.5053761047656857e-8 2.7626038626974827e-7 2.7557407577940926e-6 2.4801505271629876e-5
                1.9841269718979732e-4 1.3888888931567036e-3 8.333333333389557e-3 4.166666666657674e-2
                0.16666666666666588 0.5000000000000006
            """),
        ),
    ),
    _pair(
        """
        // exp(x) = 2^n * exp(z), with 2^n in two factors, which are normal numbers where 2^n is none.
        static inline $T exp_$T(const $T x) {
            const $T a = x < $least ? $least : x > $most ? $most : x;
            const $T shifted = shifted_$T(a), n = shifted - $integers;
            const $T r = a - n * $log2_high, tail = exp_tail_$T(r, n * $log2_low);
            const $U exponent = bits_of_$T(shifted) + $twice_bias, half = exponent >> 1;
            const $T low = ${T}_of_bits(half << $digits), high = ${T}_of_bits((exponent - half) << $digits);
            return (low + low * (r + tail)) * high;
        }
        """,
        least=("-104.0f", "-746.0"),  # to 0 from here on
        most=("89.0f", "710.0"),  # to infinity
    ),
    _pair(
        """
        // exp(-abs(x)) with 2^n as 2^(n + 64), a normal number, times 2^-64.
        static inline $T exp_minus_abs_$T(const $T x) {
            const $T y = -fabs$f(x), a = y < $least ? $least : y;
            const $T shifted = shifted_$T(a), n = shifted - $integers;
            const $T r = a - n * $log2_high, tail = exp_tail_$T(r, n * $log2_low);
            const $T s = ${T}_of_bits((bits_of_$T(shifted) + ($bias + 64u)) << $digits);
            return (s + s * (r + tail)) * $scale;
        }
        """,
        least=("-104.0f", "-746.0"),
        scale=("5.42101086e-20f", "5.421010862427522e-20"),  # 2^-64
    ),
    _pair(
        """
        // exp(x) - 1 = 2^n * (exp(z) - 1) + (2^n - 1), as twice its half: 2^n itself may be too large.
        static inline $T expm1_$T(const $T x) {
            const $T a = x < $least ? $least : x > $most ? $most : x;
            const $T shifted = shifted_$T(a), n = shifted - $integers;
            const $T r = a - n * $log2_high, tail = exp_tail_$T(r, n * $log2_low);
            const $T s = ${T}_of_bits((bits_of_$T(shifted) + ($bias - 1u)) << $digits);
            const $T half = (s * r + (s - 0.5$f)) + s * tail;
            return fabs$f(x) < $small ? x : half + half;  // the least x have no half
        }
        """,
        least=("-18.0f", "-40.0"),
        most=("89.0f", "710.0"),
        small=("1e-8f", "1e-17"),
    ),
    _pair(
        """
        // y / (y + 2) with y = expm1(2 * abs(x)) where that is large: the error of y shrinks in the
        // quotient. Below, y = expm1(-2 * abs(x)), which has more digits than the quotient, and a sign that
        // does not matter.
        static inline $T tanh_$T(const $T x) {
            const $T twice = 2.0$f * fabs$f(x), most = twice > $enough ? $enough : twice;
            const $T a = copysign$f(most, most - 0.3$f);
            const $T shifted = shifted_$T(a), n = shifted - $integers;
            const $T r = a - n * $log2_high, tail = exp_tail_$T(r, n * $log2_low);
            const $T s = ${T}_of_bits((bits_of_$T(shifted) + $bias) << $digits);
            const $T y = (s * r + (s - 1.0$f)) + s * tail;
            return copysign$f(y / (y + 2.0$f), x);
        }
        """,
        enough=("20.0f", "40.0"),  # of half of it tanh is 1
    ),
    _pair("""
        // 1 / (1 + exp(-x)) as y / (1 + e) with e = exp(-abs(x)), which does not overflow, and y = e or 1;
        // and that as y - y * (e / (1 + e)), where little more than the error of y is left.
        static inline $T sigmoid_$T(const $T x) {
            const $T e = exp_minus_abs_$T(x), y = x < 0.0$f ? e : 1.0$f;
            return y - y * (e / (1.0$f + e));
        }
    """),
    _pair(
        """
        // max(x, 0) + log(1 + e) with e = exp(-abs(x)): that is 2 * atanh(q), which begins e - q * e.
        static inline $T softplus_$T(const $T x) {
            const $T e = exp_minus_abs_$T(x), q = e / (2.0$f + e), z = q * q;
            $T $polynomial
            return (x > 0.0$f ? x : 0.0$f) + (e - q * (e - z * p));
        }
        """,
        polynomial=(
            _polynomial("0.2802512f 0.2799902f 0.40021706f 0.6666641f"),
            _polynomial("""
                0.17019632861434497 0.08339545858245527 0.12106209796414152 0.13300958458849457
                0.1538656103499132 0.1818174387477664 0.22222223971091865 0.2857142854783305
                0.400000000001574 0.6666666666666631
            """),
        ),
    ),
    _pair(
        """
        // log(1 + x) = k * log(2) + log(1 + y), where 1 + y is between sqrt(1/2) and sqrt(2). Then
        // y = x / 2^k + (1 / 2^k - 1), in which x has the digits that 1 + x loses. Here s is 4 / 2^k, which
        // is a normal number for each k, and log(1 + y) = 2 * atanh(q), which begins y - q * y.
        static inline $T log1p_$T(const $T x) {
            const $T u = 1.0$f + x;
            const $U exponent = (bits_of_$T(u) + ($one - $root)) >> $digits;
            const $T k = ${T}_of_bits($large_bits | exponent) - $large;
            const $T s = ${T}_of_bits(($twice_bias + 2u - exponent) << $digits);
            const $T y = s * (0.25$f * x) + (0.25$f * s - 1.0$f), q = y / (2.0$f + y), z = q * q;
            $T $polynomial
            const $T log_u = k * $log2_high + (y + (k * $log2_low - q * (y - z * p)));
            const $T outside = u == 0.0$f ? -($T)INFINITY : ($T)NAN;
            const $T above = u < ($T)INFINITY ? log_u : u;
            const $T found = u > 0.0$f ? above : outside;
            return u == 1.0$f ? x : found;
        }
        """,
        one=("0x3F800000u", "0x3FF0000000000000u"),  # the bits of 1
        root=("0x3F3504F3u", "0x3FE6A09E667F3BCDu"),  # the bits of sqrt(1/2)
        large_bits=("0x4B000000u", "0x4330000000000000u"),  # of 2^digits
        large=("8388735.0f", "4503599627371519.0"),  # 2^digits + bias
        polynomial=(
            _polynomial("0.29871878f 0.39977536f 0.66666776f"),
            _polynomial("""
                0.14796103496892704 0.15314035989789973 0.18183564862866122 0.22222198563497392
                0.28571428742475635 0.3999999999941431 0.6666666666666734
            """),
        ),
    ),
    _real("floor_real", "floorf", "floor"),
)

# ---------------------------------------------------------------------------------------------- functions

EXP = _real("exp_real", "exp_float", "exp_double")
EXPM1 = _real("expm1_real", "expm1_float", "expm1_double")
TANH = _real("tanh_real", "tanh_float", "tanh_double")
SIGMOID = _real("sigmoid", "sigmoid_float", "sigmoid_double")
SOFTPLUS = _real("softplus", "softplus_float", "softplus_double")
LOG1P = _real("log1p_real", "log1p_float", "log1p_double")

LOG = _real("log_real", "logf", "log")
SIN = _real("sin_real", "sinf", "sin")
COS = _real("cos_real", "cosf", "cos")
ERF = _real("erf_real", "erff", "erf")
SQRT = _real("sqrt_real", "sqrtf", "sqrt")
ABS = _real("abs_real", "fabsf", "fabs")
POWER = _function("""
    static inline real pow_real(const real x, const real y) {
        if (sizeof(real) == sizeof(float)) return (real)powf((float)x, (float)y);
        return (real)pow((double)x, (double)y);
    }
""")  # no row of the table: powers have a notation of their own

RELU = _function("static inline real relu(const real x) { return x < 0 ? (real)0 : x; }")
STEP = _function("static inline real step_of(const real x) { return x > 0 ? (real)1 : (real)0; }")
SUBSTITUTE = _function("""
    // f, where its derivative is that of psi.
    static inline real substitute(const real f, const real psi)
    {
        (void)psi;
        return f;
    }
""")
SIGN = _function("""
    static inline real sign(const real x) { return x > 0 ? (real)1 : x < 0 ? (real)-1 : x != x ? x : 0; }
""")
SQUARE = _function("static inline real square(const real x) { return x * x; }")
CUBE = _function("static inline real cube(const real x) { return x * x * x; }")
MODULO = _function(
    "static inline real modulo(const real x, const real y) { return x - y * floor_real(x / y); }"
)
LARGER = _function(
    "static inline real larger(const real x, const real y) { return x >= y || x != x ? x : y; }"
)
SMALLER = _function(
    "static inline real smaller(const real x, const real y) { return x <= y || x != x ? x : y; }"
)
