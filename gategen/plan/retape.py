"""retape: recompute in the backward step what is cheaper to compute than to save.

One rule: a forward value that is a single sum or product of at most three values, all of which the backward
step reads (or was given), and that meets no product (whose operand must lie in memory anyway), is recomputed.
What is asked for equality is not: computed again it may differ in its last bit, and then nothing is the
largest. No search for the smallest tape is made.
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from gategen.graph import Graph, Outer, Pointwise, Product, Value, check, values_in


def retape(forward: Graph, backward: Graph) -> Graph:
    """The backward graph, computing by itself what is cheap arithmetic on what it reads anyway."""
    again = recomputed(forward, backward)
    dropped = {op.out for op in again}
    inputs = [v for v in backward.inputs if v not in dropped]
    parameters = [v for v in backward.parameters if v not in dropped]
    known = {*inputs, *parameters, *dropped}
    extra = list(dict.fromkeys(v for op in again for v in op.reads if v not in known))
    return check(
        replace(
            backward,
            inputs=(*inputs, *(v for v in extra if not v.static)),
            parameters=(*parameters, *(v for v in extra if v.static)),
            ops=(*again, *backward.ops),
        )
    )


def recomputed(forward: Graph, backward: Graph) -> list[Pointwise]:
    """The forward ops whose values are not saved."""
    nexts = {carry.next for carry in forward.states}
    taped = {*backward.inputs, *backward.parameters} - nexts
    in_memory: set[Value] = {v for op in backward.ops if isinstance(op, (Outer, Product)) for v in op.reads}
    in_memory |= {v for op in backward.ops if isinstance(op, Pointwise) for v in compared(op.expr)}
    made = {op.out for op in forward.ops if isinstance(op, Pointwise)}
    available = {*forward.given, *nexts, *(taped & made)}
    return [
        op
        for op in forward.ops
        if isinstance(op, Pointwise)
        and op.out in taped - in_memory
        and cheap(op.expr)
        and available.issuperset(op.reads)
    ]


def compared(expr: sp.Expr) -> set[Value]:
    """What is asked for equality with something else."""
    return {v for condition in expr.atoms(sp.Equality) for v in condition.atoms(Value)}


def cheap(expr: sp.Expr) -> bool:
    """Arithmetic of at most three values, no function and no division."""
    if not isinstance(expr, (sp.Add, sp.Mul)) or len(values_in(expr)) > 3:
        return False
    return all(
        isinstance(node, (sp.Add, sp.Mul, sp.Symbol, sp.Number))
        or (isinstance(node, sp.Pow) and node.exp.is_Integer and node.exp > 0)
        for node in sp.preorder_traversal(expr)
    )
