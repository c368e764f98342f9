"""One step of a recurrence in single assignment: ops, `Graph`, `flatten`, `check`, a slow interpreter.

A `Graph` holds per-step inputs, states, parameters, ops, per-step outputs, and sums over time and batch.
Derivatives are graphs too (`adjoint.py`, `tangent.py`): a backward step is a recurrence that runs the other
way, whose states are the gradients of the states and whose sums are the gradients of the parameters. Nothing
here knows of memory, kernels or target languages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import sympy as sp
from sympy.core.relational import Relational

from gategen import language as lang
from gategen.cell import Cell
from gategen.language import Size
from gategen.printer import Printer

# ---------------------------------------------------------------------------------------------- the data


class Value(sp.Symbol):  # type: ignore[misc]
    """A name in a graph. `shape` is `(size,)`, `()` for one number, `(rows, columns)` for a matrix.

    A static value is one for all steps and rows (a parameter, or computed from parameters and sums); any
    other has a row for every sequence at every step.
    """

    shape: tuple[Size, ...]
    static: bool

    def __new__(cls, name: str, shape: tuple[Size, ...], static: bool = False) -> Value:
        self = cast(Value, sp.Symbol.__xnew__(cls, name, real=True))
        self.shape, self.static = shape, static
        return self

    def __getnewargs_ex__(self) -> Any:
        return (self.name, self.shape, self.static), {}

    def _hashable_content(self) -> tuple[Any, ...]:
        return (*super()._hashable_content(), str(self.shape), str(self.static))

    @property
    def size(self) -> Size:
        """The number of features; 1 where it broadcasts."""
        return self.shape[-1] if self.shape else 1


class Length(sp.Symbol):  # type: ignore[misc]
    """How many features a size has, as a number in an expression: `mean(v) = sum(v) / Length("hidden")`."""

    def __new__(cls, size: str) -> Length:
        return cast(Length, sp.Symbol.__xnew__(cls, size, positive=True, integer=True))

    def __getnewargs_ex__(self) -> Any:
        return (self.name,), {}


def length(size: Size) -> sp.Expr:
    return sp.Integer(size) if isinstance(size, int) else Length(size)


@dataclass(frozen=True)
class Pointwise:
    """`out = expr`, entry by entry; size-1 and static values broadcast."""

    out: Value
    expr: sp.Expr

    @cached_property
    def reads(self) -> tuple[Value, ...]:
        return values_in(self.expr)


@dataclass(frozen=True)
class Product:
    """`out = matrix @ operand`, or `matrix.T @ operand`, for every row."""

    out: Value
    matrix: Value
    operand: Value
    transposed: bool = False

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.matrix, self.operand


@dataclass(frozen=True)
class Reduce:
    """`out = sum(operand)` over the features; size 1."""

    out: Value
    operand: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)


@dataclass(frozen=True)
class Outer:
    """`out = sum of left right^T` over all steps and rows: a static matrix."""

    out: Value
    left: Value
    right: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.left, self.right


@dataclass(frozen=True)
class BatchSum:
    """`out = sum of operand` over all steps and rows: a static vector."""

    out: Value
    operand: Value

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.operand,)


Op = Pointwise | Product | Reduce | Outer | BatchSum


@dataclass(frozen=True)
class Carry:
    """A state: its value before the step and after it."""

    name: str
    current: Value
    next: Value


@dataclass(frozen=True)
class Graph:
    """One step of a recurrence. `outputs` and `sums` name their values for those who come from outside.

    `fixed` are inputs and parameters that nothing is differentiated by. `blocks` tells which parameter of the
    cell each column block belongs to, where one matrix meets several vectors.
    """

    name: str
    inputs: tuple[Value, ...]
    parameters: tuple[Value, ...]
    states: tuple[Carry, ...]
    ops: tuple[Op, ...]
    outputs: tuple[tuple[str, Value], ...]
    sums: tuple[tuple[str, Value], ...] = ()
    fixed: tuple[Value, ...] = ()
    blocks: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    backwards: bool = False

    @property
    def given(self) -> tuple[Value, ...]:
        """What is known before any op runs."""
        return (*self.parameters, *self.inputs, *(carry.current for carry in self.states))

    @property
    def values(self) -> tuple[Value, ...]:
        return (*self.given, *(op.out for op in self.ops))


@lru_cache(maxsize=10_000)
def values_in(expr: sp.Basic) -> tuple[Value, ...]:
    """The values in an expression, by name."""
    return tuple(sorted(expr.atoms(Value), key=lambda v: v.name))


def fresh(name: str, taken: Iterable[str]) -> str:
    """`name`, or the first of `name_2`, `name_3` ... not yet taken. All invented names come from here."""
    used = taken if isinstance(taken, (set, frozenset, dict)) else set(taken)
    if name not in used:
        return name
    return next(f"{name}_{k}" for k in range(2, len(used) + 3) if f"{name}_{k}" not in used)


def common_size(values: Iterable[Value]) -> Size:
    """The one size of elementwise operands: 1 unless one of them has another."""
    return next((v.size for v in values if v.size != 1), 1)


class Builder:
    """Collects ops in order and invents names; the one mutable thing of this floor, local to a stage."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.ops: list[Op] = []
        self.taken = set(taken)
        self.memo: dict[Any, Value] = {}

    def name(self, wish: str) -> str:
        name = fresh(wish, self.taken)
        self.taken.add(name)
        return name

    def value(self, wish: str, shape: tuple[Size, ...], static: bool = False) -> Value:
        return Value(self.name(wish), shape, static)

    def pointwise(self, wish: str, expr: sp.Expr, *, size: Size | None = None, step: bool = False) -> Value:
        """A named value for `expr`: static if all it reads is, of the size of what it reads."""
        reads = values_in(expr)
        static = not step and all(v.static for v in reads)
        shape: tuple[Size, ...] = (common_size(reads) if size is None else size,)
        if static and size is None and all(v.shape == () for v in reads):
            shape = ()
        elif static and any(len(v.shape) == 2 for v in reads):
            shape = next(v.shape for v in reads if len(v.shape) == 2)
        return self.add(Pointwise(self.value(wish, shape, static), expr))

    def add(self, op: Op) -> Value:
        self.ops.append(op)
        return op.out

    def once(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value made for `key` before, or a new one."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def reduced(self, wish: str, operand: Value) -> Value:
        shape: tuple[Size, ...] = () if operand.static else (1,)
        return self.once(
            ("sum", operand), lambda: self.add(Reduce(self.value(wish, shape, operand.static), operand))
        )

    def summed(self, wish: str, operand: Value, shape: tuple[Size, ...]) -> Value:
        return self.once(
            ("batch", operand, shape), lambda: self.add(BatchSum(self.value(wish, shape, True), operand))
        )


# ---------------------------------------------------------------------------------------------- flatten


def flatten(cell: Cell, first: bool = False) -> Graph:
    """The graph of one step of a cell (or of its first-step rule), with everything but arithmetic named."""
    return _Flattener(cell, first).graph()


def start(cell: Cell) -> Graph | None:
    """The graph that computes trained initial states from parameters; None where all are plain numbers."""
    if all(state.initial.is_number for state in cell.states):
        return None
    flattener = _Flattener(cell, False)
    flattener.builder.ops.clear()
    outputs = []
    for state in cell.states:
        expr = flattener.lower(state.initial, state.name)
        value = flattener.builder.pointwise(f"{state.name}_start", expr, size=state.size, step=True)
        outputs.append((state.name, value))
    graph = flattener.graph_of(f"{cell.name}_start", (), tuple(outputs), ())
    used = {v for op in graph.ops for v in op.reads}
    return Graph(
        graph.name, (), tuple(p for p in graph.parameters if p in used), (), graph.ops, graph.outputs
    )


class _Flattener:
    def __init__(self, cell: Cell, first: bool) -> None:
        self.cell = cell
        self.first = first
        self.equations = cell.first if first else cell.equations
        self.gate_sizes = cell.first_sizes if first else cell.gate_sizes
        names = {s.name for s in (*cell.inputs, *cell.states, *cell.parameters)}
        names |= {eq.lhs.name for eq in self.equations}
        self.builder = Builder(names)
        self.known: dict[str, sp.Expr] = {}
        self.inputs = tuple(self.declare(s.name, (s.size,)) for s in cell.inputs)
        self.currents = {s.name: self.declare(s.name, (s.size,)) for s in cell.states}
        self.nexts = {s.name: self.builder.name(f"{s.name}_next") for s in cell.states}
        self.parameters: list[Value] = []
        self.blocks: list[tuple[str, tuple[Value, ...]]] = []
        self.fixed: list[Value] = []
        self.extra_inputs: list[Value] = []
        self.norms: tuple[Value, Value, Value] | None = None
        self.updates: list[tuple[str, Value]] = []
        for parameter in cell.parameters:
            self.declare_parameter(parameter)

    def declare(self, name: str, shape: tuple[Size, ...], static: bool = False) -> Value:
        value = Value(name, shape, static)
        self.known[name] = value
        return value

    def declare_parameter(self, parameter: Any) -> None:
        made: list[Value] = []
        if isinstance(parameter, lang.Matrix):
            rows, columns = self.cell.shapes[parameter.name]
            if isinstance(columns, tuple):
                names = [self.builder.name(f"{parameter.name}_{k}") for k in range(len(columns))]
                made = [Value(n, (cast(Size, rows), c), True) for n, c in zip(names, columns, strict=True)]
                self.blocks.append((parameter.name, tuple(made)))
            else:
                made = [self.declare(parameter.name, (cast(Size, rows), columns), True)]
        elif isinstance(parameter, lang.Vector):
            made = [self.declare(parameter.name, (parameter.size,), True)]
        else:
            made = [self.declare(parameter.name, (), True)]
        self.parameters += made
        if not parameter.trainable:
            self.fixed += made

    def graph(self) -> Graph:
        cell = self.cell
        for eq in self.equations:
            self.equation(eq)
        states = tuple(
            Carry(s.name, self.currents[s.name], cast(Value, self.known[f"{s.name}'"])) for s in cell.states
        )
        names = ["y"] if len(cell.outputs) == 1 else [f"y_{_plain_name(s)}" for s in cell.outputs]
        outputs = tuple(
            (n, cast(Value, self.known[s.name])) for n, s in zip(names, cell.outputs, strict=True)
        )
        return self.graph_of(
            f"{cell.name}{'_first' if self.first else ''}", states, outputs, tuple(self.updates)
        )

    def graph_of(self, name: str, states: Any, outputs: Any, sums: Any) -> Graph:
        return check(
            Graph(
                name,
                (*self.inputs, *self.extra_inputs),
                tuple(self.parameters),
                states,
                tuple(self.builder.ops),
                outputs,
                sums,
                tuple(self.fixed),
                tuple(self.blocks),
            )
        )

    def equation(self, eq: lang.Eq) -> None:
        if isinstance(eq.lhs, lang.Next):
            name, size, hint = self.nexts[eq.lhs.state.name], eq.lhs.state.size, eq.lhs.state.name
        else:
            name, size, hint = eq.lhs.name, self.gate_sizes[eq.lhs.name], eq.lhs.name
        # A root is differentiated through its value, which a finished sequence replaces by its state.
        kept_root = isinstance(eq.lhs, lang.Next) and isinstance(eq.rhs, sp.Pow)
        expr = self.lower(eq.rhs, hint, whole=not kept_root)
        static = not isinstance(eq.lhs, lang.Next) and all(v.static for v in values_in(expr))
        static = static and eq.lhs not in self.cell.outputs
        out = Value(name, (size,), static)
        self.builder.taken.add(name)
        self.builder.add(Pointwise(out, expr))
        reads = values_in(expr)
        if size == common_size(reads) and static == all(v.static for v in reads):
            self.builder.memo.setdefault(expr, out)
        self.known[eq.lhs.name] = out

    # ------------------------------------------------------------------------------------------ expressions

    def lower(self, expr: sp.Expr, hint: str, whole: bool = False) -> sp.Expr:
        """`expr` over values, all but plain arithmetic named. `whole`: `expr` is about to get a name."""
        if isinstance(expr, lang.Constant):
            return expr.value
        if isinstance(expr, sp.Symbol):
            return self.known[expr.name]
        if isinstance(expr, sp.Number) or expr.is_number:
            return expr
        if isinstance(expr, (sp.Add, sp.Mul)):
            args = [self.lower(arg, hint) for arg in expr.args]
            if isinstance(expr, sp.Mul):
                args = [self.named_factor(arg, hint) for arg in args]
            return expr.func(*args)
        if isinstance(expr, sp.Pow):
            base, exponent = self.lower(expr.base, hint), self.lower(expr.exp, hint)
            if exponent.is_Integer:
                return base**exponent
            return self.function(sp.Pow(self.named(base, f"a_{hint}"), exponent), f"p_{hint}", whole)
        if isinstance(expr, lang.matvec):
            return self.product(expr, hint)
        if isinstance(expr, (lang.sum_, lang.mean, lang.var)):
            return self.reduction(expr, hint)
        if isinstance(expr, lang.batch_norm):
            return self.batch_norm(expr, hint)
        if isinstance(expr, lang.where):
            condition, a, b = expr.args
            left, right = self.lower(condition.lhs, hint), self.lower(condition.rhs, hint)
            if left.is_number and right.is_number:  # constants decide
                return self.lower(a if condition.func(left, right) else b, hint, whole)
            condition = condition.func(left, right, evaluate=False)
            return self.function(
                lang.where(condition, self.lower(a, hint), self.lower(b, hint)), f"w_{hint}", whole
            )
        args = [self.named(self.lower(arg, hint), f"a_{hint}") for arg in expr.args]
        name = type(expr).__name__.lower()
        stem = args[0].name.removeprefix("a_").removesuffix("_next") if args[0].is_Symbol else hint
        return self.function(expr.func(*args), f"{name}_{stem}", whole)

    def function(self, expr: sp.Expr, wish: str, whole: bool) -> sp.Expr:
        """An applied function: itself where the equation names it anyway, otherwise a value of its own."""
        if isinstance(expr, Value) or expr.is_number or (whole and expr not in self.builder.memo):
            return expr
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr))

    def named(self, expr: sp.Expr, wish: str) -> sp.Expr:
        """A value for `expr`; numbers stay as they are."""
        if isinstance(expr, Value) or expr.is_number:
            return expr
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr))

    def named_factor(self, expr: sp.Expr, hint: str) -> sp.Expr:
        """A sum that holds a product and is itself multiplied is worth a name: `r * (U @ h + c)`."""
        products = {op.out for op in self.builder.ops if isinstance(op, Product)}
        if isinstance(expr, sp.Add) and (expr in self.builder.memo or products.intersection(expr.args)):
            return self.named(expr, f"v_{hint}")
        return expr

    def size(self, expr: sp.Basic) -> Size:
        """The number of features of an expression of the spec. Its value may have fewer: `(1 - k)*h`
        is 0 where the constant k is 1.
        """
        if isinstance(expr, (lang.sum_, lang.mean, lang.var)):
            return 1
        if isinstance(expr, lang.matvec):
            matrix, _, transposed = expr.args
            return cast(Size, self.cell.shapes[matrix.name][int(transposed)])
        if isinstance(expr, lang.Gate):
            return self.gate_sizes[expr.name]
        if isinstance(expr, lang.Name):
            return self.cell.size_of(expr.state if isinstance(expr, lang.Next) else expr)
        return next((size for arg in expr.args if (size := self.size(arg)) != 1), 1)

    def wide(self, expr: sp.Expr, size: Size, wish: str) -> sp.Expr:
        """`expr` under a name, with `size` features."""
        if common_size(values_in(expr)) == size:
            return self.named(expr, wish)
        return self.builder.once(("wide", expr, size), lambda: self.builder.pointwise(wish, expr, size=size))

    def step_value(self, expr: sp.Expr, size: Size, wish: str) -> Value:
        """A value with a row per sequence and `size` features, even if `expr` only reads parameters."""
        reads = values_in(expr)
        if not all(v.static for v in reads) and common_size(reads) == size:
            return cast(Value, self.named(expr, wish))
        return self.builder.once(
            ("step", expr, size), lambda: self.builder.pointwise(wish, expr, size=size, step=True)
        )

    def product(self, expr: Any, hint: str) -> sp.Expr:
        matrix, operand, transposed = expr.args[0], expr.args[1], bool(expr.args[2])
        if isinstance(operand, lang.concat):
            blocks = dict(self.blocks)[matrix.name]
            parts = [self.operand(arg, hint) for arg in operand.args]
            return sp.Add(*(self.matmul(m, v, transposed) for m, v in zip(blocks, parts, strict=True)))
        return self.matmul(cast(Value, self.known[matrix.name]), self.operand(operand, hint), transposed)

    def operand(self, expr: sp.Expr, hint: str) -> Value:
        lowered = self.lower(expr, hint)
        factors = sp.Mul.make_args(lowered)
        short = all(isinstance(f, Value) and len(f.name) <= 2 for f in factors)
        order = {eq.lhs.name: k for k, eq in enumerate(self.equations)}
        wish = "".join(f.name for f in Printer(order).factors(list(factors))) if short else f"v_{hint}"
        return self.step_value(lowered, self.size(expr), wish)

    def matmul(self, matrix: Value, operand: Value, transposed: bool) -> Value:
        size = matrix.shape[1] if transposed else matrix.shape[0]
        wish = f"{matrix.name}{'T' if transposed else ''}_{operand.name}"
        return self.builder.once(
            (matrix, operand, transposed),
            lambda: self.builder.add(Product(self.builder.value(wish, (size,)), matrix, operand, transposed)),
        )

    def reduction(self, expr: Any, hint: str) -> sp.Expr:
        values = [self.wide(self.lower(arg, hint), self.size(arg), f"v_{hint}") for arg in expr.args]
        if isinstance(expr, lang.sum_):
            return self.total(values)
        if isinstance(expr, lang.mean):
            return self.mean(values, hint)
        centre = self.mean(values, hint)
        centred = [self.named(v - centre, f"centred_{v}") for v in values]
        squares = [self.named(v**2, f"square_{value}") for v, value in zip(centred, values, strict=True)]
        return self.mean(squares, f"square_{hint}", "variance")

    def total(self, values: Sequence[sp.Expr]) -> sp.Expr:
        return sp.Add(
            *(v if _width(v) == 1 else self.builder.reduced(f"sum_{v}", cast(Value, v)) for v in values)
        )

    def mean(self, values: Sequence[sp.Expr], hint: str, word: str = "centre") -> sp.Expr:
        count = sp.Add(*(length(_width(v)) for v in values))
        return self.named(self.total(values) / count, f"{word}_{hint.removeprefix('square_')}")

    def batch_norm(self, expr: Any, hint: str) -> sp.Expr:
        v, gain, bias, eps, momentum = (self.lower(arg, hint) for arg in expr.args)
        value = self.step_value(v, self.size(expr.args[0]), f"v_{hint}")
        valid, count, training = self.norm_inputs()
        running_mean = self.buffer(f"mean_{hint}", value.size)
        running_var = self.buffer(f"var_{hint}", value.size)
        b, shape = self.builder, (value.size,)

        weighted = b.pointwise(f"valid_{hint}", valid * value)
        batch_mean = b.pointwise(f"batch_mean_{hint}", b.summed(f"sum_{hint}", weighted, shape) / count)
        centred = b.pointwise(f"batch_centred_{hint}", value - batch_mean)
        spread = b.pointwise(f"spread_{hint}", valid * centred**2)
        batch_var = b.pointwise(f"batch_var_{hint}", b.summed(f"sum_spread_{hint}", spread, shape) / count)
        mean = b.pointwise(f"used_mean_{hint}", lang.where(training > 0, batch_mean, running_mean))
        variance = b.pointwise(f"used_var_{hint}", lang.where(training > 0, batch_var, running_var))
        padded = b.pointwise(f"var_eps_{hint}", variance + eps)
        scale = b.pointwise(f"scale_{hint}", padded ** sp.Rational(-1, 2))
        centred = b.pointwise(f"centred_{hint}", value - mean)
        normed = b.pointwise(f"normed_{hint}", centred * scale)

        unbiased = batch_var * count / lang.maximum(count - 1, 1)
        for buffer, batch in ((running_mean, batch_mean), (running_var, unbiased)):
            updated = b.pointwise(f"new_{buffer.name}", buffer + momentum * (batch - buffer))
            self.updates.append((buffer.name, updated))
        return gain * normed + bias

    def norm_inputs(self) -> tuple[Value, Value, Value]:
        """Which positions count (per row and step), how many, and whether the batch's statistics are used."""
        if self.norms is None:
            valid = self.builder.value("valid", (1,))
            count = self.builder.value("count", (), True)
            training = self.builder.value("training", (), True)
            self.extra_inputs.append(valid)
            self.parameters += [count, training]
            self.fixed += [valid, count, training]
            self.norms = valid, count, training
        return self.norms

    def buffer(self, wish: str, size: Size) -> Value:
        value = self.builder.value(wish, (size,), True)
        self.parameters.append(value)
        self.fixed.append(value)
        return value


def _width(expr: sp.Expr) -> Size:
    """The number of features of a value; 1 of a number."""
    return expr.size if isinstance(expr, Value) else 1


def _plain_name(symbol: Any) -> str:
    return symbol.state.name if isinstance(symbol, lang.Next) else str(symbol)


# ---------------------------------------------------------------------------------------------- check


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
    ends = [c.next for c in graph.states] + [v for _, v in (*graph.outputs, *graph.sums)]
    for value in ends:
        assert value in defined, f"{graph.name}: {value} is promised but never defined"
    for carry in graph.states:
        assert carry.current.shape == carry.next.shape, f"{graph.name}: {carry.name} changes its shape"
        assert not carry.next.static, f"{graph.name}: {carry.name} is static"
    assert all(v.static for _, v in graph.sums), f"{graph.name}: a sum depends on the step"
    assert not any(v.static for _, v in graph.outputs), f"{graph.name}: an output does not depend on the step"
    return graph


def _check_shapes(graph: Graph, op: Op) -> None:
    where = f"{graph.name}: {op.out}"
    match op:
        case Pointwise(out, expr):
            sizes = {v.size for v in op.reads if len(v.shape) < 2} - {1}
            assert len(sizes) <= 1 and sizes <= {out.size}, f"{where} mixes sizes {sorted(map(str, sizes))}"
            assert not out.static or all(v.static for v in op.reads), f"{where} is static but reads a row"
            assert not expr.atoms(lang.Name), f"{where} still holds a name of the spec"
        case Product(out, matrix, operand, transposed):
            rows, columns = matrix.shape[::-1] if transposed else matrix.shape
            assert (rows, columns) == (out.size, operand.size), f"{where}: shapes do not meet"
            assert matrix.static and not out.static and not operand.static, f"{where}: a product is per row"
        case Reduce(out, operand):
            assert out.size == 1 and out.static == operand.static, f"{where}: a reduction has size 1"
        case Outer(out, left, right):
            assert out.static and out.shape == (left.size, right.size), f"{where}: wrong outer product"
        case BatchSum(out, operand):
            assert out.static and not operand.static and out.size == operand.size, f"{where}: wrong sum"


# ---------------------------------------------------------------------------------------------- levels

BEFORE, LOOP, AFTER = "before", "loop", "after"


def levels(graph: Graph) -> dict[Value, str]:
    """When each op's value can be known: before the time loop, in it, or after it.

    What reads no state leaves the loop forwards. What no next state waits for leaves it backwards, if it is a
    product, a reduction or a sum (or reads one that left); other arithmetic stays beside its operands.
    """
    tainted = {carry.current for carry in graph.states}
    for op in graph.ops:
        if not tainted.isdisjoint(op.reads):
            tainted.add(op.out)
    currents = {carry.current for carry in graph.states}
    needed = {carry.next for carry in graph.states}
    for op in reversed(graph.ops):
        if op.out in needed or (graph.backwards and not currents.isdisjoint(op.reads)):
            needed.update((op.out, *op.reads))
    level: dict[Value, str] = {}
    for op in graph.ops:
        late = any(level.get(read) == AFTER for read in op.reads)
        leaves = op.out.static or (op.out not in needed and not isinstance(op, Pointwise))
        level[op.out] = BEFORE if op.out not in tainted else AFTER if late or leaves else LOOP
    return level


# ---------------------------------------------------------------------------------------------- evaluate

Array = Any

_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "sigmoid": lambda a: np.where(a.real > 0, 1, _exp_minus_abs(a)) / (1 + _exp_minus_abs(a)),
    "softplus": lambda a: np.where(a.real > 0, a, 0) + np.log1p(_exp_minus_abs(a)),
    "relu": lambda a: np.where(a.real > 0, a, 0),
    "step": lambda a: np.where(a.real > 0, 1.0, 0.0),
    "log1p": np.log1p,
    "expm1": np.expm1,
    "Abs": lambda a: np.where(a.real < 0, -a, a),
    "sign": lambda a: np.sign(a.real),
    "erf": lambda a: erf(a),
    "maximum": lambda a, b: np.where(np.real(a) >= np.real(b), a, b),
    "minimum": lambda a, b: np.where(np.real(a) <= np.real(b), a, b),
    "mod": lambda a, b: a - b * np.floor(np.real(a) / np.real(b)),
    "stop_gradient": lambda a: np.real(a) + 0.0,
    "where": lambda c, a, b: np.where(c, a, b),
}
_RELATIONS: dict[str, Callable[..., Array]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
}


def _exp_minus_abs(a: Array) -> Array:
    """exp(-|a|), which never overflows; what is built on it is exact where it is tiny."""
    return np.exp(np.where(a.real > 0, -a, a))


def erf(a: Array) -> Array:
    """The error function for real arrays and, to first order in the imaginary part, for complex ones."""
    from math import erf as scalar

    real = np.vectorize(scalar, otypes=[float])(np.real(a))
    if not np.iscomplexobj(a):
        return real
    return real + 2j / np.sqrt(np.pi) * np.exp(-(np.real(a) ** 2)) * np.imag(a)


def numeric(expr: sp.Basic, env: Mapping[str, Array]) -> Array:
    """The value of an expression, entry by entry."""
    if isinstance(expr, Length):
        return env[_length_key(expr.name)]
    if isinstance(expr, sp.Symbol):
        return env[expr.name]
    if isinstance(expr, (sp.Number, sp.NumberSymbol)):
        return np.float64(expr)
    args = [numeric(arg, env) for arg in expr.args]
    if isinstance(expr, sp.Add):
        return sum(args[1:], args[0])
    if isinstance(expr, sp.Mul):
        return np.prod(np.broadcast_arrays(*args), axis=0) if len(args) > 2 else args[0] * args[1]
    if isinstance(expr, sp.Pow):
        return args[0] ** (int(expr.exp) if expr.exp.is_Integer else args[1])
    if isinstance(expr, Relational):
        return _RELATIONS[expr.rel_op](np.real(args[0]), np.real(args[1]))
    return _FUNCTIONS[type(expr).__name__](*map(np.asarray, args))


def _length_key(size: str) -> str:
    """Where the length of a size stands among values by name; no name looks like this."""
    return f"length of {size}"


@dataclass(frozen=True)
class Run:
    """What a run of a graph computed: every value by name, with its steps, and the final states by name."""

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
    return Run(values, current, outputs, {name: env[v.name] for name, v in graph.sums})


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
        case Reduce(_, operand):
            return env[operand.name].sum(axis=-1, keepdims=not operand.static)
        case Outer(_, left, right):
            return np.einsum("tbi,tbj,tb->ij", env[left.name], env[right.name], alive)
        case BatchSum(out, operand):
            total = np.where(alive[..., None], env[operand.name], 0).sum(axis=(0, 1))
            return total.reshape(()) if out.shape == () else total


# ---------------------------------------------------------------------------------------------- text


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
    return "\n".join([*head, *body, *tail])


def _right(op: Op, printer: Printer) -> str:
    match op:
        case Pointwise(_, expr):
            return printer(expr)
        case Product(_, matrix, operand, transposed):
            return f"{matrix}{'.T' if transposed else ''} @ {operand}"
        case Reduce(_, operand):
            return f"sum({operand})"
        case Outer(_, left, right):
            return f"sum over steps of outer({left}, {right})"
        case BatchSum(_, operand):
            return f"sum over steps of {operand}"
