"""The functions of a module, and all that the templates print of it: the same for every backend.

The lines of a function come from a `Host` for each level of its schedule; what they mention of the parameters
and of memory is what the function takes out and makes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from gategen.backends import interface
from gategen.backends.folding import WIDTH, assigned, call, listing, wrapped
from gategen.backends.host import AHEAD, ALL, LOOP, NOTHING, ONCE, Host, Part
from gategen.backends.interface import Array, Measure, Measured, array_of, over_all
from gategen.backends.module import Module, OneStep, Way, tape_buffers
from gategen.backends.names import Scope
from gategen.backends.weights import all_shapes, weight_calls, weight_gradients, weights_context
from gategen.graph import shape_of
from gategen.plan import FIRST_STEP, START_STATES, Buffer, Field, Rule, Schedule
from gategen.spec.functions import TABLE

OVERFLOWING = {call.name for row in TABLE for call in (row.numpy, row.exact) if call and call.overflows}
Hosts = Callable[[Module, Way, Scope, str], Host]  # the lines of one level


@dataclass(frozen=True)
class Assigned:
    """`target[...] = value`."""

    target: str
    value: str


@dataclass(frozen=True)
class Function:
    """One direction of a rule. What runs at every step is in `loop`, and for a single step all of it."""

    loop: Part
    outputs: tuple[str, ...]  # where they lie
    memory: tuple[Array, ...]  # what the lines write
    makes: tuple[str, ...] = ()  # lines that make it
    before: Part = NOTHING
    ahead: Part = NOTHING
    after: Part = NOTHING
    chunked: bool = False  # whether the loop goes over a few steps at once, of which `ahead` comes first
    counted: bool = False  # whether some line names the number of these steps
    head: str = ""  # of the loop; empty where nothing is done in it
    once: str = ""  # the line that takes all steps in one launch, by so many `blocks`
    blocks: str = ""  # the line that says how many, 0 to take each step by itself
    units: str = ""  # what they share, where they wait for each other
    aside: tuple[str, ...] = ()  # lines before a step, where sequences have lengths
    kept: tuple[str, ...] = ()  # lines behind it: what is over keeps what it carries
    updates: tuple[Assigned, ...] = ()  # of the running statistics
    unpacked: str = ""  # names for the fields of `params`; empty where the lines read none
    unpacked_dots: str = ""  # the same for those of a direction
    weights: tuple[str, ...] = ()  # lines that make those that are computed
    stretches: str = ""  # the line that says how many of these run side by side, in one loop

    @property
    def code(self) -> Iterator[str]:
        """All lines, in no order."""
        for part in (self.before, self.ahead, self.loop, self.after):
            yield from part.prepare
            yield part.text
        yield from (*self.aside, *self.kept)
        for update in self.updates:
            yield from (update.target, update.value)
        yield from (self.head, self.once, self.blocks, *self.outputs)


@dataclass(frozen=True)
class Carried:
    """The gradient of a state, in the functions of a rule for one step."""

    carry: str
    kept: str  # the same, set aside
    later: str  # the same in the function for all steps
    over: str  # what makes an array of one number a row broadcast over it


@dataclass(frozen=True)
class RuleFunctions:
    """A rule for one step as two functions; they return what is to be assigned, from left to right."""

    forward: Function
    backward: Function
    makes: tuple[str, ...]  # lines that make what the forward function needs
    one_step: OneStep
    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    results: tuple[str, ...]  # what `forward` calls the states and outputs that it gets back
    measured: Measured  # the sizes that the forward function needs
    returned: str  # these, and what is left behind for the backward function
    parameters_back: tuple[str, ...]
    saved: tuple[str, ...]  # what `backward` sets aside for the backward function
    seeds: tuple[str, ...]  # the gradients of the outputs
    carries: tuple[Carried, ...]
    gradients: tuple[str, ...]  # of the inputs
    gradient_rows: tuple[str, ...]  # the same with all features in one axis
    later: tuple[str, ...]  # arrays of which `backward` then leaves the first step out
    cleared: tuple[str, ...]  # what `forward` sets to 0 behind the lengths, of what is left behind


@dataclass(frozen=True)
class QuickState:
    """A state in `step`."""

    name: str
    now: str
    next: str
    size: str


@dataclass(frozen=True)
class Quick:
    """`step` in a function of its own, without the arrays of a run."""

    function: Function
    states: tuple[QuickState, ...]
    makes: tuple[str, ...]  # lines that make the next states and what else it needs
    result: str
    quiet: bool  # whether some operation may overflow on its way to what is finite


# ---------------------------------------------------------------------------------------------- functions


def function(module: Module, way: Way, host: Hosts) -> Function:
    """The lines of one direction of the step."""
    names, schedule, graph = module.names.inner(), way.schedule, way.schedule.graph
    before, ahead, loop, after = (host(module, way, names, where) for where in (ALL, AHEAD, LOOP, ALL))
    once = host(module, way, names, ALL)
    before.run(schedule.before)
    updates = tuple(
        Assigned(str(s.value.name), module.target.real.format(before.value(s.update)))
        for s in graph.statistics
    )
    ahead.run(schedule.ahead)
    loop.known = ahead.views
    loop.run(schedule.loop)
    aside, kept = loop.aside(), loop.kept()
    blocks, units = once.persistent()
    after.run(schedule.after)
    outputs = tuple(after.value(value) for _, value in graph.outputs)
    before.settle(*(update.value for update in updates))
    ahead.settle(*loop.steps)
    after.settle(*outputs)
    made = Function(
        before=before.written,
        ahead=ahead.written,
        loop=loop.written,
        after=after.written,
        chunked=module.few_steps(way),
        head=loop.head if loop.text or aside or kept else "",
        once=once.text,
        blocks=blocks,
        units=units,
        aside=aside,
        kept=kept,
        updates=updates,
        outputs=outputs,
        memory=own_memory(module, schedule),
        stretches=module.stretches(way),
    )
    return fitted(module, made)


def one_step(module: Module, way: Way, host: Hosts) -> Function:
    """The lines of one direction of a rule for one step."""
    lines = host(module, way, module.names.inner(), ONCE)
    lines.run(way.schedule.stages)
    outputs = tuple(lines.value(value) for _, value in way.schedule.graph.outputs)
    lines.settle(*outputs)
    start = module.target.one_step
    memory = tuple(
        replace(array, shape=array.shape.replace("(T, B", start))
        for array in own_memory(module, way.schedule, rows=True)
    )
    return fitted(module, Function(loop=lines.written, outputs=outputs, memory=memory))


def own_memory(module: Module, schedule: Schedule, rows: bool = False) -> tuple[Array, ...]:
    """The buffers a function makes for itself: all but inputs, states and carries."""
    made = (
        b
        for b in schedule.buffers
        if b.kind in ("row", "time", "static", "stretch") and b.name not in schedule.passing
    )
    return tuple(array_of(module, b, rows=rows) for b in made)


def fitted(module: Module, made: Function, *others: Function) -> Function:
    """A function with the fields of `params` and the memory that its lines, or those of others, mention."""
    used = words(made, *others)

    def unpacked(fields: Sequence[Field | None]) -> str:
        names = ["" if f is None else module.names["field", f.name] for f in fields]
        targets = [name if name in used else "_" for name in names]
        if set(targets) <= {"_"}:
            return ""
        line = listing(targets)
        if len(f"{line} = {module.target.parameters}") <= WIDTH - 4:
            return line
        return "\n".join(["(", *wrapped(f"{line.removesuffix(',')},", WIDTH - 4), ")"])

    memory = tuple(array for array in made.memory if array.name in used)
    calls = weight_calls(module, used)
    return replace(
        pulled(made, calls.pull),
        memory=memory,
        counted="steps" in used,
        weights=calls.make,
        makes=(*calls.make, *interface.empties(memory, module.target.xp)),
        unpacked=unpacked(module.plan.fields),
        unpacked_dots=unpacked(module.plan.moving),
    )


def pulled(made: Function, line: str) -> Function:
    """A function that ends with a line, where there is one."""
    if not line:
        return made
    behind = made.head or made.after.lines  # a loop
    part = made.after if behind else made.loop
    longer = Part(part.prepare, f"{part.text}\n\n{line}".strip())
    return replace(made, after=longer) if behind else replace(made, loop=longer)


def words(*functions: Function) -> set[str]:
    """The names in the lines of some functions."""
    code = re.sub(r"#.*", "", "\n".join(line for each in functions for line in each.code))
    return set(re.findall(r"[A-Za-z_]\w*", code))


def rule_functions(module: Module, rule: Rule, host: Hosts, measure: Measure) -> RuleFunctions:
    """A rule for the first step, or for the initial states, which reads no input and no state."""
    names, step, graph = module.names, module.plan.step, rule.forward.graph
    passing = module.one_step(module.states_of(rule))
    forward, backward = (one_step(module, way, host) for way in module.ways(rule))
    if not graph.states:  # computes its forward values anew
        backward = fitted(module, backward, forward)
    states = module.states_of(rule)
    inputs = tuple(names["memory", s.name] for s in module.cell.inputs if graph.inputs)
    outputs = tuple(names.find("first output", name) or name for name, _ in graph.outputs)
    taped = list(enumerate(tape_buffers(rule)))
    held = tuple(names["memory", b.name] for _, b in taped if graph.states)
    over_time = tuple(names["memory", b.name] for b in tape_buffers(step) if b.kind == "time")
    seeds, later_seeds = module.seeds(rule), module.seeds(step)
    sizes = {s.name: s.size for s in module.cell.states}
    carries = tuple(
        Carried(module.carry(s, rule), names["kept", s], module.carry(s, step), over_all(sizes[s]))
        for s in states
    )
    whole, back = (tuple(f"{name}{passing.at}" for name in some) for some in (inputs, later_seeds))
    nexts = (Array(n, f"{h}.shape") for n, h in zip(passing.made, passing.states, strict=False))
    carry_names = tuple(c.carry for c in carries)
    makes = (*forward.weights, *interface.empties((*forward.memory, *nexts), module.target.xp))
    text = "\n".join((forward.loop.text, *forward.loop.prepare, *makes))
    return RuleFunctions(
        forward=forward,
        backward=backward,
        makes=makes,
        one_step=passing,
        parameters=("params", *inputs, *passing.states, *passing.further),
        arguments=("params", *whole, *passing.passed, *passing.further),
        results=(*passing.results, *outputs),
        measured=interface.measured(module, measure.sizes, measure.late, text),
        returned=listing([*passing.made, *forward.outputs, *held]),
        parameters_back=("params", *inputs, *passing.both, *seeds, *carry_names, "finished", *held),
        saved=(*whole, *passing.saved, *back),
        seeds=seeds,
        carries=carries,
        gradients=backward.outputs,
        gradient_rows=gradient_rows(module, backward.outputs),
        cleared=tuple(
            module.as_rows(f"first_tape[{k}]", b, once=True)
            for k, b in taped
            if module.singular and b.kind != "static"
        ),
        later=(*inputs, *(names["memory", s] for s in states), *over_time, *later_seeds),
    )


def gradient_rows(module: Module, gradients: Sequence[str]) -> tuple[str, ...]:
    """The gradients of the inputs at one step, with all features in one axis; none where it reads none."""
    pairs = zip(gradients, module.cell.inputs if gradients else (), strict=True)
    return tuple(name if len(shape_of(s.size)) < 2 else module.in_rows(name, s.size) for name, s in pairs)


def quick_step(module: Module, host: Hosts) -> Quick | None:
    """One step from given states; a batch norm needs a whole run."""
    names, step = module.names, module.plan.step
    if step.forward.graph.statistics:
        return None
    arrays = [names["memory", s.name] for s in module.cell.states]
    states = tuple(
        QuickState(
            s.name,
            names.of("now", s.name, f"{array}_t"),
            names.of("next", s.name, f"{array}_next"),
            names.letter(s.size),
        )
        for s, array in zip(module.cell.states, arrays, strict=True)
    )
    made = one_step(module, module.ways(step)[0], host)
    outputs = [f"{source}.copy()" for source in made.outputs]
    result = outputs[0] if len(outputs) == 1 else f"({', '.join(outputs)})"
    nexts = (Array(s.next, f"(B, {s.size})") for s in states)
    makes = (*made.weights, *interface.empties((*made.memory, *nexts), module.target.xp))
    quiet = module.singular or not module.helpers.isdisjoint(OVERFLOWING)
    return Quick(made, states, makes, result, quiet)


def context(module: Module, host: Hosts) -> dict[str, object]:
    """All that the templates print, records by name; names are given in the order of the calls here."""
    plan, names, signature = module.plan, module.names, interface.signature(module)
    outputs = plan.step.forward.graph.outputs
    forward, backward = (function(module, way, host) for way in module.ways(plan.step))
    first, start = (
        rule_functions(module, rule, host, signature.measure) if (rule := plan.rule(name)) else None
        for name in (FIRST_STEP, START_STATES)
    )
    passing = interface.passing(module, signature, forward.outputs, forward.memory)
    passing = replace(passing, forward_work=(*forward.weights, *passing.forward_work))
    taped = tape_buffers(plan.step) if module.singular else []
    targets = first.results if first else ()
    unread = [
        names["first output", n]
        for (n, _), o in zip(outputs, passing.outputs, strict=True)
        if first and not o.first
    ]
    return {
        **vars(signature),
        **vars(passing),
        "alone": True,  # not beside another module, whose derivative it is
        "second": False,
        "params_fields": "Params._fields",
        "params_type": "Params",
        "calls": with_computed(module, interface.calls_of(module, signature, passing), signature),
        "forward": forward,
        "backward": backward,
        "first": first,
        # what takes the results of `first_step`: an output that is a state is there already
        "first_targets": ["_" if name in unread else name for name in targets],
        "start": start,
        "newton": None,
        "newton_back": None,
        "quick": quick_step(module, host) if module.target.numpy else None,
        **weights_context(module),
        "views": beside_others(module, backward),
        # whether lines may give what is not finite behind the lengths, and what `forward` sets to 0 there
        "singular": module.singular,
        "clearing": clearing(module, taped),
        # whether some of it lies gate by gate
        "by_gate": any(b.name in module.by_gate for b in taped if b.kind == "time"),
        **needed_helpers(module),
    }


def with_computed(module: Module, calls: interface.Calls, given: interface.Signature) -> interface.Calls:
    """The lines, of which one makes the gradients of computed fields too."""
    further = weight_gradients(module)
    if not further:
        return calls
    sizes = ", ".join(size.letter for size in given.measure.sizes)
    names = [*(f.gradient for f in given.fields), *(name for name, _ in further)]
    none = f"({given.xp}.zeros(shape, dtype) for shape in {all_shapes(sizes, further)})"
    return replace(calls, no_gradients=assigned(names, none))


def beside_others(module: Module, backward: Function) -> list[Assigned]:
    """The gradients of inputs that lie beside others."""
    gradients = [module.input_gradient(name) for name, _ in module.plan.step.backward.graph.outputs]
    return [Assigned(n, v) for n, v in zip(gradients, backward.outputs, strict=True) if n != v]


def clearing(module: Module, taped: Sequence[Buffer]) -> str:
    """The line that sets these buffers to 0 behind the lengths, where they are of all steps."""
    names = [module.as_rows(module.names["memory", b.name], b) for b in taped if b.kind == "time"]
    return call("clear(", ["finished", *names], width=WIDTH - 4) if names else ""


def needed_helpers(module: Module) -> dict[str, object]:
    """Which functions of the templates the lines call, and whether one looks into the environment."""
    names = """
        tiles project product row_sum row_max running_sum column_sums apart
        by_block blockwise blockwise_back blockwise_sum
        along_rows down_columns over_matrices over_lanes over_threads through_time
        all_steps one_launch row_by_row steps_of lanes_of stretches newton
    """
    return {
        "helpers": {name: name in module.helpers for name in names.split()},
        "environment": not module.helpers.isdisjoint({"tiles", "product"}),
    }
