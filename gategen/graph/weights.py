"""`weights`: how the matrices that a cell computes of its parameters are made, as a graph of static values.

Its parameters are those of the cell, its sums the computed ones by their names, which are parameters of the
graphs of the steps. So its adjoint takes their gradients and gives those of the cell's own parameters.
"""

from __future__ import annotations

from typing import Any, cast

import sympy as sp

from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.ops import Graph, MatrixOp, Pointwise, Value, length
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.names import Size
from gategen.spec.weights import shape_of

WORDS = {
    lang.transposed: "transpose",
    lang.matmul: "multiply",
    lang.inverse: "inverse",
    lang.exponential: "exponential",
}
Square = tuple[Size, ...]


def weights(cell: Cell) -> Graph | None:
    """The graph that makes the computed parameters of a cell; None where it has none."""
    return _Weights(cell).graph() if cell.computed else None


class _Weights:
    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        names = {s.name for s in (*cell.parameters, *(c.symbol for c in cell.computed))}
        self.builder = Builder(names)
        reads = {symbol for made in cell.computed for symbol in made.reads}
        self.parameters = {
            p.name: Value(p.name, cast(Any, cell.shape_of(p)), True) for p in cell.parameters if p in reads
        }
        self.fixed = tuple(self.parameters[p.name] for p in cell.parameters if p in reads and not p.trainable)

    def graph(self) -> Graph:
        sums = tuple((str(made.symbol.name), self.computed(made)) for made in self.cell.computed)
        parameters = tuple(self.parameters.values())
        return check(
            Graph(
                f"{self.cell.name}_weights", (), parameters, (), tuple(self.builder.ops), (), sums, self.fixed
            )
        )

    def computed(self, made: Any) -> Value:
        """A computed parameter under its own name."""
        name = made.symbol.name
        shape = cast(Any, self.cell.inner.shape_of(made.symbol))
        expr = self.lower(made.expr, shape)
        last = self.builder.ops[-1] if self.builder.ops else None
        value = Value(name, shape, True)
        if isinstance(last, MatrixOp) and last.out == expr:
            self.builder.ops[-1] = MatrixOp(value, last.word, last.operands)
            self.builder.memo = {key: v for key, v in self.builder.memo.items() if v != expr}
            return value
        return self.builder.add(Pointwise(value, expr))

    def lower(self, expr: sp.Expr, shape: Square) -> sp.Expr:
        """An expression over values: all but arithmetic of entries has names. A unit matrix has the shape."""
        if isinstance(expr, lang.Constant):
            return expr.value
        if isinstance(expr, lang.Count):
            return length(expr.name)
        if isinstance(expr, lang.leaf):
            return self.parameters[expr.args[0].name]
        if isinstance(expr, lang.Parameter):
            return self.parameters[expr.name]
        if isinstance(expr, (sp.Add, sp.Mul, sp.Pow)):
            return expr.func(*(self.lower(arg, shape) for arg in expr.args))
        if isinstance(expr, lang.unit):
            return self.named("unit", "unit", shape)
        if isinstance(expr, (lang.frobenius, lang.row_norm)):
            return self.root(expr)
        if type(expr) in WORDS:
            return self.function(expr, shape)
        return expr

    def function(self, expr: Any, shape: Square) -> Value:
        word = WORDS[type(expr)]
        shapes: list[Square] = [shape]
        if word == "transpose":
            shapes = [shape[::-1]]
        elif word == "multiply":
            left, right = (shape_of(arg, self.cell.shapes) for arg in expr.args)
            between = left[1] if left else right[0] if right else shape[0]
            shapes = [(shape[0], between), (between, shape[1])]
        operands = [self.value(arg, own) for arg, own in zip(expr.args, shapes, strict=True)]
        stems = "_".join(v.name for v in operands)
        wish = {"transpose": f"{stems}_T", "inverse": f"inv_{stems}", "exponential": f"expm_{stems}"}
        return self.named(word, wish.get(word, stems), shape, *operands)

    def root(self, expr: Any) -> sp.Expr:
        """The root of a sum of squares, over all entries or those of a row."""
        shape = shape_of(expr.args[0], self.cell.shapes)
        operand = self.value(expr.args[0], shape)
        squares = self.once(operand**2, f"square_{operand}", shape)
        own: Square = () if isinstance(expr, lang.frobenius) else (shape[0], 1)
        total = self.named("sum", f"sum_{operand}", own, squares)
        return self.once(sp.sqrt(total), f"norm_{operand}", own)

    def value(self, expr: sp.Expr, shape: Square) -> Value:
        """A matrix as a value."""
        lowered = self.lower(expr, shape)
        return lowered if isinstance(lowered, Value) else self.once(lowered, "m", shape)

    def once(self, expr: sp.Expr, wish: str, shape: Square) -> Value:
        return self.builder.once(
            (expr, shape), lambda: self.builder.add(Pointwise(self.builder.value(wish, shape, True), expr))
        )

    def named(self, word: str, wish: str, shape: Square, *operands: Value) -> Value:
        return self.builder.once(
            (word, shape, operands),
            lambda: self.builder.add(MatrixOp(self.builder.value(wish, shape, True), word, operands)),
        )
