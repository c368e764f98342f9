"""`check`: whether a graph is well formed. Every pass that makes one asks, so a bug is found where it is."""

from __future__ import annotations

from functools import lru_cache

import sympy as sp

from gategen.graph.ops import BatchSum, Graph, Op, Outer, Pointwise, Product, Reduce, Value
from gategen.spec import language as lang


def check(graph: Graph) -> Graph:
    """`graph` itself, if it is well formed; an `AssertionError` (our bug) that names the op if it is not."""
    defined: set[Value] = set()
    names: set[str] = set()
    for value in graph.given:
        assert value.name not in names, f"{graph.name}: {value} is given twice"
        names.add(value.name)
        defined.add(value)
    for op in graph.ops:
        for read in op.reads:
            assert read in defined, f"{graph.name}: {op.out} reads {read} before it is defined"
        assert op.out.name not in names, f"{graph.name}: {op.out} is defined twice"
        _check_shapes(graph, op)
        names.add(op.out.name)
        defined.add(op.out)
    for value in (*graph.nexts, *graph.results):
        assert value in defined, f"{graph.name}: {value} is promised but never defined"
    for carry in graph.states:
        assert carry.current.shape == carry.next.shape, f"{graph.name}: {carry.name} changes its shape"
        assert not carry.next.static, f"{graph.name}: {carry.name} is static"
    assert all(v.static for _, v in graph.sums), f"{graph.name}: a sum depends on the step"
    assert all(s.update.static for s in graph.statistics), f"{graph.name}: a statistic depends on the step"
    assert not any(v.static for _, v in graph.outputs), f"{graph.name}: an output does not depend on the step"
    return graph


@lru_cache(maxsize=10_000)
def holds_names(expr: sp.Expr) -> bool:
    """Whether a name of the spec stands in an expression. Every pass asks it of the same ones again."""
    return bool(expr.atoms(lang.Name))


def _check_shapes(graph: Graph, op: Op) -> None:
    where = f"{graph.name}: {op.out}"
    match op:
        case Pointwise(out, expr):
            sizes = {v.size for v in op.reads if len(v.shape) < 2} - {1}
            assert len(sizes) <= 1 and sizes <= {out.size}, f"{where} mixes sizes {sorted(map(str, sizes))}"
            assert not out.static or all(v.static for v in op.reads), f"{where} is static but reads a row"
            assert not holds_names(expr), f"{where} still holds a name of the spec"
        case Product(out, matrix, operand, transposed):
            rows, columns = matrix.shape[::-1] if transposed else matrix.shape
            assert (rows, columns) == (out.size, operand.size), f"{where}: shapes do not meet"
            assert matrix.static and not out.static and not operand.static, f"{where}: a product is per row"
        case Reduce(out, operands):
            alike = all(v.static == out.static for v in operands)
            assert out.size == 1 and alike, f"{where}: a reduction has size 1"
        case Outer(out, left, right):
            assert out.static and out.shape == (left.size, right.size), f"{where}: wrong outer product"
        case BatchSum(out, operand):
            assert out.static and not operand.static and out.size == operand.size, f"{where}: wrong sum"
