"""`tangent`: the forward derivative of a recurrence, as a recurrence (Griewank & Walther, chapter 3).

The result computes everything the graph computes and, beside each value `v`, its directional derivative
`dot_v`; its states are the states and their tangents, its outputs and sums those of the graph and theirs.
`adjoint(tangent(g))` is therefore a second derivative: the gradient of a Jacobian-vector product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import sympy as sp

from gategen.graph.adjoint import is_still, partial
from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.ops import (
    BatchSum,
    Carry,
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

Tangents = Mapping[Value, Value | None]  # None where nothing moves a value


def tangent(graph: Graph, known: Tangents = MappingProxyType({})) -> Graph:
    """The recurrence that carries a direction `dot_<name>` of all that is given through `graph`.

    `known` are the tangents of what is given where they have names already; a value without one stands still.
    """
    taken = (v.name for v in (*graph.values, *(dot for dot in known.values() if dot is not None)))
    builder = Builder(taken, graph.orders)
    dots: dict[Value, Value | None] = {**known, **dict.fromkeys(graph.fixed)}
    for given in graph.given:
        if given not in dots:
            dots[given] = builder.tangent(given)
    for op in graph.ops:
        builder.add(op)
        dots[op.out] = _push(builder, dots, op)

    def dot(value: Value) -> Value:
        """The tangent of a result, 0 where nothing moves it."""
        found = dots[value]
        if found is None:
            found = dots[value] = builder.add(Pointwise(builder.tangent(value), sp.S.Zero))
        return found

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


def tangents_in(graph: Graph) -> dict[Value, Value]:
    """The tangent of each value of a graph that has one there."""
    return {value.of: value for value in graph.values if value.role == "tangent"}


def _push(builder: Builder, dots: Tangents, op: Op) -> Value | None:
    """Emit the tangent of one op; None where it cannot move."""
    match op:
        case Pointwise():
            moving = [(v, dot) for v in op.reads if (dot := dots[v]) is not None]
            total = sp.Add(*(factored(partial(op, v)) * dot for v, dot in moving))
            return builder.add(Pointwise(builder.tangent(op.out), total)) if total != 0 else None
        case Reduce(_, operands, how):
            if is_still(op) or all(dots[v] is None for v in operands):
                return None
            shares = builder.shares(op) if how == "max" else (sp.S.One,) * len(operands)
            moved = tuple(
                dot if share == 1 else builder.add(Pointwise(_term(builder, dot, op.out), dot * share))
                for v, share in zip(operands, shares, strict=True)
                if (dot := dots[v]) is not None
            )
            return builder.add(Reduce(builder.tangent(op.out), moved))
        case BatchSum(_, operand):
            dot = dots[operand]
            return None if dot is None else builder.add(BatchSum(builder.tangent(op.out), dot))
        case MatrixOp():
            return _push_matrix(builder, dots, op)
        case CumSum(_, operand) | Shift(_, operand):
            dot = dots[operand]
            return None if dot is None else builder.add(replace(op, out=builder.tangent(op.out), operand=dot))
        case Product(_, left, right) | Outer(_, left, right) | Contract(_, left, right):
            pairs = [(left, dots[right]), (dots[left], right)]
    made = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(made) < 2:
        return builder.add(_of_two(op, builder.tangent(op.out), *made[0])) if made else None
    shape, static, whole = op.out.shape, op.out.static, builder.tangent(op.out)
    terms = [(builder.value(f"{a}_{b}", shape, static, "term", op.out), a, b) for a, b in made]
    return builder.add(Pointwise(whole, sp.Add(*(builder.add(_of_two(op, *term)) for term in terms))))


def _term(builder: Builder, dot: Value, of: Value) -> Value:
    """A value like `dot` for its part in the tangent of another one."""
    return builder.value(f"{dot}_in_{of}", dot.shape, dot.static, "term", of)


def _push_matrix(builder: Builder, dots: Tangents, op: MatrixOp) -> Value | None:
    """The tangent of an op on matrices: a sum, for each operand that moves one with its tangent."""
    moving = [k for k, operand in enumerate(op.operands) if dots[operand] is not None]
    if not moving:
        return None
    whole = builder.tangent(op.out)
    if len(moving) == 1 and op.word != "inverse":
        word, operands = _in_direction(op, moving[0], dots)
        return builder.add(MatrixOp(whole, word, operands))
    terms: list[sp.Expr] = []
    for k in moving:
        word, operands = _in_direction(op, k, dots)
        named = "_".join(v.name for v in operands[-2:])
        term = builder.add(MatrixOp(builder.value(named, op.out.shape, True, "term", op.out), word, operands))
        if op.word == "inverse":
            named = builder.value(f"{term}_{op.out}", op.out.shape, True, "term", op.out)
            term = -builder.add(MatrixOp(named, "multiply", (term, op.out)))
        terms.append(term)
    return builder.add(Pointwise(whole, sp.Add(*terms)))


def _in_direction(op: MatrixOp, k: int, dots: Tangents) -> tuple[str, tuple[Value, ...]]:
    """The op of its operand k and the others; of an inverse the first of two products."""
    dot = dots[op.operands[k]]
    assert dot is not None
    if op.word == "inverse":
        return "multiply", (op.out, dot)
    if op.word == "exponential" and k == 0:
        return "exponential", (*op.operands, dot)
    return op.word, (*op.operands[:k], dot, *op.operands[k + 1 :])


def factored(slope: sp.Expr) -> sp.Expr:
    """`h*(1 - 2*r)` for `h*(1 - r) - h*r`: a sum without what all of its terms are multiplied by."""
    terms = [sp.Mul.make_args(term) for term in sp.Add.make_args(slope)]
    shared = [f for f in terms[0] if not f.is_number and all(f in factors for factors in terms)]
    if len(terms) < 2 or not shared:
        return slope
    rest = (sp.Mul(*(f for f in factors if f not in shared)) for factors in terms)
    return sp.Mul(*shared, sp.Add(*rest))


def _of_two(op: Product | Outer | Contract, out: Value, left: Value, right: Value) -> Op:
    """The product, outer product or contraction `op` of two other values."""
    if isinstance(op, Product):
        return replace(op, out=out, matrix=left, operand=right)
    return replace(op, out=out, left=left, right=right)
