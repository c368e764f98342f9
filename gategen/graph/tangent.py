"""`tangent`: the forward derivative of a recurrence, as a recurrence (Griewank & Walther, chapter 3).

The result computes everything the graph computes and, beside each value `v`, its directional derivative
`dot_v`; its states are the states and their tangents, its outputs and sums those of the graph and theirs.
`adjoint(tangent(g))` is therefore a second derivative: the gradient of a Jacobian-vector product.
"""

from __future__ import annotations

import sympy as sp

from gategen.graph.adjoint import partial
from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.ops import BatchSum, Carry, Graph, Op, Outer, Pointwise, Product, Reduce, Value


def tangent(graph: Graph) -> Graph:
    """The recurrence that carries a direction `dot_<name>` of all that is given through `graph`."""
    builder = Builder(v.name for v in graph.values)
    dots: dict[Value, Value | None] = dict.fromkeys(graph.fixed)
    for given in graph.given:
        if given not in dots:
            dots[given] = builder.value(f"dot_{given.name}", given.shape, given.static)
    for op in graph.ops:
        builder.add(op)
        dots[op.out] = _push(builder, dots, op)

    def dot(value: Value) -> Value:
        """The tangent of a result, 0 where nothing moves it."""
        known = dots[value]
        if known is None:
            zero = builder.value(f"dot_{value.name}", value.shape, value.static)
            known = dots[value] = builder.add(Pointwise(zero, sp.S.Zero))
        return known

    def moving(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(d for d in (dots[v] for v in values) if d is not None)

    states = [*graph.states]
    states += [Carry(f"dot_{c.name}", dot(c.current), dot(c.next)) for c in graph.states]
    outputs = (*graph.outputs, *((f"dot_{name}", dot(v)) for name, v in graph.outputs))
    sums = (*graph.sums, *((f"dot_{name}", dot(v)) for name, v in graph.sums))
    return check(
        Graph(
            f"{graph.name}_tangent",
            (*graph.inputs, *moving(graph.inputs)),
            (*graph.parameters, *moving(graph.parameters)),
            tuple(states),
            tuple(builder.ops),
            outputs,
            sums,
            graph.fixed,
            graph.mask,
            graph.statistics,
            graph.blocks,
            graph.backwards,
        )
    )


def _push(builder: Builder, dots: dict[Value, Value | None], op: Op) -> Value | None:
    """Emit the tangent of one op; None where it cannot move."""
    out, wish = op.out, f"dot_{op.out.name}"

    def fits() -> Value:
        return builder.value(wish, out.shape, out.static)

    match op:
        case Pointwise():
            terms = [partial(op, v) * dot for v in op.reads if (dot := dots[v]) is not None]
            total = sp.Add(*terms)
            return builder.add(Pointwise(fits(), total)) if total != 0 else None
        case Product(_, matrix, operand, transposed):
            parts: list[Value] = []
            if (dot := dots[operand]) is not None:
                parts.append(builder.add(Product(fits(), matrix, dot, transposed)))
            if (dot := dots[matrix]) is not None:
                parts.append(builder.add(Product(fits(), dot, operand, transposed)))
        case Outer(_, left, right):
            parts = []
            if (dot := dots[left]) is not None:
                parts.append(builder.add(Outer(fits(), dot, right)))
            if (dot := dots[right]) is not None:
                parts.append(builder.add(Outer(fits(), left, dot)))
        case Reduce(_, operands):
            moved = tuple(dot for v in operands if (dot := dots[v]) is not None)
            return builder.add(Reduce(fits(), moved)) if moved else None
        case BatchSum(_, operand):
            dot = dots[operand]
            return None if dot is None else builder.add(BatchSum(fits(), dot))
    if len(parts) < 2:
        return parts[0] if parts else None
    return builder.add(Pointwise(fits(), sp.Add(*parts)))
