"""NumPy: whole arrays at a time, written into memory that is there already.

`files` lowers a plan to the lines of a module. Each stage becomes `np.matmul(..., out=...)` or a run of ufunc
calls that write in place. Views of a step come from one `zip`; scratch is made once before the loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property

import sympy as sp

from gategen.backends.folding import WIDTH, call, together, wrapped
from gategen.backends.functions import context, needed_helpers
from gategen.backends.host import AHEAD, ALL, LOOP, ONCE, STEPPED, Block, Host, joined
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
from gategen.backends.interface import Array, array_of, empties, signature
from gategen.backends.module import Module, OneStep, Target, Way
from gategen.backends.names import Role, Scope
from gategen.backends.newton import STRETCHES, back_record, newton_record
from gategen.backends.second import context as second_context
from gategen.backends.sigmoids import beside_exact, beside_tanh, exact
from gategen.graph import Pointwise, Value, axes, length
from gategen.plan import (
    NEWTON,
    NEWTON_BACK,
    Buffer,
    ColumnSum,
    Contraction,
    Given,
    InBuffer,
    InField,
    InGradient,
    Kernel,
    MatMul,
    Plan,
    Rule,
    RunningSum,
    Shifted,
    Sum,
    offset_rank,
    second,
)
from gategen.render import module_text
from gategen.spec.elementwise import Call, helpers
from gategen.spec.functions import TABLE
from gategen.spec.language import Axes, Size

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
WORD = re.compile(r"\w+")
IN_PLACE = {"add": "+=", "subtract": "-=", "multiply": "*=", "divide": "/="}


def files(plan: Plan) -> dict[str, str]:
    """The module of a cell, by file name."""
    module = NumpyModule(plan)
    made = context(module, Lines)
    measure = signature(module).measure
    made["newton"] = newton_record(module, Stretches, measure)
    made["newton_back"] = back_record(module, Stretches, measure)
    made |= needed_helpers(module)
    functions = helpers(module.helpers, CALLS.values())
    return {f"{plan.cell.name}_numpy.py": module_text({**made, "functions": functions})}


def second_files(plan: Plan) -> dict[str, str]:
    """The module of the second derivatives of a cell, by file name."""
    module = NumpyModule(second(plan, ARRAYS))
    made = second_context(module, Lines)
    functions = helpers(module.helpers, CALLS.values())
    return {f"{plan.cell.name}_numpy_jvp.py": module_text({**made, "functions": functions}, "second")}


# ---------------------------------------------------------------------------------------------- lines


class Lines(Host):
    """The lines of one level, as ufunc calls that write in place.

    Views are named once: `prepare` holds the lines that make them, and scratch, and weights as products want
    them. In the loop views of a step come from `steps`, which the loop runs over.
    """

    all_steps = "T"

    def __init__(self, module: Module, way: Way, names: Scope, where: str) -> None:
        super().__init__(module, way, names, where)
        self.tiled: dict[tuple[str, str], tuple[str, str]] = {}  # names by matrix and result
        self.numbers: dict[str, str] = {}  # names by text
        self.scratch: dict[str, str] = {}  # shape by name
        self.strict = exact(self.schedule.graph)
        self.rooms: dict[str, Array] = {}  # what lasts for a few steps, by name
        self.widths: list[sp.Expr] = []  # of the scratch arrays of the kernel at hand
        self.nth: list[int] = []  # how many before each of them are as wide
        self.size: sp.Expr = sp.S.One  # of the values of the kernel at hand
        self.unit = 1  # the same as a number that can be compared
        several = way.rule is module.plan.step or way.rule.name in (NEWTON, NEWTON_BACK)
        self.alone = where == ONCE or not several  # whether there is one step alone
        self.by_gate: Mapping[str, int] = {} if self.alone else module.by_gate
        self.static = False  # whether the kernel at hand is for all rows alike
        self.spread = False  # whether its stacks may lie gate by gate
        self.apart = False  # whether those of the instruction at hand do
        self.form = "{}"  # what makes the array at hand lie so
        self.along: Axes = ()  # of the matrices of the kernel at hand
        self.side = "each"  # what the array at hand is called where it lies so
        self.ones = False

    @property
    def prepare(self) -> tuple[str, ...]:
        """What must be there before the lines."""
        weights = [f"{name} = {source}" for source, name in self.weights.items()]
        ones = [f"ones = np.ones({'T * B' if self.where == ALL else 'B'}, dtype)"] if self.ones else []
        tiled = [
            line
            for pair, names in self.tiled.items()
            for line in call(f"{', '.join(names)} = tiles(", pair, width=WIDTH - 4).split("\n")
        ]
        numbers = together([(name, f"np.array({number}, dtype)") for number, name in self.numbers.items()])
        room = empties((*self.rooms.values(), *(Array(*pair) for pair in self.scratch.items())), "np")
        return (*weights, *ones, *numbers, *room, *named_together(self.lasting), *tiled)

    @property
    def lasting(self) -> Mapping[str, str]:
        """The views that are the same all the time."""
        return self.views

    def settle(self, *kept: str) -> None:
        uses: dict[str, list[tuple[Block, int]]] = {}  # the lines that mention each word
        for block in self.blocks:
            for k, line in enumerate(block.lines):
                for word in WORD.findall(line):
                    uses.setdefault(word, []).append((block, k))
        others = Counter(
            word for text in (*kept, *self.views, *map(str, self.tiled)) for word in WORD.findall(text)
        )
        for source, name in list(self.views.items()):
            own = Counter(WORD.findall(source))
            read = uses.get(name, ())
            if len(read) != 1 or others[name] > own[name]:
                continue
            ((block, k),) = read
            line = block.lines[k]
            found = line.replace(f"{name}[...] =", f"{name} =") if source.endswith("]") else line
            found = re.sub(rf"\b{name}\b", source, found)
            if not re.match(rf"{name} .=", line) and len(found) <= WIDTH - 8:
                block.lines[k] = found
                del self.views[source], uses[name]
                others.subtract(own)
                for word in own.elements():
                    uses.setdefault(word, []).append((block, k))

    @property
    def starts_late(self) -> bool:
        """Whether the loop leaves some steps to others: the first to a rule of its own, all to Newton."""
        plan = self.module.plan
        done = plan.newton is not None or plan.opens
        return done and not self.schedule.graph.backwards

    @property
    def late(self) -> str:
        """How many these are."""
        return "start" if self.module.plan.newton is None else "done"

    @property
    def head(self) -> str:
        """`for h_t, h_next in zip(h[:-1], h[1:], strict=True):`, or from the last step to the first."""
        backwards, ahead = self.schedule.graph.backwards, self.module.few_steps(self.way)
        late = f"[{self.late}:]" if self.starts_late else "[ts]" if ahead else ""
        sources = [*self.steps, f"ends{late}"]
        targets = ", ".join([*self.steps.values(), "finished_t"] if self.steps else ["(finished_t,)"])
        walk = "backwards" if backwards else "zip"
        arguments = ", ".join(sources if backwards else [*sources, "strict=True"])
        width = WIDTH - (8 if ahead or not backwards else 4)
        head, tail = f"for {targets} in {walk}(", "):"
        if len(head + arguments + tail) <= width:
            return head + arguments + tail
        if len(head) > width:
            head = "\n".join(["for (", *wrapped(targets + ",", width), f") in {walk}("])
        return "\n".join([head, *wrapped(arguments + ("" if walk == "zip" else ","), width), tail])

    # ------------------------------------------------------------------------------------------ places

    def place(self, view: View) -> str:
        if isinstance(view.home, Scratch):
            text = self.scratch_part(view, view.home)
        elif self.along:
            return self.beside_matrices(view)
        else:
            self.form = self.form_of(view)
            text = super().place(view)
            text = self.part(text, f"{text}_rows") if self.form != "{}" else text
        return f"{text}[:, None]" if self.apart and self.for_all_gates(view) else text

    def beside_matrices(self, view: View) -> str:
        """A vector as the column or the row of matrices that it stands for, a number as a matrix of one."""
        self.form = self.laid(view, view.axes, self.along)
        sides = ("column", "row") if len(self.along) == 2 else ("each",) * len(self.along)
        self.side = sides[self.along.index(view.axes[0])] if len(view.axes) == 1 else "each"
        self.side = self.side if view.axes else "number"
        text = super().place(view)
        text = self.part(text, f"{text}_{self.side}") if self.form != "{}" else text
        self.side = "each"
        return text

    def laid(self, view: View, axes: Axes, along: Axes, behind: bool = False) -> str:
        """The form in which an array has an axis for each of `along`, of length 1 where its value has none.

        With `behind` there is one more, of length 1, at the end.
        """
        more = ", None" * behind
        if len(axes) > 1 and not self.native(view):
            if axes == along and not behind and len(along) < 2:
                return "{}"
            self.module.helpers.add("apart")
            sizes = [self.names.letter(axis) if axis in axes else "1" for axis in along]
            if isinstance(view.home, InField) and self.module.fields[view.home.name].columns:
                return f"{{}}.reshape({', '.join([*sizes, *(['1'] if behind else [])])})"
            return f"apart({{}}, {', '.join([*sizes, *(['1'] if behind else [])])})"
        if axes == along:
            return f"{{}}[...{more}]" if behind else "{}"
        if not axes:
            single = ", None" * (len(along) - 1 + behind)
            return "{}" if self.constant(view) or not single else f"{{}}[...{single}]"
        marks = [":" if axis in axes else "None" for axis in along]
        if self.constant(view):
            while marks[0] == "None" and not behind:
                marks.pop(0)
            return "{}" if set(marks) == {":"} and not behind else f"{{}}[{', '.join(marks)}{more}]"
        return f"{{}}[..., {', '.join(marks)}{more}]"

    def constant(self, view: View) -> bool:
        """Whether it is one for all rows."""
        buffer = self.way.rule.buffers[view.home.name] if isinstance(view.home, InBuffer) else None
        return buffer is None or buffer.kind == "static"

    def native(self, view: View) -> bool:
        """Whether the memory of a value has an axis for each of its own."""
        match view.home:
            case InBuffer(name):
                return bool(self.way.rule.buffers[name].axes)
            case InField(name) | InGradient(name):
                field = self.module.fields[name]
                return field.columns is not None and len(axes((*field.rows, *field.columns))) == 2
        return True

    def shaped(self, value: Value, along: Axes, behind: bool = False) -> str:
        """A value with an axis for each of these."""
        view = view_of(self.schedule.slot[value])
        return self.laid(view, value.axes, along, behind).format(self.value(value))

    def for_all_gates(self, view: View) -> bool:
        """Whether one array of several steps meets stacks, whose gates stand between steps and rows."""
        if self.where == LOOP or self.gates(view) > 1:
            return False
        buffer = self.way.rule.buffers[view.home.name] if isinstance(view.home, InBuffer) else None
        return isinstance(view.home, Scratch) or (buffer is not None and buffer.kind != "static")

    def form_of(self, view: View) -> str:
        """The form in which an instruction takes an array: gate by gate, a vector of the loop in all rows."""
        home, n = view.home, self.gates(view) if self.apart else 1
        buffer = self.way.rule.buffers[home.name] if isinstance(home, InBuffer) else None
        if buffer and buffer.kind != "static":
            if n == 1 or buffer.name in self.by_gate:
                return "{}"
            steps = self.all_steps if self.where == ALL or not self.schedule.ahead else "steps"
            lead, axes = ("", "0, 1") if buffer.kind == "row" else (f"{steps}, ", "1, 2")
            return f"{{}}.reshape({lead}B, {n}, {self.names.size(self.size)}).swapaxes({axes})"
        text = "{}" if n == 1 else f"{{}}.reshape({n}, 1, {self.names.size(self.size)})"
        rows = self.spread and self.where == LOOP and not view.single and not isinstance(home, Given)
        return f"np.tile({text}, (B, 1))" if rows else text

    def gates(self, view: View) -> int:
        """How many values of the kernel at hand a stretch holds."""
        begin, end = view.span
        return 1 if view.single else (end - begin) // self.unit

    def part(self, source: str, wish: str) -> str:
        source, self.form = self.form.format(source), "{}"
        if source not in self.views:
            name = re.sub(r"\[.*\]", "", wish)  # of h[:-1], which holds the states before the steps, h
            self.views[source] = self.names.of("view", source, name, self.where)
        return self.views[source]

    def field_part(self, view: View, home: InField | InGradient) -> str:
        text = super().field_part(view, home)
        # a scalar's gradient is computed as one entry
        number = isinstance(home, InGradient) and not self.module.fields[home.name].rows
        return self.part(f"{text}.reshape(1)", text) if number else text

    def buffer_part(self, view: View, buffer: Buffer) -> str:
        stepped = buffer.kind in STEPPED
        if buffer.name not in self.by_gate or (stepped and self.where != ALL):
            return super().buffer_part(view, buffer)
        base = self.names["memory", buffer.name]
        if self.same(buffer.width, view.stop - view.start):
            return base
        inner, wish = self.inner(view, buffer), self.short(view, buffer)
        return self.part(f"{base}[:, {inner}]" if stepped else f"{base}[{inner}]", wish + "_all" * stepped)

    def inner(self, view: View, buffer: Buffer) -> str:
        """Which part of a stack, in rows or gate by gate."""
        if buffer.name in self.by_gate:
            unit = offset_rank(buffer.width) // self.by_gate[buffer.name]
            return self.numbered(view, unit, buffer.width)
        return self.span(view.start, view.stop, buffer.width)

    def at_step(self, buffer: Buffer, view: View, base: str, whole: bool) -> str:
        inner = self.inner(view, buffer)
        if self.where == ONCE:
            if buffer.kind == "state":
                role: Role = "next" if view.shift else "now"
                base = self.names.of(role, buffer.name, f"{base}_next" if view.shift else f"{base}_t")
            return base if whole else self.part(f"{base}[:, {inner}]", self.short(view, buffer))
        source = self.several(buffer, base, whole, inner, view.shift)
        stem = base if whole else self.short(view, buffer)
        if self.where == AHEAD:
            known = source in self.rooms and self.form == "{}"
            return source if known else self.part(source, f"{stem}_ts")
        wish = (f"{base}_next" if view.shift else f"{base}_t") if whole else stem
        if self.form != "{}" and (whole or self.along):
            wish = f"{base if whole else stem}_{self.side}"
        source, self.form = self.form.format(source), "{}"
        source = self.known.get(source, source)
        if source not in self.steps:
            self.steps[source] = self.names.of("view", source, wish, LOOP)
        return self.steps[source]

    def several(self, buffer: Buffer, base: str, whole: bool, inner: str, shift: int) -> str:
        """The steps that the loop runs over."""
        graph, n = self.schedule.graph, self.by_gate.get(buffer.name)
        between = ":, " if n is None else ""  # the rows stand before the features, and behind the gates
        if buffer.name in self.schedule.passing:
            if self.where == AHEAD:
                self.rooms[base] = array_of(self.module, buffer, "steps")
            return base if whole else f"{base}[:, {between}{inner}]"
        if graph.backwards and self.module.few_steps(self.way):
            base += "[1:]" if shift else ""
            return f"{base}[ts]" if whole else f"{base}[ts, {between}{inner}]"
        late = self.starts_late
        low, after = (self.late, f"{self.late} + 1") if late else ("", "1")
        time = f"{low}:" if low else ""
        if buffer.kind == "state":
            time = (f"{after} :" if late else f"{after}:") if shift else f"{low}:-1"
        if whole:
            return f"{base}[{time}]" if time else base
        return f"{base}[{time or ':'}, {between}{inner}]"

    def scratch_part(self, view: View, scratch: Scratch) -> str:
        number = scratch.number
        name = self.scratch_name(number)
        if self.same(self.widths[number], view.stop - view.start):
            return name
        if self.along:
            raise AssertionError("scratch of matrices is not taken apart")
        if self.static or self.where == ONCE:
            inside = self.span(view.start, view.stop, self.widths[number])
            return self.part(f"{name}[{'' if self.static else ':, '}{inside}]", f"{name}_part")
        dots = ":, " if self.where in (ALL, AHEAD) else ""
        return self.part(
            f"{name}[{dots}{self.numbered(view, self.unit, self.widths[number])}]", f"{name}_part"
        )

    @staticmethod
    def numbered(view: View, unit: int, width: sp.Expr) -> str:
        """`1`, or `1:3`: which gates of a stack that lies gate by gate."""
        low, high = (at // unit for at in view.span)
        if high == low + 1:
            return f"{low}"
        return f"{low or ''}:{'' if view.stop == width else high}"

    def scratch_name(self, number: int) -> str:
        width = self.names.letter(self.along) if self.along else self.names.size(self.widths[number])
        nth = self.nth[number]
        level = "static" if self.static else self.where
        name = self.names.of("scratch", f"{width}, {nth}", "s_ts" if level == AHEAD else "s", level)
        lead = {ALL: "T, ", AHEAD: "steps, "}.get(level, "")
        n = self.widths[number] / self.size
        shape = f"({lead}B, {width})"
        if self.static:
            shape = f"({width})" if self.along else width
        elif self.spread and n.is_Integer and n > 1:
            shape = f"({lead}{n}, B, {self.names.size(self.size)})"
        self.scratch[name] = shape
        return name

    # ------------------------------------------------------------------------------------------ stages

    def matmul(self, stage: MatMul) -> None:
        """A product; one of the loop that always goes to the same memory is done in tiles."""
        buffer = self.buffer(self.schedule.slot[stage.out[0]])
        if stage.along:
            self.product_along(stage)
            return
        if stage.blocks != 1:
            self.block_product(stage)
            return
        if self.where == ALL and buffer and buffer.name in self.by_gate:
            self.project(stage, buffer)
            return
        if self.where != LOOP or buffer is None or buffer.kind in STEPPED:
            super().matmul(stage)
            return
        part, wish = self.gathered(stage.weights)
        target = self.value(*stage.out)
        out = self.added_to(stage, target) if stage.add else target
        pair = (part if stage.transposed else f"{part}.T", out)
        if pair not in self.tiled:
            wish = wish if stage.transposed else f"{wish}_T"
            names = (f"{wish}_tiles", f"{out}_tiles")
            first, second = (self.names.of("view", f"{pair}[{k}]", names[k], LOOP) for k in (0, 1))
            self.tiled[pair] = first, second
        matrix, tiles = self.tiled[pair]
        self.module.helpers.add("tiles")
        operand = self.value(*stage.operand)
        line = f"np.matmul({operand}, {matrix}, out={tiles})"
        self.say(self.comment(*stage.out), line, *([f"{target} += {out}"] if stage.add else []))

    def from_left(self, matrix: str, operand: str, out: str, add: bool) -> str:
        return self.product(matrix, operand, out, add)

    def added_to(self, stage: MatMul, target: str) -> str:
        """Memory for a product that is added to what is in another."""
        view = joined([self.schedule.slot[v] for v in stage.out])
        name = self.names.of("scratch", target, f"more_{target}", LOOP)
        self.scratch[name] = f"(B, {self.names.size(view.stop - view.start)})"
        return name

    def project(self, stage: MatMul, buffer: Buffer) -> None:
        """A product of all steps into a stack that lies gate by gate."""
        operand, weight = self.value(*stage.operand), self.weight(stage.weights, stage.transposed)
        out, view = self.names["memory", buffer.name], joined([self.schedule.slot[v] for v in stage.out])
        if not self.same(buffer.width, view.stop - view.start):
            inner = self.inner(view, buffer)
            out += f"[:, {inner if ':' in inner else f'{inner}:{int(inner) + 1}'}]"
        self.module.helpers.add("project")
        self.say(self.comment(*stage.out), f"project({operand}, {weight}, out={out})")

    def row_sum(self, stage: Sum) -> None:
        if stage.operand[0].shape[1:] or stage.out.axes:
            self.matrix_sum(stage) if stage.how == "sum" else self.largest(stage)
            return
        operand, target = self.value(*stage.operand), self.value(stage.out)
        total = f"np.sum({operand}, axis=-1, keepdims=True"
        line = f"{target} += {total})" if stage.add else f"{total}, out={target})"
        if stage.how != "sum":
            self.module.helpers.add("row_max")
            real = f"np.real({operand})" if stage.how == "bound" else operand
            line = f"row_max({real}, out={target}{', also=True' if stage.add else ''})"
        self.say(self.comment(stage.out), line)

    def largest(self, stage: Sum) -> None:
        """The largest entries of a value along one of its axes, which comes last."""
        (operand,), out = stage.operand, stage.out
        (at,) = (k - len(operand.axes) for k, axis in enumerate(operand.axes) if axis not in out.axes)
        along = self.shaped(operand, operand.axes)
        along = along if at == -1 else f"np.moveaxis({along}, {at}, -1)"
        along = f"np.real({along})" if stage.how == "bound" else along
        target = self.shaped(out, out.axes, behind=True)
        self.module.helpers.add("row_max")
        self.say(self.comment(out), f"row_max({along}, out={target})")

    def running_sum(self, stage: RunningSum) -> None:
        if stage.axis:
            axes = stage.out.axes
            at = axes.index(stage.axis) - len(axes)
            turn = f"[..., ::-1{', :' * (-1 - at)}]" if stage.backwards else ""
            source, target = (f"{self.shaped(v, axes)}{turn}" for v in (stage.operand, stage.out))
            self.say(self.comment(stage.out), f"np.cumsum({source}, axis={at}, out={target})")
            return
        turn = "[..., ::-1]" if stage.backwards else ""
        operand, out = f"{self.value(stage.operand)}{turn}", f"{self.value(stage.out)}{turn}"
        self.say(self.comment(stage.out), f"np.cumsum({operand}, axis=-1, out={out})")

    def shifted(self, stage: Shifted) -> None:
        axes, by = stage.out.axes, stage.by
        behind = ", :" * (len(axes) - 1 - axes.index(stage.axis))
        source, target = (self.shaped(v, axes) for v in (stage.operand, stage.out))
        empty, filled, taken = (f":{by}", f"{by}:", f":-{by}") if by > 0 else (f"{by}:", f":{by}", f"{-by}:")
        self.say(
            self.comment(stage.out),
            f"{target}[..., {filled}{behind}] = {source}[..., {taken}{behind}]",
            f"{target}[..., {empty}{behind}] = 0",
        )

    def matrix_sum(self, stage: Sum) -> None:
        """The sum of a matrix along some of its axes."""
        (operand,) = stage.operand
        out, axes = stage.out, operand.axes
        over = [k - len(axes) for k, axis in enumerate(axes) if axis not in out.axes]
        target = self.shaped(out, out.axes) if out.axes else self.number_of(out)
        axis = over[0] if len(over) == 1 else tuple(over)
        self.say(self.comment(out), f"np.sum({self.shaped(operand, axes)}, axis={axis}, out={target})")

    def number_of(self, value: Value) -> str:
        """A value of one number a row, without the axis for it."""
        return f"{self.value(value)}[..., 0]"

    def contraction(self, stage: Contraction) -> None:
        """A product with a matrix of every row, or the sum of the products of two values."""
        left, right, out = stage.left, stage.right, stage.out
        matrix, vector = (left, right) if len(left.axes) >= len(right.axes) else (right, left)
        *heads, rows, columns = (*matrix.axes, "", "")[: max(2, len(matrix.axes))]
        for kept, summed in ((rows, columns), (columns, rows)):
            fits = {summed} <= {*vector.axes} <= {*heads, summed} and out.axes == (*heads, kept)
            if fits and len(matrix.axes) > 1:
                column = summed == columns
                target, operand = (
                    self.shaped(v, (*heads, axis), column) if column else self.as_row(v, heads, axis)
                    for v, axis in ((out, kept), (vector, summed))
                )
                pair = [self.shaped(matrix, matrix.axes), operand]
                arguments = ", ".join(pair if column else pair[::-1])
                self.say(self.comment(out), f"np.matmul({arguments}, out={target})")
                return
        letters = dict(zip(dict.fromkeys((*left.axes, *right.axes)), "ijkl", strict=False))
        sides = ["..." * (not v.static) + "".join(letters[axis] for axis in v.axes) for v in (left, right)]
        target = self.shaped(out, out.axes) if out.axes else self.number_of(out)
        pair = [self.shaped(v, v.axes) for v in (left, right)]
        said = f"{','.join(sides)}->...{''.join(letters[axis] for axis in out.axes)}"
        self.say(self.comment(out), f'np.einsum("{said}", {", ".join(pair)}, out={target})')

    def as_row(self, value: Value, heads: Sequence[Size], axis: Size) -> str:
        """A vector, of every head, as a matrix of one row."""
        whole = self.shaped(value, (*heads, axis))
        return f"{whole}[..., None, :]"

    def column_sums(self, stages: Sequence[ColumnSum]) -> None:
        for stage in stages:
            self.column_sum(stage)

    def column_sum(self, stage: ColumnSum) -> None:
        source, target = self.flat(stage.operand), self.value(*stage.out)
        cleared = self.cleared(stage.operand)
        number = stage.out[0].shape == ()
        if len(stage.out[0].shape) > 1:
            target = f"{target}.reshape(-1)"
        if len(stage.operand[0].shape) > 1 and self.where != ALL:
            source = f"{source}.reshape(B, {self.names.size(length(stage.operand[0].shape))})"
        self.ones = self.ones or not number
        line = f"{target}[...] = np.sum({source})" if number else f"np.matmul(ones, {source}, out={target})"
        self.say(self.sums, *cleared, line)

    def kernel(self, kernel: Kernel) -> None:
        slots = self.schedule.slot
        views = {v: view_of(slots[v]) for v in (*kernel.reads, *kernel.writes) if v in slots}
        self.along = kernel.size if isinstance(kernel.size, tuple) else ()
        if self.along:
            views = {v: replace(view, axes=v.axes) for v, view in views.items()}
        assembler = Assembler(views.get, self.module.number, self.along or None)
        strict = beside_exact(kernel.ops, slots, self.strict)
        written = beside_tanh([op for op in kernel.ops if op.out not in strict], slots)
        for op in kernel.ops:
            assembler.op(interpolated(written.get(op.out, op)))
        self.static, self.size = kernel.static, length(kernel.size)
        self.unit = offset_rank(self.size)
        self.spread = not (kernel.static or self.alone or self.along)
        made = [strictly(one, strict) for one in assembler.made]
        parts = blocks(made if self.along else merge(made, self.spread))
        instructions, self.widths = fit([one for part in parts for one in part])
        self.nth = nth_of(map(self.names.size, self.widths))
        places = {op.out.name: k for k, op in enumerate(kernel.ops)}
        at = 0
        for part in parts:
            lines = [self.instruction(one) for one in instructions[at : at + len(part)]]
            at += len(part)
            ops = dict.fromkeys(op for one in part for op in one.ops)
            order = [kernel.ops[k].out for k in sorted(places[op] for op in ops)]
            remark = self.comment(*order)
            if any(v in written for v in order):
                remark = replace(remark, lines=(*remark.lines, AS_TANH))
            self.say(remark, *lines)
        self.static = self.spread = self.apart = False
        self.along = ()

    def instruction(self, one: Instruction) -> str:
        self.apart = self.spread and self.lie_apart([*one.reads, one.out])
        out = self.place(one.out)
        if one.name == "divide" and one.args[0] == Text("1") and isinstance(one.args[1], View):
            return f"np.reciprocal({self.operand(one.args[1])}, out={out})"
        args = [self.operand(arg) for arg in one.args]
        if one.name == "copy":
            return f"{out}[...] = {args[0]}"
        if one.name in IN_PLACE and args[0] == out:
            return f"{out} {IN_PLACE[one.name]} {args[1]}"
        if one.name in ("add", "multiply") and args[1] == out:
            return f"{out} {IN_PLACE[one.name]} {args[0]}"
        named = CALLS[one.name]
        self.module.helpers.add(named.name)
        return f"{named.name}({', '.join([*args, *map(self.number, named.more)])}, out={out})"

    def lie_apart(self, views: Sequence[View]) -> bool:
        """Whether some stretch of several gates lies gate by gate, or one gate is for all of a stretch."""
        wide = [view for view in views if self.gates(view) > 1]
        homes = {*map(InBuffer, self.by_gate)}
        by_gate = any(view.home in homes or isinstance(view.home, Scratch) for view in wide)
        return by_gate or (bool(wide) and any(self.gates(v) == 1 and not v.single for v in views))

    def operand(self, arg: Operand) -> str:
        if isinstance(arg, View):
            return self.place(arg)
        return self.number(arg.text) if isinstance(arg, Text) else self.test(arg)

    def number(self, text: str) -> str:
        """A number; at every step one that is met often is an array, which a call takes in half the time."""
        if self.where not in (LOOP, ONCE) or text not in NUMBERS:
            return text
        return self.numbers.setdefault(text, self.names.of("number", text, NUMBERS[text]))

    def test(self, test: Test) -> str:
        left, right = (
            f"np.real({self.place(side)})" if isinstance(side, View) else side.text
            for side in (test.left, test.right)
        )
        return f"{left} {test.sign} {right}"


class Stretches(Lines):
    """The lines of one step for many stretches of a sequence, which take the place of its steps.

    `moving` are the names of arrays that another step has others of: their views are named at every step.
    """

    all_steps = STRETCHES

    def __init__(self, module: Module, way: Way, names: Scope, moving: Set[str]) -> None:
        super().__init__(module, way, names, ALL)
        self.moving = moving

    @property
    def lasting(self) -> Mapping[str, str]:
        return {source: name for source, name in self.views.items() if not self.moves(source)}

    @property
    def each(self) -> tuple[str, ...]:
        """The lines that name the other views."""
        views = {source: name for source, name in self.views.items() if self.moves(source)}
        return tuple(named_together(views))

    def moves(self, source: str) -> bool:
        return not self.moving.isdisjoint(WORD.findall(source))


def strictly(one: Instruction, strict: Set[Value]) -> Instruction:
    """A function whose small values count to the last digit by the name of its exact form."""
    name = f"exact_{one.name}"
    counts = name in CALLS and any(v.name in one.ops for v in strict)
    return replace(one, name=name) if counts else one


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


# ---------------------------------------------------------------------------------------------- the module


class NumpyModule(Module):
    """A module for NumPy, whose functions for one step take (B, ·) arrays."""

    target = Target(
        title="NumPy",
        numpy=True,
        cupy=False,
        xp="np",
        as_array="np.asarray(value)",
        dtypes="float32 or float64",
        parameters="params",
        finished_now="finished_t",
        real="np.real({})",
        real_dtype="valid.real.dtype",
        init_dtype="dtype",
        init_note="",
        kept_dtype="",
        shape="np.shape({})",
        broadcast="np.broadcast_to({}, {})",
        one_step="(B",
    )

    @cached_property
    def by_gate(self) -> Mapping[str, int]:
        found = gate_by_gate(self.plan.step)
        if self.plan.of is None:
            return found
        lent = {b.name for b in self.plan.step.lent}  # these lie as the run left them
        own = {name: n for name, n in found.items() if name not in lent}
        return own | {name: n for name, n in gate_by_gate(self.plan.of.step).items() if name in lent}

    def one_step(self, states: Sequence[str]) -> OneStep:
        arrays = [self.names["memory", s] for s in states]
        now = [self.names.of("now", s, f"{array}_t") for s, array in zip(states, arrays, strict=True)]
        later = [self.names.of("next", s, f"{array}_next") for s, array in zip(states, arrays, strict=True)]
        measured = f"B, dtype = x.shape[0], {now[0]}.dtype" if now else ""
        return OneStep(
            states=tuple(now),
            both=tuple(name for both in zip(now, later, strict=True) for name in both),
            made=tuple(later),
            passed=tuple(f"{array}[0]" for array in arrays),
            saved=tuple(f"{array}[{t}]" for array in arrays for t in (0, 1)),
            results=tuple(f"{array}[1]" for array in arrays),
            at="[0]",
            further=(),
            measured=measured,
            measured_back=measured,
        )


def gate_by_gate(rule: Rule) -> dict[str, int]:
    """The stacks in which every gate is in one piece at a step, with how many gates they have.

    A call is faster where its operands are in one piece. A product reads rows, so what one reads stays in
    rows, and what one of the loop writes to the arrays of all steps.
    """
    found = {
        b.name: len(b.members)
        for b in rule.buffers.values()
        if b.kind in ("time", "row") and len(b.members) > 1 and evenly(b)
    }
    for schedule in (rule.forward, rule.backward):
        rows = [v for _, v in (*schedule.graph.outputs, *schedule.graph.sums)]
        for stage in schedule.stages:
            rows += () if isinstance(stage, Kernel) else stage.reads
            rows += stage.writes if isinstance(stage, RunningSum | Shifted) else ()
            if isinstance(stage, MatMul) and (stage.add or stage.blocks != 1 or stage in schedule.loop):
                stepped = rule.buffers[schedule.slot[stage.out[0]].home.name].kind == "time"
                whole = stage.add or stage.blocks != 1 or (stepped and len(stage.out) > 1)
                rows += stage.out if whole else ()
        for value in rows:
            if value in schedule.slot:
                found.pop(schedule.slot[value].home.name, None)
    return found


def evenly(buffer: Buffer) -> bool:
    """Whether all members of a stack are as long."""
    return all(at == k * buffer.starts[1] for k, at in enumerate((*buffer.starts, buffer.width)))


def nth_of(widths: Iterable[str]) -> list[int]:
    """For each width how many before it are the same."""
    seen: Counter[str] = Counter()
    made = []
    for width in widths:
        made.append(seen[width])
        seen[width] += 1
    return made


def named_together(views: Mapping[str, str]) -> list[str]:
    """Lines that name views: parts of one array in one line, and whole arrays in one, where it holds them."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for source, name in views.items():
        array, _, part = source.partition("[")
        groups.setdefault(part if part == "ts]" else array, []).append((name, source))
    lines: list[str] = []
    for pairs in groups.values():
        held: list[tuple[str, str]] = []
        for pair in pairs:
            line = " = ".join(", ".join(part) for part in zip(*held, pair, strict=True))
            if held and len(line) <= WIDTH - 8 and len(held) < 4:
                lines.pop()
            else:
                held, line = [], f"{pair[0]} = {pair[1]}"
            held.append(pair)
            lines.append(line)
    return lines
