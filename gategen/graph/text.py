"""Graphs as text, for people and for tests that compare."""

from __future__ import annotations

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
)
from gategen.spec.names import Size
from gategen.spec.printer import Printer


def ranks(graph: Graph) -> dict[str, int]:
    """The order in which names stand in a product: as computed, then states, then inputs."""
    late = [*(op.out for op in graph.ops), *(c.current for c in graph.states), *graph.inputs]
    return {v.name: k for k, v in enumerate([*graph.parameters, *late])}


def text(graph: Graph) -> str:
    """The graph as lines of text, one op a line."""
    printer = Printer(ranks(graph))
    head = [
        f"graph   {graph.name}{'   (runs from the last step to the first)' if graph.backwards else ''}",
        f"inputs  {' '.join(v.name for v in graph.inputs)}",
        f"params  {' '.join(v.name for v in graph.parameters)}",
        f"states  {'  '.join(f'{c.current} -> {c.next}' for c in graph.states)}",
    ]
    width = max((len(op.out.name) for op in graph.ops), default=0)
    body = [f"  {op.out.name:{width}} = {_right(op, printer)}" for op in graph.ops]
    tail = [f"output  {name}: {value}" for name, value in graph.outputs]
    tail += [f"sum     {name}: {value}" for name, value in graph.sums]
    tail += [f"running {statistic.value}: {statistic.update}" for statistic in graph.statistics]
    return "\n".join([*head, *body, *tail])


def _by(blocks: Size) -> str:
    """That a product is one of blocks."""
    return "" if blocks == 1 else f", {blocks} blocks"


def _over(out: Value, *operands: Value) -> str:
    """The axes that a sum is over."""
    over = dict.fromkeys(axis for v in operands for axis in v.axes if axis not in out.axes)
    return f", over={', '.join(map(str, over))}"


def _right(op: Op, printer: Printer) -> str:
    match op:
        case Pointwise(_, expr):
            return printer(expr)
        case Product(_, matrix, operand, transposed, blocks):
            along = f", over={op.along}" if op.along else ""
            return f"{matrix}{'.T' if transposed else ''} @ {operand}{_by(blocks)}{along}"
        case Contract(out, left, right):
            return f"sum({left} * {right}{_over(out, left, right)})"
        case Reduce(out, operands, how):
            over = _over(out, *operands) if out.axes else ""
            listed = f"({', '.join(v.name for v in operands)}{over})"
            return f"stop_gradient(max{listed})" if how == "bound" else f"{how}{listed}"
        case CumSum(_, operand, backwards, axis):
            along = f", over={axis}" if axis else ""
            return f"cumsum({operand}{along}{', from the last' * backwards})"
        case Shift(_, operand, by, axis):
            return f"shifted({operand}, {by}, over={axis})"
        case Outer(_, left, right, blocks):
            along = f", over {' and '.join(map(str, op.along))}" if op.along else ""
            return f"sum over steps of outer({left}, {right}){_by(blocks)}{along}"
        case BatchSum(_, operand):
            return f"sum over steps of {operand}"
        case MatrixOp(_, word, operands):
            return f"{word}({', '.join(v.name for v in operands)})"
