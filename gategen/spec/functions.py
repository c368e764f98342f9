"""The elementwise functions and their derivatives.

A function gives its derivative in terms of its own value (`sigmoid` -> `s*(1 - s)`), so that a backward step
can read what the forward step saved. `normalise` puts what SymPy wrote into these words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanFalse, BooleanTrue

from gategen.errors import SpecError
from gategen.spec.names import caller, expression


class Elementwise(sp.Function):  # type: ignore[misc]
    """A real function, entry by entry; `fdiff` gives its derivative, in terms of `self` if that is cheap."""

    is_real = True
    nargs: Any = 1

    def _eval_evalf(self, prec: int) -> Any:
        """The value for numbers alone, such as that of `maximum(beta, 0.1)` for a constant."""
        same = _IN_SYMPY.get(type(self).__name__)
        return same(*self.args)._eval_evalf(prec) if same else super()._eval_evalf(prec)


class sigmoid(Elementwise):
    """1 / (1 + exp(-a))."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self * (1 - self)


class softplus(Elementwise):
    """log(1 + exp(a)), computed as max(a, 0) + log1p(exp(-abs(a)))."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return -expm1(-self)


class relu(Elementwise):
    """max(a, 0); its derivative at 0 is 0, as in PyTorch."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return step(self)


class step(Elementwise):
    """1 where a > 0, else 0."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero


class expm1(Elementwise):
    """exp(a) - 1, exact for small a."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self + 1


class log1p(Elementwise):
    """log(1 + a), exact for small a."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return 1 / (1 + self.args[0])


class stop_gradient(Elementwise):
    """The value a, with derivative 0."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero


class maximum(Elementwise):
    """The larger of a and b; where they are equal the derivative goes to a."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return where(a >= b, *((1, 0) if argindex == 1 else (0, 1)))


class minimum(Elementwise):
    """The smaller of a and b; where they are equal the derivative goes to a."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return where(a <= b, *((1, 0) if argindex == 1 else (0, 1)))


class mod(Elementwise):
    """a - b*floor(a/b); the floor has no derivative."""

    nargs = 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return sp.S.One if argindex == 1 else (self - a) / b


class where(Elementwise):
    """a where the condition holds, else b; the condition is a comparison `< <= > >=` or `equal(a, b)`."""

    nargs = 3

    def __new__(cls, condition: Any, a: Any, b: Any, **options: Any) -> sp.Expr:
        if isinstance(condition, bool):
            raise SpecError(
                f"the condition of where() is already {condition}: it does not depend on any value",
                where=caller(),
                hint="== compares symbols structurally in Python: write where(equal(a, b), ...)",
            )
        a, b = expression(a, "a value of where()"), expression(b, "a value of where()")
        if isinstance(condition, (BooleanTrue, BooleanFalse)):  # decided by SymPy: square(v) >= 0
            return a if condition else b
        if isinstance(condition, sp.Ne):
            condition, a, b = equal(*condition.args), b, a
        if isinstance(condition, sp.Dummy):  # SymPy looks for the period of a condition, and goes without
            raise NotImplementedError
        if not isinstance(condition, Relational):
            raise SpecError(
                f"the condition of where() must be one comparison, not {condition}",
                where=caller(),
                hint="where(a > 0, ...); for two conditions where(a > 0, where(b > 0, ...), ...)",
            )
        if a == b:
            return a
        return cast(sp.Expr, super().__new__(cls, condition, a, b, **options))

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        condition, a, b = self.args
        return cast(sp.Expr, where(condition, a.diff(s), b.diff(s)))


def equal(a: Any, b: Any) -> Boolean:
    """The comparison a == b, for `where` (Python's == on symbols is structural)."""
    a, b = expression(a, "a side of equal()"), expression(b, "a side of equal()")
    return cast(Boolean, sp.Eq(a, b, evaluate=False))


class tanh(sp.tanh):  # type: ignore[misc]
    """SymPy's, which asks whether it is real by expanding its argument: for minutes, where there is a log."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return cast(sp.Expr, 1 - self**2)


# The functions that have a value for numbers, in SymPy's words.
_IN_SYMPY: dict[str, Callable[..., sp.Expr]] = {
    "sigmoid": lambda a: 1 / (1 + sp.exp(-a)),
    "softplus": lambda a: sp.log(1 + sp.exp(a)),
    "relu": lambda a: sp.Max(a, 0),
    "step": lambda a: sp.Heaviside(a, 0),
    "expm1": lambda a: sp.exp(a) - 1,
    "log1p": lambda a: sp.log(1 + a),
    "stop_gradient": lambda a: a,
    "maximum": sp.Max,
    "minimum": sp.Min,
    "mod": lambda a, b: a - b * sp.floor(a / b),
    "where": lambda condition, a, b: sp.Piecewise((a, condition), (b, True)),
}

exp, log, sin, cos, sqrt, abs, sign = sp.exp, sp.log, sp.sin, sp.cos, sp.sqrt, sp.Abs, sp.sign


# ---------------------------------------------------------------------------------------------- made of them


def square(v: Any) -> sp.Expr:
    """v*v."""
    return cast(sp.Expr, sp.sympify(v) ** 2)


def clip(v: Any, low: Any, high: Any) -> sp.Expr:
    """v, at least `low` and at most `high`."""
    return cast(sp.Expr, minimum(maximum(v, low), high))


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
