"""Graphs as text, for people and for tests that compare."""

from __future__ import annotations

from gategen.graph.ops import BatchSum, Graph, Op, Outer, Pointwise, Product, Reduce
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


def _right(op: Op, printer: Printer) -> str:
    match op:
        case Pointwise(_, expr):
            return printer(expr)
        case Product(_, matrix, operand, transposed):
            return f"{matrix}{'.T' if transposed else ''} @ {operand}"
        case Reduce(_, operands):
            return f"sum({', '.join(v.name for v in operands)})"
        case Outer(_, left, right):
            return f"sum over steps of outer({left}, {right})"
        case BatchSum(_, operand):
            return f"sum over steps of {operand}"
