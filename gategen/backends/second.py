"""A module of second derivatives: what its functions take and do, as records for its template.

It stands beside the module of a cell and reads the tape of that: `jvp` is the tangent of `forward` on that tape,
`backward_jvp` that of `backward`. The lines of both come from the same hosts as those of a first derivative;
here is what is said around them: the tangents of parameters, inputs, states, outputs and of the tape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gategen.backends import interface
from gategen.backends.folding import WIDTH, assigned, call, listing, returned
from gategen.backends.functions import (
    Function,
    Hosts,
    beside_others,
    fitted,
    function,
    needed_helpers,
    one_step,
)
from gategen.backends.interface import Array, InputRecord, Measured, Signature, StateRecord, TapeItem
from gategen.backends.module import Module, OneStep, tape_buffers
from gategen.graph.tangent import tangents_in
from gategen.plan import FIRST_STEP, START_STATES, Rule
from gategen.spec.language import Input


@dataclass(frozen=True)
class MovingInput:
    """An input, and what its tangent is called."""

    own: InputRecord
    dot: str
    direction: str  # the shape of that in a direction
    broadcast: str  # at every step, where it was constant in time


@dataclass(frozen=True)
class MovingState:
    """A state: its tangents at all times, and that of its gradient."""

    own: StateRecord
    dot: str
    carry: str  # of the gradient's tangent
    kept: str  # the same, set aside


@dataclass(frozen=True)
class MovingOutput:
    """The tangent of an output, and that of its gradient."""

    dot: str
    shape: str
    array: str  # what the first lies in
    source: str  # the same as an array of its own
    first: str  # that at the first step, where it has a rule of its own
    given: str  # its gradient as the caller gives it
    gradient: str  # the same as an array
    dot_given: str
    dot_gradient: str


@dataclass(frozen=True)
class Held:
    """An array that must have a shape and a dtype, and what people call it."""

    said: str
    name: str
    shape: str
    dtype: str


@dataclass(frozen=True)
class SecondRule:
    """A rule for one step in a direction, as two functions."""

    forward: Function
    backward: Function
    makes: tuple[str, ...]  # lines that make what the forward function needs
    one_step: OneStep
    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    results: tuple[str, ...]  # what `jvp` calls what it gets back
    returned: str
    measured: Measured
    parameters_back: tuple[str, ...]
    saved: tuple[str, ...]  # what `backward_jvp` sets aside for the backward function
    seeds: tuple[str, ...]  # gradients of the outputs, and their tangents
    kept: tuple[tuple[str, str], ...]  # the same of the states, and what they are called when set aside
    later: tuple[str, ...]  # what `backward_jvp` calls those
    gradients: tuple[str, ...]  # tangents of the gradients of the inputs
    returned_back: str
    first_gradients: tuple[str, ...]  # what `backward_jvp` calls them
    rest: tuple[str, ...]  # arrays of which both functions then leave the first step out
    rest_back: tuple[str, ...]  # further ones of `backward_jvp`
    cleared: tuple[str, ...]  # what `jvp` sets to 0 behind the lengths


@dataclass(frozen=True)
class SecondCalls:
    """Lines that may be too long for one."""

    shapes: str
    no_gradients: str  # of the parameters, to be added to
    untape: str  # takes a tape apart
    untangent: str  # the same of what `jvp` left
    fields: str  # the names of those of Params
    tape: str  # of those of a tape
    direction: str  # of those of a direction
    starts: str  # the tangents of the initial states, from a direction
    carries: str  # the gradients of the final states
    dot_carries: str  # the tangents of these
    tangent: str  # what `jvp` leaves
    grads: str
    start: str  # has a rule make tangents of initial states
    start_back: str  # has it pull them back


def context(module: Module, host: Hosts) -> dict[str, object]:
    """All that the template prints; `module` is of a plan of second derivatives."""
    plan, names = module.plan, module.names
    assert plan.of is not None, "a first derivative has a context of its own"
    given = interface.signature(module)
    inputs = tuple(moving_input(module, *pair) for pair in zip(module.cell.inputs, given.inputs, strict=True))
    states = tuple(moving_state(module, own) for own in given.states)
    forward, backward = (function(module, way, host) for way in module.ways(plan.step))
    first, start = (
        second_rule(module, rule, host, given) if (rule := plan.rule(name)) else None
        for name in (FIRST_STEP, START_STATES)
    )
    outputs = moving_outputs(module, forward)
    beside = type(module)(plan.of)
    ran = interface.signature(beside)
    tape = interface.tape_items(beside, ran)
    tangents = tangent_items(module, inputs, states)
    array, taped = f"{given.xp}.ndarray", tape_buffers(plan.step) if module.singular else []
    return {
        **vars(given),
        "second": True,
        "params_fields": "PARAMS",
        "params_type": "Any",
        "beside": f"{plan.cell.name}_{module.target.title.lower()}",  # the module of the first derivatives
        "calls": calls_of(module, given, tape, tangents, inputs, states),
        "moving_inputs": inputs,
        "moving_states": states,
        "outputs": outputs,
        "result": array if len(outputs) == 1 else f"tuple[{array}, ...]",
        "several": len(outputs) if len(outputs) > 1 else 0,
        "tangents": tangents,
        "buffers": ran.buffers,
        "held": held(ran, tape),
        "held_tangents": [
            Held(f"tangent.{i.name}", i.name, i.shape, i.dtype) for i in tangents if i.shape and not first
        ],
        "forward": forward,
        "backward": backward,
        "first": first,
        "start": start,
        "views": beside_others(module, backward),
        "singular": module.singular,
        "cleared": [names["memory", b.name] for b in taped if b.kind == "time"],
        "by_gate": any(b.name in module.by_gate for b in taped if b.kind == "time"),
        **needed_helpers(module),
    }


# ---------------------------------------------------------------------------------------------- what moves


def dots_of_inputs(module: Module, rule: Rule) -> tuple[str, ...]:
    """What the tangents of the inputs are called in a rule."""
    dots = {str(value): dot for value, dot in tangents_in(rule.forward.graph).items()}
    return tuple(module.at(dots[s.name], rule.forward) for s in module.cell.inputs)


def moving_input(module: Module, symbol: Input, own: InputRecord) -> MovingInput:
    dot = dict(zip(module.cell.inputs, dots_of_inputs(module, module.plan.step), strict=True))[symbol]
    further = own.argument != "x"
    return MovingInput(
        own=own,
        dot=dot,
        direction=f'(B, {own.size}) if "{own.argument}" in constant else {own.shape}'
        if further
        else own.shape,
        broadcast=module.target.broadcast.format(dot, own.shape) if further else "",
    )


def moving_state(module: Module, own: StateRecord) -> MovingState:
    rule = module.plan.step
    memory = dict(zip((s.name for s in module.cell.states), module.carried(rule), strict=True))
    return MovingState(
        own=own,
        dot=module.names["memory", memory[own.name]],
        carry=module.carry_of(f"dot_d_{own.name}", rule),
        kept=module.names.of("kept", f"dot_{own.name}", f"kept_dot_{own.name}"),
    )


def moving_outputs(module: Module, forward: Function) -> tuple[MovingOutput, ...]:
    names, rule, ruled = module.names, module.plan.step, module.plan.rule(FIRST_STEP) is not None
    outputs, own = rule.forward.graph.outputs, {array.name for array in forward.memory}
    several = len(outputs) > 1
    seeds = zip(module.seeds(rule), dot_seeds(module, rule), strict=True)
    return tuple(
        MovingOutput(
            dot=names.of("tangent", name, f"dot_{name}"),
            shape=f"(T, B, {names.letter(value.size)})",
            array=source,
            source=source if source in own else f"{source}.copy()",
            first=names.of("first tangent", name, f"first_dot_{name}") if ruled else "",
            given=f"d_y[{k}]" if several else "d_y",
            gradient=gradient,
            dot_given=f"d_d_y[{k}]" if several else "d_d_y",
            dot_gradient=dot,
        )
        for k, ((name, value), source, (gradient, dot)) in enumerate(
            zip(outputs, forward.outputs, seeds, strict=True)
        )
    )


def dot_seeds(module: Module, rule: Rule) -> tuple[str, ...]:
    """The names of the tangents of the gradients of the outputs."""
    dots = tangents_in(rule.backward.graph)
    return tuple(module.at(dots[v], rule.backward) for v in module.gradients_of_outputs(rule))


def tangent_items(
    module: Module, inputs: tuple[MovingInput, ...], states: tuple[MovingState, ...]
) -> tuple[TapeItem, ...]:
    """All that `jvp` leaves behind."""
    array, plan = f"{module.target.xp}.ndarray", module.plan
    shapes = [(i.dot, i.own.shape) for i in inputs]
    shapes += [(s.dot, f"(T + 1, B, {s.own.size})") for s in states]
    items = [TapeItem("dot_params", "list", "the direction of each field of Params")]
    items += [TapeItem(name, array, shape, shape) for name, shape in shapes]
    for b in tape_buffers(plan.step):
        name, shape, dtype = module.names["memory", b.name], module.shape(b), module.dtype(b.name)
        items.append(TapeItem(name, array, f"{shape}  {', '.join(b.members)}", shape, dtype))
    if plan.rule(FIRST_STEP):
        items.append(TapeItem("first_tangent", "Any", "what the first step left behind; it is in no other T"))
    return tuple(items)


def held(given: Signature, tape: tuple[TapeItem, ...]) -> tuple[Held, ...]:
    """The arrays of a tape."""
    found = [Held(f"tape.{i.name}", i.name, i.shape, "dtype") for i in given.inputs]
    found += [Held(f"tape.{item.name}", item.name, item.shape, item.dtype) for item in tape if item.shape]
    found += [Held("tape.valid", "valid", "(T, B, 1)", "dtype")] * (given.buffers is not None)
    return tuple(found)


# ---------------------------------------------------------------------------------------------- one step


def second_rule(module: Module, rule: Rule, host: Hosts, given: Signature) -> SecondRule:
    """A rule for the first step, or for the initial states, in a direction."""
    names, step, graph = module.names, module.plan.step, rule.forward.graph
    assert module.plan.of is not None
    first = module.plan.of.rule(rule.name)
    assert first is not None
    passing, dots = module.one_step(module.states_of(rule)), module.one_step(module.carried(rule))
    forward, backward = (one_step(module, way, host) for way in module.ways(rule))
    stepping = bool(graph.states)
    if not stepping:  # computes its forward values anew
        backward = fitted(module, backward, forward)
    states = module.states_of(rule)
    inputs = (
        *(names["memory", s.name] for s in module.cell.inputs if stepping),
        *(dots_of_inputs(module, rule) if stepping else ()),
    )
    over = (
        *(names["memory", s.name] for s in module.cell.inputs),
        *dots_of_inputs(module, step),
    )
    taped = tape_buffers(rule) if stepping else []
    lent = tuple(names["memory", b.name] for b in tape_buffers(first)) if stepping else ()
    left = tuple(names["memory", b.name] for b in taped)
    seeds, later_seeds = ((*module.seeds(r), *dot_seeds(module, r)) for r in (rule, step))
    carries, later = (
        tuple(module.carry_of(f"{dot}d_{s}", r) for dot in ("", "dot_") for s in states) for r in (rule, step)
    )
    kept = tuple(names.of("kept", f"{dot}{s}", f"kept_{dot}{s}") for dot in ("", "dot_") for s in states)
    whole, back = (tuple(f"{name}{passing.at}" for name in some) for some in (over, later_seeds))
    nexts = (Array(n, f"{h}.shape") for n, h in zip(dots.made, dots.states, strict=False))
    makes = interface.empties((*forward.memory, *nexts), module.target.xp)
    text = "\n".join((forward.loop.text, *forward.loop.prepare, *makes))
    lasting = (names["memory", b.name] for b in tape_buffers(module.plan.of.step) if b.kind == "time")
    firsts = tuple(names.of("first tangent", name, f"first_dot_{name}") for name, _ in graph.outputs)
    return SecondRule(
        forward=forward,
        backward=backward,
        makes=makes,
        one_step=passing,
        parameters=("params", "dot_params", *inputs, *passing.both, *dots.states, *lent, *passing.further),
        arguments=(
            *("params", "dot_params", *whole, *passing.saved, *dots.passed, "*first_tape"),
            *passing.further,
        ),
        results=(*dots.results, *firsts, "*first_tangent"),
        returned=listing([*dots.made, *forward.outputs, *left]),
        measured=interface.measured(module, given.measure.sizes, given.measure.late, text),
        parameters_back=(
            *("params", "dot_params", *inputs, *passing.both, *dots.both, *seeds, *carries, "finished"),
            *(*lent, *left),
        ),
        saved=(*whole, *passing.saved, *dots.saved, *back),
        seeds=seeds,
        kept=tuple(zip(carries, kept, strict=True)),
        later=later,
        gradients=backward.outputs,
        returned_back=listing([*backward.outputs, *carries, *(f.gradient for f in given.fields)]),
        first_gradients=tuple(
            names.of("first gradient", s.name, f"first_d_{s.name}") for s in module.cell.inputs
        ),
        rest=(
            *over,
            *(names["memory", s] for s in states),
            *(names["memory", s] for s in module.carried(step)),
            *lasting,
        ),
        rest_back=later_seeds,
        cleared=tuple(
            f"first_tangent[{k}]" for k, b in enumerate(taped) if module.singular and b.kind != "static"
        ),
    )


# ---------------------------------------------------------------------------------------------- long lines


def calls_of(
    module: Module,
    given: Signature,
    tape: tuple[TapeItem, ...],
    tangents: tuple[TapeItem, ...],
    inputs: tuple[MovingInput, ...],
    states: tuple[MovingState, ...],
) -> SecondCalls:
    sizes = ", ".join(size.letter for size in given.measure.sizes)
    none = f"({given.xp}.zeros(shape, dtype) for shape in shapes({sizes}))"
    ruled = module.plan.rule(FIRST_STEP) is not None
    held = [item.name if item.name != "given" or given.ruled else "_" for item in tape]
    shapes = f"({listing([f'(B, {s.own.size})' for s in states])})"
    late = [size.letter for size in given.measure.late]
    gradients = [f.gradient for f in given.fields]
    arrays = "*gradients" if given.ruled else ", ".join(gradients)
    kept = [item.name for item in tangents]
    if ruled:
        kept[1 : 1 + len(inputs) + len(states)] = ["*whole"]
    return SecondCalls(
        shapes=returned([f.shape for f in given.fields]),
        no_gradients=assigned(gradients, none) if given.fields else "",
        untape=call("(", held, ") = tape"),
        untangent=call("(", [item.name for item in tangents], ") = tangent"),
        fields=strings("PARAMS", [f.name for f in given.fields]),
        tape=strings("TAPE", [item.name for item in tape]),
        direction=strings("DIRECTION", ["params", *(i.argument for i in given.inputs), "initial"]),
        starts=call(
            f"{targets([f'{s.dot}[0]' for s in states])} = parts(", states_of("direction.initial", shapes)
        ),
        carries=copies([s.own.carry for s in states], "d_final", shapes),
        dot_carries=copies([s.carry for s in states], "d_d_final", shapes),
        tangent=call("Tangent(", kept),
        grads=call(
            "return Grads(",
            [
                f"params=type(params)({arrays})",
                *(f"{i.own.argument}={i.own.result}" for i in inputs),
                f"initial=States({', '.join(s.carry for s in states)})",
            ],
        ),
        start=call("start_states_jvp(", ["params", "dot_params", *late, "B", "dtype"]),
        start_back=call(
            "start_states_backward_jvp(",
            ["params", "dot_params", *late, *(s.own.carry for s in states), *(s.carry for s in states)],
        ),
    )


def strings(name: str, words: Sequence[str]) -> str:
    """The line that makes a tuple of words."""
    return interface.tuple_call(f"{name} = (", [f'"{word}"' for word in words], WIDTH)


def states_of(record: str, shapes: str) -> list[str]:
    """What `parts` is told of a record of states."""
    return [f'"{record}"', record, "States._fields", shapes, "dtype"]


def targets(names: Sequence[str]) -> str:
    """What a tuple is taken apart into."""
    return listing(names) if len(names) > 1 else f"({names[0]},)"


def copies(names: Sequence[str], record: str, shapes: str) -> str:
    """The line that copies the arrays of a record of states."""
    head = f"{targets(names)} = (part.copy() for part in parts("
    return call(head, states_of(record, shapes), "))")
