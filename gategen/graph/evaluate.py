"""`evaluate`: the slow interpreter of graphs that everything else is tested against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.relational import Relational

from gategen.graph.levels import AFTER, BEFORE, LOOP, levels
from gategen.graph.ops import (
    BatchSum,
    Contract,
    CumSum,
    Graph,
    How,
    Length,
    MatrixOp,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Shift,
    Value,
)
from gategen.graph.weights import weights
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.functions import row_of
from gategen.spec.names import Axes, extent_of

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


def with_computed(cell: Cell, given: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Array]:
    """Parameters by name, and what the cell computes of them."""
    graph = weights(cell)
    if graph is None:
        return {**given}
    own = {v.name: given[v.name] for v in graph.parameters}
    return {**given, **evaluate(graph, own, {}, sizes=sizes, steps=0).sums}


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
            now_alive = _ranked(alive[t], carry.current)
            current[carry.name] = np.where(now_alive, now[carry.next.name], current[carry.name])
    for v in kept:
        at = history[v.name]
        env[v.name] = (
            np.stack([at[t] for t in range(steps)]) if steps else np.zeros((0, batch, *_shape(v, sizes)))
        )

    for op in (op for op in graph.ops if level[op.out] == AFTER):
        env[op.out.name] = _apply(op, env, sizes, (steps, batch), alive)
    outputs = {name: np.where(_ranked(alive, v), env[v.name], 0) for name, v in graph.outputs}
    values = {name: array for name, array in env.items() if name not in lengths_of}
    sums = dict(graph.sums) | {str(s.value.name): s.update for s in graph.statistics}
    return Run(values, current, outputs, {name: env[v.name] for name, v in sums.items()})


def _along_rows(op: Reduce, env: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    """The largest entries of one value along the axes that the result does not have."""
    ((value,), out) = (op.operands, op.out)
    array = _spread(env[value.name], value, value.axes, sizes)
    over = [k - len(value.axes) for k, axis in enumerate(value.axes) if axis not in out.axes]
    array = np.moveaxis(array, over, range(-len(over), 0))
    kept = array.shape[: array.ndim - len(over)]
    lead, rows = kept[: len(kept) - len(out.axes)], array.shape[array.ndim - len(over) :]
    found = _largest(array.reshape((*kept, math.prod(rows))), op.how, False)
    return found.reshape((*lead, *_shape(out, sizes)))


def _largest(row: Array, how: How, kept: bool) -> Array:
    """The largest entry of each row; of complex ones the mean of those whose real part is largest."""
    top = np.real(row).max(axis=-1, keepdims=True)
    chosen = np.real(row) == top
    moved = np.where(chosen, row - top, 0).sum(-1, keepdims=True) / chosen.sum(-1, keepdims=True)
    made = top + 0.0 if how == "bound" else top + moved
    return made if kept else made[..., 0]


def _batch(graph: Graph, given: Mapping[str, Array], initial: Mapping[str, Array]) -> int:
    """How many rows there are: those of the states or, without states, of an input."""
    rows = [first.shape[0] for first in initial.values()] + [given[v.name].shape[1] for v in graph.inputs]
    return int(rows[0]) if rows else 1


def _shape(value: Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(extent_of(s, sizes) for s in value.shape)


def _outs(ops: Sequence[Op]) -> list[Value]:
    return [op.out for op in ops]


def _ranked(alive: Array, value: Value) -> Array:
    """Which rows count, as an array that broadcasts over the features of a value."""
    return alive.reshape(*alive.shape, *(1 for _ in value.shape))


def _spread(array: Array, value: Value, along: Axes, sizes: Mapping[str, int]) -> Array:
    """The array of a value with an axis for each of these: of length 1 where it has none."""
    array, rank = np.asarray(array), len(value.shape)
    lead = array.shape[: array.ndim - rank]
    own = [*value.axes]
    array = array.reshape((*lead, *(extent_of(axis, sizes) for axis in own)))
    order = [axis for axis in along if axis in own]
    places = (len(lead) + own.index(axis) for axis in order)
    array = array.transpose((*range(len(lead)), *places))
    return array.reshape((*lead, *(extent_of(axis, sizes) if axis in own else 1 for axis in along)))


def _along_axis(op: CumSum | Shift, row: Array, sizes: Mapping[str, int]) -> Array:
    """A running sum, or the entries some places further on."""
    operand = op.operand
    along = _spread(row, operand, operand.axes, sizes) if op.axis else row
    at = operand.axes.index(op.axis) - len(operand.axes) if op.axis else -1
    if isinstance(op, CumSum):
        turned = np.flip(along, at) if op.backwards else along
        total = turned.cumsum(at)
        return (np.flip(total, at) if op.backwards else total).reshape(row.shape)
    along = np.moveaxis(along, at, -1)
    made = np.zeros_like(along)
    for k in range(max(op.by, 0), min(along.shape[-1] + op.by, along.shape[-1])):
        made[..., k] = along[..., k - op.by]
    return np.moveaxis(made, -1, at).reshape(row.shape)


def _apply(
    op: Op, env: Mapping[str, Array], sizes: Mapping[str, int], lead: tuple[int, ...], alive: Array
) -> Array:
    match op:
        case Pointwise(out, expr):
            shape = _shape(out, sizes)
            alike = out.static and all(len(v.shape) in (0, 2) for v in op.reads)
            if len(out.axes) > 1 and not alike:
                env = {**env, **{v.name: _spread(env[v.name], v, out.axes, sizes) for v in op.reads}}
                apart = tuple(extent_of(axis, sizes) for axis in out.axes)
                lead = () if out.static else lead
                whole = np.broadcast_to(numeric(expr, env), (*lead, *apart)) + 0.0
                return whole.reshape((*lead, *shape))
            value = numeric(expr, env)
            if out.shape == ():  # one number, perhaps from values of one feature
                return np.reshape(value, ()) + 0.0
            return np.broadcast_to(value, shape if out.static else (*lead, *shape)) + 0.0
        case Product(_, matrix, operand, transposed) if op.along:
            w = env[matrix.name] if transposed else env[matrix.name].T
            at = operand.axes.index(op.along) - len(operand.axes)
            return np.moveaxis(np.moveaxis(env[operand.name], at, -1) @ w, -1, at)
        case Product(_, matrix, operand, transposed, blocks):
            w, v, n = env[matrix.name], env[operand.name], extent_of(blocks, sizes)
            w = w.reshape(n, len(w) // n, w.shape[1])
            v = v.reshape(*v.shape[:-1], n, v.shape[-1] // n)
            made = np.einsum("...nr,nrc->...nc" if transposed else "...nc,nrc->...nr", v, w)
            return made.reshape(*made.shape[:-2], n * made.shape[-1])
        case Contract(out, left, right):
            along = (*out.axes, *dict.fromkeys(a for a in (*left.axes, *right.axes) if a not in out.axes))
            first, second = (_spread(env[v.name], v, along, sizes) for v in (left, right))
            total = (first * second).sum(axis=tuple(range(len(out.axes) - len(along), 0)))
            lead = total.shape[: total.ndim - len(out.axes)]
            return total.reshape((*lead, *_shape(out, sizes)))
        case Reduce(out, operands, how):
            if how == "sum":
                return sum(_total(env[v.name], v, out, sizes) for v in operands)
            if out.axes:
                return _along_rows(op, env, sizes)
            return _largest(np.concatenate([env[v.name] for v in operands], -1), how, not out.static)
        case CumSum() | Shift():
            return _along_axis(op, env[op.operand.name], sizes)
        case Outer(_, left, right) if op.along:
            sides = []
            for v, axis in zip((left, right), op.along, strict=True):
                array = np.moveaxis(env[v.name], v.axes.index(axis) - len(v.axes), -1)
                between = math.prod(array.shape[2:-1])
                sides.append(array.reshape(*array.shape[:2], between, array.shape[-1]))
            return np.einsum("tbki,tbkj,tb->ij", *sides, alive)
        case Outer(_, left, right, blocks):
            n = extent_of(blocks, sizes)
            arrays = (env[v.name] for v in (left, right))
            parts = (array.reshape(*alive.shape, n, array.shape[-1] // n) for array in arrays)
            made = np.einsum("tbni,tbnj,tb->nij", *parts, alive)
            return made.reshape(n * made.shape[1], made.shape[2])
        case MatrixOp(out, word, operands):
            return _of_matrices(word, [env[v.name] for v in operands], _shape(out, sizes))
        case BatchSum(out, operand):
            total = np.where(_ranked(alive, operand), env[operand.name], 0).sum(axis=(0, 1))
            return total.reshape(()) if out.shape == () else total


def _total(array: Array, value: Value, out: Value, sizes: Mapping[str, int]) -> Array:
    """The sum over the axes of a value that `out` does not have."""
    array = _spread(array, value, value.axes, sizes)
    over = tuple(k - len(value.axes) for k, axis in enumerate(value.axes) if axis not in out.axes)
    total = array.sum(axis=over)
    lead = total.shape[: total.ndim - len(out.axes)]
    return total.reshape((*lead, *_shape(out, sizes)))


def _of_matrices(word: str, operands: Sequence[Array], shape: tuple[int, ...]) -> Array:
    match word:
        case "transpose":
            return operands[0].T + 0.0
        case "multiply":
            return operands[0] @ operands[1]
        case "inverse":
            return np.linalg.inv(operands[0])
        case "sum":
            axes = tuple(k for k, size in enumerate(shape or (1, 1)) if size == 1)
            return operands[0].sum(axis=axes).reshape(shape)
        case "exponential":
            return _exponential(*operands)
    return np.eye(shape[0])


def _exponential(matrix: Array, *directions: Array) -> Array:
    """The series of the exponential, of a matrix of blocks whose corner is the derivative.

    With one direction E the exponential of [[A, E], [0, A]] has it in the upper right (Najfeld and Havel
    1995); each further one makes blocks of these (Higham and Relton 2014).
    """
    rows = len(matrix)
    for direction in directions:
        corner = np.kron(np.eye(len(matrix) // rows), direction)
        matrix = np.block([[matrix, corner], [np.zeros_like(corner), matrix]])
    halvings = 0
    while np.abs(matrix).sum(axis=0).max(initial=0) > 0.5 * 2**halvings:
        halvings += 1
    small, total = matrix / 2**halvings, np.eye(len(matrix))
    term = total
    for k in range(1, 25):
        term = term @ small / k
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total[:rows, len(total) - rows :]
