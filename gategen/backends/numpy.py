"""NumPy: whole arrays at a time, written into memory that is there already.

`files` lowers a plan to the lines of a module. Each stage becomes `np.matmul(..., out=...)` or a run of ufunc
calls that write in place. Views of a step come from one `zip`; scratch is made once before the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sympy as sp

from gategen.backends.host import AHEAD, ALL, LOOP, ONCE, STEPPED, SUMS, Host
from gategen.backends.instructions import (
    Assembler,
    Instruction,
    Operand,
    Scratch,
    Test,
    Text,
    View,
    blocks,
    fit,
    merge,
)
from gategen.backends.instructions import slot_view as view_of
from gategen.backends.module import (
    WIDTH,
    Module,
    Scope,
    empties,
    heading,
    own_memory,
    passing,
    returned_together,
    rule_context,
    rule_of,
    signature,
    with_fields,
    wrapped,
)
from gategen.backends.sigmoids import beside_tanh, exact
from gategen.graph import Pointwise, Value
from gategen.plan import Buffer, ColumnSum, Kernel, MatMul, Pair, Plan, Schedule, Sum
from gategen.render import module_text
from gategen.spec.elementwise import Call, helpers
from gategen.spec.functions import TABLE

ARRAYS = True

# How each operation is called: arithmetic, and the functions of the table. np.negative is not among them:
# NumPy 2.4 gets it wrong in place on a column of a few strides.
CALLS = {
    **{name: Call(f"np.{name}") for name in ("add", "subtract", "multiply", "divide", "power")},
    **{
        name: call
        for row in TABLE
        for name, call in ((row.name, row.numpy), (f"exact_{row.name}", row.exact))
        if call
    },
}
NUMBERS = {"0": "zero", "1": "one", "2": "two", "-1": "minus_one", "0.5": "half"}
AS_TANH = "sigmoid(a) = tanh(a / 2) / 2 + 1 / 2"
IN_PLACE = {"add": "+=", "subtract": "-=", "multiply": "*=", "divide": "/="}


def files(plan: Plan) -> dict[str, str]:
    """The module of a cell, by file name."""
    return {f"{plan.cell.name}_numpy.py": module_text(context(plan))}


# ---------------------------------------------------------------------------------------------- lines


class Lines(Host):
    """The lines of one level, as ufunc calls that write in place.

    Views are named once: `prepare` holds the lines that make them, and scratch, and weights as products want
    them. In the loop views of a step come from `steps`, which the loop runs over.
    """

    def __init__(
        self,
        module: Module,
        names: Scope,
        pair: Pair,
        schedule: Schedule,
        where: str,
        known: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(module, names, pair, schedule, where, "np")
        self.views: dict[str, str] = {}
        self.steps: dict[str, str] = {}  # the name of a step's view, by what the loop runs over
        self.known = dict(known or {})  # views of a few steps that are there already
        self.tiled: dict[tuple[str, str], tuple[str, str]] = {}  # names by matrix and result
        self.numbers: dict[str, str] = {}  # names by text
        self.scratch: dict[str, str] = {}  # shape by name
        self.strict = exact(schedule.graph)
        self.widths: list[sp.Expr] = []
        self.static = False
        self.ones = False

    @property
    def prepare(self) -> tuple[str, ...]:
        """What must be there before the lines."""
        scratch = [f"{name} = np.empty({shape}, dtype)" for name, shape in self.scratch.items()]
        weights = [f"{name} = {source}" for source, name in self.weights.items()]
        ones = [f"ones = np.ones({'T * B' if self.where == ALL else 'B'}, dtype)"] if self.ones else []
        tiled = [f"{', '.join(names)} = tiles({', '.join(pair)})" for pair, names in self.tiled.items()]
        numbers = [f"{name} = np.full((), {number}, dtype)" for number, name in self.numbers.items()]
        return (*weights, *ones, *numbers, *scratch, *named_together(self.views), *tiled)

    # ------------------------------------------------------------------------------------------ places

    def place(self, view: View) -> str:
        buffer = view.buffer
        return self.scratch_part(view, buffer) if isinstance(buffer, Scratch) else super().place(view)

    def part(self, source: str, wish: str) -> str:
        if source not in self.views:
            self.views[source] = self.names.of((self.where, source), wish)
        return self.views[source]

    def field_part(self, view: View) -> str:
        text = super().field_part(view)
        found = self.module.gradient_field(str(view.buffer))
        # a scalar's gradient is computed as one entry
        return self.part(f"{text}.reshape(1)", text) if found is not None and not found.rows else text

    def at_step(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        inner = self.span(view.start, view.stop, buffer.width)
        if self.where == ONCE:
            if buffer.kind == "state":
                wish = f"{base}_next" if view.shift else f"{base}_t"
                base = self.names.of(("once", buffer.name, view.shift), wish)
            return base if whole else self.part(f"{base}[:, {inner}]", self.short(view, buffer))
        source = self.several(buffer, view, base, whole, inner)
        stem = base if whole else self.short(view, buffer)
        if self.where == AHEAD:
            return self.part(source, f"{stem}_ts")
        wish = (f"{base}_next" if view.shift else f"{base}_t") if whole else stem
        source = self.known.get(source, source)
        if source not in self.steps:
            self.steps[source] = self.names.of(("loop", source), wish)
        return self.steps[source]

    def several(self, buffer: Buffer, view: View, base: str, whole: bool, inner: str) -> str:
        """The steps that the loop runs over."""
        graph = self.schedule.graph
        if graph.backwards and self.schedule.ahead:
            base += "[1:]" if view.shift else ""
            return f"{base}[ts]" if whole else f"{base}[ts, :, {inner}]"
        late = bool(self.module.plan.first) and not graph.backwards
        low, after = ("start", "start + 1") if late else ("", "1")
        time = f"{low}:" if low else ""
        if buffer.kind == "state":
            time = (f"{after} :" if late else f"{after}:") if view.shift else f"{low}:-1"
        if whole:
            return f"{base}[{time}]" if time else base
        return f"{base}[{time + ', :' if time else '...'}, {inner}]"

    def scratch_part(self, view: View, scratch: Scratch) -> str:
        number = scratch.number
        name = self.scratch_name(number)
        if self.same(self.widths[number], view.stop - view.start):
            return name
        dots = "..." if self.where in (ALL, AHEAD) else ":"
        return self.part(
            f"{name}[{dots}, {self.span(view.start, view.stop, self.widths[number])}]", f"{name}_part"
        )

    def scratch_name(self, number: int) -> str:
        width = self.names.size(self.widths[number])
        nth = sum(1 for w in self.widths[:number] if self.names.size(w) == width)
        level = "static" if self.static else self.where
        name = self.names.of(("scratch", level, width, nth), "s_ts" if level == AHEAD else "s")
        lead = {"static": "", ALL: "T, B, ", AHEAD: "ts.stop - ts.start, B, "}.get(level, "B, ")
        self.scratch[name] = f"({lead}{width})" if lead else width
        return name

    # ------------------------------------------------------------------------------------------ stages

    def matmul(self, stage: MatMul) -> None:
        """A product; one of the loop that always goes to the same memory is done in tiles."""
        slot = self.schedule.slot[stage.out[0]]
        buffer = self.buffer(slot.buffer)
        if self.where != LOOP or stage.add or buffer is None or buffer.kind in STEPPED:
            super().matmul(stage)
            return
        part, wish = self.gathered(stage.weights)
        out = self.value(*stage.out)
        pair = (part if stage.transposed else f"{part}.T", out)
        if pair not in self.tiled:
            wish = wish if stage.transposed else f"{wish}_T"
            names = (f"{wish}_tiles", f"{out}_tiles")
            self.tiled[pair] = (
                self.names.of((LOOP, *pair, 0), names[0]),
                self.names.of((LOOP, *pair, 1), names[1]),
            )
        matrix, tiles = self.tiled[pair]
        self.module.helpers.add("tiles")
        operand = self.value(*stage.operand)
        self.say(self.comment(*stage.out), f"np.matmul({operand}, {matrix}, out={tiles})")

    def row_sum(self, stage: Sum) -> None:
        call, target = f"np.sum({self.value(*stage.operand)}, axis=-1, keepdims=True", self.value(stage.out)
        self.say(self.comment(stage.out), f"{target} += {call})" if stage.add else f"{call}, out={target})")

    def column_sum(self, stage: ColumnSum) -> None:
        source, target = self.flat(stage.operand), self.value(*stage.out)
        cleared = self.cleared(stage.operand)
        number = stage.out[0].shape == ()
        self.ones = self.ones or not number
        line = f"{target}[...] = np.sum({source})" if number else f"np.matmul(ones, {source}, out={target})"
        self.say(SUMS if self.where == ALL else (), *cleared, line)

    def kernel(self, kernel: Kernel) -> None:
        slots = self.schedule.slot
        assembler = Assembler(lambda v: view_of(slots[v]) if v in slots else None, self.module.number)
        written = beside_tanh([op for op in kernel.ops if op.out not in self.strict], slots)
        for op in kernel.ops:
            assembler.op(interpolated(written.get(op.out, op)))
        parts = blocks(merge([self.strictly(one) for one in assembler.made]))
        instructions, self.widths = fit([one for part in parts for one in part])
        self.static = kernel.static
        at = 0
        for part in parts:
            lines = [self.instruction(one) for one in instructions[at : at + len(part)]]
            at += len(part)
            ops = dict.fromkeys(op for one in part for op in one.ops)
            order = [op.out for op in kernel.ops if op.out.name in ops]
            note = (AS_TANH,) if any(v in written for v in order) else ()
            self.say((*self.comment(*order), *note), *lines)
        self.static = False

    def strictly(self, one: Instruction) -> Instruction:
        """A function whose small values count to the last digit by the name of its exact form."""
        name = f"exact_{one.name}"
        strict = name in CALLS and any(v.name in one.ops for v in self.strict)
        return replace(one, name=name) if strict else one

    def instruction(self, one: Instruction) -> str:
        out = self.place(one.out)
        if one.name == "divide" and one.args[0] == Text("1"):
            return f"np.reciprocal({self.operand(one.args[1])}, out={out})"
        args = [self.operand(arg) for arg in one.args]
        if one.name == "copy":
            return f"{out}[...] = {args[0]}"
        if one.name in IN_PLACE and args[0] == out:
            return f"{out} {IN_PLACE[one.name]} {args[1]}"
        if one.name in ("add", "multiply") and args[1] == out:
            return f"{out} {IN_PLACE[one.name]} {args[0]}"
        call = CALLS[one.name]
        self.module.helpers.add(call.name)
        return f"{call.name}({', '.join([*args, *map(self.number, call.more)])}, out={out})"

    def operand(self, arg: Operand) -> str:
        if isinstance(arg, View):
            return self.place(arg)
        return self.number(arg.text) if isinstance(arg, Text) else self.test(arg)

    def number(self, text: str) -> str:
        """A number; in the loop one that is met often is an array, which a call takes in half the time."""
        if self.where != LOOP or text not in NUMBERS:
            return text
        return self.numbers.setdefault(text, self.names.of(("number", text), NUMBERS[text]))

    def test(self, test: Test) -> str:
        left, right = (
            f"np.real({self.place(side)})" if isinstance(side, View) else side.text
            for side in (test.left, test.right)
        )
        return f"{left} {test.sign} {right}"


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
        "forward": function_context(module, step, step.forward),
        "backward": function_context(module, step, step.backward),
        "first": once_context(module, plan.first) if plan.first else None,
        "start": once_context(module, plan.start) if plan.start else None,
        "quick": None if step.forward.graph.statistics else quick_step(module, step),
    }
    made |= passing(module, made)
    return {
        **made,
        "target": "NumPy",
        "numpy": True,
        "cupy": False,
        "xp": "np",
        "as_array": "np.asarray",
        "dtypes": "float32 or float64",
        "parameters": "params",
        "finished_now": "finished_t",
        "seen": "float(valid.real.sum())",
        "real_dtype": "valid.real.dtype",
        "chunks": bool(step.backward.ahead),
        "tiles": "tiles" in module.helpers,
        "helpers": helpers(module.helpers, CALLS.values()),
    }


def once_context(module: Module, pair: Pair) -> dict[str, Any]:
    """A rule for one step as two functions of (B, size) arrays."""
    rule, names = rule_of(module, pair), module.names.known
    now = [module.names.of(("once", s, 0), f"{names[s]}_t") for s in rule.states]
    nexts = [module.names.of(("once", s, 1), f"{names[s]}_next") for s in rule.states]
    arrays = [names[s] for s in rule.states]
    forward, backward = once(module, pair, pair.forward), once(module, pair, pair.backward)
    if not rule.states:  # computes its forward values anew
        backward = with_fields(module, backward, forward["text"], *forward["lines"])
    results = [source for _, source in forward["outputs"]]
    steps = [name for both in zip(now, nexts, strict=True) for name in both]
    whole = [f"{name}[0]" for name in rule.inputs], [f"{name}[0]" for name in rule.later_seeds]
    return {
        **rule_context(module, rule, backward),
        "forward": forward,
        "backward": backward,
        "forward_work": empties(
            (
                *forward["memory"],
                *({"name": n, "shape": f"{h}.shape"} for n, h in zip(nexts, now, strict=True)),
            ),
            "np",
        ),
        "backward_work": empties(backward["memory"], "np"),
        "measured": f"B, dtype = x.shape[0], {now[0]}.dtype" if now else "",
        "measured_back": f"B, dtype = x.shape[0], {now[0]}.dtype" if now else "",
        "results": "".join(f"{name}, " for name in (*(f"{array}[1]" for array in arrays), *rule.outputs)),
        "forward_parameters": ", ".join(["params", *rule.inputs, *now]),
        "forward_arguments": ", ".join(["params", *whole[0], *(f"{a}[0]" for a in arrays)]),
        "returned": returned_together([*nexts, *results, *(rule.held if rule.states else ())]),
        "backward_parameters": ", ".join(
            ["params", *rule.inputs, *steps, *rule.seeds, *rule.carries, "finished", *rule.held]
        ),
        "kept": ", ".join([*whole[0], *(name for a in arrays for name in (f"{a}[0]", f"{a}[1]")), *whole[1]]),
        "backward_arguments": f"params, *kept_first, {', '.join(rule.carried)}, finished_first, *first_tape",
    }


def quick_step(module: Module, pair: Pair) -> dict[str, Any]:
    """One step from given states, on (B, ·) arrays."""
    made, names = once(module, pair, pair.forward), module.names.known
    states = [
        {
            "name": s.name,
            "now": module.names.of(("once", s.name, 0), f"{names[s.name]}_t"),
            "next": module.names.of(("once", s.name, 1), f"{names[s.name]}_next"),
            "size": module.names.sizes.get(str(s.size), str(s.size)),
        }
        for s in module.cell.states
    ]
    outputs = [f"{source}.copy()" for _, source in made["outputs"]]
    return {
        **made,
        "made": empties(made["memory"], "np"),
        "states": states,
        "results": outputs[0] if len(outputs) == 1 else f"({', '.join(outputs)})",
        "final": ", ".join(s["next"] for s in states),
    }


def once(module: Module, pair: Pair, schedule: Schedule) -> dict[str, Any]:
    """The lines of one direction of a rule for one step."""
    lines = Lines(module, module.names.inner(), pair, schedule, ONCE)
    lines.run(schedule.stages)
    outputs = tuple((name, lines.value(value)) for name, value in schedule.graph.outputs)
    memory = own_memory(module, schedule, once=True)
    made = {"text": lines.text, "lines": lines.prepare, "outputs": outputs, "memory": memory}
    return with_fields(module, made)


def function_context(module: Module, pair: Pair, schedule: Schedule) -> dict[str, Any]:
    """The lines of one direction."""
    names, graph = module.names.inner(), schedule.graph
    early, late = schedule.before, schedule.ahead
    before = Lines(module, names, pair, schedule, ALL)
    before.run(early)
    updates = tuple(
        {"name": s.value.name, "value": f"np.real({before.value(s.update)})"} for s in graph.statistics
    )
    ahead = Lines(module, names, pair, schedule, AHEAD)
    ahead.run(late)
    loop = Lines(module, names, pair, schedule, LOOP, ahead.views)
    loop.run(schedule.loop)
    kept: tuple[dict[str, str], ...] = ()
    if not graph.backwards:
        kept = tuple({"next": loop.value(c.next), "current": loop.value(c.current)} for c in graph.states)
    after = Lines(module, names, pair, schedule, ALL)
    after.ones = False
    after.run(schedule.after)
    outputs = tuple((name, after.value(value)) for name, value in graph.outputs)
    made = {
        "before": before.text,
        "ahead": ahead.text,
        "chunked": bool(schedule.ahead),
        "loop": loop.text,
        "after": after.text,
        "prepare": before.prepare,
        "prepare_ahead": ahead.prepare,
        "prepare_loop": loop.prepare,
        "prepare_after": after.prepare,
        "ends": bool(after.text or after.prepare),
        "head": loop_head(module, schedule, loop.steps),
        "kept": kept,
        "memory": own_memory(module, schedule),
        "outputs": outputs,
        "updates": updates,
    }
    return with_fields(module, made)


def named_together(views: Mapping[str, str]) -> list[str]:
    """Lines that name views, those of one array in one line where it holds them."""
    by_array: dict[str, list[tuple[str, str]]] = {}
    for source, name in views.items():
        by_array.setdefault(source.split("[")[0], []).append((name, source))
    lines = []
    for pairs in by_array.values():
        line = " = ".join(", ".join(part) for part in zip(*pairs, strict=True))
        lines += [line] if len(line) <= WIDTH - 8 else [f"{name} = {source}" for name, source in pairs]
    return lines


def loop_head(module: Module, schedule: Schedule, steps: Mapping[str, str]) -> str:
    """`for h_t, h_next in zip(h[:-1], h[1:], strict=True):`, or the same from the last step to the first."""
    backwards = schedule.graph.backwards
    late = "[start:]" if module.plan.first and not backwards else "[ts]" if schedule.ahead else ""
    sources = [*steps, f"ends{late}"]
    targets = ", ".join([*steps.values(), "finished_t"] if steps else ["(finished_t,)"])
    call = "backwards" if backwards else "zip"
    arguments = ", ".join(sources if backwards else [*sources, "strict=True"])
    width = WIDTH - (8 if schedule.ahead or not backwards else 4)
    head, tail = f"for {targets} in {call}(", "):"
    if len(head + arguments + tail) <= width:
        return head + arguments + tail
    if len(head) > width:
        head = "\n".join(["for (", *wrapped(targets + ",", width), f") in {call}("])
    return "\n".join([head, *wrapped(arguments + ("" if call == "zip" else ","), width), tail])
