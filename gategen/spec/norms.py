"""Layer normalisation, a word of several values: its formula stands in the expression until `flatten`."""

from __future__ import annotations

from typing import Any, cast

import sympy as sp

from gategen.errors import SpecError
from gategen.spec.elementwise import Word
from gategen.spec.names import Block, Parameter, Stack, caller
from gategen.spec.opaque import mean, var


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
        scale = 1 / sp.sqrt(var(*self.values) + self.args[-1])
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
