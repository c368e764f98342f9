"""A module of second derivatives: what its functions take and do, as records for its template.

It stands beside the module of a cell and reads the tape of that: `jvp` is the tangent of `forward` on it,
`backward_jvp` that of `backward`. The lines of both come from the same hosts as those of a first derivative;
here is what is said around them: the tangents of parameters, inputs, states, outputs and of the tape.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from gategen.backends import interface
from gategen.backends.folding import WIDTH, assigned, call, listing, returned
from gategen.backends.functions import (
    Function,
    Hosts,
    beside_others,
    clearing,
    fitted,
    function,
    gradient_rows,
    needed_helpers,
    one_step,
    words,
)
from gategen.backends.interface import (
    Array,
    InputRecord,
    Measured,
    Signature,
    StateRecord,
    TapeItem,
    over_all,
)
from gategen.backends.module import Module, OneStep, tape_buffers
from gategen.backends.weights import all_shapes, weight_gradients, weights_context
from gategen.graph.tangent import tangents_in
from gategen.plan import FIRST_STEP, START_STATES, Rule
from gategen.spec.language import Input

ABOUT = (
    "Derivatives of the functions of {} in a direction: `jvp` of `forward`, `backward_jvp` of `backward`. "
    "Params and Tape are records of that module; dot_v is the derivative of v."
)


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
    start: str  # what a rule for the initial states adds to it
    carry: str  # of the gradient's tangent


@dataclass(frozen=True)
class MovingOutput:
    """The tangent of an output, and that of its gradient."""

    dot: str
    shape: str
    source: str  # what holds the first, an array of its own
    first: str  # that at the first step, where it has a rule of its own
    given: str  # its gradient as the caller gives it
    gradient: str  # the same as an array
    dot_given: str
    dot_gradient: str
    over: str  # what makes an array of one number a row broadcast over it


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
    head: str  # how the forward function begins
    call: str  # `jvp` calls it
    returned: str
    measured: Measured
    head_back: str  # how the backward function begins
    call_back: str  # `backward_jvp` calls it
    saved: tuple[str, ...]  # what `backward_jvp` sets aside for the backward function
    seeds: tuple[str, ...]  # gradients of the outputs, and their tangents
    # the same of the states, what they are called when set aside, and what makes an array of one number a row
    # broadcast over them
    kept: tuple[tuple[str, str, str], ...]
    gradients: tuple[str, ...]  # tangents of the gradients of the inputs
    gradient_rows: tuple[str, ...]  # the same with all features in one axis
    returned_back: str
    rest: tuple[str, ...]  # arrays of which both functions then leave the first step out
    rest_back: tuple[str, ...]  # further ones of `backward_jvp`
    cleared: tuple[str, ...]  # what `jvp` sets to 0 behind the lengths


@dataclass(frozen=True)
class SecondCalls:
    """Lines that may be too long for one."""

    shapes: str
    no_gradients: str  # of the parameters, to be added to
    untape: str  # `jvp` takes a tape apart
    untape_back: str  # `backward_jvp` does
    held: str  # `fitting` does
    untangent: str  # `backward_jvp` takes apart what `jvp` left
    tape: str  # the names of the fields of a tape
    direction: str  # of those of a direction
    starts: str  # the tangents of the initial states, from a direction
    carries: str  # the gradients of the final states
    dot_carries: str  # the tangents of these
    tangent: str  # `jvp` returns what it gives, with a tape of tangents
    grads: str
    start: str  # has a rule make tangents of initial states
    start_back: str  # has it pull them back


@dataclass(frozen=True)
class Moving:
    """All that moves, and the functions that say how."""

    moving_inputs: tuple[MovingInput, ...]
    moving_states: tuple[MovingState, ...]
    outputs: tuple[MovingOutput, ...]
    tape: tuple[TapeItem, ...]
    tangents: tuple[TapeItem, ...]  # all that `jvp` leaves behind
    held: tuple[Held, ...]  # the arrays of a tape
    held_whole: tuple[Held, ...]  # those of a tangent, of all steps
    held_rest: tuple[Held, ...]  # of the steps that go no way of their own
    forward: Function
    backward: Function
    first: SecondRule | None
    start: SecondRule | None


def context(module: Module, host: Hosts) -> dict[str, object]:
    """All that the template prints; `module` is of a plan of second derivatives."""
    plan, given = module.plan, interface.signature(module)
    assert plan.of is not None, "a first derivative has a context of its own"
    beside = type(module)(plan.of)
    ran = interface.signature(beside)
    all_moving = moving(module, host, given, ran, interface.tape_items(beside, ran))
    array, several = f"{given.xp}.ndarray", len(all_moving.outputs) > 1
    taped = tape_buffers(plan.step) if module.singular else []
    shapes = " ".join(item.shape for item in all_moving.held)
    name = f"{plan.cell.name}_{module.target.title.lower()}"  # of the module of the first derivatives
    return {
        **vars(given),
        **vars(all_moving),
        "alone": False,
        "second": True,
        "newton_back": None,
        "params_fields": "PARAMS",
        "params_type": "Any",
        "beside": name,
        "about": tuple(textwrap.wrap(ABOUT.format(name), 100, break_long_words=False)),
        "buffers": ran.buffers,
        "calls": calls_of(module, given, all_moving),
        "result": f"tuple[{array}, ...]" if several else array,
        "several": len(all_moving.outputs) if several else 0,
        "fitting": interface.measured(module, given.measure.sizes, given.measure.late, shapes),
        "views": beside_others(module, all_moving.backward),
        "singular": module.singular,
        "clearing": clearing(module, taped),
        "by_gate": any(b.name in module.by_gate for b in taped if b.kind == "time"),
        **needed_helpers(module),
        **weights_context(module),
    }


def moving(
    module: Module, host: Hosts, given: Signature, ran: Signature, tape: tuple[TapeItem, ...]
) -> Moving:
    """`ran` is the signature of the module that this one stands beside, `tape` what its runs leave."""
    plan = module.plan
    inputs = tuple(moving_input(module, *pair) for pair in zip(module.cell.inputs, given.inputs, strict=True))
    states = tuple(moving_state(module, own, k) for k, own in enumerate(given.states))
    forward, backward = (function(module, way, host) for way in module.ways(plan.step))
    first, start = (
        second_rule(module, rule, host, given) if (rule := plan.rule(name)) else None
        for name in (FIRST_STEP, START_STATES)
    )
    tangents = tangent_items(module, inputs, states)
    arrays = [Held(f"tangent.{i.name}", i.name, i.shape, i.dtype) for i in tangents if i.shape]
    whole = len(inputs) + len(states)
    return Moving(
        moving_inputs=inputs,
        moving_states=states,
        outputs=moving_outputs(module, forward),
        tape=tape,
        tangents=tangents,
        held=held(ran, tape),
        held_whole=tuple(arrays[:whole]),
        held_rest=tuple(arrays[whole:]),
        forward=forward,
        backward=backward,
        first=first,
        start=start,
    )


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
        direction=f'(B, {own.size}) if "{own.argument}" in constant else {own.shape}' * further or own.shape,
        broadcast=module.target.broadcast.format(dot, own.shape) if further else "",
    )


def moving_state(module: Module, own: StateRecord, number: int) -> MovingState:
    rule = module.plan.step
    memory = dict(zip((s.name for s in module.cell.states), module.carried(rule), strict=True))
    return MovingState(
        own=own,
        dot=module.names["memory", memory[own.name]],
        start=f"dot_start[{number}]",
        carry=module.carry_of(f"dot_d_{own.name}", rule),
    )


def moving_outputs(module: Module, forward: Function) -> tuple[MovingOutput, ...]:
    names, rule, ruled = module.names, module.plan.step, module.plan.rule(FIRST_STEP) is not None
    outputs, taped = rule.forward.graph.outputs, {names["memory", b.name] for b in tape_buffers(rule)}
    own = {array.name for array in forward.memory} - taped
    several = len(outputs) > 1
    seeds = zip(module.seeds(rule), dot_seeds(module, rule), strict=True)
    return tuple(
        MovingOutput(
            dot=names.of("tangent", name, f"dot_{name}"),
            shape=f"(T, B, {names.letter(value.size)})",
            source=source if source in own else f"{source}.copy()",
            first=names.of("first tangent", name, f"first_dot_{name}") if ruled else "",
            over=over_all(value.size),
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
        said = ", ".join(b.members) if len(b.members) < 4 else f"{b.members[0]} to {b.members[-1]}"
        items.append(TapeItem(name, array, f"{shape}  {said}", shape, dtype))
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


@dataclass(frozen=True)
class Handed:
    """The names of what passes between the functions of all steps and those of a rule for one step.

    Of each kind the values come first, and then their tangents.
    """

    inputs: tuple[str, ...]  # of the rule: none where it makes the initial states
    over: tuple[str, ...]  # inputs of all steps
    states: OneStep
    dots: OneStep  # of their tangents
    lent: tuple[str, ...]  # what the first step left on the tape
    left: tuple[str, ...]  # what its tangent leaves
    seeds: tuple[str, ...]  # gradients of the outputs
    later_seeds: tuple[str, ...]  # the same of all steps
    carries: tuple[str, ...]  # gradients of the states
    later_carries: tuple[str, ...]


def handed(module: Module, rule: Rule) -> Handed:
    names, step, first = module.names, module.plan.step, module.plan.of
    assert first is not None
    own, states = first.rule(rule.name), module.states_of(rule)
    assert own is not None
    stepping = bool(rule.forward.graph.states)
    inputs = tuple(names["memory", s.name] for s in module.cell.inputs)

    def carries(of: Rule) -> tuple[str, ...]:
        return tuple(module.carry_of(f"{dot}d_{s}", of) for dot in ("", "dot_") for s in states)

    return Handed(
        inputs=(*inputs, *dots_of_inputs(module, rule)) if stepping else (),
        over=(*inputs, *dots_of_inputs(module, step)),
        states=module.one_step(states),
        dots=module.one_step(module.carried(rule)),
        lent=tuple(names["memory", b.name] for b in tape_buffers(own)) if stepping else (),
        left=tuple(names["memory", b.name] for b in tape_buffers(rule)) if stepping else (),
        seeds=(*module.seeds(rule), *dot_seeds(module, rule)),
        later_seeds=(*module.seeds(step), *dot_seeds(module, step)),
        carries=carries(rule),
        later_carries=carries(step),
    )


def second_rule(module: Module, rule: Rule, host: Hosts, given: Signature) -> SecondRule:
    """A rule for the first step, or for the initial states, in a direction."""
    names, passed = module.names, handed(module, rule)
    states, dots, at = passed.states, passed.dots, passed.states.at
    forward, backward = (one_step(module, way, host) for way in module.ways(rule))
    if not rule.forward.graph.states:  # computes its forward values anew
        backward = fitted(module, backward, forward)
    kept = (names.of("kept", name, f"kept_{name}") for name in kept_states(module, rule))
    sizes = [s.size for s in module.cell.states if s.name in module.states_of(rule)]
    whole, back = (tuple(f"{name}{at}" for name in some) for some in (passed.over, passed.later_seeds))
    nexts = (Array(n, f"{h}.shape") for n, h in zip(dots.made, dots.states, strict=False))
    makes = (*forward.weights, *interface.empties((*forward.memory, *nexts), module.target.xp))
    text = "\n".join((forward.loop.text, *forward.loop.prepare, *makes))
    return SecondRule(
        forward=forward,
        backward=backward,
        makes=makes,
        one_step=states,
        **first_calls(module, rule, passed),
        returned=listing([*dots.made, *forward.outputs, *passed.left]),
        measured=interface.measured(module, given.measure.sizes, given.measure.late, text),
        saved=(*whole, *states.saved, *dots.saved, *back),
        seeds=passed.seeds,
        kept=tuple(zip(passed.carries, kept, [over_all(size) for size in sizes] * 2, strict=True)),
        gradients=backward.outputs,
        gradient_rows=gradient_rows(module, backward.outputs),
        returned_back=listing([*backward.outputs, *passed.carries, *(f.gradient for f in given.fields)]),
        rest=(*passed.over, *over_time(module)),
        rest_back=passed.later_seeds,
        cleared=tuple(
            module.as_rows(f"first_tangent[{k}]", b, once=True)
            for k, b in enumerate(tape_buffers(rule))
            if module.singular and b.kind != "static"
        ),
    )


def kept_states(module: Module, rule: Rule) -> list[str]:
    """What is set aside for sequences that are over: the gradients of these, and how they move."""
    return [f"{dot}{s}" for dot in ("", "dot_") for s in module.states_of(rule)]


def over_time(module: Module) -> tuple[str, ...]:
    """What a run has at every step beside inputs: states, their tangents, and the tape."""
    names, plan = module.names, module.plan
    assert plan.of is not None
    states = (*(s.name for s in module.cell.states), *module.carried(plan.step))
    taped = (b.name for b in tape_buffers(plan.of.step) if b.kind == "time")
    return tuple(names["memory", name] for name in (*states, *taped))


def first_calls(module: Module, rule: Rule, passed: Handed) -> dict[str, str]:
    """How both functions of a rule for the first step begin, and how they are called."""
    names, outputs = module.names, [name for name, _ in rule.forward.graph.outputs]
    states, dots, at = passed.states, passed.dots, passed.states.at
    taken = ["params", "dot_params", *passed.inputs, *states.both]
    whole = [f"{name}{at}" for name in passed.over]
    results = [*dots.results, *(names.of("first tangent", name, f"first_dot_{name}") for name in outputs)]
    gradients = [names.of("first gradient", s.name, f"first_d_{s.name}") for s in module.cell.inputs]
    return {
        "head": call(
            "def first_step_jvp(", [*taken, *dots.states, *passed.lent, *states.further], "):", WIDTH
        ),
        "call": call(
            f"{', '.join(results)}, *first_tangent = first_step_jvp(",
            ["params", "dot_params", *whole, *states.saved, *dots.passed, "*first_tape", *states.further],
        ),
        "head_back": call(
            "def first_step_backward_jvp(",
            [*taken, *dots.both, *passed.seeds, *passed.carries, "finished", *passed.lent, *passed.left],
            "):",
            WIDTH,
        ),
        "call_back": call(
            f"{', '.join([*gradients, *passed.later_carries])}, *more = first_step_backward_jvp(",
            [
                *("params", "dot_params", "*kept_first", *passed.later_carries),
                *("finished_first", "*first_tape", "*first_tangent"),
            ],
        ),
    }


# ---------------------------------------------------------------------------------------------- long lines


def calls_of(module: Module, given: Signature, moving: Moving) -> SecondCalls:
    inputs, states, first = moving.moving_inputs, moving.moving_states, moving.first
    sizes = ", ".join(size.letter for size in given.measure.sizes)
    further = weight_gradients(module)
    none = f"({given.xp}.zeros(shape, dtype) for shape in {all_shapes(sizes, further)})"
    shapes = f"({listing([f'(B, {s.own.size})' for s in states])})"
    late = [size.letter for size in given.measure.late]
    gradients = [f.gradient for f in given.fields]
    arrays = "*gradients" if given.ruled else ", ".join(gradients)
    kept = [item.name for item in moving.tangents]
    if first:
        kept[1 : 1 + len(inputs) + len(states)] = ["*whole"]
    reads_dots = bool(moving.backward.unpacked_dots or given.ruled or module.plan.weights)
    left = [item.name if item.shape or first or reads_dots else "_" for item in moving.tangents]
    dots = [output.dot for output in moving.outputs]
    result = dots[0] if len(dots) == 1 else f"({', '.join(dots)})"
    return SecondCalls(
        shapes=returned([f.shape for f in given.fields]),
        no_gradients=assigned([*gradients, *(n for n, _ in further)], none) if given.fields else "",
        untape=taken_apart(moving.tape, words(moving.forward) | others(given, moving)),
        untape_back=taken_apart(moving.tape, words(moving.backward) | others(given, moving)),
        held=taken_apart(moving.tape, {"finished", *(item.name for item in moving.held)}),
        untangent=call("(", left, ") = tangent"),
        tape=strings("TAPE", [item.name for item in moving.tape]),
        direction=strings("DIRECTION", ["params", *(i.argument for i in given.inputs), "initial"]),
        starts=call(
            f"{targets([f'{s.dot}[0]' for s in states])} = parts(", states_of("direction.initial", shapes)
        ),
        carries=copies([s.own.carry for s in states], "d_final", shapes),
        dot_carries=copies([s.carry for s in states], "d_d_final", shapes),
        tangent=call(f"return {result}, final, Tangent(", kept),
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


def others(given: Signature, moving: Moving) -> set[str]:
    """What both functions read of a tape beside what their lines do."""
    found = {"x", "finished", *(size.source for size in given.measure.late)}
    found |= {"constant"} & {item.name for item in moving.tape}
    if given.ruled:
        found.add("given")
    return found | ({"first_tape", "valid", *moving.first.rest} if moving.first else set())


def taken_apart(tape: tuple[TapeItem, ...], used: set[str]) -> str:
    """The line that takes a tape apart, where `used` of it is read."""
    return call("(", [item.name if item.name in used else "_" for item in tape], ") = tape")


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
