"""C functions that make computed parameters, and pull their gradients back: loops over whole matrices.

They run once a call, in memory that the caller lends: a value an op, and room for the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from gategen.backends.c.lines import CModule, CPrinter, c_name
from gategen.backends.folding import folded
from gategen.backends.pointwise import grouped, times
from gategen.graph import Graph, MatrixOp, Op, Pointwise, Value, fresh
from gategen.plan import Field, Slot, Weight
from gategen.spec.printer import Printer


@dataclass(frozen=True)
class CWeightFunction:
    """One direction: the function, its lines, and how many entries of memory it takes."""

    name: str
    said: tuple[str, ...]
    parameters: tuple[str, ...]
    unused: tuple[str, ...]
    lines: tuple[str, ...]
    entries: tuple[str, ...]


@dataclass(frozen=True)
class CWeights:
    """Both functions, and what the functions of the steps need of them."""

    functions: tuple[CWeightFunction, ...]
    makes: tuple[str, ...]  # lines that take memory for the computed fields
    make: str  # the line that makes them
    rooms: tuple[str, ...]  # how many entries all that takes
    zeros: tuple[str, ...]  # lines that take memory for their gradients
    pull: str
    rooms_back: tuple[str, ...]
    scalars: bool  # whether there are computed numbers, which no product has packed

    @property
    def text(self) -> str:
        return "\n".join(line for function in self.functions for line in function.lines)

    @property
    def exponentials(self) -> bool:
        return "exponential(" in self.text

    @property
    def inverts(self) -> bool:
        return "invert(" in self.text

    @property
    def multiplies(self) -> bool:
        return "product_of(" in self.text or self.exponentials

    @property
    def units(self) -> bool:
        return "make_unit(" in self.text or self.inverts or self.exponentials

    @property
    def transposes(self) -> bool:
        return "transpose(" in self.text


def c_weights(module: CModule, letters: Sequence[str], member: dict[str, str]) -> CWeights | None:
    """What a file says of computed parameters; `member` names the fields in the structs of C."""
    plan, names = module.plan, module.names
    if plan.weights is None:
        return None
    prefix = plan.cell.name
    sizes = [f"size_t {letter}" for letter in letters]
    made = [names["field", f.name] for f in plan.computed]
    trained = [f for f in plan.computed if f.trainable]
    pulled = [names["field gradient", f.name] for f in trained]
    widths = [entries(module, f) for f in plan.computed]
    params = f"const {prefix}_params *params"
    unused = tuple(f"(void){name};" for name in ("params", "work", *letters))
    forward = CWriter(module, plan.weights.forward, member)
    there = CWeightFunction(
        "make_weights",
        (
            "What is computed of parameters:",
            *folded([f"    {c.symbol} = {Printer()(c.expr)}" for c in plan.cell.computed], 98),
        ),
        (*sizes, params, *(f"real *{name}" for name in made), "real *work"),
        unused,
        forward.lines(),
        forward.entries(),
    )
    backward = CWriter(module, plan.weights.backward, member)
    back = CWeightFunction(
        "make_weights_back",
        ("Add the gradients of what is computed to those of the parameters that it is made of.",),
        (
            *sizes,
            params,
            *(f"const real *{name}" for name in pulled),
            f"const {prefix}_gradients *d_params",
            "real *work",
        ),
        (*unused, "(void)d_params;"),
        backward.lines(),
        backward.entries(),
    )
    passed = [*letters, "params"]
    gradients = [entries(module, f) for f in trained]
    zeros = [
        f"real *const {name} = take(&work, {size});" for name, size in zip(pulled, gradients, strict=True)
    ]
    zeros += [f"zero({size}, {name});" for name, size in zip(pulled, gradients, strict=True)]
    return CWeights(
        (there, back) if trained else (there,),
        tuple(f"real *const {name} = take(&work, {size});" for name, size in zip(made, widths, strict=True)),
        f"make_weights({', '.join([*passed, *made, 'work'])});",
        (*(f"rounded({size})" for size in widths), *there.entries),
        tuple(zeros),
        f"make_weights_back({', '.join([*passed, *pulled, 'd_params', 'work'])});",
        (*(f"rounded({size})" for size in gradients), *back.entries),
        any(not f.columns for f in plan.computed),
    )


def entries(module: CModule, f: Field) -> str:
    """How many entries a field has."""
    size = module.names.size
    return times(grouped(size(f.height)), size(f.width)) if f.columns else "1"


class CWriter:
    """The lines of one graph of static values."""

    def __init__(self, module: CModule, graph: Graph, member: dict[str, str]) -> None:
        self.module, self.graph, self.member = module, graph, member
        plan, names = module.plan, module.names
        self.owners = {
            m: (f, s) for f in plan.computed for m, s in zip(f.members, f.starts or (sp.S.Zero,), strict=True)
        }
        own = [name for (role, _, _), name in names.known.items() if role in ("field", "field gradient")]
        self.taken = {*names.sizes.values(), "room", *own}
        self.names: dict[Value, str] = {}
        self.still = {op.out for op in graph.ops if isinstance(op, Pointwise) and op.expr == 0}
        self.forward = all(name in self.owners for name, _ in graph.sums)
        self.targets = {value: name for name, value in graph.sums}

    # ------------------------------------------------------------------------------------------ memory

    def named(self, value: Value) -> str:
        self.names[value] = fresh(c_name(value.name), self.taken)
        self.taken.add(self.names[value])
        return self.names[value]

    def size(self, value: Value) -> str:
        """How many entries a value has."""
        if not value.shape:
            return "1"
        rows, columns = map(self.length, value.shape)
        return times(rows, columns) if rows != "1" else columns

    def length(self, size: object) -> str:
        return self.module.names.letter(size)  # type: ignore[arg-type]

    def given(self, value: Value) -> str:
        """Where a value lies that is given."""
        names, plan = self.module.names, self.module.plan
        assert plan.weights is not None
        if value.role == "gradient":
            field, start = self.owners[value.of.name]
            return self.at(names["field gradient", field.name], field, start)
        return self.place(plan.weights.parameters[value.name], "params")

    def place(self, place: Weight | Slot, struct: str) -> str:
        field = self.module.fields[place.field if isinstance(place, Weight) else place.home.name]
        return self.at(f"{struct}->{self.member[field.name]}", field, place.start)

    def at(self, base: str, field: Field, start: sp.Expr) -> str:
        if start == 0:
            return base
        return (
            f"{base} + {times(grouped(self.module.names.size(start)), self.module.names.size(field.width))}"
        )

    # ------------------------------------------------------------------------------------------ lines

    def lines(self) -> tuple[str, ...]:
        made: list[str] = []
        read = {v for op in self.graph.ops for v in op.reads} | {v for _, v in self.graph.sums}
        for value in self.graph.parameters:
            if value in read:
                source = self.given(value)
                made.append(f"const real *const {self.named(value)} = {source};")
        ops = [op for op in self.graph.ops if op.out not in self.still]
        for op in ops:
            name = self.named(op.out)
            if self.forward and op.out in self.targets:
                field, start = self.owners[self.targets[op.out]]
                home = self.module.names["field", field.name]
                made.append(f"real *const {name} = {self.at(home, field, start)};")
            else:
                made.append(f"real *const {name} = take(&work, {self.size(op.out)});")
        made += ["real *const room = work;", "(void)room;"]
        rank = {op.out.name: k for k, op in enumerate(ops)}
        for op in ops:
            made += self.pointwise(op, rank) if isinstance(op, Pointwise) else self.matrices(op)
        if not self.forward:
            assert self.module.plan.weights is not None
            for name, value in self.graph.sums:
                if value not in self.still:
                    target = self.place(self.module.plan.weights.parameters[name], "d_params")
                    entry = f"({target})[k]" if " + " in target else f"{target}[k]"
                    made += self.loop(self.size(value), f"{entry} += {self.names[value]}[k];")
        return tuple(made)

    @staticmethod
    def loop(count: str, line: str) -> list[str]:
        if count == "1":
            return [line.replace("[k]", "[0]")]
        return [f"for (size_t k = 0; k < {count}; k++) {{", f"    {line}", "}"]

    def pointwise(self, op: Pointwise, rank: dict[str, int]) -> list[str]:
        shape = op.out.shape
        same = all(v.shape in (shape, ()) for v in op.reads)
        columns = self.length(shape[1]) if shape else "1"

        def entry(v: Value) -> str:
            if v.shape == shape and same:
                return "[k]" if shape else "[0]"
            if v.shape == ():
                return "[0]"
            return {(False, False): f"[k * {columns} + j]", (False, True): "[k]", (True, False): "[j]"}.get(
                (v.shape[0] == 1, v.shape[1] == 1), "[0]"
            )

        rename = {v.name: self.names[v] + entry(v) for v in op.reads}
        text = CPrinter(rank, rename, self.module.names.sizes)(op.expr)
        if same:
            return self.loop(self.size(op.out), f"{self.names[op.out]}[k] = {text};")
        inner = f"{self.names[op.out]}[k * {columns} + j] = {text};"
        return [
            f"for (size_t k = 0; k < {self.length(shape[0])}; k++) {{",
            f"    for (size_t j = 0; j < {columns}; j++) {{",
            f"        {inner}",
            "    }",
            "}",
        ]

    def matrices(self, op: Op) -> list[str]:
        assert isinstance(op, MatrixOp)
        out, names = self.names[op.out], [self.names[v] for v in op.operands]
        n = self.length(op.out.shape[0]) if op.out.shape else "1"
        if op.word == "unit":
            return [f"make_unit({n}, {out});"]
        rows, columns = map(self.length, op.operands[0].shape)
        match op.word:
            case "transpose":
                return [f"transpose({rows}, {columns}, {names[0]}, {out});"]
            case "multiply":
                across = self.length(op.out.shape[1])
                return [f"product_of({rows}, {across}, {columns}, {names[0]}, {names[1]}, {out}, room);"]
            case "inverse":
                return [f"invert({n}, {names[0]}, {out}, room);"]
            case "exponential":
                direction = names[1] if len(names) > 1 else "NULL"
                return [f"exponential({n}, {names[0]}, {direction}, {out}, room);"]
        if op.out.shape == ():
            loop = self.loop(times(rows, columns), f"total += (double){names[0]}[k];")
            return [
                "{",
                "    double total = 0;",
                *(f"    {line}" for line in loop),
                f"    {out}[0] = (real)total;",
                "}",
            ]
        return [
            f"for (size_t k = 0; k < {rows}; k++) {{",
            "    double total = 0;",
            f"    for (size_t j = 0; j < {columns}; j++) {{",
            f"        total += (double){names[0]}[k * {columns} + j];",
            "    }",
            f"    {out}[k] = (real)total;",
            "}",
        ]

    def entries(self) -> tuple[str, ...]:
        """How many entries of memory the lines take; behind `lines`."""
        ops = [op for op in self.graph.ops if op.out not in self.still]
        found = [
            f"rounded({self.size(op.out)})" for op in ops if not (self.forward and op.out in self.targets)
        ]
        room: list[str] = []
        for op in ops:
            if isinstance(op, MatrixOp) and op.operands:
                n, columns = (self.length(size) for size in op.operands[0].shape)
                if op.word == "multiply":
                    room.append(f"panels({columns}, {self.length(op.out.shape[1])})")
                elif op.word == "inverse":
                    room.append(f"{n} * {n}")
                elif op.word == "exponential":
                    m = n if len(op.operands) == 1 else f"(2 * {n})"
                    room.append(f"6 * rounded({m} * {m}) + panels({m}, {m})")
        largest = ""
        for one in dict.fromkeys(room):
            largest = f"larger_of({largest}, {one})" if largest else one
        return (*found, *([largest] if largest else []))
