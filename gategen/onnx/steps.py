"""What a step of a cell computes, as nodes: op after op of its graph, for one step or for all at once.

Batch norms take the running statistics: a model is for inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

import sympy as sp

from gategen.graph import Contract, CumSum, Graph, Op, Pointwise, Product, Reduce, Shift, Value, common_size
from gategen.onnx.axes import Along, shape_of
from gategen.onnx.expressions import Expressions
from gategen.onnx.nodes import Nodes
from gategen.spec.names import extent_of


def inference(graph: Graph) -> Graph:
    """The graph without what only training does: batch norms read their running statistics."""
    ops = graph.ops
    if graph.mask:
        off = {graph.mask.training: sp.S.Zero}
        ops = tuple(
            replace(op, expr=op.expr.xreplace(off)) if isinstance(op, Pointwise) else op for op in ops
        )
    needed = {*graph.nexts, *(value for _, value in graph.outputs)}
    kept: list[Op] = []
    for op in reversed(ops):
        if op.out in needed:
            needed.update(op.reads)
            kept.insert(0, op)
    return replace(graph, ops=tuple(kept), sums=(), statistics=(), mask=None)


class Steps:
    """Emits ops. `known` are the names of values; `lead` is the shape of what lies before the features.

    The shape of a step is (B,), that of all steps (T, B); each is the name of a value of integers, of which
    there are `axes`. The small values of what is `strict` count.
    """

    def __init__(
        self,
        nodes: Nodes,
        known: dict[Value, str],
        sizes: Mapping[str, int],
        lead: str,
        axes: int,
        strict: Set[Value] = frozenset(),
    ) -> None:
        self.nodes = nodes
        self.strict = strict
        self.known = known
        self.sizes = sizes
        self.lead = lead
        self.along = Along(nodes, known, sizes, axes)

    def __call__(self, ops: Iterable[Op], suffix: str) -> None:
        """Names of all that the ops compute are in `known` afterwards."""
        for op in ops:
            self.known[op.out] = self.emitted(op, f"{op.out.name}{suffix}")

    def emitted(self, op: Op, wish: str) -> str:
        match op:
            case Pointwise(out) if len(out.axes) > 1:
                return self.of_axes(op, wish)
            case Pointwise(out, expr):
                value = Expressions(self.nodes, self.known, self.sizes, out in self.strict)(expr)
                value = value if isinstance(expr, Value) else self.nodes.named(value, wish)
                return self.widened(value, out, op.reads, wish)
            case Contract():
                return self.along.contracted(op, wish)
            case Product() if op.along:
                return self.along.weighted(op, wish)
            case Product() if op.blocks != 1:
                return self.along.by_blocks(op, wish)
            case Product(_, matrix, operand, transposed):
                name = self.known[matrix]
                if not transposed:
                    name = self.nodes.once("Transpose", name, wish=f"{name}_T", perm=[1, 0])
                return self.nodes("MatMul", self.known[operand], name, wish=wish)
            case Reduce(out, operands, how):
                keep, names = int(not out.static), [self.known[v] for v in operands]
                if how == "sum" and any(len(v.axes) > 1 for v in operands):
                    parts = [self.along.summed(v, out, wish) for v in operands]
                elif out.axes:
                    parts = [self.along.largest(v, out, wish) for v in operands]
                elif how == "sum":
                    last = self.nodes.integers(-1)
                    parts = [self.nodes("ReduceSum", name, last, keepdims=keep) for name in names]
                else:
                    parts = [self.nodes.largest(name, keep) for name in names]
                total, *others = parts
                for part in others:
                    total = self.nodes("Add" if how == "sum" else "Max", total, part)
                return total
            case Shift():
                return self.along.shifted(op, wish)
            case CumSum() if op.axis:
                return self.along.cumulated(op, wish)
            case CumSum(_, operand, backwards):
                last = self.nodes.integer(-1)
                return self.nodes("CumSum", self.known[operand], last, wish=wish, reverse=int(backwards))
        raise AssertionError(f"{op} is no op of a forward step")

    def widened(self, value: str, out: Value, reads: tuple[Value, ...], wish: str) -> str:
        """A value as large as `out` is, which an expression of smaller ones is not."""
        rows = (
            any(v.shape for v in reads) or not out.shape if out.static else any(not v.static for v in reads)
        )
        if rows and common_size(reads) == out.size:
            return value
        return self.expanded(value, out, shape_of(out, self.sizes), wish)

    def of_axes(self, op: Pointwise, wish: str) -> str:
        """What has several axes, of values that may have some of them."""
        out, known = op.out, {**self.known}
        known |= {v: self.along.spread(v, out.axes) for v in op.reads if v.shape}
        value = Expressions(self.nodes, known, self.sizes, out in self.strict)(op.expr)
        value = value if isinstance(op.expr, Value) else self.nodes.named(value, wish)
        missing = {*out.axes}.difference(*(v.axes for v in op.reads))
        if missing or not (out.static or any(not v.static for v in op.reads)):
            value = self.expanded(value, out, [extent_of(axis, self.sizes) for axis in out.axes], wish)
        return self.along.put_together(value, out, wish)

    def expanded(self, value: str, out: Value, shape: Sequence[int], wish: str) -> str:
        """A value, once more for every row and feature that it is the same for."""
        whole = self.nodes.integers(*shape)
        if not out.static:
            whole = self.nodes.once("Concat", self.lead, whole, axis=0)
        return self.nodes("Expand", value, whole, wish=wish)
