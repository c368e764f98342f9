"""The elementwise functions: one table with a row a function, for specs, derivatives, backends and printers.

A new activation is a row here and nothing else. `normalise` puts what SymPy wrote into these words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from textwrap import dedent
from typing import Any, cast

import numpy as np
import sympy as sp

from gategen.errors import SpecError
from gategen.spec import c_math
from gategen.spec.elementwise import Call, Row, Word, elementwise, equal, tanh, where, word
from gategen.spec.names import caller

# ---------------------------------------------------------------------------------------------- for rows


def helper(text: str, *more: str, overflows: bool = False) -> Call:
    """A call of the function that `text` defines, in the language of generated code."""
    lines = dedent(text).strip("\n")
    found = re.search(r"(\w+)\(", lines)
    assert found, f"no function is defined in {lines!r}"
    return Call(found[1], lines, more, overflows)


def _exp_minus_abs(a: Any) -> Any:
    """exp(-|a|), which never overflows; what is built on it is exact where it is tiny."""
    return np.exp(np.where(a.real > 0, -a, a))


def _erf(a: Any) -> Any:
    """The error function for real arrays and, to first order in the imaginary part, for complex ones."""
    real = np.vectorize(math.erf, otypes=[float])(np.real(a))
    if not np.iscomplexobj(a):
        return real
    return real + 2j / np.sqrt(np.pi) * np.exp(-(np.real(a) ** 2)) * np.imag(a)


def _surrogate(f: Any, psi: Any) -> Any:
    """f, with what a complex step added to psi."""
    value = np.real(f) + np.zeros(np.shape(psi))
    return value + 1j * np.imag(psi) if np.iscomplexobj(psi) else value


def _onnx_log1p(op: Callable[..., str], v: str) -> str:
    """log(u)*(v/(u - 1)) with u = 1 + v, in which the error of u cancels; v where u is 1."""
    u = op("Add", v, 1.0)
    return op("Where", op("Equal", u, 1.0), v, op("Mul", op("Log", u), op("Div", v, op("Sub", u, 1.0))))


def _onnx_softplus(op: Callable[..., str], v: str) -> str:
    """max(v, 0) + log1p(exp(-abs(v))); onnxruntime has its Softplus in float32 alone."""
    return op("Add", op("Max", v, 0.0), _onnx_log1p(op, op("Exp", op("Neg", op("Abs", v)))))


_ERF = '''
def erf(a: np.ndarray, out: np.ndarray) -> None:
    """The error function: a Kummer series below 3, the trapezoidal rule of Chiarella & Reichel (1968) above."""
    sign_of_a = np.where(np.real(a) < 0, -1.0, 1.0)
    z = np.asarray(a, np.result_type(a, np.float64)) * sign_of_a
    small = np.where(np.real(z) < 3, z, 0)
    term = total = small
    for n in range(1, 60):
        term = term * (2 * small * small) / (2 * n + 1)
        total = total + term
    below = total * np.exp(-small * small) * (2 / np.sqrt(np.pi))
    large = np.where(np.real(z) < 3, 3, np.where(np.real(z) > 27, 27, z))
    nodes = sum(np.exp(-((n / 2) ** 2)) / (large * large + (n / 2) ** 2) for n in range(1, 14))
    above = 1 - 0.5 / np.pi * large * np.exp(-large * large) * (1 / (large * large) + 2 * nodes)
    above = above - 2 / (1 - np.exp(4 * np.pi * large))
    out[...] = np.where(np.real(z) < 3, below, above) * sign_of_a
'''  # noqa: E501


def square(v: Any) -> sp.Expr:
    """v*v."""
    return cast(sp.Expr, sp.sympify(v) ** 2)


def cube(v: Any) -> sp.Expr:
    """v*v*v."""
    return cast(sp.Expr, sp.sympify(v) ** 3)


def clip(v: Any, low: Any, high: Any) -> sp.Expr:
    """v, at least `low` and at most `high`."""
    return cast(sp.Expr, minimum(maximum(v, low), high))


class gelu(Word):
    """v*Phi(v), Phi the normal distribution function; `approximate="tanh"` is PyTorch's tanh form."""

    @classmethod
    def _filled(cls, v: Any, approximate: Any = "none") -> list[sp.Expr]:
        forms = {"none": 0, "tanh": 1, sp.S.Zero: 0, sp.S.One: 1}
        if not isinstance(approximate, (str, sp.Basic)) or approximate not in forms:
            raise SpecError(f"gelu's approximate is 'none' or 'tanh', not {approximate!r}", where=caller())
        return super()._filled(v, forms[approximate])

    @property
    def formula(self) -> sp.Expr:
        v, approximate = self.args
        if approximate == 1:
            return cast(sp.Expr, 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v**3))))
        return cast(sp.Expr, 0.5 * v * (1 + sp.erf(0.7071067811865476 * v)))

    @property
    def written(self) -> tuple[Any, ...]:
        return (self.args[0], "tanh") if self.args[1] == 1 else self.args[:1]


# ---------------------------------------------------------------------------------------------- the table

TABLE: tuple[Row, ...] = (
    Row(
        "sigmoid(v)",
        elementwise(
            "sigmoid", "1 / (1 + exp(-v)).", lambda v: 1 / (1 + sp.exp(-v)), lambda s, v: s * (1 - s)
        ),
        evaluate=lambda a: np.where(a.real > 0, 1, _exp_minus_abs(a)) / (1 + _exp_minus_abs(a)),
        numpy=helper(
            '''
            def sigmoid(a: np.ndarray, half: Any, out: np.ndarray) -> None:
                """1 / (1 + exp(-a)) as tanh(a / 2) / 2 + 1 / 2; `half` is 1 / 2."""
                np.multiply(a, half, out=out)
                np.tanh(out, out=out)
                out *= half
                out += half
            ''',
            "0.5",
        ),
        exact=helper(
            overflows=True,
            text='''
            def exact_sigmoid(a: np.ndarray, out: np.ndarray) -> None:
                """1 / (1 + exp(-a)), to the last digit also where that is small."""
                np.multiply(a, -1, out=out)
                np.exp(out, out=out)
                out += 1
                np.reciprocal(out, out=out)
        ''',
        ),
        cuda=helper("__device__ inline real sigmoid(real a) { return 1 / (1 + exp(-a)); }"),
        c=c_math.SIGMOID,
        onnx="Sigmoid",
        latex=r"\sigma",
        parity="opposite",
    ),
    Row(
        "tanh(v)",
        tanh,
        evaluate=np.tanh,
        numpy=Call("np.tanh"),
        cuda=Call("tanh"),
        c=c_math.TANH,
        onnx="Tanh",
        latex=r"\tanh",
        parity="odd",
    ),
    Row(
        "softplus(v)",
        elementwise(
            "softplus",
            "log(1 + exp(v)), computed as max(v, 0) + log1p(exp(-abs(v))).",
            lambda v: sp.log(1 + sp.exp(v)),
            lambda s, v: -expm1(-s),
        ),
        evaluate=lambda a: np.where(a.real > 0, a, 0) + np.log1p(_exp_minus_abs(a)),
        numpy=helper(
            overflows=True,
            text='''
            def softplus(a: np.ndarray, out: np.ndarray) -> None:
                """log(1 + exp(a)) = max(a, 0) + log1p(exp(-abs(a)))."""
                positive_part = np.where(np.real(a) > 0, a, 0)
                np.subtract(a, 2 * positive_part, out=out)
                np.exp(out, out=out)
                np.log1p(out, out=out)
                out += positive_part
        ''',
        ),
        cuda=helper("""
            __device__ inline real softplus(real a) { return (a > 0 ? a : real(0)) + log1p(exp(-fabs(a))); }
        """),
        c=c_math.SOFTPLUS,
        onnx=_onnx_softplus,
    ),
    Row(
        "relu(v)",
        elementwise(
            "relu",
            "max(v, 0); its derivative at 0 is 0, as in PyTorch.",
            lambda v: sp.Max(v, 0),
            lambda r, v: step(r),
        ),
        evaluate=lambda a: np.where(a.real > 0, a, 0),
        numpy=Call("np.maximum", more=("0",)),
        cuda=helper("__device__ inline real relu(real a) { return a < 0 ? real(0) : a; }"),
        c=c_math.RELU,
        onnx="Relu",
    ),
    Row(
        "step(v)",
        elementwise("step", "1 where v > 0, else 0.", lambda v: sp.Heaviside(v, 0), lambda s, v: 0),
        evaluate=lambda a: np.where(a.real > 0, 1.0, 0.0),
        numpy=Call("np.greater", more=("0",)),
        cuda=helper("__device__ inline real step(real a) { return a > 0 ? real(1) : real(0); }"),
        c=c_math.STEP,
        onnx=lambda op, v: op("Where", op("Greater", v, 0.0), 1.0, 0.0),
    ),
    Row(
        "exp(v)",
        sp.exp,
        evaluate=np.exp,
        numpy=Call("np.exp"),
        cuda=Call("exp"),
        c=c_math.EXP,
        onnx="Exp",
        latex=r"\exp",
        finite=False,
    ),
    Row(
        "log(v)",
        sp.log,
        evaluate=np.log,
        numpy=Call("np.log"),
        cuda=Call("log"),
        c=c_math.LOG,
        onnx="Log",
        latex=r"\log",
        finite=False,
    ),
    Row(
        "log1p(v)",
        elementwise(
            "log1p", "log(1 + v), exact for small v.", lambda v: sp.log(1 + v), lambda y, v: 1 / (1 + v)
        ),
        evaluate=np.log1p,
        numpy=Call("np.log1p"),
        cuda=Call("log1p"),
        c=c_math.LOG1P,
        onnx=_onnx_log1p,
        finite=False,
    ),
    Row(
        "expm1(v)",
        elementwise("expm1", "exp(v) - 1, exact for small v.", lambda v: sp.exp(v) - 1, lambda y, v: y + 1),
        evaluate=np.expm1,
        numpy=Call("np.expm1"),
        cuda=Call("expm1"),
        c=c_math.EXPM1,
        onnx=lambda op, v: op("Mul", op("Tanh", op("Mul", v, 0.5)), op("Add", op("Exp", v), 1.0)),
        finite=False,
        public=False,
    ),
    Row(
        "sin(v)",
        sp.sin,
        evaluate=np.sin,
        numpy=Call("np.sin"),
        cuda=Call("sin"),
        c=c_math.SIN,
        onnx="Sin",
        latex=r"\sin",
        parity="odd",
    ),
    Row(
        "cos(v)",
        sp.cos,
        evaluate=np.cos,
        numpy=Call("np.cos"),
        cuda=Call("cos"),
        c=c_math.COS,
        onnx="Cos",
        latex=r"\cos",
        parity="even",
    ),
    Row("sqrt(v)", sp.sqrt, numpy=Call("np.sqrt"), cuda=Call("sqrt"), c=c_math.SQRT),
    Row(
        "abs(v)",
        sp.Abs,
        evaluate=lambda a: np.where(a.real < 0, -a, a),
        numpy=helper('''
            def absolute(a: np.ndarray, out: np.ndarray) -> None:
                """abs(a), analytic in a."""
                np.multiply(a, np.where(np.real(a) < 0, -1, 1), out=out)
        '''),
        cuda=Call("fabs"),
        c=c_math.ABS,
        onnx="Abs",
        parity="even",
    ),
    Row(
        "sign(v)",
        sp.sign,
        evaluate=lambda a: np.sign(a.real),
        numpy=helper('''
            def sign(a: np.ndarray, out: np.ndarray) -> None:
                """-1, 0 or 1."""
                out[...] = np.sign(np.real(a))
        '''),
        cuda=helper("""
            __device__ inline real sign(real a) { return a > 0 ? real(1) : a < 0 ? real(-1) : real(0); }
        """),
        c=c_math.SIGN,
        onnx="Sign",
        parity="odd",
    ),
    Row(
        "square(v)",
        square,
        cuda=helper("__device__ inline real square(real a) { return a * a; }"),
        c=c_math.SQUARE,
    ),
    Row(
        "cube(v)",
        cube,
        cuda=helper("__device__ inline real cube(real a) { return a * a * a; }"),
        c=c_math.CUBE,
        public=False,
    ),
    Row(
        "mod(a, b)",
        elementwise(
            "mod",
            "a - b*floor(a/b); the floor has no derivative.",
            lambda a, b: a - b * sp.floor(a / b),
            lambda m, a, b: 1,
            lambda m, a, b: (m - a) / b,
        ),
        evaluate=lambda a, b: a - b * np.floor(np.real(a) / np.real(b)),
        numpy=helper('''
            def modulo(a: np.ndarray, b: Any, out: np.ndarray) -> None:
                """a - b * floor(a / b)."""
                np.subtract(a, b * np.floor(np.real(a) / np.real(b)), out=out)
        '''),
        cuda=helper("__device__ inline real modulo(real a, real b) { return a - b * floor(a / b); }"),
        c=c_math.MODULO,
        onnx=lambda op, a, b: op("Sub", a, op("Mul", b, op("Floor", op("Div", a, b)))),
        finite=False,
    ),
    Row(
        "maximum(a, b)",
        elementwise(
            "maximum",
            "The larger of a and b; where they are equal the derivative goes to a.",
            sp.Max,
            lambda m, a, b: where(a >= b, 1, 0),
            lambda m, a, b: where(a >= b, 0, 1),
        ),
        evaluate=lambda a, b: np.where(np.real(a) >= np.real(b), a, b),
        numpy=Call("np.maximum"),
        cuda=helper("__device__ inline real larger(real a, real b) { return a >= b ? a : b; }"),
        c=c_math.LARGER,
        onnx="Max",
        latex=r"\max",
        symmetric=True,
    ),
    Row(
        "minimum(a, b)",
        elementwise(
            "minimum",
            "The smaller of a and b; where they are equal the derivative goes to a.",
            sp.Min,
            lambda m, a, b: where(a <= b, 1, 0),
            lambda m, a, b: where(a <= b, 0, 1),
        ),
        evaluate=lambda a, b: np.where(np.real(a) <= np.real(b), a, b),
        numpy=Call("np.minimum"),
        cuda=helper("__device__ inline real smaller(real a, real b) { return a <= b ? a : b; }"),
        c=c_math.SMALLER,
        onnx="Min",
        latex=r"\min",
        symmetric=True,
    ),
    Row(
        "stop_gradient(v)",
        elementwise("stop_gradient", "The value v, with derivative 0.", lambda v: v, lambda y, v: 0),
        evaluate=lambda a: np.real(a) + 0.0,
        numpy=helper('''
            def detach(a: np.ndarray, out: np.ndarray) -> None:
                """The value of a, without what a complex step added to it."""
                out[...] = np.real(a)
        '''),
        onnx="Identity",
    ),
    Row(
        "surrogate(f, psi)",
        elementwise(
            "surrogate",
            "The value of f with the derivative of psi: `surrogate(step(v), sigmoid(4*v))` for a spike.",
            lambda f, psi: f,
            lambda s, f, psi: 0,
            lambda s, f, psi: 1,
        ),
        evaluate=_surrogate,
        numpy=helper('''
            def substitute(f: Any, psi: Any, out: np.ndarray) -> None:
                """The value of f, with what a complex step added to psi."""
                out[...] = np.real(f)
                if np.iscomplexobj(out):
                    out.imag = np.imag(psi)
        '''),
        cuda=helper("__device__ inline real substitute(real f, real) { return f; }"),
        c=c_math.SUBSTITUTE,
        onnx=lambda op, f, psi: op("Where", op("Equal", psi, psi), f, f),  # as large as both
    ),
    Row(
        "where(condition, a, b)",
        where,
        evaluate=np.where,
        numpy=helper('''
            def choose(condition: np.ndarray, a: Any, b: Any, out: np.ndarray) -> None:
                """a where the condition holds, else b."""
                out[...] = np.where(condition, a, b)
        '''),
        onnx="Where",
    ),
    Row(
        "erf(v)",
        sp.erf,
        evaluate=_erf,
        numpy=helper(_ERF),
        cuda=Call("erf"),
        c=c_math.ERF,
        onnx="Erf",
        parity="odd",
        public=False,
    ),
    # made of these
    Row("equal(a, b)", equal),
    Row("clip(v, low, high)", clip),
    word(
        "leaky_relu(v, slope=0.01)",
        "v where v >= 0, else `slope`*v. The default slope is PyTorch's.",
        lambda v, slope: where(v >= 0, v, slope * v),
        0.01,
    ),
    word(
        "elu(v, alpha=1)",
        "v where v > 0, else `alpha`*(exp(v) - 1). The default alpha is PyTorch's.",
        lambda v, alpha: where(v > 0, v, alpha * (sp.exp(minimum(v, 0)) - 1)),
        1.0,
    ),
    word("silu(v)", "v*sigmoid(v).", lambda v: v * sigmoid(v)),
    Row('gelu(v, approximate="none")', gelu),
    word("log_sigmoid(v)", "log(sigmoid(v)) = -softplus(-v).", lambda v: -softplus(-v)),
    word("softsign(v)", "v / (1 + abs(v)).", lambda v: v / (1 + sp.Abs(v))),
    word(
        "hard_sigmoid(v, slope=1/6, offset=0.5)",
        "clip(slope*v + offset, 0, 1). PyTorch and Keras 3 use slope 1/6, ONNX and Keras 2 use 0.2.",
        lambda v, slope, offset: clip(slope * v + offset, 0, 1),
        sp.Rational(1, 6),
        0.5,
    ),
    word("hard_tanh(v, low=-1, high=1)", "clip(v, low, high).", clip, -1, 1),
)

NAMED: Mapping[str, Row] = {row.name: row for row in TABLE}
_OF_CLASS: Mapping[str, Row] = {row.apply.__name__: row for row in TABLE if isinstance(row.apply, type)}


def __getattr__(name: str) -> Any:
    """`functions.sigmoid`: what makes an expression of each function."""
    if name not in NAMED:
        raise AttributeError(f"there is no elementwise function {name!r}")
    return NAMED[name].apply


# Those that rows and this module write themselves.
sigmoid: Any = NAMED["sigmoid"].apply
softplus: Any = NAMED["softplus"].apply
step: Any = NAMED["step"].apply
expm1: Any = NAMED["expm1"].apply
maximum: Any = NAMED["maximum"].apply
minimum: Any = NAMED["minimum"].apply
mod: Any = NAMED["mod"].apply


def row_of(expr: sp.Basic) -> Row | None:
    """The row of the function that `expr` applies; None where it applies none of the table."""
    return _OF_CLASS.get(type(expr).__name__)


# ---------------------------------------------------------------------------------------------- from SymPy


def normalise(expr: sp.Expr) -> sp.Expr:
    """The `tanh`, `Max`, `Min`, `Piecewise`, `Heaviside` and `Mod` of SymPy in our words; `v**2.0` is `v**2`.

    SymPy writes `abs(exp(v))` as `exp(re(v))` where it does not see that `v` is real, which every value is.
    """
    expr = expr.replace(_half_float, lambda e: sp.Pow(e.base, sp.Rational(int(2 * e.exp), 2)))
    if expr.has(sp.re):
        expr = expr.replace(sp.re, lambda value: value)
    expr = expr.replace(lambda e: type(e) is sp.tanh, lambda e: tanh(*e.args))
    if not expr.has(sp.Max, sp.Min, sp.Piecewise, sp.Heaviside, sp.Mod):
        return expr
    expr = expr.replace(sp.Heaviside, lambda a, *_: step(a)).replace(sp.Mod, mod)
    for kind, binary in ((sp.Max, maximum), (sp.Min, minimum)):
        expr = expr.replace(kind, lambda *args, binary=binary: _fold(binary, args))
    return cast(sp.Expr, expr.replace(lambda e: isinstance(e, sp.Piecewise), _nested_where))


def _half_float(expr: sp.Basic) -> bool:
    """Whether `expr` is a power whose exponent is a float that means an integer or a half."""
    return isinstance(expr, sp.Pow) and bool(expr.exp.is_Float) and float(2 * expr.exp).is_integer()


def _fold(binary: Any, args: tuple[sp.Expr, ...]) -> sp.Expr:
    first, *rest = sorted(args, key=lambda a: (a.is_number, str(a)))
    for arg in rest:
        first = binary(first, arg)
    return first


def _nested_where(piecewise: sp.Piecewise) -> sp.Expr:
    *pieces, (last, condition) = piecewise.args
    if condition is not sp.true:
        raise SpecError(
            f"{piecewise} is undefined where no condition holds", hint="end it with (value, True)"
        )
    for value, test in reversed(pieces):
        last = where(test, value, last)
    return cast(sp.Expr, last)
