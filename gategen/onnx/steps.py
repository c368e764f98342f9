"""What a step of a cell computes, as nodes: op after op of its graph, for one step or for all at once.

Batch norms take the running statistics: a model is for inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace

import sympy as sp

from gategen.graph import Graph, Op, Pointwise, Product, Reduce, Value, common_size
from gategen.onnx.expressions import Expressions
from gategen.onnx.nodes import Nodes
from gategen.spec.names import Size


def extent(size: Size, sizes: Mapping[str, int]) -> int:
    """How many features a size is."""
    return sizes[size] if isinstance(size, str) else size


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

    The shape of a step is (B,), that of all steps (T, B); each is the name of a value of integers. The small
    values of what is `strict` count.
    """

    def __init__(
        self,
        nodes: Nodes,
        known: dict[Value, str],
        sizes: Mapping[str, int],
        lead: str,
        strict: Set[Value] = frozenset(),
    ) -> None:
        self.nodes = nodes
        self.strict = strict
        self.known = known
        self.sizes = sizes
        self.lead = lead

    def __call__(self, ops: Iterable[Op], suffix: str) -> None:
        """Names of all that the ops compute are in `known` afterwards."""
        for op in ops:
            self.known[op.out] = self.emitted(op, f"{op.out.name}{suffix}")

    def emitted(self, op: Op, wish: str) -> str:
        match op:
            case Pointwise(out, expr):
                value = Expressions(self.nodes, self.known, self.sizes, out in self.strict)(expr)
                value = value if isinstance(expr, Value) else self.nodes.named(value, wish)
                return self.widened(value, out, op.reads, wish)
            case Product(_, matrix, operand, transposed):
                name = self.known[matrix]
                if not transposed:
                    name = self.nodes.once("Transpose", name, wish=f"{name}_T", perm=[1, 0])
                return self.nodes("MatMul", self.known[operand], name, wish=wish)
            case Reduce(out, operands):
                keep = int(not out.static)
                last = self.nodes.integers(-1)
                parts = [self.nodes("ReduceSum", self.known[v], last, keepdims=keep) for v in operands]
                total, *others = parts
                for part in others:
                    total = self.nodes("Add", total, part)
                return total
        raise AssertionError(f"{op} is no op of a forward step")

    def widened(self, value: str, out: Value, reads: tuple[Value, ...], wish: str) -> str:
        """A value as large as `out` is, which an expression of smaller ones is not."""
        rows = out.static or any(not v.static for v in reads)
        if rows and common_size(reads) == out.size:
            return value
        size = self.nodes.integers(extent(out.size, self.sizes))
        shape = size if out.static else self.nodes.once("Concat", self.lead, size, axis=0)
        return self.nodes("Expand", value, shape, wish=wish)
