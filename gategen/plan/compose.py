"""compose: write a gradient's chain of factors in one line, as a person does.

The chain rule gives `d_n = d_h * z` and `d_a_n = d_n * (1 - n**2)`; where nothing else reads `d_n`, that is
`d_n = d_h * z * (1 - n**2)`. A product joins a product or a sum, a sum joins a sum; nothing is multiplied
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import sympy as sp

from gategen.graph import Graph, Op, Pointwise, Product, Role, Value, check, fresh, values_in
from gategen.plan.analysis import Analysis
from gategen.plan.ends import reading

WIDE = 6  # values in one line; more are hard to read


def compose(forward: Analysis, analysis: Analysis) -> Graph:
    """The backward graph with its single-reader factors and terms where they are read."""
    return named_by_gates(forward, in_lines(analysis))


def in_lines(analysis: Analysis, kept: Iterable[Value] = (), wide: int = WIDE) -> Graph:
    """The graph with its single-reader factors and terms where they are read, but for `kept` ones."""
    graph, level, readers = analysis.graph, analysis.level, analysis.readers
    ends = {*graph.results, *graph.nexts, *kept}
    inside: dict[Value, sp.Expr] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if isinstance(op, Pointwise):
            op = Pointwise(op.out, op.expr.xreplace(inside))
            reader = readers[op.out][0] if len(readers[op.out]) == 1 and op.out not in ends else None
            if (
                isinstance(reader, Pointwise)
                and level[reader.out] == level[op.out]
                and joins(op, reader, wide)
            ):
                inside[op.out] = op.expr
                continue
        ops.append(op)
    return check(replace(graph, ops=tuple(ops)))


def joins(op: Pointwise, reader: Pointwise, wide: int = WIDE) -> bool:
    """Whether the reader's line can hold what `op` computes without being multiplied out."""
    if op.out.static or op.out.shape != reader.out.shape or not isinstance(op.expr, (sp.Mul, sp.Add)):
        return False
    others = values_in(reader.expr)
    if len(others) > wide + 1 or len({*values_in(op.expr), *others}) > wide + 1:
        return False
    if sum(node == op.out for node in sp.preorder_traversal(reader.expr)) != 1:
        return False
    terms = sp.Add.make_args(reader.expr)
    if op.out in terms:
        return len(terms) > 1
    return isinstance(op.expr, sp.Mul) and any(op.out in sp.Mul.make_args(term) for term in terms)


def named_by_gates(forward: Analysis, backward: Graph) -> Graph:
    """The graph with `d_z` for the gradient at the argument of the gate z, where no other is left."""
    taken = {value.name for graph in (forward.graph, backward) for value in graph.values}
    names: dict[Value, Value] = {}
    gates = gates_of(forward)
    through: dict[Value, list[Product]] = {}
    for product in forward.graph.ops:
        if isinstance(product, Product):
            through.setdefault(product.matrix, []).append(product)
    for op in backward.ops:
        gate = gates.get(op.out.of) if op.out.role == "gradient" else None
        if gate and f"d_{gate}" not in taken:
            names[op.out] = Value(f"d_{gate}", op.out.shape, op.out.static, "gradient", gate)
        elif isinstance(op, Product) and (wish := product_name(op, through.get(op.matrix, []), forward)):
            name, role, of = wish
            names[op.out] = Value(fresh(name, taken), op.out.shape, op.out.static, role, of)
        if op.out in names:
            taken.add(names[op.out].name)
    return renamed(backward, names)


def product_name(
    op: Product, through: Sequence[Product], forward: Analysis
) -> tuple[str, Role, Value] | None:
    """`d_u_h` for what reaches h through a product with U, `d_hr` where hr has no other reader.

    `through` are the products of the forward step with that matrix.
    """
    if len(through) != 1 or through[0].transposed == op.transposed:
        return None
    operand = through[0].operand
    alone = operand not in forward.given and len(forward.readers[operand]) == 1
    if alone:
        return f"d_{operand}", "gradient", operand
    return f"d_{op.matrix.name.split('_')[0].lower()}_{operand}", "term", operand


def gates_of(forward: Analysis) -> dict[Value, Value]:
    """The gate of each value that one function of one argument alone reads."""
    found: dict[Value, Value] = {}
    nexts = {*forward.graph.nexts}
    for value, ops in forward.readers.items():
        match ops:
            case [Pointwise(out, expr)] if expr.args == (value,) and value not in nexts:
                found[value] = out
    return found


def renamed(graph: Graph, names: Mapping[Value, Value]) -> Graph:
    """The graph with other names for some of its values."""

    def new(value: Value) -> Value:
        return names.get(value, value)

    ops = tuple(replace(reading(op, names), out=new(op.out)) for op in graph.ops)
    states = tuple(replace(c, next=new(c.next)) for c in graph.states)
    outputs = tuple((name, new(v)) for name, v in graph.outputs)
    sums = tuple((name, new(v)) for name, v in graph.sums)
    return check(replace(graph, ops=ops, states=states, outputs=outputs, sums=sums))
