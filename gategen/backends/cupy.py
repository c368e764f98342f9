"""CuPy: one CUDA kernel for the pointwise ops of each phase, launched between stacked matrix products.

`files` lowers a plan to a `.cu` file with the kernels and a module that launches them. A kernel has one
thread for every unit of every sequence; it reads what it needs, computes in registers, and writes what
outlives it. Sums over the features, and over steps and rows, are kernels of their own with a fixed order of
summation.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from gategen.backends.comments import listed
from gategen.backends.host import ALL, LOOP, ONCE, SUMS, Host, folded
from gategen.backends.instructions import View
from gategen.backends.module import (
    WIDTH,
    Module,
    Scope,
    call,
    empties,
    heading,
    own_memory,
    passing,
    returned_together,
    rule_context,
    rule_of,
    signature,
    stack_of,
    with_fields,
)
from gategen.graph import Length, Pointwise, Value, fresh, length
from gategen.plan import (
    GRADIENT,
    Buffer,
    ColumnSum,
    Kernel,
    MatMul,
    OuterSum,
    Pair,
    Plan,
    Schedule,
    Slot,
    Stage,
    Sum,
)
from gategen.render import module_text, render
from gategen.spec import language as lang
from gategen.spec.elementwise import Row, called, helpers
from gategen.spec.functions import TABLE
from gategen.spec.printer import ATOM, SUM, Printer

ARRAYS = False

# Names that the CUDA text uses for itself.
CUDA_WORDS = frozenset(
    """
    real storage rows B T t i b k at clip fmax fmin floor pow abs min max total part REAL STORAGE HALF NULL
    INFINITY NAN M_PI unix linux float double half
    """.split()
) | {row.cuda.name for row in TABLE if row.cuda}


def files(plan: Plan) -> dict[str, str]:
    """The module and the kernels of a cell, by file name."""
    name, made = plan.cell.name, context(plan)
    return {
        f"{name}_cupy.py": module_text(made),
        f"{name}_cupy.cu": render("cupy/kernels.cu.jinja", made),
    }


# ---------------------------------------------------------------------------------------------- expressions


class CudaPrinter(Printer):
    """Expressions as CUDA: every number a `real`, small powers as products."""

    def __init__(self, rank: dict[str, int], rename: dict[str, str], letters: dict[str, str]) -> None:
        super().__init__(rank, rename)
        self.letters = letters  # of the sizes, which may have the names of values

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, sp.Expr) and expr.is_number and not isinstance(expr, sp.Number):
            return self.number(sp.Float(float(expr)))  # C++ has no sqrt of an int
        if isinstance(expr, Length):
            return f"real({self.letters[expr.name]})", ATOM
        if isinstance(expr, lang.where):
            condition, a, b = expr.args
            return f"{self(condition)} ? {self.at(a, SUM)} : {self.at(b, SUM)}", 0
        if isinstance(expr, lang.stop_gradient):
            return self.spell(expr.args[0])
        return super().spell(expr)

    def word(self, row: Row) -> str:
        assert row.cuda, f"{row.name} has no name in CUDA"
        return row.cuda.name

    def number(self, value: sp.Number) -> tuple[str, int]:
        if value.is_Integer and abs(int(value)) < 10**6:
            return str(int(value)), ATOM if value >= 0 else SUM
        text = repr(float(value))
        return f"real({text})", ATOM

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if exponent == 2:
            return f"square({self(base)})", ATOM
        if exponent == 3:
            return f"cube({self(base)})", ATOM
        if exponent == sp.Rational(1, 2) or exponent.could_extract_minus_sign():
            return super().power(base, exponent)
        return f"pow({self(base)}, real({float(exponent)!r}))", ATOM


# ---------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Argument:
    """A parameter of a kernel, and what the host passes for it."""

    declaration: str
    comment: str
    host: str


@dataclass(frozen=True)
class CudaKernel:
    """The text of a pointwise kernel, ready for the template."""

    name: str
    comment: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    width: str
    index: tuple[str, ...]
    reads: tuple[str, ...]
    computes: tuple[str, ...]
    writes: tuple[str, ...]


def mentions(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


class Emitter(Host):
    """Kernels and launches of one level of a schedule."""

    def __init__(
        self,
        module: Module,
        names: Scope,
        pair: Pair,
        schedule: Schedule,
        where: str,
        prefix: str,
        kernels: list[CudaKernel],
    ) -> None:
        super().__init__(module, names, pair, schedule, where, "cp")
        self.prefix, self.kernels = prefix, kernels
        self.time = "0" if where == ONCE else "t"

    def part(self, source: str, wish: str) -> str:
        return source

    def at_step(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        inner = "" if whole else f", :, {self.span(view.start, view.stop, buffer.width)}"
        if buffer.kind == "input" and not self.pair.forward.graph.states:  # of trained starts: (B, width)
            return f"{base}[{inner[2:]}]" if inner else base
        at = self.time if not view.shift else "1" if self.where == ONCE else f"{self.time} + 1"
        return f"{base}[{at}{inner}]"

    # ------------------------------------------------------------------------------------------ kernels

    def address(self, slot: Slot, feature: str) -> str:
        """The index of feature `feature` of a slot, within its buffer."""
        buffer = self.buffer(slot.buffer)
        offset = "" if slot.start == 0 else f"{self.size(slot.start)} + "
        if buffer is None or buffer.kind == "static":
            return f"{offset}{feature}".removesuffix(" + 0")
        row = "b" if buffer.kind in ("row", "carry") else "(at + B)" if slot.shift else "at"
        width = self.size(buffer.width)
        if width == "1":
            return row
        return f"{row} * {width if ' ' not in width else f'({width})'} + {offset}{feature}"

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    def field_name(self, name: str) -> str:
        return self.names.known.get(("field", name)) or self.names.of(("given", name), name)

    def scalar(self, value: Value) -> bool:
        """Whether a value is a number that the host passes by value."""
        mask = self.schedule.graph.mask
        return mask is not None and value in (mask.count, mask.training)

    def words(self) -> set[str]:
        """The names that no buffer and no value of a kernel can have."""
        return {*CUDA_WORDS, *lang.RESERVED, *self.names.sizes.values()}

    def gather(
        self, reads: Sequence[Value], writes: Sequence[Value], taken: set[str]
    ) -> tuple[tuple[Argument, ...], dict[str, str]]:
        """The kernel's parameters for these values, and the C name of each buffer."""
        made: dict[str, Argument] = {}
        names: dict[str, str] = {}
        out = {self.schedule.slot[v].buffer for v in writes}
        for value in (*reads, *writes):
            if self.scalar(value):
                word = self.names.known["given", value.name]
                made[value.name] = Argument(f"const real {value.name}", "", f"number({word}, dtype)")
                continue
            name = self.schedule.slot[value].buffer
            if name in names:
                continue
            buffer = self.buffer(name)
            host = self.names.known[name] if buffer else self.field_name(name)
            names[name] = unique(host, taken)
            qualifier = "" if name in out else "const "
            made[name] = Argument(
                f"{qualifier}storage* __restrict__ {names[name]}", self.shape(name, buffer), host
            )
        return tuple(made.values()), names

    def shape(self, name: str, buffer: Buffer | None) -> str:
        if buffer is not None:
            return f"{self.module.shape(buffer)}  {', '.join(buffer.members)}".rstrip()
        field = self.module.fields.get(name.removeprefix(GRADIENT))
        if field is None:
            return ""
        return f"{self.size(field.height) if field.rows else 1}  {stack_of(field)}"

    def kernel(self, kernel: Kernel) -> None:
        slot = self.schedule.slot
        made = {op.out for op in kernel.ops}
        reads = list(dict.fromkeys(v for op in kernel.ops for v in op.reads if v not in made))
        last: dict[Slot, Value] = {}
        for op in kernel.ops:
            if op.out in slot:
                last[slot[op.out]] = op.out
        stores = [v for v in last.values() if self.outlives(v, kernel)]
        taken = self.words()
        arguments, buffers = self.gather(reads, stores, taken)
        ordered = [*reads, *(op.out for op in kernel.ops)]
        rename = {v.name: unique(v.name, taken) for v in ordered if not self.scalar(v)}
        printer = CudaPrinter({op.out.name: k for k, op in enumerate(kernel.ops)}, rename, self.names.sizes)
        loads = tuple(
            f"const real {rename[v.name]} = {self.entry(v, buffers)};" for v in reads if not self.scalar(v)
        )
        inside, computed = arguments_of_functions(kernel.ops, stores), []
        for op in kernel.ops:
            text = printer(op.expr)
            if op.out in inside:
                rename[op.out.name] = text
            else:
                value = f"real({text})" if op.expr.is_number else text
                computed += lines_of(f"const real {rename[op.out.name]} = {value};")
        computes = tuple(computed)
        writes = tuple(f"{self.entry(v, buffers)} = {rename[v.name]};" for v in stores)
        width = self.size(length(kernel.size)) if kernel.ops[0].out.shape != () else "1"
        text = "\n".join([*loads, *computes, *writes])
        index = pointwise_index(width, text, kernel.static, self.where == ALL)
        words = ["B", "t"] if mentions("\n".join(index), "t") else ["B"] if mentions(text, "B") else []
        text = "\n".join([text, *index])
        letters = [letter for letter in self.names.sizes.values() if mentions(text, letter)]
        numbers = ("rows", *words, *letters)
        head = ", ".join(f"const int {word}" for word in numbers)
        declared = ((head, ""), *((a.declaration, a.comment) for a in arguments))
        name = f"{self.module.cell.name}_{self.prefix}_{len(self.kernels) + 1}"
        comment = self.comment(*(op.out for op in kernel.ops))
        above = (
            [f"Computes {listed([v.name for v in stores])}."] if self.schedule.graph.backwards else comment
        )
        made_here = CudaKernel(
            name, tuple(folded(above, 104)), declared, width, index, loads, computes, writes
        )
        rows = "1" if kernel.static else ("T * B" if self.where == ALL else "B")
        passed = [{"t": self.time}.get(word, word) for word in (*words, *letters)]
        self.launch(made_here, comment, rows, passed, [a.host for a in arguments])

    def entry(self, value: Value, buffers: dict[str, str]) -> str:
        """Where a value lies in memory."""
        feature = "0" if value.size == 1 else "k"
        index = self.address(self.schedule.slot[value], feature)
        return f"{buffers[self.schedule.slot[value].buffer]}[{index.removesuffix(' + 0')}]"

    def outlives(self, value: Value, kernel: Kernel) -> bool:
        """Whether anything outside the kernel reads a value."""
        graph = self.schedule.graph
        ends = {*graph.nexts, *graph.results, *self.pair.tape}
        buffer = self.buffer(self.schedule.slot[value].buffer)
        if value in ends or (buffer is not None and buffer.kind == "carry"):
            return True
        return any(value in stage_reads(stage) for stage in self.schedule.stages if stage is not kernel)

    def launch(
        self,
        kernel: CudaKernel,
        comment: Sequence[str],
        rows: str,
        words: Sequence[str],
        arrays: Sequence[str],
    ) -> None:
        """Note the kernel, and the line that launches it."""
        self.kernels.append(kernel)
        passed = ", ".join([rows, kernel.width, *words])
        line = call("launch(", [f'"{kernel.name}"', "dtype", f"({passed})", *arrays])
        self.say(comment, line)

    def row_sum(self, stage: Sum) -> None:
        operand, out = self.value(*stage.operand), self.value(stage.out)
        if stage.add:
            self.say(self.comment(stage.out), f"{out}[...] += cp.sum({operand}, axis=-1, keepdims=True)")
        else:
            self.module.helpers.add("row_sum")
            self.say(self.comment(stage.out), f"row_sum({operand}, {out})")

    def column_sum(self, stage: ColumnSum) -> None:
        self.module.helpers.add("column_sum")
        line = f"column_sum({self.value(*stage.operand)}, {self.value(*stage.out)})"
        self.say(SUMS if self.where == ALL else (), *self.cleared(stage.operand), line)


def arguments_of_functions(ops: Sequence[Pointwise], stored: Sequence[Value]) -> set[Value]:
    """The values that are nothing but the argument of one function, and so need no line of their own."""
    read = Counter(node for op in ops for node in sp.preorder_traversal(op.expr) if isinstance(node, Value))
    calls = [call for op in ops for call in op.expr.atoms(sp.Function) if not isinstance(call, lang.where)]
    arguments = {value for call in calls for value in call.args if isinstance(value, Value)}
    return {v for v in arguments if read[v] == 1 and v not in stored} & {op.out for op in ops}


def lines_of(statement: str) -> list[str]:
    """A statement; a long one goes on in the next lines."""
    return textwrap.wrap(statement, WIDTH - 8, subsequent_indent="    ", break_long_words=False)


def unique(wish: str, taken: set[str]) -> str:
    """`wish`, or `wish_` where that is taken; taken from now on."""
    name = wish if wish not in taken else fresh(f"{wish}_", taken)
    taken.add(name)
    return name


def pointwise_index(width: str, text: str, static: bool, wide: bool) -> tuple[str, ...]:
    """Which unit of which sequence a thread works for.

    `at` is its row in an array of all steps: of all rows in a wide kernel, else of those of step t.
    """
    kind, cast = ("long long", "(long long)") if wide else ("int", "")
    factor = width if " " not in width else f"({width})"
    lines = [f"const {kind} i = {cast}blockIdx.x * blockDim.x + threadIdx.x;"]
    if static:
        lines.append(f"if (i >= {width}) return;")
        return (*lines, "const int k = i;") if mentions(text, "k") else tuple(lines)
    rest = "" if width == "1" else f" * {factor}"
    lines.append(f"if (i >= {cast}rows{rest}) return;")
    feature = [f"k = i{'' if width == '1' else f' % {factor}'}"] if mentions(text, "k") else []
    row = f"i{'' if width == '1' else f' / {factor}'}"
    if wide:
        lines += [f"const int {feature[0]};"] if feature else []
        lines += [f"const long long {at} = {row};" for at in ("at", "b") if mentions(text, at)]
        return tuple(lines)
    if mentions(text, "b") or mentions(text, "at"):
        feature.append(f"b = {row}")
    if feature:
        lines.append(f"const int {', '.join(feature)};")
    if mentions(text, "at"):
        lines.append("const long long at = (long long)t * B + b;")
    return tuple(lines)


def stage_reads(stage: Stage) -> set[Value]:
    match stage:
        case Kernel(ops):
            return {v for op in ops for v in op.reads}
        case MatMul(_, operand, _, _, _):
            return set(operand)
        case OuterSum(_, left, right, _):
            return {*left, *right}
        case Sum(_, operand) | ColumnSum(_, operand):
            return set(operand)


# ---------------------------------------------------------------------------------------------- context


class CupyModule(Module):
    """The names of a CuPy module."""

    xp = "cp"

    def shape_of(self, name: str) -> str:
        return f"{name}.shape"  # an array on the device, or an error of its own

    def broadcast(self, name: str, shape: str) -> str:
        return f"cp.ascontiguousarray(cp.broadcast_to({name}, {shape}))"


def context(plan: Plan) -> dict[str, Any]:
    """Everything the templates print, as strings and tuples."""
    module = CupyModule(plan)
    step = plan.step
    made: dict[str, Any] = {
        **heading(module),
        **signature(module),
        "forward": function_context(module, step, step.forward, "forward"),
        "backward": function_context(module, step, step.backward, "backward"),
        "first": once_context(module, plan.first, "first") if plan.first else None,
        "start": once_context(module, plan.start, "start") if plan.start else None,
        "quick": None,
    }
    made |= passing(module, made)
    parts = [made["forward"], made["backward"]]
    for rule in (made["first"], made["start"]):
        parts += [rule["forward"], rule["backward"]] if rule else []
    kernels = [kernel for part in parts for kernel in part["kernels"]]
    return {
        **made,
        "target": "CuPy",
        "numpy": False,
        "cupy": True,
        "xp": "cp",
        "as_array": "cp.ascontiguousarray",
        "dtypes": "float32, float64, float16 or bfloat16",
        "parameters": '(cp.asarray(array, order="C") for array in params)',
        "finished_now": "finished[t]",
        "seen": "float(valid.astype(np.float64).sum())",
        "real_dtype": "dtype",
        "tiles": False,
        "kernels": kernels,
        "functions": used_functions(kernels),
        "sums": {"row_sum": "row_sum" in module.helpers, "column_sum": "column_sum" in module.helpers},
    }


def used_functions(kernels: Sequence[CudaKernel]) -> tuple[str, ...]:
    """The device functions that the kernels call."""
    lines = (line for kernel in kernels for line in kernel.computes)
    return helpers((name for line in lines for name in called(line)), (row.cuda for row in TABLE))


def function_context(module: Module, pair: Pair, schedule: Schedule, name: str) -> dict[str, Any]:
    """The lines of one direction, and the kernels they launch."""
    names, graph = module.names.inner(), schedule.graph
    kernels: list[CudaKernel] = []
    before, loop, after = (
        Emitter(module, names, pair, schedule, where, name, kernels) for where in (ALL, LOOP, ALL)
    )
    before.run(schedule.before)
    loop.run(schedule.loop)
    after.run(schedule.after)
    states = [] if graph.backwards else [module.names.known[c.name] for c in graph.states]
    forward = "for t in range(start, T):" if module.plan.first else "for t in range(T):"
    made = {
        "before": before.text,
        "ahead": "",
        "chunked": False,
        "loop": loop.text,
        "after": after.text,
        "prepare": (),
        "prepare_ahead": (),
        "prepare_loop": tuple(f"{wish} = {source}" for source, wish in loop.weights.items()),
        "prepare_after": (),
        "ends": bool(after.text),
        "head": "for t in reversed(range(T)):" if graph.backwards else forward,
        "kept": tuple({"next": f"{h}[t + 1]", "current": f"{h}[t]"} for h in states),
        "memory": own_memory(module, schedule),
        "outputs": tuple((n, after.value(v)) for n, v in graph.outputs),
        "updates": tuple({"name": s.value.name, "value": before.value(s.update)} for s in graph.statistics),
        "kernels": tuple(kernels),
    }
    return with_fields(module, made)


def once(module: Module, pair: Pair, schedule: Schedule, name: str) -> dict[str, Any]:
    """The lines of one direction of a rule for one step, over the arrays of all steps at t = 0."""
    kernels: list[CudaKernel] = []
    lines = Emitter(module, module.names.inner(), pair, schedule, ONCE, name, kernels)
    lines.run(schedule.stages)
    memory = (
        {**item, "shape": item["shape"].replace("(T, B", "(1, B")} for item in own_memory(module, schedule)
    )
    made = {
        "text": lines.text,
        "lines": tuple(f"{wish} = {source}" for source, wish in lines.weights.items()),
        "outputs": tuple((n, lines.value(v)) for n, v in schedule.graph.outputs),
        "memory": tuple(memory),
        "kernels": tuple(kernels),
    }
    return with_fields(module, made)


def once_context(module: Module, pair: Pair, name: str) -> dict[str, Any]:
    """A rule for one step as two functions."""
    forward = once(module, pair, pair.forward, f"{name}_forward")
    backward = once(module, pair, pair.backward, f"{name}_backward")
    rule = rule_of(module, pair)
    if not rule.states:  # computes its forward values anew
        backward = with_fields(module, backward, forward["text"], *forward["lines"])
    states = [module.names.known[s.name] for s in module.cell.states]
    results = [source for _, source in forward["outputs"]]
    parameters = ", ".join(["params", *rule.inputs, *states, "dtype"])
    returned = [*results, *(rule.held if rule.states else ())]
    return {
        **rule_context(module, rule, backward),
        "forward": forward,
        "backward": backward,
        "forward_work": empties(forward["memory"], "cp"),
        "backward_work": empties(backward["memory"], "cp"),
        "measured": "B = x.shape[1]",
        "measured_back": f"B, dtype = x.shape[1], {states[0]}.dtype",
        "forward_parameters": parameters,
        "forward_arguments": parameters,
        "results": "".join(f"{name}, " for name in rule.outputs),
        "returned": returned_together(returned),
        "backward_parameters": ", ".join(
            ["params", *rule.inputs, *states, *rule.seeds, *rule.carries, "finished", *rule.held]
        ),
        "kept": ", ".join([*rule.inputs, *states, *rule.later_seeds]),
        "backward_arguments": f"params, *kept_first, {', '.join(rule.carried)}, finished_first, *first_tape",
    }
