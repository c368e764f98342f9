"""`check`: whether a graph is well formed. Every pass that makes one asks, so a bug is found where it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import sympy as sp

from gategen.graph.ops import (
    BatchSum,
    Contract,
    CumSum,
    Graph,
    MatrixOp,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Shift,
    Value,
    replaced,
    share,
)
from gategen.spec import language as lang
from gategen.spec.names import Size


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
            sizes = {axis for v in op.reads for axis in v.axes}
            if len(out.shape) == 2 and all(len(v.shape) in (0, 2) for v in op.reads):
                wide = [v.shape for v in op.reads if v.shape]
                assert all(_broadcasts(shape, out.shape) for shape in wide), f"{where} mixes shapes {wide}"
            else:
                assert sizes.issubset(out.axes), f"{where} mixes sizes {sorted(map(str, sizes))}"
            assert not out.static or all(v.static for v in op.reads), f"{where} is static but reads a row"
            assert not holds_names(expr), f"{where} still holds a name of the spec"
        case Product(out, matrix, operand, transposed, blocks) if operand.wide:
            inner, outer = op.along, matrix.shape[transposed]
            there = inner in operand.axes and out.shape == replaced(operand.axes, inner, outer)
            assert there and blocks == 1, f"{where}: shapes do not meet"
            assert len(set(out.shape)) == len(out.shape), f"{where}: two axes are one"
            assert matrix.static and not out.static, f"{where}: a product is per row"
        case Product(out, matrix, operand, transposed, blocks):
            rows, columns = (operand.size, out.size) if transposed else (out.size, operand.size)
            assert matrix.shape == (rows, share(columns, blocks)), f"{where}: shapes do not meet"
            assert matrix.static and not out.static and not operand.static, f"{where}: a product is per row"
        case Contract(out, left, right):
            both = {*left.axes, *right.axes}
            assert both > {*out.axes} and not out.static, f"{where}: a contraction sums over an axis"
        case Reduce(out, operands):
            alike = all(v.static == out.static for v in operands)
            fewer = len(operands) == 1 and {*out.axes} < {*operands[0].axes}
            assert alike and (out.size == 1 or fewer), f"{where}: a reduction has size 1, or fewer axes"
        case CumSum(out, operand, _, axis):
            alike = (out.shape, out.static) == (operand.shape, operand.static)
            along = axis in out.axes if axis else len(out.shape) == 1
            assert alike and along, f"{where}: a running sum is like its operand"
        case Shift(out, operand, _, axis):
            alike = (out.shape, out.static) == (operand.shape, operand.static)
            assert alike and axis in out.axes, f"{where}: what is shifted is like its operand"
        case Outer(out, left, right, blocks) if op.along:
            one, other = out.shape
            fits = one in left.axes and replaced(left.axes, one, other) == right.axes and blocks == 1
            assert out.static and fits, f"{where}: wrong outer product"
        case Outer(out, left, right, blocks):
            fits = out.shape == (left.size, share(right.size, blocks))
            assert out.static and fits, f"{where}: wrong outer product"
        case MatrixOp(out, word, operands):
            shapes = [v.shape for v in operands]
            assert all(v.static for v in (out, *operands)), f"{where}: matrices are static"
            assert all(len(shape) == 2 for shape in shapes), f"{where}: {word} is of matrices"
            assert _fit(word, out.shape, shapes), f"{where}: {word} of {shapes} is not {out.shape}"
        case BatchSum(out, operand):
            assert out.static and not operand.static and out.axes == operand.axes, f"{where}: wrong sum"


def _broadcasts(shape: tuple[Size, ...], to: tuple[Size, ...]) -> bool:
    """Whether a matrix of one shape takes part in an elementwise one of another."""
    return all(own in (1, size) for own, size in zip(shape, to, strict=True))


def _fit(word: str, out: tuple[Size, ...], shapes: Sequence[tuple[Size, ...]]) -> bool:
    """Whether the shapes of the operands of a `MatrixOp` give that of its result."""
    match word, shapes:
        case "transpose", [shape]:
            return out == shape[::-1]
        case "multiply", [left, right]:
            return left[1] == right[0] and out == (left[0], right[1])
        case "sum", [shape]:
            return out == () or _broadcasts(out, shape)
        case "inverse" | "exponential", [*square]:
            return bool(square) and {*square} == {out} and out[0] == out[1]
    return word == "unit" and not shapes and out[0] == out[1]
