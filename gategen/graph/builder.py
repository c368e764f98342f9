"""`Builder`: how a pass makes ops, one after the other, and names for their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sympy as sp

from gategen.graph.ops import BatchSum, Op, Pointwise, Reduce, Role, Value, common_size, fresh, values_in
from gategen.spec.names import Size


class Builder:
    """Collects ops in order and invents names; the one mutable thing of this floor, local to a stage."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.ops: list[Op] = []
        self.taken = set(taken)
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
        size: Size | None = None,
        step: bool = False,
        role: Role = "",
        of: sp.Symbol | None = None,
    ) -> Value:
        """A named value for `expr`: static if all it reads is, of the size of what it reads."""
        reads = values_in(expr)
        static = not step and all(v.static for v in reads)
        shape: tuple[Size, ...] = (common_size(reads) if size is None else size,)
        if static and size is None and all(v.shape == () for v in reads):
            shape = ()
        elif static and any(len(v.shape) == 2 for v in reads):
            shape = next(v.shape for v in reads if len(v.shape) == 2)
        return self.add(Pointwise(self.value(wish, shape, static, role, of), expr))

    def add(self, op: Op) -> Value:
        self.ops.append(op)
        return op.out

    def once(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value made for `key` before, or a new one."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def reduced(self, wish: str, *operands: Value) -> Value:
        static = operands[0].static
        shape: tuple[Size, ...] = () if static else (1,)
        return self.once(
            ("sum", operands), lambda: self.add(Reduce(self.value(wish, shape, static), operands))
        )

    def summed(self, operand: Value, shape: tuple[Size, ...], make: Callable[[], Value]) -> Value:
        """The sum of `operand` over steps and rows, in a value that `make` gives."""
        return self.once(("batch", operand, shape), lambda: self.add(BatchSum(make(), operand)))
