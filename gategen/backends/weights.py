"""Functions that make computed parameters, and pull their gradients back: a line an op, on whole arrays.

They run once a call, so their lines are plain expressions that make new arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from gategen.backends import interface
from gategen.backends.folding import call, folded, listing
from gategen.backends.module import Module
from gategen.backends.names import WORDS
from gategen.graph import Graph, Length, MatrixOp, Op, Pointwise, Value, fresh, length
from gategen.plan import Field, Slot, Weight
from gategen.spec.printer import ATOM, POWER, Printer

Owner = tuple[Field, sp.Expr]  # a field, and where a member begins in it


@dataclass(frozen=True)
class WeightFunction:
    """A function of the module."""

    head: str
    said: tuple[str, ...]  # lines of its docstring
    measured: str  # the line that finds sizes
    lines: tuple[str, ...]


@dataclass(frozen=True)
class WeightCalls:
    """Lines that call them for lines that mention the names of computed fields; empty where none does."""

    make: tuple[str, ...]  # the fields, and their tangents
    pull: str  # their gradients go back to the parameters


class ArrayPrinter(Printer):
    """Expressions of whole arrays, in Python; `letters` are those of the sizes."""

    def __init__(
        self, xp: str, rank: dict[str, int], rename: dict[str, str], letters: Mapping[str, str]
    ) -> None:
        super().__init__(rank, rename)
        self.xp, self.letters = xp, letters

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, Length):
            return self.letters[expr.name], ATOM
        if isinstance(expr, sp.Expr) and expr.is_number and not isinstance(expr, sp.Number):
            return self.number(
                sp.Float(float(expr))
            )  # the root of a number would be an array of its own dtype
        return super().spell(expr)

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if exponent == sp.Rational(1, 2) and base.has(Value):  # else a number, which has no dtype
            return f"{self.xp}.sqrt({self(base)})", ATOM
        if exponent == sp.Rational(1, 2):
            return f"{self.at(base, ATOM)}**0.5", POWER
        return super().power(base, exponent)


def weight_functions(module: Module) -> tuple[WeightFunction, ...]:
    """Those of a module: of first derivatives two, of second ones the first of these and their tangents."""
    plan = module.plan
    if plan.weights is None:
        return ()
    if plan.of is None:
        return (
            making(module, plan.weights.forward, "weights(params)", plan.computed),
            pulling(module, plan.weights.backward, "weights_backward"),
        )
    assert plan.of.weights is not None
    return (
        making(module, plan.of.weights.forward, "weights(params)", plan.computed),
        making(module, plan.weights.forward, "weights_jvp(params, dot_params)", plan.computed_dots),
        pulling(module, plan.weights.backward, "weights_backward_jvp"),
    )


def weight_calls(module: Module, used: Iterable[str]) -> WeightCalls:
    """How functions whose lines have the names `used` call them."""
    plan, names, words = module.plan, module.names, set(used)
    make = []
    for fields, line in (
        (plan.computed, "weights(params)"),
        (plan.computed_dots, "weights_jvp(params, dot_params)"),
    ):
        targets = [names["field", f.name] for f in fields]
        if not words.isdisjoint(targets):
            make.append(f"{listing([name if name in words else '_' for name in targets])} = {line}")
    pull = ""
    if plan.weights and not words.isdisjoint(name for name, _ in weight_gradients(module)):
        pull = pull_call(module, "weights_backward_jvp" if plan.of else "weights_backward")
    return WeightCalls(tuple(make), pull)


def weight_gradients(module: Module) -> list[tuple[str, str]]:
    """The gradients of computed fields that a backward step sums up, with their shapes."""
    names, plan = module.names, module.plan
    fields = (*(f for f in plan.computed if f.trainable), *plan.gradients)
    return [(names["field gradient", f.name], shape_of(module, f)) for f in fields]


def shape_of(module: Module, f: Field) -> str:
    names = module.names
    return f"({names.size(f.height)}, {names.size(f.width)})" if f.columns else "()"


def all_shapes(sizes: str, further: Sequence[tuple[str, str]]) -> str:
    """The shapes of all gradients that are summed up: of the fields, and of those that are computed."""
    return f"(*shapes({sizes}), {', '.join(s for _, s in further)})" if further else f"shapes({sizes})"


def pull_call(module: Module, name: str) -> str:
    """The function that pulls gradients back, with its arguments."""
    assert module.plan.weights is not None
    names, places = module.names, module.plan.weights.parameters
    fields = (field_of(places[p]) for p, _ in module.plan.weights.backward.sums)
    gradients = [name for name, _ in weight_gradients(module)]
    targets = dict.fromkeys(names["field gradient", field] for field in fields)
    return call(f"{name}(", ["params", *["dot_params"] * bool(module.plan.of), *gradients, *targets])


def field_of(place: Weight | Slot) -> str:
    return place.field if isinstance(place, Weight) else place.home.name


# ---------------------------------------------------------------------------------------------- functions


def making(module: Module, graph: Graph, head: str, fields: Sequence[Field]) -> WeightFunction:
    """The function that returns some computed fields."""
    writer = Writer(module, graph)
    results = {f"{'dot_' * ('dot_' in head)}{name}": writer.names[value] for name, value in graph.sums}
    values = []
    for f in fields:
        members = [results[member] for member in f.members]
        value = members[0] if len(members) == 1 else f"{module.target.xp}.concatenate(({', '.join(members)}))"
        values.append(f"stored({value}, params)" if module.target.cupy else value)
    equations = [f"{made.symbol} = {Printer()(made.expr)}" for made in module.cell.computed]
    said = (
        "How what is computed of parameters moves:" if "dot_" in head else "What is computed of parameters:"
    )
    return writer.function(
        head, [said, "", *equations], [call("return (", values, ",)" if len(values) == 1 else ")")]
    )


def pulling(module: Module, graph: Graph, name: str) -> WeightFunction:
    """The function that adds the gradients of computed fields to those of what they are made of."""
    writer = Writer(module, graph)
    assert module.plan.weights is not None
    added = []
    for parameter, value in graph.sums:
        if value not in writer.still:
            place = module.plan.weights.parameters[parameter]
            target, source = writer.place(place, "field gradient"), writer.names[value]
            added.append(f"accumulate({target}, {source})" if module.target.cupy else f"{target} += {source}")
    said = "Gradients of what is computed of parameters go to these" + (
        ", and how they move." if module.plan.of else "."
    )
    return writer.function(pull_call(module, name), [said], added)


class Writer:
    """The lines of one graph of static values."""

    def __init__(self, module: Module, graph: Graph) -> None:
        self.module, self.graph = module, graph
        plan = module.plan
        self.owners: dict[str, Owner] = {
            member: (f, start)
            for f in plan.computed
            for member, start in zip(f.members, f.starts or (sp.S.Zero,), strict=True)
        }
        self.gradients = {member: f for f in plan.gradients for member in f.members}
        self.xp = module.target.xp
        self.taken = {*WORDS, *module.names.sizes.values(), "expm", "params", "dot_params", *self.arguments()}
        self.still = {op.out for op in graph.ops if isinstance(op, Pointwise) and op.expr == 0}
        self.names: dict[Value, str] = {}
        self.loads: list[str] = []
        read = {v for op in graph.ops for v in op.reads} | {v for _, v in graph.sums}
        for value in graph.parameters:
            if value in read:
                source = self.source(value)
                if source.isidentifier() and not module.target.cupy:
                    self.names[value] = source
                    continue
                self.loads.append(
                    f"{self.named(value)} = {f'precise({source})' if module.target.cupy else source}"
                )
        rank = {op.out.name: k for k, op in enumerate(graph.ops)}
        for op in graph.ops:
            self.named(op.out)
        self.printer = ArrayPrinter(
            self.xp, rank, {v.name: name for v, name in self.names.items()}, module.names.sizes
        )

    def arguments(self) -> list[str]:
        return [name for (role, _, _), name in self.module.names.known.items() if role == "field gradient"]

    def named(self, value: Value) -> str:
        wish = value.name if value.name not in WORDS else f"{value.name}_"
        self.names[value] = fresh(wish, self.taken)
        self.taken.add(self.names[value])
        return self.names[value]

    def source(self, value: Value) -> str:
        """Where a value lies that is given: a parameter, a gradient, or how one of these moves."""
        plan = self.module.plan
        assert plan.weights is not None
        of = value.of if value.role == "tangent" else value
        if of.role == "gradient":
            field, start = self.owners[of.of.name]
            if plan.of is not None and value is of:
                field = self.gradients[of.of.name]
            return self.rows("field gradient", field, start, of.shape)
        return self.place(plan.weights.parameters[of.name], "dot" if value is not of else "field")

    def place(self, place: Weight | Slot, what: str) -> str:
        """A parameter as part of its field, of the gradient of that, or of a direction of it."""
        field = self.module.fields[field_of(place)]
        stop = place.stop - place.start
        return self.part(what, field, place.start, stop)

    def rows(self, what: str, field: Field, start: sp.Expr, shape: Sequence[object]) -> str:
        return self.part(what, field, start, length(shape[0]) if shape else sp.S.One)  # type: ignore[arg-type]

    def part(self, what: str, field: Field, start: sp.Expr, height: sp.Expr) -> str:
        names, fields = self.module.names, self.module.plan.fields
        if what == "field":
            base = f"params.{names['field', field.name]}"
        elif what == "dot":
            base = f"dot_params[{fields.index(field)}]"
        else:
            base = names["field gradient", field.name]
        if not field.rows or names.size(height) == names.size(field.height):
            return base
        low = "" if start == 0 else names.size(start)
        high = names.size(start + height)
        return f"{base}[{low} : {high}]".replace("[ :", "[:") if low else f"{base}[:{high}]"

    def line(self, op: Op) -> str:
        out = self.names[op.out]
        if isinstance(op, Pointwise):
            text = self.printer(op.expr)
            narrow = op.out.shape and all(v.shape != op.out.shape for v in op.reads)
            return (
                f"{out} = {self.xp}.broadcast_to({text}, {self.shape(op.out)})"
                if narrow
                else f"{out} = {text}"
            )
        assert isinstance(op, MatrixOp)
        names = [self.names[v] for v in op.operands]
        match op.word:
            case "transpose":
                right = f"{names[0]}.T"
            case "multiply":
                right = f"{names[0]} @ {names[1]}"
            case "inverse":
                right = f"{self.xp}.linalg.inv({names[0]})"
            case "exponential":
                right = f"expm({', '.join(names)})"
            case "sum":
                right = (
                    f"{names[0]}.sum()" if op.out.shape == () else f"{names[0]}.sum(axis=1, keepdims=True)"
                )
            case _:
                first = next(v for v in self.graph.parameters if v in self.names)
                n = self.module.names.letter(op.out.shape[0])
                right = f"{self.xp}.eye({n}, dtype={self.names[first]}.dtype)"
        return f"{out} = {right}"

    def shape(self, value: Value) -> str:
        letters = [self.module.names.letter(size) for size in value.shape]
        return f"({', '.join(letters)})"

    def function(self, head: str, said: Sequence[str], last: Sequence[str]) -> WeightFunction:
        lines = [self.line(op) for op in self.graph.ops if op.out not in self.still]
        text = "\n".join((*self.loads, *lines, *last))
        sizes, late = interface.measured_sizes(self.module), interface.late_sizes(self.module)
        call_of = interface.measured(self.module, sizes, late, text).call
        measured = call_of if " = " in call_of else ""
        first, *rest = folded(said, 98)
        docstring = (f'"""{first}', *rest, '"""') if rest else (f'"""{first}"""',)
        return WeightFunction(head, docstring, measured, (*self.loads, *lines, *last))


def weights_context(module: Module) -> dict[str, object]:
    """What the template of these functions prints."""
    functions = weight_functions(module)
    lines = "\n".join(line for function in functions for line in function.lines)
    return {"weight_functions": functions, "exponentials": "expm(" in lines}
