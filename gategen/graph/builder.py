"""`Builder`: how a pass makes ops, one after the other, and names for their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sympy as sp

from gategen.graph.ops import (
    BatchSum,
    Contract,
    CumSum,
    How,
    Op,
    Pointwise,
    Reduce,
    Role,
    Shift,
    Value,
    common_size,
    extent,
    fresh,
    shape_of,
    values_in,
)
from gategen.spec import language as lang
from gategen.spec.names import Axes, Extent, Size


class Builder:
    """Collects ops in order and invents names; the one mutable thing of this floor, local to a stage.

    `orders` are the sizes of what has several axes, in the order in which they stand there.
    """

    def __init__(self, taken: Iterable[str] = (), orders: Iterable[Extent] = ()) -> None:
        self.ops: list[Op] = []
        self.taken = set(taken)
        self.orders = tuple(orders)
        self.memo: dict[Any, Value] = {}

    def name(self, wish: str) -> str:
        name = fresh(wish, self.taken)
        self.taken.add(name)
        return name

    def value(
        self,
        wish: str,
        shape: tuple[Size, ...],
        static: bool = False,
        role: Role = "",
        of: sp.Symbol | None = None,
    ) -> Value:
        return Value(self.name(wish), shape, static, role, of)

    def copy(self, value: Value) -> Value:
        """Another value that is the same to people."""
        return self.value(value.name, value.shape, value.static, value.role, value.of)

    def gradient(self, value: Value, role: Role = "gradient") -> Value:
        """The gradient of a value, or a term of it."""
        return self.value(f"d_{value.name}", value.shape, value.static, role, value)

    def tangent(self, value: Value) -> Value:
        """The derivative of a value in a direction."""
        return self.value(f"dot_{value.name}", value.shape, value.static, "tangent", value)

    def pointwise(
        self,
        wish: str,
        expr: sp.Expr,
        *,
        size: Extent | None = None,
        step: bool = False,
        role: Role = "",
        of: sp.Symbol | None = None,
    ) -> Value:
        """A named value for `expr`: static if all it reads is, of the size of what it reads."""
        reads = values_in(expr)
        static = not step and all(v.static for v in reads)
        shape = shape_of(common_size(reads, self.orders) if size is None else size)
        if static and size is None and all(v.shape == () for v in reads):
            shape = ()
        return self.add(Pointwise(self.value(wish, shape, static, role, of), expr))

    def add(self, op: Op) -> Value:
        self.ops.append(op)
        return op.out

    def once(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value made for `key` before, or a new one."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def reduced(self, wish: str, *operands: Value, size: Extent = 1, how: How = "sum") -> Value:
        """One value of the operands, their sum over all axes but those of `size`, or another reduction."""
        static = operands[0].static
        shape = () if static and size == 1 else shape_of(size)
        return self.once(
            (how, operands, size),
            lambda: self.add(Reduce(self.value(wish, shape, static), operands, how)),
        )

    def contracted(self, wish: str, left: Value, right: Value, along: Axes) -> Value:
        """`left * right`, summed over all axes but these."""
        shape = shape_of(extent(along, flat=True))
        static = left.static and right.static
        return self.once(
            ("contract", left, right, along),
            lambda: self.add(Contract(self.value(wish, shape, static), left, right)),
        )

    def cumulated(self, operand: Value, axis: Size = "") -> Value:
        """The running sum over the features, or along one axis."""
        value = (f"cumsum_{operand}", operand.shape, operand.static)
        return self.once(
            ("cumsum", operand, axis), lambda: self.add(CumSum(self.value(*value), operand, False, axis))
        )

    def shifted(self, operand: Value, by: int, axis: Size) -> Value:
        """The value that has every entry that many places further on along one axis."""
        value = (f"{operand}_{'on' if by > 0 else 'back'}_{abs(by)}", operand.shape, operand.static)
        return self.once(
            ("shifted", operand, by, axis), lambda: self.add(Shift(self.value(*value), operand, by, axis))
        )

    def shares(self, largest: Reduce) -> tuple[sp.Expr, ...]:
        """For each operand of a maximum which part of it every entry is: 1 where it is the largest, and of
        several that are the same part, 0 elsewhere.
        """
        top = largest.out

        def mark(value: Value) -> Value:
            chosen = lang.where(lang.equal(value, top), 1, 0)
            return self.once(chosen, lambda: self.pointwise(f"is_{top}", chosen, size=value.size))

        marks = [mark(value) for value in largest.operands]
        count = self.reduced(f"count_{top}", *marks, size=top.size)
        return tuple(one / count for one in marks)

    def summed(self, operand: Value, shape: tuple[Size, ...], make: Callable[[], Value]) -> Value:
        """The sum of `operand` over steps and rows, in a value that `make` gives."""
        return self.once(("batch", operand, shape), lambda: self.add(BatchSum(make(), operand)))
