"""What every backend says in the same words: names, fields, sizes, and what the public functions take and
return.

A backend that generates a Python module (NumPy, CuPy) starts from the context made here and adds the lines of
its own language. Nothing here spells an operation.
"""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import sympy as sp

from gategen.backends.comments import NONE, comments
from gategen.graph import Pointwise, Statistic, Value, fresh, length
from gategen.plan import (
    GRADIENT,
    Buffer,
    Field,
    Pair,
    Plan,
    Schedule,
    Slot,
    Told,
    gradient_of,
    sizes_told,
)
from gategen.spec.functions import TABLE
from gategen.spec.printer import Printer

WIDTH = 110  # columns of generated code
HELPERS = ("clear", *(call.name for row in TABLE for call in (row.numpy, row.exact) if call and call.text))

SIZE_LETTERS = {"input": "I", "hidden": "H"}

# Names that the templates use, and Python itself; a name of the spec that is one of them gets a trailing
# underscore in the module.
WORDS = frozenset(
    """
    np NamedTuple Any Params States Grads Tape Buffers NAME EQUATIONS SIZES INPUTS STATES OUTPUTS SPEC_SHA256
    init pack unpack forward backward step init_buffers params x tape d_y d_final initial lengths buffers
    training finished T B seen
    t y final grads dtype named seed sizes rng ones zip range reversed enumerate reuse check scratch self
    print float int len list tuple dict first first_backward start start_backward state state_t record count
    x_t y_t dims valid epsilon input_size hidden_size names rule now at last d k kept each memory over measure
    precision proper shapes stack array whole part d_params d_first d_start update running finished_t constant
    given os tiles first_tape first_step first_step_backward start_states start_states_backward kept_first
    finished_first d_inputs ends ts chunks backwards
    cp Path SOURCE launch row_sum column_sum number compiled call cache ARITHMETIC ml_dtypes
    """.split()
) | {*HELPERS, *keyword.kwlist, *dir(builtins), "where", "keep", "known"}

# Names that `init` and `init_buffers` use, beside the letters of the sizes; a further size that is one of
# them is an argument with a trailing underscore.
SIZE_WORDS = frozenset("input_size hidden_size seed dtype rng k np cp proper shapes Params Buffers".split())


# Names that `forward` and `step` cannot take as arguments: those they have, and what they refer to.
GLOBALS = frozenset(
    """
    params x initial lengths tape buffers training x_t state np cp NamedTuple Any Params States Grads Tape
    Buffers init_buffers measure precision check memory over backwards chunks tiles os first_step
    start_states forward launch row_sum column_sum number
    """.split()
) | {*HELPERS, *dir(builtins)}


class Scope:
    """The names of one function, or of the module: each thing has one, and no two share one."""

    def __init__(self, taken: Iterable[str], sizes: dict[str, str], known: dict[object, str]) -> None:
        self.taken = set(taken)
        self.sizes = sizes
        self.known = dict(known)

    def new(self, wish: str) -> str:
        name = fresh(f"{wish}_" if wish in WORDS else wish, self.taken)
        self.taken.add(name)
        return name

    def of(self, key: object, wish: str) -> str:
        """The one name for `key`."""
        if key not in self.known:
            self.known[key] = self.new(wish)
        return self.known[key]

    def inner(self) -> Scope:
        """A scope inside this one."""
        return Scope(self.taken, self.sizes, self.known)

    def size(self, expr: sp.Expr) -> str:
        """`3 * H`, `H + I`: a width in the module's size letters."""
        return Printer(rename=self.sizes)(sp.sympify(expr))


def size_letters(plan: Plan) -> dict[str, str]:
    """`H` for hidden, `I` for input, the first letter of a further size where it is free."""
    letters: dict[str, str] = {}
    for size in plan.cell.sizes:
        wish = SIZE_LETTERS.get(size, size[0].upper())
        letters[size] = fresh(wish if wish not in WORDS else size.upper(), {*WORDS, *letters.values()})
    return letters


class Module:
    """What all functions of a module share: fields, buffers, their names, and the helpers they need."""

    xp = "np"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cell = plan.cell
        self.helpers: set[str] = set()
        self.fields = {f.name: f for f in plan.fields}
        self.buffers_of: dict[int, dict[str, Buffer]] = {}  # by id of a schedule: rules share names only
        self.comments = comments(plan)
        sizes = size_letters(plan)
        self.names = Scope({*WORDS, *sizes.values()}, sizes, {})
        for f in plan.fields:
            self.names.of(("field", f.name), f.name)
        for f in plan.fields:
            self.names.of(("field", gradient_of(f.name)), f"d_{f.name}")
        graph = plan.step.forward.graph
        for word, value in vars(graph.mask).items() if graph.mask else ():
            self.names.known[value.name] = self.names.known["given", value.name] = word
        self.names.known[self.cell.inputs[0].name] = "x"
        if len(self.cell.outputs) == 1:
            self.names.known[plan.step.backward.slot[plan.step.backward.graph.inputs[0]].buffer] = "d_y"
        else:
            for name, _ in plan.step.forward.graph.outputs:
                self.names.of(("output", name), name)
        for name, _ in plan.step.forward.graph.outputs if plan.first else ():
            self.names.of(("first", name), f"first_{name}")
        for pair in (plan.step, plan.first, plan.start):
            schedules = (pair.forward, pair.backward) if pair else ()
            known = {buffer.name: buffer for schedule in schedules for buffer in schedule.buffers}
            self.buffers_of.update(dict.fromkeys(map(id, schedules), known))
            for buffer in known.values():
                self.names.of(buffer.name, buffer.name)

    def shape_of(self, name: str) -> str:
        """The shape of what the caller gave, which need not be an array yet."""
        return f"np.shape({name})"

    def broadcast(self, name: str, shape: str) -> str:
        """An input that may be constant in time, at every step."""
        return f"np.broadcast_to({name}, {shape})"

    def carry(self, state: str, pair: Pair) -> str:
        """The name of the carried gradient of a state."""
        schedule = pair.backward
        found = next((c.current for c in schedule.graph.states if str(c.current.of) == state), None)
        return f"d_{state}" if found is None else self.names.known[schedule.slot[found].buffer]

    def seeds(self, pair: Pair) -> list[str]:
        """The names of the gradients of the outputs."""
        schedule = pair.backward
        values = schedule.graph.inputs[: len(pair.forward.graph.outputs)]
        return [self.names.known[schedule.slot[v].buffer] for v in values]

    def input_gradient(self, name: str) -> str:
        """The name of the gradient of an input: that of its buffer, where it has one for itself."""
        schedule = self.plan.step.backward
        slot = schedule.slot[dict(schedule.graph.outputs)[name]]
        if self.buffers_of[id(schedule)][slot.buffer].width == length(slot.size):
            return self.names.known[slot.buffer]
        return self.names.of(("gradient of input", name), f"d_{name}")

    def number(self, expr: sp.Expr) -> str:
        """A number, or arithmetic of sizes, as Python text."""
        if expr.is_number:
            value = float(expr)
            return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
        return f"({self.names.size(expr)})"

    @cached_property
    def singular(self) -> bool:
        """Whether a step may give inf or NaN behind the end of a sequence: the input is 0 there."""
        pairs = [pair for pair in (self.plan.step, self.plan.first) if pair]
        ops = [
            op for pair in pairs for graph in (pair.forward.graph, pair.backward.graph) for op in graph.ops
        ]
        return any(singular(op.expr) for op in ops if isinstance(op, Pointwise) and not op.out.static)

    def clears(self, schedule: Schedule, slot: Slot) -> bool:
        """Whether what is summed over all rows must be set to 0 behind the lengths: 0 * inf is not 0.

        What a run computes itself; inputs are 0 there, states finite, and `forward` clears the tape.
        """
        own = any(b.name == slot.buffer and b.kind not in ("input", "state") for b in schedule.buffers)
        of_start = self.plan.start is not None and schedule is self.plan.start.backward
        return own and self.singular and not of_start

    def cleared(self, pair: Pair) -> list[Buffer]:
        """What `forward` sets to 0 behind the lengths: all of the tape that need not be finite there."""
        return [b for b in tape_buffers(pair) if b.kind == "time"] if self.singular else []

    def cleared_first(self) -> list[int]:
        """The places of such values in what the rule for the first step leaves behind."""
        if self.plan.first is None or not self.singular:
            return []
        return [k for k, b in enumerate(tape_buffers(self.plan.first)) if b.kind != "static"]

    def comment(self, schedule: Schedule, values: Iterable[Value], once: bool = False) -> tuple[str, ...]:
        return self.comments.get(id(schedule), NONE).of(values, once)

    def gradient_field(self, name: str) -> Field | None:
        """The field whose gradient has this name."""
        return self.fields.get(name.removeprefix(GRADIENT)) if name.startswith(GRADIENT) else None

    def shape(self, buffer: Buffer, once: bool = False) -> str:
        """The shape of a buffer as text: `(T, B, 3 * H)`."""
        lead = {"state": "T + 1, B, ", "time": "T, B, ", "input": "T, B, ", "static": ""}.get(
            buffer.kind, "B, "
        )
        if once and lead:
            lead = "B, "
        return f"({lead}{self.names.size(buffer.width)}{',' if not lead else ''})"


def heading(module: Module) -> dict[str, Any]:
    """What the module says of the cell."""
    cell = module.cell
    facts = [cell.name, *cell.text(cell.all_equations), *(f"{c}={c.value}" for c in cell.constants)]
    facts += [f"{s}: {s.size}" for s in cell.inputs]
    facts += [f"{s}: {s.size} = {Printer()(s.initial)}" for s in cell.states]
    facts += [f"{a.name}: {a.shape} {a.trainable}" for a in cell.arrays]
    facts += [str(s) for s in cell.outputs]
    return {
        "name": cell.name,
        "title": cell.title.rstrip("."),
        "quoted_title": quoted(cell.title.rstrip(".")),
        "reference": tuple(map(quoted, textwrap.wrap(cell.reference, 100, break_long_words=False))),
        "equations": cell.text(),
        "first_equations": cell.text(cell.first) if cell.first else (),
        "constants": tuple(f"{c} = {module.number(c.value)}" for c in cell.constants),
        "sizes": ", ".join(f'"{size}"' for size in cell.sizes),
        "size_names": tuple(f"{letter} {size}" for size, letter in module.names.sizes.items()),
        "sha": sha256("\n".join(facts).encode()).hexdigest(),
    }


def quoted(text: str) -> str:
    """As it stands inside of a docstring: it ends none, and no backslash means anything."""
    return text.replace("\\", "\\\\").replace('"""', r"\"\"\"")


def passing(module: Module, made: dict[str, Any]) -> dict[str, Any]:
    """What passes between the functions: the tape, the outputs, the memory."""
    names, plan, array = module.names, module.plan, f"{module.xp}.ndarray"
    held = tape_buffers(plan.step)
    states, inputs = made["states"], made["inputs"]
    memory = [{"name": s["array"], "shape": f"(T + 1, B, {s['size']})"} for s in states]
    memory += [{"name": names.known[b.name], "shape": module.shape(b)} for b in held]
    inside = {item["name"] for item in memory}
    tape = [{"name": i["name"], "type": array, "comment": i["shape"]} for i in inputs]
    tape += [
        {
            "name": s["array"],
            "type": array,
            "comment": f"(T + 1, B, {s['size']})  the initial state first",
        }
        for s in states
    ]
    tape += [
        {"name": names.known[b.name], "type": array, "comment": f"{module.shape(b)}  {members(b)}"}
        for b in held
    ]
    tape += [
        {"name": "finished", "type": f"{array} | None", "comment": "(T, B, 1) where a sequence is over"},
    ]
    comment = "whether the caller gave the initial states"
    tape.append({"name": "given", "type": "bool", "comment": comment})
    if made["extra"]:
        comment = "inputs that were (B, size), constant in time"
        tape.append({"name": "constant", "type": "list[str]", "comment": comment})
    if made["buffers"]:
        tape += [
            {
                "name": "valid",
                "type": array,
                "comment": "(T, B, 1) 1 where a sequence still runs, else 0",
            },
            {"name": "count", "type": "float", "comment": "how many positions that is"},
            {"name": "training", "type": "float", "comment": "1 where the batch gave the statistics, else 0"},
        ]
    if made["first"]:
        tape.append({"name": "first_tape", "type": "Any", "comment": "what the first step left behind"})
    targets = [item["name"] for item in tape]
    values = ["initial is not None" if name == "given" else name for name in targets]
    outputs = output_context(module, made, inside)
    ruled = made["first"] or made["start"]  # there is a rule of its own for states that nobody gave
    single = len(outputs) == 1
    together = outputs[0]["name"] if single else f"({', '.join(o['name'] for o in outputs)})"
    return {
        "tape": tuple(tape),
        "tape_targets": call("(", [n if n != "given" or ruled else "_" for n in targets], ") = tape"),
        "return_tape": call(f"return {together}, final, Tape(", values),
        "take_memory": call(
            f"{returned_together([item['name'] for item in memory])} = memory(",
            ["tape", "dtype", *(f"{item['name']}={item['shape']}" for item in memory)],
        ),
        "grads": call(
            "return Grads(",
            [
                "params=d_params",
                *(f"{i['argument']}={i['result']}" for i in inputs),
                f"initial=States({', '.join(s['carry'] for s in states)})",
            ],
        ),
        "forward_work": empties(
            (item for item in made["forward"]["memory"] if item["name"] not in inside), module.xp
        ),
        "backward_work": empties(made["backward"]["memory"], module.xp),
        "outputs": outputs,
        "output_type": array if single else f"tuple[{array}, ...]",
        "output_shapes": " and ".join(o["shape"] for o in outputs),
        "output_tuple": together,
        "output_gradients": gradient_lines(outputs, module.xp),
        "step_head": call(
            "def step(",
            ["params: Params", f"x_t: {array}", "state: States | None = None", *made["step_arguments"]],
            f") -> tuple[{array if single else f'tuple[{array}, ...]'}, States]:",
        ),
        "step_result": "y[0]" if single else "tuple(part[0] for part in y)",
        "final_states": ", ".join(f"{s['array']}[T].copy()" for s in states),
        "carry_names": ", ".join(s["carry"] for s in states),
        "input_gradient_views": input_gradient_views(module, made),
        "start_lines": start_lines(made),
    }


def empties(memory: Iterable[dict[str, str]], xp: str) -> tuple[str, ...]:
    """The lines that make some memory, all arrays of one shape in one line."""
    by_shape: dict[str, list[str]] = {}
    for item in memory:
        by_shape.setdefault(item["shape"], []).append(item["name"])
    lines: list[str] = []
    for shape, names in by_shape.items():
        made = f"{xp}.empty({shape}, dtype)"
        several = assigned(names, f"({made} for _ in range({len(names)}))")
        lines += several.split("\n") if len(names) > 1 else [f"{names[0]} = {made}"]
    return tuple(lines)


def assigned(targets: Sequence[str], value: str) -> str:
    """`a, b = value`; too many names stand within brackets."""
    line = f"{returned_together(targets)} = {value}"
    return line if len(line) <= WIDTH - 8 else call("(", targets, f") = {value}")


def input_gradient_views(module: Module, made: dict[str, Any]) -> tuple[str, ...]:
    """Lines that name the gradients of inputs that lie beside others."""
    named = ((module.input_gradient(name), source) for name, source in made["backward"]["outputs"])
    return tuple(f"{name} = {source}" for name, source in named if name != source)


def output_context(
    module: Module, made: dict[str, Any], kept: AbstractSet[str]
) -> tuple[dict[str, Any], ...]:
    """The outputs; one that lies in memory of its own, which no tape keeps, needs no copy."""
    graph = module.plan.step.forward.graph
    own = {item["name"] for item in made["forward"]["memory"]} - kept
    found = []
    for k, (name, value) in enumerate(graph.outputs):
        size = module.names.sizes.get(str(value.size), str(value.size))
        source = made["forward"]["outputs"][k][1]
        by_first = module.names.known["first", name] if made["first"] and not source.endswith("[1:]") else ""
        found.append(
            {
                "name": module.names.known.get(("output", name), name),
                "source": source if source in own else f"{source}.copy()",
                "gradient": module.seeds(module.plan.step)[k],
                "shape": f"(T, B, {size})",
                "label": "d_y" if len(graph.outputs) == 1 else f"d_y[{k}]",
                "first": by_first,
            }
        )
    return tuple(found)


def gradient_lines(outputs: Sequence[dict[str, Any]], xp: str) -> tuple[str, ...]:
    """Lines that turn `d_y` into one array for every output."""

    def line(output: dict[str, Any], given: str, label: str) -> str:
        name, shape = output["gradient"], output["shape"]
        checked = f'check("{label}", {given}, {shape}, dtype=dtype)'
        return f"{name} = {xp}.zeros({shape}, dtype) if {given} is None else {checked}"

    if len(outputs) == 1:
        return (line(outputs[0], "d_y", "d_y"),)
    head = [
        f"d_y = [None] * {len(outputs)} if d_y is None else d_y",
        f"if len(d_y) != {len(outputs)}:",
        f'    raise ValueError(f"d_y has {{len(d_y)}} parts, expected {len(outputs)}")',
    ]
    return (*head, *(line(o, f"d_y[{k}]", f"d_y[{k}]") for k, o in enumerate(outputs)))


def start_lines(made: dict[str, Any]) -> tuple[str, ...]:
    if made["start"]:
        targets = ", ".join(f"{s['array']}[0]" for s in made["states"])
        comma = "," if len(made["states"]) == 1 else ""
        checked = (f"    {s['array']}[0] = {s['check']}" for s in made["states"])
        return (
            "if initial is None:",
            f"    {targets}{comma} = start_states(params, {made['late_parameters']}B, dtype)",
            "else:",
            *checked,
        )
    return tuple(
        f"{s['array']}[0] = {s['initial']} if initial is None else {s['check']}" for s in made["states"]
    )


def tape_buffers(pair: Pair) -> list[Buffer]:
    """The buffers that the backward step reads, beside inputs and states."""
    return [b for b in pair.saved if b.kind in ("time", "row", "static")]


@dataclass(frozen=True)
class Rule:
    """The names of what passes to and from the functions of a rule for one step."""

    inputs: tuple[str, ...]
    states: tuple[str, ...]  # as the spec calls them
    outputs: tuple[str, ...]
    seeds: tuple[str, ...]  # the gradients of the outputs
    later_seeds: tuple[str, ...]  # the same in the function for all steps
    carries: tuple[str, ...]  # the gradients of the states
    carried: tuple[str, ...]  # the same in the function for all steps
    held: tuple[str, ...]  # what the forward step leaves to the backward step


def rule_of(module: Module, pair: Pair) -> Rule:
    """Of the first step, or of what the initial states are made of, which reads no input and no state."""
    names, step, graph = module.names.known, module.plan.step, pair.forward.graph
    states = module.cell.states if graph.states else ()
    return Rule(
        inputs=tuple(names[s.name] for s in module.cell.inputs if graph.inputs),
        states=tuple(s.name for s in states),
        outputs=tuple(names.get(("first", name), name) for name, _ in graph.outputs),
        seeds=tuple(module.seeds(pair)),
        later_seeds=tuple(module.seeds(step)),
        carries=tuple(module.carry(s.name, pair) for s in states),
        carried=tuple(module.carry(s.name, step) for s in states),
        held=tuple(names[b.name] for b in tape_buffers(pair)),
    )


def rule_context(module: Module, rule: Rule, backward: dict[str, Any]) -> dict[str, Any]:
    """What both backends print of such a rule."""
    names = module.names.known
    arrays = [names[s] for s in rule.states]
    over_time = [names[b.name] for b in tape_buffers(module.plan.step) if b.kind == "time"]
    d_inputs = [source for _, source in backward["outputs"]]
    return {
        "carries": rule.carries,
        "carry_names": ", ".join(rule.carries),
        "kept_carries": tuple(
            {"carry": carry, "kept": module.names.known["kept", state]}
            for carry, state in zip(rule.carries, rule.states, strict=True)
        ),
        "carried": ", ".join(rule.carried),
        "own_d_inputs": ", ".join(d_inputs),
        "d_first": ", ".join(
            module.names.of(("first gradient", s.name), f"first_d_{s.name}") for s in module.cell.inputs
        ),
        "joined": tuple(
            {"name": module.input_gradient(s.name), "first": module.names.known["first gradient", s.name]}
            for s in module.cell.inputs
        ),
        "later": (*rule.inputs, *arrays, *over_time, *rule.later_seeds),
        "gradients_returned": ", ".join([*d_inputs, *rule.carries]),
        "gradient_names": ", ".join(rule.seeds),
        "some_gradient": rule.seeds[0] if rule.seeds else "",
    }


def members(buffer: Buffer) -> str:
    return ", ".join(buffer.members)


def signature(module: Module) -> dict[str, Any]:
    """Fields, sizes, inputs, states: what the public functions take and return."""
    cell, names = module.cell, module.names
    letters = names.sizes
    fields = tuple(field_context(module, f) for f in module.plan.fields)
    inputs = tuple(input_context(module, s) for s in cell.inputs)
    extra = inputs[1:]
    renamed = [i for i in extra if i["name"] != i["argument"]]
    graph = module.plan.step.forward.graph
    buffers = tuple(buffer_context(module, statistic) for statistic in graph.statistics)
    further = [s for s in cell.sizes if s not in SIZE_LETTERS]
    normed = [s for s in ("input", *further) if any(b["size"] == letters[s] for b in buffers)]
    states = tuple(state_context(module, s) for s in cell.states)
    known = measured_sizes(module)
    measured = [letters[s] for s in known]
    x_size = cell.inputs[0].size
    late = late_sizes(module, known)
    members = tuple(m["member"] for f in fields for m in f["slices"])
    return {
        "fields": fields,
        "members": members,
        "expected_names": call("expected = [", [f'"{m}"' for m in members], "]"),
        "field_gradients": ", ".join(f["gradient"] for f in fields),
        "shape_parameters": ", ".join(f"{name}: int" for name in measured),
        "return_shapes": returned([f["shape"] for f in fields]),
        "no_gradients": no_gradients(fields, module.xp, ", ".join(measured)),
        "ranks": ", ".join(f["rank"] for f in fields) + ("," if len(fields) == 1 else ""),
        "stacks": any(not f["single"] for f in fields),
        "measure_call": measure_call(measured, None),
        "unpack_call": measure_call(measured, " ".join(p["source"] for f in fields for p in f["slices"])),
        "measured_result": f"{', '.join(measured)}{',' * (len(measured) == 1)}" or "()",
        "measured_names": ", ".join(measured),
        "measure_lines": together([(letters[s], source) for s, source in known.items()]),
        "late_size": letters[x_size] if x_size in late else "_",
        "late_extra": tuple(
            f"{letters[size]} = (0, *{module.shape_of(name)})[-1]"
            for size, name in late.items()
            if size != x_size
        ),
        "late_lines": tuple(f"{letters[size]} = {name}.shape[-1]" for size, name in late.items()),
        "late_parameters": "".join(f"{letters[size]}, " for size in late),
        "inputs": inputs,
        "input_sizes": sizes_by_name(
            (i["argument"], s.size) for i, s in zip(inputs, cell.inputs, strict=True)
        ),
        "state_sizes": sizes_by_name((s.name, s.size) for s in cell.states),
        "output_sizes": sizes_by_name(
            (str(s), v.size) for s, (_, v) in zip(cell.outputs, graph.outputs, strict=True)
        ),
        "extra": extra,
        "sequence_shape": inputs[0]["shape"],
        "renamed": bool(renamed),
        "renamed_names": ", ".join(i["name"] for i in renamed),
        "renamed_arguments": ", ".join(i["argument"] for i in renamed),
        "extra_keywords": "".join(f", {i['argument']}={i['name']}" for i in extra),
        "singular": module.singular,
        "cleared": ", ".join(module.names.known[b.name] for b in module.cleared(module.plan.step)),
        "cleared_first": ", ".join(f"first_tape[{k}]" for k in module.cleared_first()),
        "input_gradients": ", ".join(module.input_gradient(s.name) for s in cell.inputs),
        "constant_tests": ", ".join(f'*["{i["argument"]}"] * ({i["name"]}.ndim == 2)' for i in extra),
        "step_arguments": step_arguments(module, extra, bool(buffers)),
        "step_keywords": "".join(f", {i['argument']}={i['argument']}" for i in extra)
        + (", buffers=buffers, training=training" if buffers else ""),
        "states": states,
        "no_d_final": call("States(", [f"{module.xp}.zeros((B, {s['size']}), dtype)" for s in states]),
        "buffers": buffers,
        "init_head": call(
            "def init(",
            [
                "input_size: int",
                "hidden_size: int",
                "*",
                "seed: Any = None",
                'dtype: Any = "float32"',
                *(f"{size_argument(s, letters)}: int" for s in further),
            ],
            ") -> Params:",
        ),
        "init_sizes": init_sizes(
            letters, ("input", "hidden", *further), " ".join(f["shape"] for f in fields)
        ),
        "buffer_arguments": ", ".join(
            [
                "hidden_size: int",
                "*",
                'dtype: Any = "float32"',
                *(f"{size_argument(s, letters)}: int" for s in normed),
            ]
        ),
        "buffer_sizes": init_sizes(letters, ("hidden", *normed), " ".join(b["size"] for b in buffers)),
        "buffer_values": ", ".join(
            [letters["hidden"], *(f"{size_argument(s, letters)}={letters[s]}" for s in normed)]
        ),
    }


def step_arguments(module: Module, extra: Sequence[dict[str, str]], buffers: bool) -> tuple[str, ...]:
    """The keyword arguments of `step`: further inputs, and what batch normalisation needs."""
    words = [f"{i['argument']}: {module.xp}.ndarray" for i in extra]
    words += ["buffers: Buffers", "training: bool = False"] if buffers else []
    return ("*", *words) if words else ()


def sizes_by_name(sizes: Iterable[tuple[str, object]]) -> str:
    """The inside of a dictionary from names to the name of a size, or to its number."""
    return ", ".join(
        f'"{name}": "{size}"' if isinstance(size, str) else f'"{name}": {size}' for name, size in sizes
    )


def measure_call(letters: Sequence[str], text: str | None) -> str:
    """The line that measures the parameters, naming those sizes that `text` mentions (None: all)."""
    used = [n if text is None or re.search(rf"\b{n}\b", text) else "_" for n in letters]
    return "measure(params)" if set(used) <= {"_"} else f"{returned_together(used)} = measure(params)"


def init_sizes(letters: dict[str, str], sizes: Sequence[str], shapes: str) -> str:
    """The line that checks dtype and sizes, and names those that some shapes mention."""
    arguments = [size_argument(size, letters) for size in sizes]
    found = [letters[s] if s == "hidden" or re.search(rf"\b{letters[s]}\b", shapes) else "_" for s in sizes]
    return call(f"dtype, {', '.join(found)} = proper(", ["dtype", *(f"{name}={name}" for name in arguments)])


def size_argument(size: str, letters: dict[str, str]) -> str:
    """How `init` spells a size."""
    if size in SIZE_LETTERS:
        return f"{size}_size"
    wish = f"{size}_" if size in SIZE_WORDS or size in letters.values() else size
    return fresh(wish, letters.keys() - {size})


def singular(expr: sp.Expr) -> bool:
    """Whether `expr` divides, or takes a logarithm, a root or an exponential."""
    powers = any(not (p.exp.is_Integer and p.exp > 0) for p in expr.atoms(sp.Pow))
    return powers or expr.has(*(row.apply for row in TABLE if not row.finite))


def input_context(module: Module, symbol: Any) -> dict[str, str]:
    letter = module.names.sizes.get(str(symbol.size), str(symbol.size))
    name = module.names.known[symbol.name]
    gradient = module.input_gradient(symbol.name)
    argument = "x" if name == "x" else argument_name(module, symbol.name)
    return {
        "name": name,
        "argument": argument,
        "size": letter,
        "shape": f"(T, B, {letter})",
        "broadcast": module.broadcast(name, f"(T, B, {letter})"),
        "result": gradient
        if name == "x"
        else f'{gradient}.sum(axis=0) if "{argument}" in constant else {gradient}',
    }


def argument_name(module: Module, name: str) -> str:
    """What `forward` and `step` call a further input: its own name, unless that means something else."""
    taken = {s.name for s in module.cell.inputs} - {name}
    return fresh(f"{name}_" if name in GLOBALS else name, taken)


def state_context(module: Module, symbol: Any) -> dict[str, str]:
    initial = symbol.initial
    size = module.names.sizes.get(str(symbol.size), str(symbol.size))
    return {
        "name": symbol.name,
        "array": module.names.known[symbol.name],
        "carry": module.carry(symbol.name, module.plan.step),
        "kept": module.names.of(("kept", symbol.name), f"kept_{symbol.name}"),
        "size": size,
        "check": f'check("initial.{symbol.name}", initial.{symbol.name}, (B, {size}))',
        "initial": module.number(initial) if initial.is_number else "",
    }


def buffer_context(module: Module, statistic: Statistic) -> dict[str, str]:
    name, size = statistic.value.name, statistic.value.size
    return {
        "name": name,
        "local": module.names.known.get(("given", name), name),
        "size": module.names.sizes.get(str(size), str(size)),
        "start": "zeros" if statistic.kind == "mean" else "ones",
    }


def field_context(module: Module, f: Field) -> dict[str, Any]:
    names = module.names
    name = names.known["field", f.name]
    tail = f", {names.size(f.width)})" if f.columns else ",)"
    shape = f"({names.size(f.height)}{tail}" if f.rows else "()"
    at: sp.Expr = sp.S.Zero
    slices = []
    single = len(f.packed) == 1
    heights = [sum(map(length, f.rows))] if single else map(length, f.rows)
    for member, rows in zip(f.packed, heights, strict=True):
        end = at + rows
        low = "" if at == 0 else names.size(at)
        high = "" if end == f.height else names.size(end)
        colon = " : " if " " in low + high else ":"
        part = f"[{low}{colon}{high}]".replace("[ ", "[").replace(" ]", "]")
        slices.append({"member": member, "source": name if single else name + part})
        at = end
    pieces = [f'{m}=named["{m}"]' for m in f.packed]
    pack = f'named["{f.packed[0]}"]' if single else call(f"{name}=stack(", pieces).removeprefix(f"{name}=")
    return {
        "name": name,
        "gradient": names.known["field", gradient_of(f.name)],
        "shape": shape,
        "rank": "2" if f.columns else "1" if f.rows else "0",
        "members": stack_of(f),
        "slices": tuple(slices),
        "single": single,
        "pack": pack if f.rows else f"{pack}.reshape(())",
    }


def stack_of(f: Field) -> str:
    """What lies in a field, one below the other."""
    return ", ".join(f"{f.array}[{k}]" for k in range(len(f.members))) if f.array else ", ".join(f.members)


def measured_sizes(module: Module) -> dict[str, str]:
    """The sizes that the shapes of the parameters tell, with the expression that tells each."""
    letters = module.names.sizes

    def source(told: Told) -> str:
        length = f"params.{module.names.known['field', told.field]}.shape[{told.axis}]"
        others = [letters.get(str(size), str(size)) for size in told.others]
        rest = " - ".join([length, *others])
        if told.count == 1:
            return rest
        return f"({rest}) // {told.count}" if others else f"{rest} // {told.count}"

    return {size: source(told) for size, told in sizes_told(module.plan.fields).items()}


def late_sizes(module: Module, known: dict[str, str]) -> dict[str, str]:
    """The sizes that only the shape of an input tells, with the input."""
    found: dict[str, str] = {}
    for symbol in module.cell.inputs:
        if isinstance(symbol.size, str) and symbol.size not in known:
            found.setdefault(symbol.size, module.names.known[symbol.name])
    return found


def own_memory(module: Module, schedule: Schedule, once: bool = False) -> tuple[dict[str, str], ...]:
    """Names and shapes of the buffers a function makes for itself: all but inputs, states and carries."""
    return tuple(
        {"name": module.names.known[b.name], "shape": module.shape(b, once)}
        for b in schedule.buffers
        if b.kind in ("row", "time", "static")
    )


def returned_together(names: Sequence[str]) -> str:
    """What a function returns as one tuple."""
    return ", ".join(names) + ("," if len(names) == 1 else "")


def with_fields(module: Module, function: dict[str, Any], *texts: str) -> dict[str, Any]:
    """A function with the fields of `params` and the memory that its lines, or further texts, mention."""
    said = [
        part if isinstance(part, str) else str(part)
        for name, part in function.items()
        if name not in ("memory", "kernels")
    ]
    code = re.sub(r"(?m)^\s*#.*$", "", "\n".join((*said, *texts)))
    words = set(re.findall(r"[A-Za-z_]\w*", code))
    names = [module.names.known["field", f.name] for f in module.plan.fields]
    targets = [name if name in words else "_" for name in names]
    return {
        **function,
        "memory": tuple(item for item in function["memory"] if item["name"] in words),
        "unpacked": "" if set(targets) <= {"_"} else returned_together(targets),
    }


def no_gradients(fields: Sequence[dict[str, Any]], xp: str, sizes: str) -> str:
    """The line that makes the gradients of the parameters."""
    value = f"({xp}.zeros(shape, dtype) for shape in shapes({sizes}))"
    return assigned([f["gradient"] for f in fields], value) if fields else ""


def together(assignments: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The lines of some assignments: one where it is short, and none waits for another."""
    line = " = ".join(", ".join(part) for part in zip(*assignments, strict=True))
    waits = any(re.search(rf"\b{name}\b", source) for name, _ in assignments for _, source in assignments)
    if line and len(line) <= 80 and not waits:
        return (line,)
    return tuple(f"{name} = {source}" for name, source in assignments)


def returned(values: Sequence[str]) -> str:
    """The line that returns some values as a tuple."""
    line = f"return {returned_together(values)}" if values else "return ()"
    return line if len(line) <= WIDTH - 8 else call("return (", values)


def wrapped(items: str, width: int) -> list[str]:
    """A list as lines inside of brackets; none ends within an item."""
    kept = re.sub(r"\[[^]]*\]|\([^()]*\)", lambda found: found[0].replace(" ", "\0"), items)
    lines = textwrap.wrap(kept, width - 4, break_long_words=False, break_on_hyphens=False)
    return ["    " + line.replace("\0", " ") for line in lines]


def call(head: str, arguments: Sequence[str], tail: str = ")") -> str:
    """A call in one line, or with its arguments on lines of their own where that is too long."""
    line = f"{head}{', '.join(arguments)}{tail}"
    if len(line) <= WIDTH - 8:
        return line
    kept = ", ".join(argument.replace(" ", "\0") for argument in arguments)
    return "\n".join([head, *wrapped(kept + ",", WIDTH - 8), tail])
