"""Convolutions over axes of matrices of every row, as sums of products that are shifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import sympy as sp
from sympy.core.symbol import Str

from gategen.errors import SpecError
from gategen.spec.elementwise import Word
from gategen.spec.names import Matrix, Stack, caller, expression
from gategen.spec.opaque import matmat, matvec, shifted


class convolved(Word):
    """A convolution; written with `conv`.

    Its arguments are whether the weights stand on the left, the value, the weights for every place, and the
    axes.
    """

    @classmethod
    def _filled(cls, *args: Any) -> list[sp.Expr]:
        *others, axes = args
        return [*super()._filled(*others), Str(str(axes))]

    @property
    def left(self) -> bool:
        return bool(self.args[0])

    @property
    def value(self) -> sp.Expr:
        return self.args[1]

    @property
    def weights(self) -> tuple[Any, ...]:
        return cast(tuple[Any, ...], self.args[2:-1])

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(str(self.args[-1]).split("*"))

    def product(self, weight: Any, value: sp.Expr) -> Any:
        """The product of one place."""
        return matvec(weight, value, 0) if self.left else matmat(value, weight, 0)

    @property
    def formula(self) -> sp.Expr:
        """The sum of the products, each shifted to its place: a backward step then reads the value alone."""
        return self.total(self.weights, self.axes)

    def total(self, weights: Sequence[Any], axes: Sequence[str]) -> sp.Expr:
        """The part of some weights, along the axes that are left."""
        if not axes:
            return self.product(weights[0], self.value)
        width = sp.integer_nthroot(len(weights), len(axes))[0]
        each = len(weights) // width
        parts = (self.total(weights[k * each : (k + 1) * each], axes[1:]) for k in range(width))
        far = ((part, width // 2 - k) for k, part in enumerate(parts))
        return sp.Add(*(shifted(part, by, axes[0]) if by else part for part, by in far))


def conv(left: Any, right: Any, *, over: Any) -> sp.Expr:
    """The convolution of a matrix of every row, along one of its axes or several, with stride 1.

    What lies outside is 0, so the result is as long (same padding). As in other libraries it is a
    cross-correlation: with `K = matrices("K", shape=(("hidden",) * 3, "input"))`

        conv(K, x, over="positions")[i] = K[0] @ x[i - 1] + K[1] @ x[i] + K[2] @ x[i + 1]

    K is one array, whose blocks of rows are the weights of the places; as with `@` it stands on the left of a
    matrix (input, positions), or on the right of one (positions, input), with the shape
    `(("input",) * 3, "hidden")`. With `over=("height", "width")` there are 9 blocks, row by row, for a kernel
    of 3 times 3, or 25: the sizes of a kernel are odd and all the same.
    """
    where = caller()
    stacks = [side for side in (left, right) if isinstance(side, Stack) and isinstance(side[0], Matrix)]
    axes = tuple(map(str, over)) if isinstance(over, (tuple, list)) else (str(over),)
    if len(stacks) != 1:
        raise SpecError(
            f"conv({left}, {right}) has {len(stacks)} stacks of weights, and one is needed",
            where=where,
            hint='K = matrices("K", shape=(("hidden",) * 3, "input")), a block of rows for every place',
        )
    (weights,) = stacks
    rows = weights[0].block.rows
    if len(set(rows)) > 1:
        raise SpecError(
            f"{weights} has blocks of {' and '.join(map(str, dict.fromkeys(rows)))}, and a kernel has blocks "
            "of one size",
            where=where,
            hint='K = matrices("K", shape=(("hidden",) * 3, "input"))',
        )
    width, exact = sp.integer_nthroot(len(weights), len(axes))
    if not exact or width % 2 == 0:
        kind = " times ".join(["3"] * len(axes))
        raise SpecError(
            f"{weights} has {len(weights)} blocks of rows, which are no kernel that is as wide on both sides",
            where=where,
            hint=f"an odd number for every axis: {3 ** len(axes)} blocks for {kind} places",
        )
    value = expression(right if weights is left else left, "what is convolved")
    if len(set(axes)) < len(axes):
        raise SpecError(f"conv goes along {axes[0]} twice", where=where, hint='over=("height", "width")')
    return convolved(int(weights is left), value, *weights, "*".join(axes))
