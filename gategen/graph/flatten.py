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
    How,
    Length,
    Mask,
    Pointwise,
    Product,
    Role,
    Statistic,
    Value,
    axes,
    common_size,
    extent,
    length,
    number,
    replaced,
    shape_of,
    values_in,
)
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.functions import row_of
from gategen.spec.names import Axes, Extent, Size
from gategen.spec.printer import Printer

ARGUMENT = "a_"  # how names of arguments begin
LARGE = 64  # nodes of a part of an expression that gets a name
MANY = 8  # factors of a product that are multiplied in groups, which get names


def flatten(cell: Cell, first: bool = False) -> Graph:
    """The graph of one step of a cell (or of its first-step rule), with everything but arithmetic named."""
    return _Flattener(cell.inner, first).graph()


def start(cell: Cell) -> Graph | None:
    """The graph that computes trained initial states from parameters; None where all are plain numbers."""
    if all(state.initial.is_number for state in cell.states):
        return None
    cell = cell.inner
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
        self.builder = Builder(names, cell.orders)
        self.printer = Printer({eq.lhs.name: k for k, eq in enumerate(self.equations)})
        self.left: lang.Gate | lang.State | None = None  # whose equation is being read
        self.known: dict[str, sp.Expr] = {}
        self.inputs = tuple(self.declare(s.name, shape_of(s.size)) for s in cell.inputs)
        self.currents = {s.name: self.declare(s.name, shape_of(s.size)) for s in cell.states}
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
        out = Value(
            name, shape_of(size), static, "next" if state else "", self.currents[hint] if state else None
        )
        self.builder.taken.add(name)
        self.builder.add(Pointwise(out, expr))
        reads = values_in(expr)
        if size == common_size(reads, self.builder.orders) and static == all(v.static for v in reads):
            self.builder.memo.setdefault(expr, out)
        self.known[eq.lhs.name] = out

    # ------------------------------------------------------------------------------------------ expressions

    def over_values(self, word: lang.Word, hint: str) -> sp.Expr:
        """A word over values: in its formula matrices would use a `+` and a `*` of their own."""
        args = []
        for arg in word.args:
            if _beside(arg):
                arg = self.argument(self.lower(arg, hint), hint)
                self.known[arg.name] = arg
            args.append(arg)
        return word.func(*args)

    def lower(self, expr: sp.Expr, hint: str, whole: bool = False) -> sp.Expr:
        """`expr` over values, all but plain arithmetic named. `whole`: `expr` is about to get a name."""
        if isinstance(expr, lang.Constant):
            return expr.value
        if isinstance(expr, lang.Count):
            return length(expr.name)
        if isinstance(expr, sp.Symbol):
            return self.known[expr.name]
        if isinstance(expr, sp.Number) or expr.is_number:
            return expr
        if isinstance(expr, sp.Add):
            expr = shifted_at_once(expr)
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
        if isinstance(expr, (lang.softmaxed, lang.softmax_over)):
            values, kept = self.reduced_by(expr)
            exps, _ = self.shifted(values, hint, kept)
            part = 0 if isinstance(expr, lang.softmax_over) else int(expr.args[0])
            return exps[part] * self.named(1 / self.total(exps, kept), f"scale_{hint}")
        if isinstance(expr, (lang.logsumexp, lang.logsumexp_over)):
            values, kept = self.reduced_by(expr)
            exps, top = self.shifted(values, hint, kept)
            return top + self.function(sp.log(self.total(exps, kept)), f"log_{hint}", False)
        if isinstance(expr, lang.Word) and row_of(expr) and _beside(expr):
            return self.lower(self.over_values(expr, hint), hint, whole)
        if isinstance(expr, lang.Word):
            return self.lower(expr.formula, hint, whole)
        if isinstance(expr, lang.matvec):
            return self.product(expr, hint)
        if isinstance(expr, lang.matmat):
            value, matrix, transposed = expr.args
            return self.matmul(self.known[matrix.name], self.operand(value, hint), not transposed)
        if isinstance(expr, lang.outer):
            return sp.Mul(*(self.factor(arg, hint) for arg in expr.args))
        if isinstance(expr, (lang.cumsum, lang.cumsum_over)):
            (value,) = self.wides(expr.args[:1], hint)
            axis = self.axis_of(expr) if len(axes(self.size(expr))) > 1 else ""
            return value if _width(value) == 1 else self.builder.cumulated(cast(Value, value), axis)
        if isinstance(expr, lang.shifted):
            value = self.wide(self.lower(expr.args[0], hint), self.size(expr), f"v_{hint}")
            by = int(expr.args[1])
            return self.builder.shifted(cast(Value, value), by, self.axis_of(expr)) if by else value
        if isinstance(expr, (lang.Over, *lang.REDUCTIONS)):
            return self.reduction(expr, hint)
        if isinstance(expr, lang.stop_gradient) and isinstance(expr.args[0], (lang.max_, lang.max_over)):
            values, kept = self.reduced_by(expr.args[0])
            return self.largest(self.wides(values, hint), hint, "bound", kept)
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

    def factor(self, expr: sp.Expr, hint: str) -> sp.Expr:
        """One side of an outer product; a sum gets a name, or it would be multiplied out."""
        lowered = self.lower(expr, hint)
        return self.named(lowered, f"v_{hint}") if isinstance(lowered, sp.Add) else lowered

    def function(self, expr: sp.Expr, wish: str, whole: bool) -> sp.Expr:
        """An applied function: itself where the equation names it anyway, otherwise a value of its own."""
        if isinstance(expr, Value) or expr.is_number or (whole and expr not in self.builder.memo):
            return expr
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr))

    def argument(self, expr: sp.Expr, hint: str) -> sp.Expr:
        """A value for what a function is applied to."""
        return (
            expr if isinstance(expr, Length) else self.named(expr, f"{ARGUMENT}{hint}", "argument", self.left)
        )

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

    def size(self, expr: sp.Basic) -> Extent:
        """The number of features of an expression of the spec, of a matrix the sizes of its axes. Its value
        may have fewer: `(1 - k)*h` is 0 where the constant k is 1.
        """
        if isinstance(expr, (*lang.REDUCTIONS, lang.logsumexp)):
            return 1
        if isinstance(expr, (lang.softmax_over, lang.cumsum_over, lang.shifted)):
            return self.size(expr.args[0])
        if isinstance(expr, lang.convolved):
            return self.size(expr.product(expr.weights[0], expr.value))
        if isinstance(expr, (lang.Joint, lang.normed_over)):
            return self.widest(expr.part)
        if isinstance(expr, (lang.Over, lang.logsumexp_over)):
            return self.reduced_by(expr)[1]
        if isinstance(expr, lang.outer):
            return tuple(dict.fromkeys(axis for arg in expr.args for axis in axes(self.size(arg))))
        if isinstance(expr, lang.matmat):
            value, matrix, transposed = expr.args
            size = cast(Axes, self.size(value))
            return (*size[:-1], cast(Size, self.cell.shapes[matrix.name][not transposed]))
        if isinstance(expr, lang.matvec):
            matrix, operand, transposed = expr.args
            if not isinstance(matrix, lang.Matrix):
                return extent(applied(axes(self.size(matrix)), bool(transposed)))
            whole = 1 if isinstance(operand, lang.concat) else self.size(operand)
            if isinstance(whole, tuple):
                return (*whole[:-2], cast(Size, self.cell.shapes[matrix.name][int(transposed)]), whole[-1])
            found = self.cell.shapes[matrix.name][int(transposed)]
            return self.undivided(cast(Size, found))
        if isinstance(expr, lang.Matrix):
            return cast(Extent, self.cell.shapes[expr.name])
        if isinstance(expr, lang.Gate):
            return cast(Extent, self.gate_sizes[expr.name])
        if isinstance(expr, lang.Name):
            return cast(Extent, self.cell.size_of(expr.state if isinstance(expr, lang.Next) else expr))
        return self.widest(expr.args)

    def undivided(self, size: Size) -> Size:
        """What a matrix with these columns multiplies: all of which each of its blocks has a share."""
        whole = lang.shared(size)[0]
        return self.cell.whole.get(whole, whole) or size

    def widest(self, parts: Sequence[sp.Basic]) -> Extent:
        """The size of the part that has most axes."""
        return max((self.size(part) for part in parts), key=lambda size: len(axes(size)), default=1)

    def wide(self, expr: sp.Expr, size: Extent, wish: str) -> sp.Expr:
        """`expr` under a name, with `size` features."""
        if common_size(values_in(expr), self.builder.orders) == size:
            return self.named(expr, wish)
        return self.builder.once(("wide", expr, size), lambda: self.builder.pointwise(wish, expr, size=size))

    def static_value(self, expr: sp.Expr, size: Extent, wish: str) -> Value:
        """A value of parameters alone, with `size` features."""
        if isinstance(expr, Value) and expr.shape == shape_of(size):
            return expr
        return self.builder.once(
            ("static", expr, size), lambda: self.builder.pointwise(wish, expr, size=size)
        )

    def step_value(self, expr: sp.Expr, size: Extent, wish: str) -> Value:
        """A value with a row per sequence and `size` features, even if `expr` only reads parameters."""
        reads = values_in(expr)
        if not all(v.static for v in reads) and common_size(reads, self.builder.orders) == size:
            return cast(Value, self.named(expr, wish))
        return self.builder.once(
            ("step", expr, size), lambda: self.builder.pointwise(wish, expr, size=size, step=True)
        )

    def product(self, expr: Any, hint: str) -> sp.Expr:
        matrix, operand, transposed = expr.args[0], expr.args[1], bool(expr.args[2])
        if not isinstance(matrix, lang.Matrix):
            along = axes(self.size(matrix))
            left = self.step_value(self.known[matrix.name], self.size(matrix), matrix.name)
            right = self.operand(operand, hint)
            wish = f"{left}{'T' if transposed else ''}_{right}"
            return self.builder.contracted(wish, left, right, applied(along, transposed))
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
        blocks = lang.shared(matrix.shape[1])[1]
        size = self.undivided(matrix.shape[1]) if transposed else matrix.shape[0]
        wish, shape = f"{matrix.name}{'T' if transposed else ''}_{operand.name}", shape_of(size)
        if operand.wide:
            inner = matrix.shape[not transposed]
            shape = replaced(operand.axes, inner, size)
            if inner == operand.axes[-1]:
                wish = f"{operand.name}_{matrix.name}{'' if transposed else 'T'}"
        made = self.builder.once(
            (matrix, operand, transposed),
            lambda: self.builder.add(
                Product(self.builder.value(wish, shape), matrix, operand, transposed, blocks)
            ),
        )
        self.products.add(made)
        return made

    def reduction(self, expr: Any, hint: str) -> sp.Expr:
        args, kept = self.reduced_by(expr)
        if isinstance(expr, lang.sum_over) and (made := self.contraction(expr, kept, hint)):
            return made
        values = self.wides(args, hint)
        if isinstance(expr, (lang.max_, lang.max_over)):
            return self.largest(values, hint, "max", kept)
        if isinstance(expr, (lang.sum_, lang.sum_over)):
            return self.total(values, kept)
        if isinstance(expr, (lang.mean, lang.mean_over)):
            return self.mean(values, hint, kept)
        centre = self.mean(values, hint, kept)
        centred = [self.named(v - centre, f"centred_{v}") for v in values]
        squares = [self.named(v**2, f"square_{value}") for v, value in zip(centred, values, strict=True)]
        return self.mean(squares, hint, kept, "variance")

    def reduced_by(self, expr: Any) -> tuple[Sequence[sp.Expr], Extent]:
        """The values that a word goes over, and the size of what is left: 1, or all axes but one."""
        if not isinstance(expr, (lang.Over, lang.Along)):
            return (expr.values if isinstance(expr, lang.Joint) else expr.args), 1
        along = axes(self.size(expr.args[0]))
        return expr.args[:1], extent([axis for axis in along if str(axis) != expr.axis])

    def axis_of(self, expr: Any) -> Size:
        """The axis that a word goes along; nothing where it goes over all features as they lie."""
        along = expr.axis if isinstance(expr, lang.Over) else ""
        return next((axis for axis in axes(self.size(expr.args[0])) if str(axis) == along), "")

    def contraction(self, expr: Any, kept: Extent, hint: str) -> sp.Expr | None:
        """The sum of a product of two values along one axis."""
        lowered = self.lower(expr.args[0], hint)
        both = lowered.args if isinstance(lowered, sp.Mul) and len(lowered.args) == 2 else ()
        along = axes(self.size(expr.args[0]))
        if not both or not all(isinstance(v, Value) and v.axes == along and not v.static for v in both):
            return None
        left, right = both
        return self.builder.contracted(f"{left}_{right}", left, right, axes(kept))

    def total(self, values: Sequence[sp.Expr], kept: Extent = 1) -> sp.Expr:
        """The sum over the features of all values: those that lie in rows in one reduction."""
        narrow = [v for v in values if _width(v) == 1]
        wide = [cast(Value, v) for v in values if _width(v) != 1]
        parts = [tuple(v for v in wide if v.static == s and len(v.shape) < 2) for s in (False, True)]
        parts += [(v,) for v in wide if len(v.shape) > 1]
        sums = (self.builder.reduced(f"sum_{part[0]}", *part, size=kept) for part in parts if part)
        return sp.Add(*narrow, *sums)

    def wides(self, args: Sequence[sp.Expr], hint: str) -> list[sp.Expr]:
        """The arguments of a function of whole vectors, as large as they are to people."""
        return [self.wide(self.lower(arg, hint), self.size(arg), f"v_{hint}") for arg in args]

    def largest(self, values: Sequence[sp.Expr], hint: str, how: How, kept: Extent = 1) -> sp.Expr:
        """The largest feature of all values, which get a row per sequence unless all are static."""
        if len(values) == 1 and _width(values[0]) == 1:
            return values[0]
        static = all(v.static for value in values for v in values_in(value))
        make = self.static_value if static else self.step_value
        rows = [make(value, _width(value), f"v_{hint}") for value in values]
        return self.builder.reduced(f"max_{rows[0]}", *rows, size=kept, how=how)

    def shifted(self, args: Sequence[sp.Expr], hint: str, kept: Extent = 1) -> tuple[list[sp.Expr], sp.Expr]:
        """exp of all arguments less the largest feature, of which none overflows, and that feature."""
        values = self.wides(args, hint)
        top = self.largest(values, hint, "bound", kept)
        return [
            self.function(sp.exp(self.argument(value - top, hint)), f"exp_{hint}", False) for value in values
        ], top

    def mean(self, values: Sequence[sp.Expr], hint: str, kept: Extent = 1, word: str = "centre") -> sp.Expr:
        count = sp.Add(*(number(_width(v)) for v in values)) / number(kept)
        return self.named(self.total(values, kept) / count, f"{word}_{hint}")

    def batch_norm(self, expr: Any, hint: str) -> sp.Expr:
        v, gain, bias, eps, momentum = (self.lower(arg, hint) for arg in expr.args)
        size = cast(Size, self.size(expr.args[0]))
        value = self.step_value(v, size, f"v_{hint}")
        mask = self.mask = self.mask or self.new_mask()
        valid, count, training = mask.valid, mask.count, mask.training
        running_mean, running_var = (self.buffer(f"{kind}_{hint}", size) for kind in ("mean", "var"))
        b, shape = self.builder, (size,)

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


def applied(along: Axes, transposed: bool) -> Axes:
    """The axes of `C @ k`, or of `C.T @ v`, for every head where C has three."""
    *heads, rows, columns = along
    return (*heads, columns if transposed else rows)


def shifted_at_once(expr: sp.Add) -> sp.Expr:
    """A sum in which terms that are shifted alike, those of convolutions too, are added up before that."""
    terms = [arg.formula if isinstance(arg, lang.convolved) else arg for arg in expr.args]
    alike: dict[Any, list[sp.Expr]] = {}
    rest: list[sp.Expr] = []
    for term in (part for whole in terms for part in sp.Add.make_args(whole)):
        if isinstance(term, lang.shifted):
            alike.setdefault(term.args[1:], []).append(term.args[0])
        else:
            rest.append(term)
    return sp.Add(*rest, *(lang.shifted(sp.Add(*values), *how) for how, values in alike.items()))


def stem_of(value: Value) -> str:
    """How a name ends of something made of the value: `z` of its argument `a_z`, `h` of its next value."""
    match value.role:
        case "argument":
            return str(value.name.removeprefix(ARGUMENT))
        case "next":
            return str(value.of.name)
    return str(value.name)


def _width(expr: sp.Expr) -> Extent:
    """The number of features of a value; 1 of a number."""
    return expr.size if isinstance(expr, Value) else 1


def _plain_name(symbol: Any) -> str:
    return symbol.state.name if isinstance(symbol, lang.Next) else str(symbol)


def _beside(expr: sp.Expr) -> bool:
    """Whether a matrix stands in it entry by entry, and not in a product."""
    if isinstance(expr, lang.Matrix):
        return True
    return not isinstance(expr, lang.Opaque) and any(map(_beside, expr.args))
