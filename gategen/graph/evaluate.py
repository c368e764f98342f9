"""`evaluate`: the slow interpreter of graphs that everything else is tested against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.relational import Relational

from gategen.graph.levels import AFTER, BEFORE, LOOP, levels
from gategen.graph.ops import BatchSum, Graph, Length, Op, Outer, Pointwise, Product, Reduce, Value
from gategen.spec import language as lang
from gategen.spec.functions import row_of

Array = Any

_RELATIONS: dict[str, Callable[..., Array]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
}


def numeric(expr: sp.Basic, env: Mapping[str, Array]) -> Array:
    """The value of an expression, entry by entry."""
    if isinstance(expr, Length):
        return env[_length_key(expr.name)]
    if isinstance(expr, sp.Symbol):
        return env[expr.name]
    if isinstance(expr, (sp.Number, sp.NumberSymbol)):
        return np.float64(expr)
    if isinstance(expr, lang.Word):
        return numeric(expr.formula, env)
    args = [numeric(arg, env) for arg in expr.args]
    if isinstance(expr, sp.Add):
        return sum(args[1:], args[0])
    if isinstance(expr, sp.Mul):
        return np.prod(np.broadcast_arrays(*args), axis=0) if len(args) > 2 else args[0] * args[1]
    if isinstance(expr, sp.Pow):
        return args[0] ** (int(expr.exp) if expr.exp.is_Integer else args[1])
    if isinstance(expr, Relational):
        return _RELATIONS[expr.rel_op](np.real(args[0]), np.real(args[1]))
    row = row_of(expr)
    assert row and row.evaluate, f"{expr} has no value"
    return row.evaluate(*map(np.asarray, args))


def _length_key(size: str) -> str:
    """Where the length of a size stands among values by name; no name looks like this."""
    return f"length of {size}"


@dataclass(frozen=True)
class Run:
    """What a run of a graph computed: every value by name, with its steps, and the final states by name.

    `sums` are those of the graph, and the new statistics by the names of the old ones.
    """

    values: Mapping[str, Array]
    final: Mapping[str, Array]
    outputs: Mapping[str, Array] = field(default_factory=dict)
    sums: Mapping[str, Array] = field(default_factory=dict)


def evaluate(
    graph: Graph,
    given: Mapping[str, Array],
    initial: Mapping[str, Array],
    *,
    sizes: Mapping[str, int],
    steps: int,
    lengths: Array | None = None,
) -> Run:
    """Run a graph over `steps` steps with plain NumPy, slowly and obviously.

    `given` holds parameters (`(rows, columns)`, `(size,)`, `()`) and inputs (`(T, B, size)`) by name,
    `initial` the states' first values `(B, size)` by the name of the carry. With `lengths` a finished row
    keeps its states, its outputs are 0, and it takes no part in sums.
    """
    batch = _batch(graph, given, initial)
    alive = (
        np.ones((steps, batch), bool) if lengths is None else np.arange(steps)[:, None] < np.asarray(lengths)
    )
    lengths_of = {_length_key(name): length for name, length in sizes.items()}
    env: dict[str, Array] = {**given, **lengths_of}
    level = levels(graph)
    for op in (op for op in graph.ops if level[op.out] == BEFORE):
        env[op.out.name] = _apply(op, env, sizes, (steps, batch), alive)

    loop = [op for op in graph.ops if level[op.out] == LOOP]
    current = {carry.name: np.asarray(initial[carry.name]) for carry in graph.states}
    kept = [*(c.current for c in graph.states), *_outs(loop)]
    history: dict[str, dict[int, Array]] = {v.name: {} for v in kept}
    for t in range(steps)[:: -1 if graph.backwards else 1]:
        now = {v.name: env[v.name] if v.static else env[v.name][t] for v in graph.values if v.name in env}
        now |= {**lengths_of, **{carry.current.name: current[carry.name] for carry in graph.states}}
        for op in loop:
            now[op.out.name] = _apply(op, now, sizes, (batch,), alive[t])
        for name, at in history.items():
            at[t] = now[name]
        for carry in graph.states:
            current[carry.name] = np.where(alive[t][:, None], now[carry.next.name], current[carry.name])
    for v in kept:
        at = history[v.name]
        env[v.name] = (
            np.stack([at[t] for t in range(steps)]) if steps else np.zeros((0, batch, *_shape(v, sizes)))
        )

    for op in (op for op in graph.ops if level[op.out] == AFTER):
        env[op.out.name] = _apply(op, env, sizes, (steps, batch), alive)
    outputs = {name: np.where(alive[..., None], env[v.name], 0) for name, v in graph.outputs}
    values = {name: array for name, array in env.items() if name not in lengths_of}
    sums = dict(graph.sums) | {str(s.value.name): s.update for s in graph.statistics}
    return Run(values, current, outputs, {name: env[v.name] for name, v in sums.items()})


def _batch(graph: Graph, given: Mapping[str, Array], initial: Mapping[str, Array]) -> int:
    """How many rows there are: those of the states or, without states, of an input."""
    rows = [first.shape[0] for first in initial.values()] + [given[v.name].shape[1] for v in graph.inputs]
    return int(rows[0]) if rows else 1


def _shape(value: Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[s] if isinstance(s, str) else s for s in value.shape)


def _outs(ops: Sequence[Op]) -> list[Value]:
    return [op.out for op in ops]


def _apply(
    op: Op, env: Mapping[str, Array], sizes: Mapping[str, int], lead: tuple[int, ...], alive: Array
) -> Array:
    match op:
        case Pointwise(out, expr):
            shape = _shape(out, sizes)
            value = numeric(expr, env)
            if out.shape == ():  # one number, perhaps from values of one feature
                return np.reshape(value, ()) + 0.0
            return np.broadcast_to(value, shape if out.static else (*lead, *shape)) + 0.0
        case Product(_, matrix, operand, transposed):
            w = env[matrix.name]
            return env[operand.name] @ (w if transposed else w.T)
        case Reduce(out, operands):
            return sum(env[v.name].sum(axis=-1, keepdims=not out.static) for v in operands)
        case Outer(_, left, right):
            return np.einsum("tbi,tbj,tb->ij", env[left.name], env[right.name], alive)
        case BatchSum(out, operand):
            total = np.where(alive[..., None], env[operand.name], 0).sum(axis=(0, 1))
            return total.reshape(()) if out.shape == () else total
