"""`flatten`: from a cell's equations to a graph, with everything but arithmetic under a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, cast

import sympy as sp

from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.ops import (
    Carry,
    Graph,
    Mask,
    Pointwise,
    Product,
    Role,
    Statistic,
    Value,
    common_size,
    length,
    values_in,
)
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.names import Size
from gategen.spec.printer import Printer

ARGUMENT = "a_"  # how names of arguments begin
LARGE = 64  # nodes of a part of an expression that gets a name
MANY = 8  # factors of a product that are multiplied in groups, which get names


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
        flattener.left = state
        expr = flattener.lower(state.initial, state.name)
        value = flattener.builder.pointwise(f"{state.name}_start", expr, size=state.size, step=True)
        outputs.append((state.name, value))
    graph = flattener.graph_of(f"{cell.name}_start", (), tuple(outputs))
    used = {v for op in graph.ops for v in op.reads}
    parameters = tuple(p for p in graph.parameters if p in used)
    fixed = tuple(p for p in graph.fixed if p in used)
    return Graph(graph.name, (), parameters, (), graph.ops, graph.outputs, fixed=fixed)


class _Flattener:
    def __init__(self, cell: Cell, first: bool) -> None:
        self.cell = cell
        self.first = first
        self.equations = cell.first if first else cell.equations
        self.gate_sizes = cell.first_sizes if first else cell.gate_sizes
        names = {s.name for s in (*cell.inputs, *cell.states, *cell.parameters)}
        names |= {eq.lhs.name for eq in self.equations}
        self.builder = Builder(names)
        self.printer = Printer({eq.lhs.name: k for k, eq in enumerate(self.equations)})
        self.left: lang.Gate | lang.State | None = None  # whose equation is being read
        self.known: dict[str, sp.Expr] = {}
        self.inputs = tuple(self.declare(s.name, (s.size,)) for s in cell.inputs)
        self.currents = {s.name: self.declare(s.name, (s.size,)) for s in cell.states}
        self.nexts = {s.name: self.builder.name(f"{s.name}_next") for s in cell.states}
        self.parameters: list[Value] = []
        self.blocks: dict[str, tuple[Value, ...]] = {}
        self.products: set[Value] = set()
        self.fixed: list[Value] = []
        self.extra_inputs: list[Value] = []
        self.mask: Mask | None = None
        self.statistics: list[Statistic] = []
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
                self.blocks[parameter.name] = tuple(made)
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
        return self.graph_of(f"{cell.name}{'_first' if self.first else ''}", states, outputs)

    def graph_of(self, name: str, states: Any, outputs: Any) -> Graph:
        return check(
            Graph(
                name,
                (*self.inputs, *self.extra_inputs),
                tuple(self.parameters),
                states,
                tuple(self.builder.ops),
                outputs,
                (),
                tuple(self.fixed),
                self.mask,
                tuple(self.statistics),
                tuple(self.blocks.items()),
            )
        )

    def equation(self, eq: lang.Eq) -> None:
        state = eq.lhs.state if isinstance(eq.lhs, lang.Next) else None
        self.left = state or eq.lhs
        hint = self.left.name
        name, size = (self.nexts[hint], state.size) if state else (hint, self.gate_sizes[hint])
        # A root is differentiated through its value, which a finished sequence replaces by its state.
        kept_root = isinstance(eq.lhs, lang.Next) and isinstance(eq.rhs, sp.Pow)
        expr = self.lower(eq.rhs, hint, whole=not kept_root)
        static = not isinstance(eq.lhs, lang.Next) and all(v.static for v in values_in(expr))
        static = static and eq.lhs not in self.cell.outputs
        out = Value(name, (size,), static, "next" if state else "", self.currents[hint] if state else None)
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
            args = [self.part(self.lower(arg, hint), hint) for arg in expr.args]
            if isinstance(expr, sp.Mul):
                args = self.few([self.named_factor(arg, hint) for arg in args], hint)
            return expr.func(*args)
        if isinstance(expr, sp.Pow):
            base, exponent = self.lower(expr.base, hint), self.lower(expr.exp, hint)
            if exponent.is_Integer:
                return base**exponent
            return self.function(sp.Pow(self.argument(base, hint), exponent), f"p_{hint}", whole)
        if isinstance(expr, lang.Word):
            return self.lower(expr.formula, hint, whole)
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
            ways = (self.part(self.lower(way, hint), hint) for way in (a, b))
            return self.function(lang.where(condition, *ways), f"w_{hint}", whole)
        args = [self.argument(self.lower(arg, hint), hint) for arg in expr.args]
        name = type(expr).__name__.lower()
        stem = stem_of(args[0]) if isinstance(args[0], Value) else hint
        return self.function(expr.func(*args), f"{name}_{stem}", whole)

    def function(self, expr: sp.Expr, wish: str, whole: bool) -> sp.Expr:
        """An applied function: itself where the equation names it anyway, otherwise a value of its own."""
        if isinstance(expr, Value) or expr.is_number or (whole and expr not in self.builder.memo):
            return expr
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr))

    def argument(self, expr: sp.Expr, hint: str) -> sp.Expr:
        """A value for what a function is applied to."""
        return self.named(expr, f"{ARGUMENT}{hint}", "argument", self.left)

    def named(
        self, expr: sp.Expr, wish: str, role: Role = "", of: lang.Gate | lang.State | None = None
    ) -> sp.Expr:
        """A value for `expr`; numbers stay as they are."""
        if isinstance(expr, Value) or expr.is_number:
            return expr
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr, role=role, of=of))

    def named_factor(self, expr: sp.Expr, hint: str) -> sp.Expr:
        """A sum that holds a product and is itself multiplied is worth a name: `r * (U @ h + c)`."""
        if not isinstance(expr, sp.Add):
            return expr
        named = expr in self.builder.memo or not self.products.isdisjoint(expr.args)
        return self.named(expr, f"v_{hint}") if named else expr

    def part(self, expr: sp.Expr, hint: str) -> sp.Expr:
        """What is large is worth a name: every derivative of a whole holds all of its parts."""
        large = next(islice(sp.preorder_traversal(expr), LARGE, None), None) is not None
        return self.named(expr, f"v_{hint}") if large else expr

    def few(self, factors: list[sp.Expr], hint: str) -> list[sp.Expr]:
        """At most `MANY` factors: each of many is in the gradient of all others, which is their square."""
        if len(factors) > MANY:
            factors = [self.named(factor, f"v_{hint}") for factor in factors]
        while len(factors) > MANY:
            groups = (sp.Mul(*factors[k : k + MANY]) for k in range(0, len(factors), MANY))
            factors = [self.named(group, f"v_{hint}") for group in groups]
        return factors

    def size(self, expr: sp.Basic) -> Size:
        """The number of features of an expression of the spec. Its value may have fewer: `(1 - k)*h`
        is 0 where the constant k is 1.
        """
        if isinstance(expr, (lang.sum_, lang.mean, lang.var)):
            return 1
        if isinstance(expr, lang.normed):
            return next((size for part in expr.part if (size := self.size(part)) != 1), 1)
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
            blocks = self.blocks[matrix.name]
            parts = [self.operand(arg, hint) for arg in operand.args]
            return sp.Add(*(self.matmul(m, v, transposed) for m, v in zip(blocks, parts, strict=True)))
        return self.matmul(cast(Value, self.known[matrix.name]), self.operand(operand, hint), transposed)

    def operand(self, expr: sp.Expr, hint: str) -> Value:
        lowered = self.lower(expr, hint)
        factors = sp.Mul.make_args(lowered)
        short = all(isinstance(f, Value) and len(f.name) <= 2 for f in factors)
        wish = "".join(f.name for f in self.printer.factors(list(factors))) if short else f"v_{hint}"
        return self.step_value(lowered, self.size(expr), wish)

    def matmul(self, matrix: Value, operand: Value, transposed: bool) -> Value:
        size = matrix.shape[1] if transposed else matrix.shape[0]
        wish = f"{matrix.name}{'T' if transposed else ''}_{operand.name}"
        made = self.builder.once(
            (matrix, operand, transposed),
            lambda: self.builder.add(Product(self.builder.value(wish, (size,)), matrix, operand, transposed)),
        )
        self.products.add(made)
        return made

    def reduction(self, expr: Any, hint: str) -> sp.Expr:
        values = [self.wide(self.lower(arg, hint), self.size(arg), f"v_{hint}") for arg in expr.args]
        if isinstance(expr, lang.sum_):
            return self.total(values)
        if isinstance(expr, lang.mean):
            return self.mean(values, hint)
        centre = self.mean(values, hint)
        centred = [self.named(v - centre, f"centred_{v}") for v in values]
        squares = [self.named(v**2, f"square_{value}") for v, value in zip(centred, values, strict=True)]
        return self.mean(squares, hint, "variance")

    def total(self, values: Sequence[sp.Expr]) -> sp.Expr:
        """The sum over the features of all values: those that lie in rows in one reduction."""
        narrow = [v for v in values if _width(v) == 1]
        wide = [cast(Value, v) for v in values if _width(v) != 1]
        parts = (tuple(v for v in wide if v.static == static) for static in (False, True))
        return sp.Add(*narrow, *(self.builder.reduced(f"sum_{part[0]}", *part) for part in parts if part))

    def mean(self, values: Sequence[sp.Expr], hint: str, word: str = "centre") -> sp.Expr:
        count = sp.Add(*(length(_width(v)) for v in values))
        return self.named(self.total(values) / count, f"{word}_{hint}")

    def batch_norm(self, expr: Any, hint: str) -> sp.Expr:
        v, gain, bias, eps, momentum = (self.lower(arg, hint) for arg in expr.args)
        value = self.step_value(v, self.size(expr.args[0]), f"v_{hint}")
        mask = self.mask = self.mask or self.new_mask()
        valid, count, training = mask.valid, mask.count, mask.training
        running_mean = self.buffer(f"mean_{hint}", value.size)
        running_var = self.buffer(f"var_{hint}", value.size)
        b, shape = self.builder, (value.size,)

        weighted = b.pointwise(f"valid_{hint}", valid * value)
        total = b.summed(weighted, shape, lambda: b.value(f"sum_{hint}", shape, True))
        batch_mean = b.pointwise(f"batch_mean_{hint}", total / count)
        centred = b.pointwise(f"batch_centred_{hint}", value - batch_mean)
        spread = b.pointwise(f"spread_{hint}", valid * centred**2)
        total = b.summed(spread, shape, lambda: b.value(f"sum_spread_{hint}", shape, True))
        batch_var = b.pointwise(f"batch_var_{hint}", total / count)
        mean = b.pointwise(f"used_mean_{hint}", lang.where(training > 0, batch_mean, running_mean))
        variance = b.pointwise(f"used_var_{hint}", lang.where(training > 0, batch_var, running_var))
        padded = b.pointwise(f"var_eps_{hint}", variance + eps)
        scale = b.pointwise(f"scale_{hint}", padded ** sp.Rational(-1, 2))
        centred = b.pointwise(f"centred_{hint}", value - mean)
        normed = b.pointwise(f"normed_{hint}", centred * scale)

        unbiased = batch_var * count / lang.maximum(count - 1, 1)
        kinds: tuple[tuple[Literal["mean", "var"], Value, sp.Expr], ...]
        kinds = ("mean", running_mean, batch_mean), ("var", running_var, unbiased)
        for kind, buffer, batch in kinds:
            updated = b.pointwise(f"new_{buffer.name}", buffer + momentum * (batch - buffer))
            self.statistics.append(Statistic(buffer, kind, updated))
        return gain * normed + bias

    def new_mask(self) -> Mask:
        valid = self.builder.value("valid", (1,))
        count = self.builder.value("count", (), True)
        training = self.builder.value("training", (), True)
        self.extra_inputs.append(valid)
        self.parameters += [count, training]
        self.fixed += [valid, count, training]
        return Mask(valid, count, training)

    def buffer(self, wish: str, size: Size) -> Value:
        value = self.builder.value(wish, (size,), True)
        self.parameters.append(value)
        self.fixed.append(value)
        return value


def stem_of(value: Value) -> str:
    """How a name ends of something made of the value: `z` of its argument `a_z`, `h` of its next value."""
    match value.role:
        case "argument":
            return str(value.name.removeprefix(ARGUMENT))
        case "next":
            return str(value.of.name)
    return str(value.name)


def _width(expr: sp.Expr) -> Size:
    """The number of features of a value; 1 of a number."""
    return expr.size if isinstance(expr, Value) else 1


def _plain_name(symbol: Any) -> str:
    return symbol.state.name if isinstance(symbol, lang.Next) else str(symbol)
