"""The functions of a module that find the states of all steps at once, as records for `newton.py.jinja`.

Two of them run programs of the plan (`plan/newton.py`) over the steps of many stretches side by side. Their
lines come from a `Host`; what is around them is the same for all cells but for what is carried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gategen.backends.folding import WIDTH, call, listing, returned
from gategen.backends.functions import Function, fitted, words
from gategen.backends.host import Part
from gategen.backends.interface import Measure, array_of, measured, over_all
from gategen.backends.module import Module, Way
from gategen.backends.names import Scope
from gategen.graph import Carry, Value
from gategen.plan import FIRST_STEP, Newton, Schedule, Stage
from gategen.spec.language import Axes

STRETCHES = "stretches"  # how many there are; they take the place of the T steps


class Lines(Protocol):
    """The lines of a step for all stretches; what must come before them once, and (`each`) at every step."""

    def aside(self) -> tuple[str, ...]: ...
    def kept(self) -> tuple[str, ...]: ...
    def run(self, stages: Sequence[Stage]) -> None: ...
    def settle(self, *kept: str) -> None: ...
    def shaped(self, value: Value, along: Axes) -> str: ...
    @property
    def written(self) -> Part: ...
    @property
    def each(self) -> tuple[str, ...]: ...


# Where the sizes and the dtype come from: states of all stretches, or arrays of all their steps.
OF_STATES = {STRETCHES: "len({0})", "B": "{0}.shape[1]", "dtype": "{0}.dtype"}
OF_STEPS = {STRETCHES: "{0}[0].shape[1]", "B": "{0}[0].shape[2]", "dtype": "{0}[0].dtype"}

Hosts = Callable[[Module, Way, Scope, frozenset[str]], Lines]  # with the names that change from step to step


@dataclass(frozen=True)
class Carried:
    """A state, or a derivative of one by one at the beginning of the stretch."""

    array: str
    next: str
    start: str  # the expression of what it begins with
    over: str  # what makes an array of one number a row broadcast over it


@dataclass(frozen=True)
class Program:
    """A function that runs one of the programs."""

    function: Function
    given: tuple[str, ...]  # what it takes beside states and `steps`
    head: str  # the line that begins it
    found: tuple[str, ...]  # lines that find the sizes and the dtype
    loop: str  # the line that begins its loop
    each: tuple[str, ...]  # lines that name parts of arrays in it
    arrays: tuple[str, ...]  # those that `steps` are of
    steps: str  # the line by which `newton` makes `steps` of them


@dataclass(frozen=True)
class BackRecord:
    """The functions that take steps back of all stretches at once, and how `backward` calls them."""

    linearized: Program
    every_step: Program
    head: str
    call: str  # in `backward`
    carried: tuple[Carried, ...]
    states: tuple[Carried, ...]  # the first of them, gradients of states
    measured: str  # as of `NewtonRecord`
    linearize: str
    carry_on: str
    targets: str  # the gradients of states
    carries: str  # as a tuple
    solve: tuple[str, ...]  # lines that make what a stretch ends with of what the one behind it does
    size: str  # how large these are
    returned: str


@dataclass(frozen=True)
class NewtonRecord:
    """The functions, and how `forward` calls them."""

    linear: bool
    linearized: Program
    every_step: Program
    head: str
    call: str  # in `forward`
    iterate_head: str
    iterate: str  # the call of `iterated`
    measured: str  # the line that finds the sizes that it names; empty where it names none
    linearize: str  # the line that calls `linearized`
    carry_on: str  # the line that calls `every_step`
    carried: tuple[Carried, ...]
    states: tuple[Carried, ...]  # the first of them
    settled: tuple[Carried, ...]  # states that wait for none
    solve: tuple[str, ...]  # lines that make changes of the last states of what stretches miss them by
    change: str  # how much the states change at most
    size: str  # how large they are
    returned: str


def newton_record(module: Module, host: Hosts, measure: Measure) -> NewtonRecord | None:
    """The functions of a module whose plan has them."""
    plan = module.plan.newton
    if plan is None:
        return None
    carried, settled = name_memory(module, plan)
    states = carried[: len(plan.states)]
    there, here = module.ways(plan.rule)
    firsts = [c.array for c in states]
    run = Run(module, host, measure, states, settled, plan)
    linearized, lines = program(run, here, carried)
    every_step, _ = program(run, there, states)
    solving = solve(module, plan, lines)
    letters = words_of(" ".join(solving))
    late = [size.letter for size in measure.late if size.letter in letters]
    known = measured(module, measure.sizes, (), " ".join(letters)).call
    held = dict.fromkeys(
        (*linearized.given, *late, *every_step.given, *linearized.arrays, *every_step.arrays)
    )
    mine = {"params", *firsts, *(c.next for c in (*states, *settled))}
    waitless = [c.array for c in settled]
    given = ["params", "finished", *firsts, *waitless]
    given += [name for name in held if name not in mine and name not in waitless]
    iterated = [*dict.fromkeys((*linearized.given, *late)), *firsts, "starts", "stops", "steps"]
    results = [c.next for c in states] + [c.array for c in carried[len(states) :]]
    return NewtonRecord(
        linear=plan.linear,
        linearized=linearized,
        every_step=every_step,
        head=call("def newton(", given, "):", WIDTH),
        call=call("newton(", from_start(module, given) if module.plan.rule(FIRST_STEP) else given),
        iterate_head=call("def iterated(", iterated, "):", WIDTH),
        iterate=call("iterated(", iterated),
        linearize=call(
            f"{listing(results)} = linearized(",
            [*linearized.given, *(f"{name}[starts]" for name in firsts), "steps"],
        ),
        carry_on=call("every_step(", [*every_step.given, "steps"]),
        carried=carried,
        states=states,
        settled=settled,
        measured=known if " = " in known else "",
        solve=solving,
        change=call("largest(", [c.next for c in states]),
        size=call("largest(", [f"{c.array}[stops]" for c in states]),
        returned=returned([c.array for c in carried]),
    )


def back_record(module: Module, host: Hosts, measure: Measure) -> BackRecord | None:
    """The functions for steps back of a module whose plan has them."""
    plan = module.plan.newton_back
    if plan is None:
        return None
    for state, buffer in plan.later:
        module.names.of("memory", buffer, f"{module.names['memory', state]}_next")
    carried, _ = name_memory(module, plan)
    states = carried[: len(plan.states)]
    there, here = module.ways(plan.rule)
    run = Run(module, host, measure, states, (), plan)
    linearized, lines = program(run, here, carried)
    every_step, _ = program(run, there, states)
    solving = solve_back(module, plan, lines)
    letters = words_of(" ".join(solving))
    late = [size.letter for size in measure.late if size.letter in letters]
    known = measured(module, measure.sizes, (), " ".join(letters)).call
    firsts = [c.array for c in states]
    held = dict.fromkeys((*linearized.given, *every_step.given, *late))
    arrays = run.shifted([*dict.fromkeys((*linearized.arrays, *every_step.arrays))])
    given = ["params", "finished", "T", *(name for name in held if name != "params"), *firsts]
    names = dict(zip(arrays, dict.fromkeys((*linearized.arrays, *every_step.arrays)), strict=True))
    results = [c.next for c in states] + [c.array for c in carried[len(states) :]]
    return BackRecord(
        linearized=replace(linearized, steps=back_steps(linearized.arrays)),
        every_step=replace(every_step, steps=back_steps(every_step.arrays)),
        head=call("def scan_back(", [*given, *names.values()], "):", WIDTH),
        call=call("scan_back(", [*given, *names]),
        carried=carried,
        states=states,
        measured=known if " = " in known else "",
        linearize=call(f"{listing(results)} = linearized_back(", [*linearized.given, *firsts, "steps"]),
        carry_on=call("every_step_back(", [*every_step.given, *firsts, "steps"]),
        targets=listing(firsts),
        carries=f"({listing(firsts)})",
        solve=solving,
        size=call("largest(", firsts),
        returned=returned([c.array for c in carried]),
    )


def back_steps(arrays: Sequence[str]) -> str:
    """The line by which `scan_back` makes `steps` of arrays."""
    return call("steps = by_stretch(", ["stretches", "count", "finished", *arrays, "back=True"])


def from_start(module: Module, names: Sequence[str]) -> list[str]:
    """What `newton` is given where the first step went another way."""
    stepped = {module.names["memory", b.name] for b in module.plan.step.forward.buffers if b.kind != "static"}
    late = {name: f"{name}[start:]" for name in stepped}
    late["finished"] = "None if finished is None else finished[start:]"
    return [late.get(name, name) for name in names]


def name_memory(module: Module, plan: Newton) -> tuple[tuple[Carried, ...], tuple[Carried, ...]]:
    """What is carried and which states are not, with names for these and for what else the programs make."""
    names, rule = module.names, plan.rule
    made = rule.forward if plan is module.plan.newton else rule.backward  # its next states have arrays
    for carry in (*plan.states, *plan.settled):
        array = module.at(carry.current, rule.forward)
        name = names.of("next", carry.name, f"{array}_next")
        names.put("memory", made.slot[carry.next].home.name, name)
    for buffer in rule.backward.buffers:
        names.of("memory", buffer.name, buffer.name)

    def record(carry: Carry, schedule: Schedule, start: str) -> Carried:
        array, later = module.at(carry.current, schedule), module.at(carry.next, schedule)
        return Carried(array, later, start, over_all(carry.next.size))

    arrays = {carry.name: module.at(carry.current, rule.forward) for carry in plan.states}
    starts = [f"{array}.copy()" for array in arrays.values()]
    for after, first in plan.entries:
        starts.append(f"np.{'ones' if after == first else 'zeros'}_like({arrays[after]})")
    carried = (record(c, rule.backward, s) for c, s in zip(plan.carried, starts, strict=True))
    return tuple(carried), tuple(record(c, rule.forward, "") for c in plan.settled)


# ---------------------------------------------------------------------------------------------- the programs


@dataclass(frozen=True)
class Run:
    """What both programs know of a run."""

    module: Module
    host: Hosts
    measure: Measure
    states: tuple[Carried, ...]
    settled: tuple[Carried, ...]
    plan: Newton

    @property
    def back(self) -> bool:
        """Whether it goes from the last step to the first."""
        return self.plan is self.module.plan.newton_back

    @property
    def rows(self) -> frozenset[str]:
        """The buffers that live within a step, or within the few that are taken at once."""
        step = self.module.plan.step
        schedule = step.backward if self.back else step.forward
        return schedule.passing | {b.name for b in schedule.buffers if b.kind == "row"}

    def shifted(self, names: Sequence[str]) -> list[str]:
        """Arrays as the caller of the programs knows them, who has the states at all times."""
        names_of = self.module.names
        pairs = [(c.array, c.next) for c in (*self.states, *self.settled)]
        if self.back:
            buffers = self.module.plan.step.forward.buffers
            later = dict(self.plan.later)
            pairs = [
                (names_of["memory", b.name], names_of["memory", later[b.name]] if b.name in later else "")
                for b in buffers
                if b.kind == "state"
            ]
        parts = {now: f"{now}[:-1]" for now, _ in pairs} | {then: f"{now}[1:]" for now, then in pairs}
        return [parts.get(name, name) for name in names]


def program(run: Run, way: Way, carried: Sequence[Carried]) -> tuple[Program, Lines]:
    """One of the two programs as a function; `every_step` fills the memory of a run, `linearized` its own."""
    module, own = run.module, way.schedule is way.rule.backward
    passed = own or run.back  # whether it is given the states beside `steps`
    memory = {module.names["memory", b.name]: b.kind for b in way.rule.lent if b.name not in run.rows}
    before, after = [c.array for c in carried], [c.next for c in carried]
    static = [name for name, kind in memory.items() if kind == "static"]
    stepped = [name for name in memory if name not in (*static, *before)]
    moving = {*stepped} if run.back and not own else {*stepped, *before, *after}
    lines = run.host(module, way, module.names.inner(), frozenset(moving))
    lines.run(way.schedule.stages)
    lines.settle()
    aside, kept = ((), ()) if own or not run.back else (lines.aside(), lines.kept())
    made = [array_of(module, b) for b in way.schedule.buffers if own or b.name in run.rows]
    made = [replace(a, shape=for_stretches(a.shape)) for a in made if a.name not in before]
    written, each = lines.written, tuple(map(for_stretches, lines.each))
    part = Part(tuple(map(for_stretches, written.prepare)), for_stretches(written.text))
    whole = Function(loop=part, outputs=each, memory=tuple(made), aside=aside, kept=kept)
    function = fitted(module, whole)

    used = words(function) | words_of(" ".join(function.makes))
    late = [size.letter for size in run.measure.late if size.letter in used]
    given = ["params", *late, *(name for name in static if name in used)]
    read = [name for name in stepped if name in used]
    states = [c.array for c in run.states] if passed else []
    pairs = [] if passed else zip(before, after, strict=True)
    arrays = [*(name for pair in pairs for name in pair), *read]
    first, sizes = (states[0], OF_STATES) if passed else ("steps", OF_STEPS)
    found = [(word, source.format(first)) for word, source in sizes.items() if word in used]
    known = measured(module, run.measure.sizes, (), " ".join(used)).call
    return Program(
        function=function,
        given=tuple(given),
        head=call(f"def {way.rule.ways[own]}(", [*given, *states, "steps"], "):", WIDTH),
        found=(*([known] if " = " in known else []), *together(found)),
        loop=loop_over([*arrays, "finished_t"]),
        each=each,
        arrays=tuple(read),
        steps=call("steps = by_stretch(", ["stretches", "count", "finished", *run.shifted(arrays)]),
    ), lines


def loop_over(names: Sequence[str]) -> str:
    """The line that takes the steps one by one."""
    targets, walk = ", ".join(names), "in zip(*steps, strict=True):"
    line = f"for {targets if len(names) > 1 else f'({targets},)'} {walk}"
    return line if len(line) <= WIDTH - 4 else call("for (", names, f") {walk}")


def together(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The line that names some sizes, where there are any."""
    return (" = ".join(map(", ".join, zip(*pairs, strict=True))),) if pairs else ()


def for_stretches(text: str) -> str:
    """A line in which stretches take the place of steps."""
    return re.sub(r"\bT\b", STRETCHES, text)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


# ---------------------------------------------------------------------------------------------- an iteration


def solve(module: Module, plan: Newton, lines: Lines) -> tuple[str, ...]:
    """The lines by which stretch k passes on what the first of its states change by."""
    made: list[str] = []
    for state, slopes, at in by_state(module, plan, lines):
        terms = [f"{at(slope)}[k] * {at(first.next)}[k - 1]" for first, slope in slopes]
        line = f"{at(state.next)}[k] += {' + '.join(terms)}"
        made += [line] if len(line) <= WIDTH - 8 else [f"{at(state.next)}[k] += {term}" for term in terms]
    return tuple(made)


def solve_back(module: Module, plan: Newton, lines: Lines) -> tuple[str, ...]:
    """The lines by which stretch k ends, from the last step on, and the one before it begins there."""
    made: list[str] = []
    for state, slopes, at in by_state(module, plan, lines):
        target = f"{at(state.current)}[k - 1]"
        made.append(f"{target} = {at(state.next)}[k]")
        terms = [f"{at(slope)}[k] * {at(first.current)}[k]" for first, slope in slopes]
        line = f"{made[-1]} + {' + '.join(terms)}"
        made[-1:] = (
            [line] if len(line) <= WIDTH - 8 else [made[-1], *(f"{target} += {term}" for term in terms)]
        )
    return tuple(made)


def by_state(
    module: Module, plan: Newton, lines: Lines
) -> Iterator[tuple[Carry, list[tuple[Carry, Value]], Callable[[Value], str]]]:
    """Each state, the states that it depends on with its derivatives by them, and what arrays are called."""
    linear, states = plan.rule.backward, {c.name: c for c in plan.states}
    for name, state in states.items():
        value = state.next
        by = [(states[b], carry.current) for (a, b), carry in plan.derivatives.items() if a == name]
        alike = all(first.next.axes == value.axes for first, _ in by)

        def at(v: Value, alike: bool = alike, axes: Axes = value.axes) -> str:
            return module.at(v, linear) if alike else lines.shaped(v, axes)

        yield state, by, at
