"""Words of several values together, or of one along an axis: layer normalisation, softmax. Their formulas
stand in the expression until `flatten`.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import sympy as sp
from sympy.core.symbol import Str

from gategen.errors import SpecError
from gategen.spec.elementwise import Word
from gategen.spec.functions import stop_gradient
from gategen.spec.names import Block, Parameter, Stack, caller, expression
from gategen.spec.opaque import max_, mean, sum_, var

EPSILON = sp.Float(1e-5)


class Joint(Word):
    """Part `k` of what is made of several values together; k is its first argument."""

    @property
    def values(self) -> tuple[sp.Expr, ...]:
        return cast(tuple[sp.Expr, ...], self.args[1:])

    @property
    def part(self) -> tuple[sp.Expr, ...]:
        """What tells the size of this part."""
        return (self.values[int(self.args[0])],)


class Along(Word):
    """A word of one value along one of its axes, whose size is the last argument."""

    word: ClassVar[str]

    @classmethod
    def _filled(cls, *args: Any) -> list[sp.Expr]:
        *values, axis = args
        return [*super()._filled(*values), Str(str(axis))]

    @property
    def axis(self) -> str:
        return str(self.args[-1])


def one_of(word: str, values: tuple[Any, ...], over: Any) -> Any:
    """The one value of what goes along an axis."""
    if len(values) != 1:
        message = f"{word} over {over} takes one value, not {len(values)}"
        raise SpecError(message, where=caller(), hint=f'{word}(C, over="{over}")')
    return values[0]


class normed(Joint):
    """Part `k` of the joint layer norm of several values; written with `layer_norm`.

    Its arguments are k, the values, and the gain, the shift and the epsilon of this part.
    """

    defaults = (sp.S.One, sp.S.Zero, EPSILON)

    @property
    def values(self) -> tuple[sp.Expr, ...]:
        return cast(tuple[sp.Expr, ...], self.args[1:-3])

    @property
    def part(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """The value that this is the norm of, its gain and its shift."""
        return self.values[int(self.args[0])], self.args[-3], self.args[-2]

    @property
    def formula(self) -> sp.Expr:
        value, gain, bias = self.part
        scale = 1 / sp.sqrt(var(*self.values) + self.args[-1])
        return cast(sp.Expr, gain * ((value - mean(*self.values)) * scale) + bias)


class normed_over(Along):
    """The layer norm of a value along one axis; its arguments are the value, gain, shift, epsilon, axis."""

    word = "layer_norm"

    @property
    def part(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """The value, its gain and its shift."""
        return cast(tuple[sp.Expr, sp.Expr, sp.Expr], self.args[:3])

    @property
    def formula(self) -> sp.Expr:
        (value, gain, bias), eps = self.part, self.args[3]
        scale = 1 / sp.sqrt(var(value, over=self.axis) + eps)
        return cast(sp.Expr, gain * ((value - mean(value, over=self.axis)) * scale) + bias)


def layer_norm(v: Any, gain: Any = None, bias: Any = None, eps: Any = 1e-5, *, over: Any = None) -> Any:
    """gain*(v - mean)/sqrt(var + eps) + bias over the features (Ba et al. 2016, arXiv:1607.06450, eq. 3).

    With a tuple of values the norm is joint, as if they were concatenated, and a tuple is returned; `gain`
    and `bias` are then tuples too. With `over` the norm of one value goes along that one of its axes, such as
    the features of every head.
    """
    values = tuple(v) if isinstance(v, (tuple, list)) else (v,)
    if over is not None:
        value = one_of("layer_norm", values, over)
        return normed_over(value, 1 if gain is None else gain, 0 if bias is None else bias, eps, over)
    for part, what in ((gain, "gains"), (bias, "biases")):
        if isinstance(part, (tuple, list)) and len(part) != len(values):
            raise SpecError(
                f"layer_norm of {len(values)} values takes as many {what}, not {len(part)}",
                where=caller(),
                hint="None stands for no gain and no bias",
            )
    made = []
    inside = len(values) == 1 or all(part is None or stack_of(part) for part in (gain, bias))
    for k in range(len(values)):
        g, b = (part[k] if isinstance(part, (tuple, list)) else part for part in (gain, bias))
        g, b = 1 if g is None else g, 0 if b is None else b
        made.append(normed(k, *values, g, b, eps) if inside else g * normed(k, *values, 1, 0, eps) + b)
    return Stack(made, "layer_norm(...)") if isinstance(v, (tuple, list)) else made[0]


def stack_of(parts: Any) -> str:
    """The name of the array whose rows these are, all of them and in order; empty where they are not."""
    if not isinstance(parts, (tuple, list)):
        return ""
    blocks = [part.block if isinstance(part, Parameter) else None for part in parts]
    owner, rows = (blocks[0].owner, blocks[0].rows) if blocks[0] else ("", ())
    same = blocks == [Block(owner, k, rows) for k in range(len(rows))]
    return owner if same else ""


class softmaxed(Joint):
    """Part `k` of the joint softmax of several values; written with `softmax`."""

    @property
    def formula(self) -> sp.Expr:
        shifted = _shifted(self.values)
        return cast(sp.Expr, shifted[int(self.args[0])] / sum_(*shifted))


class softmax_over(Along):
    """The softmax of a value along one axis; written `softmax(v, over="keys")`."""

    word = "softmax"

    @property
    def formula(self) -> sp.Expr:
        (shifted,) = _shifted(self.args[:1], self.axis)
        return cast(sp.Expr, shifted / sum_(shifted, over=self.axis))


class logsumexp_over(Along):
    """The same of a sum along one axis; written `logsumexp(v, over="keys")`."""

    word = "logsumexp"

    @property
    def formula(self) -> sp.Expr:
        (shifted,) = _shifted(self.args[:1], self.axis)
        top = stop_gradient(max_(self.args[0], over=self.axis))
        return cast(sp.Expr, top + sp.log(sum_(shifted, over=self.axis)))


class logsumexp(Word):
    """log of the sum of exp over the features of all arguments, as if concatenated; a size-1 value.

    The largest feature is subtracted before exp, so that none overflows. With `over` the sum goes along that
    axis of one value.
    """

    def __new__(cls, *args: Any, over: Any = None, **options: Any) -> sp.Expr:
        if over is None:
            return super().__new__(cls, *args, **options)
        return cast(sp.Expr, logsumexp_over(one_of("logsumexp", args, over), over))

    @classmethod
    def _filled(cls, *args: Any) -> list[sp.Expr]:
        return _of_features("logsumexp", super()._filled(*args))

    @property
    def formula(self) -> sp.Expr:
        return cast(sp.Expr, stop_gradient(max_(*self.args)) + sp.log(sum_(*_shifted(self.args))))


def _shifted(values: tuple[sp.Expr, ...], over: str | None = None) -> list[sp.Expr]:
    """exp of all values but for a factor that makes the largest feature 1."""
    top = stop_gradient(max_(*values, over=over))
    return [sp.exp(value - top) for value in values]


def _of_features(word: str, values: list[sp.Expr]) -> list[sp.Expr]:
    """The values, if there are any and not numbers alone."""
    if all(value.is_number for value in values):
        message = f"{word}({', '.join(map(str, values))}) is of no value that has features"
        raise SpecError(message, where=caller(), hint=f"{word}(v)")
    return values


def softmax(*values: Any, over: Any = None) -> Any:
    """exp(v) over the sum of exp(v) over the features; finite whatever v is.

    Of several values it is joint, as if they were concatenated, and has as many: `p, q = softmax(a, b)`. With
    `over` it goes along that axis of one value: every row of a matrix sums up to 1, or every column.
    """
    if over is not None:
        return softmax_over(one_of("softmax", values, over), over)
    parts = _of_features("softmax", [expression(value, "an argument of softmax()") for value in values])
    made = [softmaxed(k, *parts) for k in range(len(parts))]
    return made[0] if len(made) == 1 else Stack(made, "softmax(...)")
