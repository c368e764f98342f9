"""The words that stand for a formula: named activations and layer normalisation.

Equations are printed with the word. Before anything is computed or differentiated, `graph.flatten` puts the
formula in its place.
"""

from __future__ import annotations

from typing import Any, cast

import sympy as sp

from gategen.errors import SpecError
from gategen.spec.functions import (
    Elementwise,
    abs,
    clip,
    exp,
    minimum,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)
from gategen.spec.names import Block, Parameter, Stack, caller, expression
from gategen.spec.opaque import mean, var


class Word(Elementwise):
    """A function that stands for a formula, which `formula` writes out."""

    nargs = None
    defaults: tuple[Any, ...] = ()  # of the last arguments

    def __new__(cls, *args: Any, **options: Any) -> sp.Expr:
        options.pop("evaluate", None)
        made = cls._filled(*args, **options)
        self = sp.Expr.__new__(cls, *made)
        formula = cast(sp.Expr, self.formula)
        decided = formula in made or all(arg.is_number for arg in made)  # `elu(exp(v))` is `exp(v)`
        return formula if decided else self

    @classmethod
    def _filled(cls, *args: Any) -> list[sp.Expr]:
        """All arguments, as expressions."""
        return [expression(arg, f"an argument of {cls.__name__}()") for arg in args]

    @property
    def formula(self) -> sp.Expr:
        raise NotImplementedError

    @property
    def written(self) -> tuple[Any, ...]:
        """The arguments that people write: without defaults at the end."""
        args, defaults = [*self.args], [*self.defaults]
        while defaults and args[-1] == defaults.pop():
            args.pop()
        return tuple(args)

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        return cast(sp.Expr, self.formula.diff(s))


class leaky_relu(Word):
    """v where v >= 0, else `slope`*v. The default slope is PyTorch's."""

    defaults = (sp.Float(0.01),)

    @classmethod
    def _filled(cls, v: Any, slope: Any = 0.01) -> list[sp.Expr]:
        return super()._filled(v, slope)

    @property
    def formula(self) -> sp.Expr:
        v, slope = self.args
        return cast(sp.Expr, where(v >= 0, v, slope * v))


class elu(Word):
    """v where v > 0, else `alpha`*(exp(v) - 1). The default alpha is PyTorch's."""

    defaults = (sp.Float(1.0),)

    @classmethod
    def _filled(cls, v: Any, alpha: Any = 1.0) -> list[sp.Expr]:
        return super()._filled(v, alpha)

    @property
    def formula(self) -> sp.Expr:
        v, alpha = self.args
        return cast(sp.Expr, where(v > 0, v, alpha * (exp(minimum(v, 0)) - 1)))


class silu(Word):
    """v*sigmoid(v)."""

    @classmethod
    def _filled(cls, v: Any) -> list[sp.Expr]:
        return super()._filled(v)

    @property
    def formula(self) -> sp.Expr:
        (v,) = self.args
        return cast(sp.Expr, v * sigmoid(v))


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


class log_sigmoid(Word):
    """log(sigmoid(v)) = -softplus(-v)."""

    @classmethod
    def _filled(cls, v: Any) -> list[sp.Expr]:
        return super()._filled(v)

    @property
    def formula(self) -> sp.Expr:
        (v,) = self.args
        return cast(sp.Expr, -softplus(-v))


class softsign(Word):
    """v / (1 + abs(v))."""

    @classmethod
    def _filled(cls, v: Any) -> list[sp.Expr]:
        return super()._filled(v)

    @property
    def formula(self) -> sp.Expr:
        (v,) = self.args
        return cast(sp.Expr, v / (1 + abs(v)))


_SIXTH = sp.Rational(1, 6)


class hard_sigmoid(Word):
    """clip(slope*v + offset, 0, 1). PyTorch and Keras 3 use slope 1/6, ONNX and Keras 2 use 0.2."""

    defaults = (_SIXTH, sp.Float(0.5))

    @classmethod
    def _filled(cls, v: Any, slope: Any = _SIXTH, offset: Any = 0.5) -> list[sp.Expr]:
        return super()._filled(v, slope, offset)

    @property
    def formula(self) -> sp.Expr:
        v, slope, offset = self.args
        return clip(slope * v + offset, 0, 1)


class hard_tanh(Word):
    """clip(v, low, high)."""

    defaults = (sp.Integer(-1), sp.Integer(1))

    @classmethod
    def _filled(cls, v: Any, low: Any = -1, high: Any = 1) -> list[sp.Expr]:
        return super()._filled(v, low, high)

    @property
    def formula(self) -> sp.Expr:
        return clip(*self.args)


class normed(Word):
    """Part `k` of the joint layer norm of several values; written with `layer_norm`.

    Its arguments are k, the values, and the gain, the shift and the epsilon of this part.
    """

    defaults = (sp.S.One, sp.S.Zero, sp.Float(1e-5))

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
        scale = 1 / sqrt(var(*self.values) + self.args[-1])
        return cast(sp.Expr, gain * ((value - mean(*self.values)) * scale) + bias)


def layer_norm(v: Any, gain: Any = None, bias: Any = None, eps: Any = 1e-5) -> Any:
    """gain*(v - mean)/sqrt(var + eps) + bias over the features (Ba et al. 2016, arXiv:1607.06450, eq. 3).

    With a tuple of values the norm is joint, as if they were concatenated, and a tuple is returned; `gain`
    and `bias` are then tuples too.
    """
    values = tuple(v) if isinstance(v, (tuple, list)) else (v,)
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
