"""NumPy: whole arrays at a time, written into memory that is there already.

`files` lowers a plan to the lines of a module. Each stage becomes `np.matmul(..., out=...)` or a run of ufunc
calls that write in place; views are made at the top of a step by `zip`, scratch is made once before the loop.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from gategen.backends.instructions import (
    Assembler,
    Instruction,
    Operand,
    Test,
    Text,
    View,
    fit,
    merge,
    slot_view,
)
from gategen.backends.module import (
    HELPERS,
    Module,
    Scope,
    heading,
    passing,
    rule_context,
    rule_of,
    signature,
)
from gategen.graph import Pointwise, Value, length
from gategen.plan import (
    GRADIENT,
    Buffer,
    ColumnSum,
    Field,
    Kernel,
    MatMul,
    OuterSum,
    Pair,
    Plan,
    Schedule,
    Slot,
    Stage,
    Sum,
    Weight,
    gradient_of,
    offset_rank,
)
from gategen.render import render

# How each operation is called. A name without a dot is a helper that the module brings along where it needs
# it. np.negative is not among them: NumPy 2.4 gets it wrong in place on a column of a few strides.
CALLS = {
    "add": "np.add",
    "subtract": "np.subtract",
    "multiply": "np.multiply",
    "divide": "np.divide",
    "power": "np.power",
    "tanh": "np.tanh",
    "exp": "np.exp",
    "log": "np.log",
    "log1p": "np.log1p",
    "expm1": "np.expm1",
    "sqrt": "np.sqrt",
    "sin": "np.sin",
    "cos": "np.cos",
    "maximum": "np.maximum",
    "minimum": "np.minimum",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "abs": "absolute",
    "sign": "sign",
    "erf": "erf",
    "mod": "modulo",
    "stop_gradient": "detach",
}
IN_PLACE = {"add": "+=", "subtract": "-=", "multiply": "*=", "divide": "/="}


def files(plan: Plan) -> dict[str, str]:
    """The module of a cell, by file name."""
    return {f"{plan.cell.name}_numpy.py": render("numpy/module.py.jinja", context(plan))}


# ---------------------------------------------------------------------------------------------- regions


@dataclass
class Block:
    """Lines under one comment."""

    comment: tuple[str, ...]
    lines: list[str] = field(default_factory=list)


ALL, LOOP, ONCE = "all", "loop", "once"


class Region:
    """The lines of one level of a schedule.

    where   arrays           used for
    ALL     (T, B, width)    before and after the loop
    LOOP    (B, width)       inside the loop, from views of step t
    ONCE    (B, width)       a rule that runs for a single step (`first`, `start`)
    """

    def __init__(
        self, module: Module, names: Scope, schedule: Schedule, where: str, stages: Sequence[Stage]
    ) -> None:
        self.module = module
        self.names = names
        self.schedule = schedule
        self.where = where
        self.views: dict[str, str] = {}
        self.zipped: dict[str, str] = {}
        self.scratch: dict[str, sp.Expr] = {}
        self.weights: dict[str, str] = {}
        self.blocks: list[Block] = []
        self.zeroed: set[Value] = set()  # behind the lengths
        self.stages = stages
        for stage in stages:
            self.stage(stage)

    # ------------------------------------------------------------------------------------------ places

    def buffer(self, name: str) -> Buffer | None:
        return self.module.buffers_of[id(self.schedule)].get(name)

    def view(self, view: View) -> str:
        """The name under which a stretch of memory is known here."""
        if isinstance(view.buffer, int):
            return self.scratch_view(view)
        buffer = self.buffer(view.buffer)
        if buffer is None:
            return self.field_view(view)
        whole = self.names.size(buffer.width) == self.names.size(view.stop - view.start)
        stepped = buffer.kind in ("input", "state", "time")
        base = self.names.known[buffer.name]
        if self.where == ONCE and stepped:
            return self.once_view(buffer, view, base, whole)
        if not stepped:
            return (
                base
                if whole
                else self.made(f"{base}{self.columns(view, buffer.kind)}", self.view_name(view, buffer))
            )
        if self.where == ALL:
            time = {("state", 0): "[:-1]", ("state", 1): "[1:]"}.get((buffer.kind, view.shift), "")
            if whole:
                return base + time
            inner = self.columns(view, "static")[1:-1]
            return self.made(f"{base}{time}[..., {inner}]", f"{self.view_name(view, buffer)}_all")
        return self.loop_view(buffer, view, base, whole)

    def loop_view(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        late = self.module.plan.first and not self.schedule.graph.backwards
        low, after = ("start", "start + 1") if late else ("", "1")
        time = {("state", 0): f"{low}:-1", ("state", 1): f"{after} :" if low else f"{after}:"}.get(
            (buffer.kind, view.shift), f"{low}:" if low else ""
        )
        if whole:
            source = f"{base}[{time}]" if time else base
            wish = f"{base}_next" if view.shift else f"{base}_t"
        else:
            source = f"{base}[{time + ', :' if time else '...'}, {self.columns(view, 'static')[1:-1]}]"
            wish = self.view_name(view, buffer)
        if source not in self.zipped:
            self.zipped[source] = self.names.of(("loop", source), wish)
        return self.zipped[source]

    def once_view(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        if buffer.kind == "state":
            base = self.names.of(
                ("once", buffer.name, view.shift), f"{base}_next" if view.shift else f"{base}_t"
            )
        if whole:
            return base
        return self.made(f"{base}[:, {self.columns(view, 'static')[1:-1]}]", self.view_name(view, buffer))

    def field_view(self, view: View) -> str:
        """Part of a parameter, or of its gradient."""
        assert isinstance(view.buffer, str)
        found = self.module.fields.get(view.buffer.removeprefix(GRADIENT))
        prefix = "d_" if view.buffer.startswith(GRADIENT) else ""
        base = self.names.known.get(("field", view.buffer)) or self.names.of(
            ("given", view.buffer), view.buffer
        )
        if found is not None and not found.rows and prefix:  # a scalar's gradient is computed as one entry
            return self.made(f"{base}.reshape(1)", base)
        if found is None or not found.rows or self.same(view.stop - view.start, found.height):
            return base
        return self.made(
            f"{base}[{self.range(view, found.height)}]", prefix + self.short(self.members(view, found))
        )

    def members(self, view: View, found: Field) -> list[str]:
        at = sp.S.Zero
        inside = []
        for member, rows in zip(found.members, found.rows, strict=True):
            if offset_rank(view.start) <= offset_rank(at) < offset_rank(view.stop):
                inside.append(member)
            at += length(rows)
        return inside

    def same(self, a: sp.Expr, b: sp.Expr) -> bool:
        return self.names.size(a) == self.names.size(b)

    def made(self, source: str, wish: str) -> str:
        """A view that is made once, ahead of the lines that use it."""
        if source not in self.views:
            self.views[source] = self.names.of((self.where, source), wish)
        return self.views[source]

    def range(self, view: View, width: sp.Expr | None = None) -> str:
        start = "" if view.start == 0 else self.names.size(view.start)
        stop = "" if width is not None and self.same(view.stop, width) else self.names.size(view.stop)
        return f"{start}{' : ' if ' ' in start + stop else ':'}{stop}".strip()

    def columns(self, view: View, kind: str) -> str:
        buffer = self.buffer(view.buffer) if isinstance(view.buffer, str) else None
        inner = self.range(view, buffer.width if buffer else None)
        return f"[{inner}]" if kind == "static" else f"[:, {inner}]"

    def view_name(self, view: View, buffer: Buffer) -> str:
        return self.short(
            [
                m
                for m, at in zip(buffer.members, buffer.starts, strict=True)
                if offset_rank(view.start) <= offset_rank(at) < offset_rank(view.stop)
            ]
        )

    @staticmethod
    def short(members: Sequence[str]) -> str:
        """`zr` for z and r, `d_zr` for d_a_z and d_a_r."""
        prefix = "d_" if all(m.startswith("d_") for m in members) else ""
        stems = [m.removeprefix("d_").removeprefix("a_") if prefix else m for m in members]
        shared = {s.split("_")[0] for s in stems}
        if len(stems) > 1 and len(shared) == 1 and all("_" in s for s in stems):
            return prefix + shared.pop() + "_" + "".join(s.split("_", 1)[1].split("_")[0] for s in stems)
        if len(stems) == 1:
            return prefix + stems[0]
        return prefix + ("".join(stems) if all(len(s) <= 2 for s in stems) else "_".join(stems))

    def scratch_view(self, view: View) -> str:
        number = -1 - int(view.buffer)
        if self.names.size(self.widths[number]) == self.names.size(view.stop - view.start):
            return self.scratch_name(number)
        base = self.scratch_name(number)
        dots = "..." if self.where == ALL else ":"
        return self.made(f"{base}[{dots}, {self.range(view, self.widths[number])}]", f"{base}_part")

    def scratch_name(self, number: int) -> str:
        width = self.names.size(self.widths[number])
        level = "static" if self.static else self.where
        nth = sum(1 for w in self.widths[:number] if self.names.size(w) == width)
        name = self.names.of(("scratch", level, width, nth), "s")
        self.scratch[name] = self.widths[number] if not self.static else -self.widths[number]
        return name

    # ------------------------------------------------------------------------------------------ stages

    static = False
    widths: list[sp.Expr] = []  # noqa: RUF012

    def block(self, comment: Sequence[str]) -> Block:
        if not self.blocks or (comment and self.blocks[-1].comment != tuple(comment)):
            self.blocks.append(Block(tuple(comment)))
        return self.blocks[-1]

    def stage(self, stage: Stage) -> None:
        match stage:
            case Kernel():
                self.kernel(stage)
            case MatMul():
                self.matmul(stage)
            case Sum(out, operand):
                source, target = self.value(operand), self.value(out)
                self.block(self.module.comment(self.schedule, [out.name])).lines.append(
                    f"np.sum({source}, axis=-1, keepdims=True, out={target})"
                )
            case OuterSum():
                self.outer_sum(stage)
            case ColumnSum(out, operand):
                self.column_sum(out, operand)

    def value(self, *values: Value) -> str:
        """Neighbouring values as one view."""
        slots = [self.schedule.slot[v] for v in values]
        return self.view(joined(slots))

    def kernel(self, kernel: Kernel) -> None:
        slots = self.schedule.slot
        assembler = Assembler(
            lambda v: slot_view(slots[v]) if v in slots else None, lambda e: self.module.number(e)
        )
        for op in kernel.ops:
            assembler.op(interpolated(op))
        instructions, self.widths = fit(merge(assembler.made))
        self.static = kernel.static
        for one in instructions:
            lines = self.instruction(one)
            self.block(self.module.comment(self.schedule, one.ops)).lines.extend(lines)
        self.static = False

    def instruction(self, one: Instruction) -> list[str]:
        out = self.view(one.out)
        if one.name == "where":
            test, a, b = one.args
            return [f"choose({self.test(test)}, {self.operand(a)}, {self.operand(b)}, out={out})"]
        args = [self.operand(arg) for arg in one.args]
        if one.name == "copy":
            return [f"{out}[...] = {args[0]}"]
        if one.name == "relu":
            return [f"np.maximum({args[0]}, 0, out={out})"]
        if one.name == "step":
            return [f"np.greater({args[0]}, 0, out={out})"]
        if one.name == "divide" and args[0] == "1":
            return [f"np.reciprocal({args[1]}, out={out})"]
        if one.name in IN_PLACE and args[0] == out:
            return [f"{out} {IN_PLACE[one.name]} {args[1]}"]
        if one.name in ("add", "multiply") and args[1] == out:
            return [f"{out} {IN_PLACE[one.name]} {args[0]}"]
        call = CALLS[one.name]
        self.module.helpers.update({call} & set(HELPERS))
        return [f"{call}({', '.join(args)}, out={out})"]

    def operand(self, arg: Operand) -> str:
        if isinstance(arg, View):
            return self.view(arg)
        assert isinstance(arg, Text)
        return arg.text

    def test(self, test: Operand) -> str:
        assert isinstance(test, Test)
        self.module.helpers.add("choose")
        left, right = (
            f"np.real({self.view(side)})" if isinstance(side, View) else side.text
            for side in (test.left, test.right)
        )
        return f"{left} {test.sign} {right}"

    # ------------------------------------------------------------------------------------------ products

    def rows(self, text: str, width: sp.Expr) -> str:
        """All steps as rows of one matrix."""
        return f"{text}.reshape(T * B, {self.names.size(width)})" if self.where == ALL else text

    def width(self, values: Sequence[Value]) -> sp.Expr:
        slot = joined([self.schedule.slot[v] for v in values])
        return slot.stop - slot.start

    def weight(self, weight: Weight, transposed: bool) -> str:
        found = self.module.fields[weight.field]
        base = self.names.known["field", weight.field]
        rows = (
            ""
            if self.same(weight.stop - weight.start, found.height)
            else self.range(View("", weight.start, weight.stop), found.height)
        )
        columns = "" if weight.columns is None else self.range(View("", *weight.columns), found.width)
        part = base
        if columns:
            part = f"{base}[{rows or ':'}, {columns}]"
        elif rows:
            part = f"{base}[{rows}]"
        if self.where == ALL:
            return part if transposed else f"{part}.T"
        wish = f"{base}{'' if not rows else '_' + self.short_members(weight)}"
        if transposed:
            return base if part == base else self.hoisted(part, wish)
        return self.hoisted(f"np.ascontiguousarray({part}.T)", f"{wish}_T")

    def short_members(self, weight: Weight) -> str:
        return self.short([m.split("_", 1)[-1] for m in weight.members])

    def hoisted(self, source: str, wish: str) -> str:
        if source not in self.weights:
            self.weights[source] = self.names.of((self.where, source), wish)
        return self.weights[source]

    def matmul(self, stage: MatMul) -> None:
        operand = self.rows(self.value(*stage.operand), self.width(stage.operand))
        out = self.rows(self.value(*stage.out), self.width(stage.out))
        weight = self.weight(stage.weight, stage.transposed)
        block = self.block(self.module.comment(self.schedule, [v.name for v in stage.out]))
        if stage.add:
            block.lines.append(
                f"{self.value(*stage.out)} += ({operand} @ {weight}).reshape({self.value(*stage.out)}.shape)"
            )
        else:
            block.lines.append(f"np.matmul({operand}, {weight}, out={out})")

    def outer_sum(self, stage: OuterSum) -> None:
        left = self.rows(self.value(*stage.left), self.width(stage.left))
        right = self.rows(self.value(*stage.right), self.width(stage.right))
        found = self.module.fields[stage.weight.field]
        target = self.names.known["field", gradient_of(stage.weight.field)]
        weight = stage.weight
        rows = (
            ""
            if self.same(weight.stop - weight.start, found.height)
            else self.range(View("", weight.start, weight.stop), found.height)
        )
        columns = "" if weight.columns is None else self.range(View("", *weight.columns), found.width)
        part = f"{target}[{rows or ':'}, {columns}]" if columns else f"{target}[{rows}]" if rows else target
        block = self.block(
            ("The gradients of the parameters: all steps in one product each.",) if self.where == ALL else ()
        )
        self.clear(block, stage.left)
        self.clear(block, stage.right)
        if stage.add:
            block.lines.append(f"{part} += {left}.T @ {right}")
        else:
            block.lines.append(f"np.matmul({left}.T, {right}, out={part})")

    def column_sum(self, out: Sequence[Value], operand: Sequence[Value]) -> None:
        source = self.rows(self.value(*operand), self.width(operand))
        target = self.value(*out)
        block = self.block(self.module.comment(self.schedule, [v.name for v in out]))
        self.clear(block, operand)
        if out[0].shape == ():
            block.lines.append(f"{target}[...] = np.sum({source})")
        else:
            block.lines.append(f"np.matmul(ones, {source}, out={target})")

    def clear(self, block: Block, operand: Sequence[Value]) -> None:
        """Zeros behind the lengths, where they do not come of themselves."""
        needed = self.module.clears(self.schedule, self.schedule.slot[operand[0]])
        if needed and not self.zeroed.issuperset(operand):
            self.zeroed.update(operand)
            block.lines.append(f"clear(finished, {self.value(*operand)})")


def joined(slots: Sequence[Slot]) -> View:
    first = slot_view(slots[0])
    return View(first.buffer, first.start, slots[-1].stop, first.shift, first.single)


def interpolated(op: Pointwise) -> Pointwise:
    """`(1 - z)*h + z*n` as `h + z*(n - h)`: one product less."""
    terms = sp.Add.make_args(op.expr)
    if len(terms) != 2:
        return op
    for one, other in (terms, terms[::-1]):
        for weight in sp.Mul.make_args(other):
            if isinstance(weight, Value) and 1 - weight in sp.Mul.make_args(one):
                a, b = one / (1 - weight), other / weight
                if isinstance(a, Value) and isinstance(b, Value):
                    return Pointwise(op.out, sp.Add(a, sp.Mul(weight, b - a, evaluate=False), evaluate=False))
    return op


# ---------------------------------------------------------------------------------------------- context


def context(plan: Plan) -> dict[str, Any]:
    """Everything the templates print, as strings and tuples."""
    module = Module(plan)
    step = plan.step
    made = {
        **heading(module),
        **signature(module),
        "forward": function_context(module, step.forward, LOOP),
        "backward": function_context(module, step.backward, LOOP),
        "first": once_context(module, plan.first) if plan.first else None,
        "start": once_context(module, plan.start) if plan.start else None,
    }
    made |= passing(module, made)
    made |= {"target": "NumPy", "xp": "np", "as_array": "np.asarray", "dtypes": "float32 or float64"}
    made["finished_steps"] = "each(finished, T)" + ("[start:]" if plan.first else "")
    return {**made, "helpers": {name: name in module.helpers for name in HELPERS}}


def once_context(module: Module, pair: Pair) -> dict[str, Any]:
    """A rule for one step as two functions of (B, size) arrays."""
    rule, names = rule_of(module, pair), module.names.known
    now = [module.names.of(("once", s, 0), f"{names[s]}_t") for s in rule.states]
    nexts = [module.names.of(("once", s, 1), f"{names[s]}_next") for s in rule.states]
    arrays = [names[s] for s in rule.states]
    forward = function_context(module, pair.forward, ONCE)
    backward = function_context(module, pair.backward, ONCE)
    results = [source for _, source in forward["outputs"]]
    steps = [name for both in zip(now, nexts, strict=True) for name in both]
    whole = [f"{name}[0]" for name in rule.inputs], [f"{name}[0]" for name in rule.later_seeds]
    return {
        **rule_context(module, rule, backward),
        "forward": one_text(forward),
        "backward": one_text(backward),
        "forward_work": (
            *(item for item in forward["memory"]),
            *({"name": n, "shape": f"{h}.shape"} for n, h in zip(nexts, now, strict=True)),
        ),
        "backward_work": backward["memory"],
        "some_state": now[0] if now else "",
        "results": ", ".join([*(f"{array}[1]" for array in arrays), *rule.outputs]),
        "forward_parameters": ", ".join(["params", *rule.inputs, *now]),
        "forward_arguments": ", ".join(["params", *whole[0], *(f"{a}[0]" for a in arrays)]),
        "returned": ", ".join([*nexts, *results, *(rule.held if rule.states else ())]),
        "backward_parameters": ", ".join(
            ["params", *rule.inputs, *steps, *rule.seeds, *rule.carries, "finished", *rule.held]
        ),
        "kept": ", ".join([*whole[0], *(name for a in arrays for name in (f"{a}[0]", f"{a}[1]")), *whole[1]]),
        "backward_arguments": f"params, *kept_first, {', '.join(rule.carried)}, finished_first, *first_tape",
    }


def one_text(function: dict[str, Any]) -> dict[str, Any]:
    parts = [function[k] for k in ("before", "loop", "after") if function[k]]
    lines = [*function["prepare"], *function["prepare_loop"], *function["prepare_after"]]
    return {"text": "\n\n".join(parts), "lines": tuple(lines)}


def function_context(module: Module, schedule: Schedule, where: str) -> dict[str, Any]:
    """The lines of one direction."""
    names = module.names.inner()
    level = ALL if where == LOOP else where
    before = Region(module, names, schedule, level, schedule.before)
    graph = schedule.graph
    updates = () if graph.backwards else tuple({"name": n, "value": before.value(v)} for n, v in graph.sums)
    loop = Region(module, names, schedule, where, schedule.loop)
    kept: tuple[dict[str, str], ...] = ()
    if where == LOOP and not graph.backwards:
        kept = tuple({"next": loop.value(c.next), "current": loop.value(c.current)} for c in graph.states)
    after = Region(module, names, schedule, level, schedule.after)
    outputs = tuple((name, after.value(value)) for name, value in graph.outputs)
    return {
        "before": text_of(before.blocks),
        "loop": text_of(loop.blocks),
        "after": text_of(after.blocks),
        "prepare": prepared(before),
        "prepare_loop": prepared(loop),
        "prepare_after": prepared(after),
        "ends": bool(after.blocks or prepared(after)),
        "loop_names": loop_names([*loop.zipped.values(), "finished_t"]) if loop.zipped else "(finished_t,)",
        "loop_sources": tuple(loop.zipped),
        "kept": kept,
        "memory": own_memory(module, schedule, where),
        "outputs": outputs,
        "updates": updates,
        "ones_before": columns_summed(schedule.before),
        "ones_after": columns_summed(schedule.after) and not columns_summed(schedule.before),
    }


def loop_names(names: Sequence[str]) -> str:
    """What a loop gives names to; in brackets where that is more than a line."""
    line = ", ".join(names)
    if len(line) <= 96:
        return line
    lines = textwrap.wrap(line + ",", 100, break_long_words=False)
    return "\n".join(["(", *(f"        {part}" for part in lines), "    )"])


def columns_summed(stages: Sequence[Stage]) -> bool:
    """Whether a product with ones sums over all steps and rows."""
    return any(isinstance(stage, ColumnSum) and stage.out[0].shape != () for stage in stages)


def own_memory(module: Module, schedule: Schedule, where: str) -> tuple[dict[str, str], ...]:
    """Names and shapes of the buffers a function makes for itself: all but inputs, states and carries."""
    return tuple(
        {"name": module.names.known[b.name], "shape": module.shape(b, where == ONCE)}
        for b in schedule.buffers
        if b.kind in ("row", "time", "static")
    )


def prepared(region: Region) -> tuple[str, ...]:
    """What must be there before the lines of a region: scratch, contiguous weights, views."""
    size, lead = region.names.size, {ALL: "T, B, ", LOOP: "B, ", ONCE: "B, "}[region.where]
    scratch = [
        f"{name} = np.empty(({lead}{size(width)}), dtype)"
        if offset_rank(width) > 0
        else f"{name} = np.empty({size(-width)}, dtype)"
        for name, width in region.scratch.items()
    ]
    weights = [f"{name} = {source}" for source, name in region.weights.items()]
    return (*weights, *scratch, *(f"{name} = {source}" for source, name in region.views.items()))


def text_of(blocks: Sequence[Block]) -> str:
    """Blocks of lines under their comments, a blank line between them."""
    return "\n\n".join("\n".join([*(f"# {line}" for line in b.comment), *b.lines]) for b in blocks if b.lines)
