"""The functions of a module that find the states of all steps at once, as records for `newton.py.jinja`.

Two of them run programs of the plan (`plan/newton.py`) over the steps of many stretches side by side. Their
lines come from a `Host`; what is around them is the same for all cells but for what is carried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
    run = Run(module, host, measure, states, settled)
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


def from_start(module: Module, names: Sequence[str]) -> list[str]:
    """What `newton` is given where the first step went another way."""
    stepped = {module.names["memory", b.name] for b in module.plan.step.forward.buffers if b.kind != "static"}
    late = {name: f"{name}[start:]" for name in stepped}
    late["finished"] = "None if finished is None else finished[start:]"
    return [late.get(name, name) for name in names]


def name_memory(module: Module, plan: Newton) -> tuple[tuple[Carried, ...], tuple[Carried, ...]]:
    """What is carried and which states are not, with names for these and for what else the programs make."""
    names, rule = module.names, plan.rule
    for carry in (*plan.states, *plan.settled):
        name = names.of("next", carry.name, f"{names['memory', carry.name]}_next")
        names.put("memory", rule.forward.slot[carry.next].home.name, name)
    for buffer in rule.backward.buffers:
        names.of("memory", buffer.name, buffer.name)

    def record(carry: Carry, schedule: Schedule, start: str) -> Carried:
        array, later = module.at(carry.current, schedule), module.at(carry.next, schedule)
        return Carried(array, later, start, over_all(carry.next.size))

    starts = [f"{names['memory', carry.name]}.copy()" for carry in plan.states]
    for after, first in plan.entries:
        starts.append(f"np.{'ones' if after == first else 'zeros'}_like({names['memory', after]})")
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

    @property
    def rows(self) -> set[str]:
        """The buffers that live within a step."""
        return {b.name for b in self.module.plan.step.forward.buffers if b.kind == "row"}

    def shifted(self, names: Sequence[str]) -> list[str]:
        """Arrays as `newton` knows them, who has the states at all times."""
        both = (*self.states, *self.settled)
        parts = {c.array: f"{c.array}[:-1]" for c in both} | {c.next: f"{c.array}[1:]" for c in both}
        return [parts.get(name, name) for name in names]


def program(run: Run, way: Way, carried: Sequence[Carried]) -> tuple[Program, Lines]:
    """One of the two programs as a function; `every_step` fills the memory of a run, `linearized` its own."""
    module, own = run.module, way.schedule is way.rule.backward
    memory = {module.names["memory", b.name]: b.kind for b in way.rule.lent if b.name not in run.rows}
    before, after = [c.array for c in carried], [c.next for c in carried]
    static = [name for name, kind in memory.items() if kind == "static"]
    stepped = [name for name in memory if name not in (*static, *before)]
    lines = run.host(module, way, module.names.inner(), frozenset({*stepped, *before, *after}))
    lines.run(way.schedule.stages)
    lines.settle()
    made = [array_of(module, b) for b in way.schedule.buffers if own or b.name in run.rows]
    made = [replace(a, shape=for_stretches(a.shape)) for a in made if a.name not in before]
    written, each = lines.written, tuple(map(for_stretches, lines.each))
    part = Part(tuple(map(for_stretches, written.prepare)), for_stretches(written.text))
    function = fitted(module, Function(loop=part, outputs=each, memory=tuple(made)))

    used = words(function) | words_of(" ".join(function.makes))
    late = [size.letter for size in run.measure.late if size.letter in used]
    given = ["params", *late, *(name for name in static if name in used)]
    read = [name for name in stepped if name in used]
    states = [c.array for c in run.states] if own else []
    pairs = [] if own else zip(before, after, strict=True)
    arrays = [*(name for pair in pairs for name in pair), *read]
    first, sizes = (states[0], OF_STATES) if own else ("steps", OF_STEPS)
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
    linear = plan.rule.backward
    nexts = {c.name: c.next for c in plan.states}
    made: list[str] = []
    for name, value in nexts.items():
        by = {first: carry.current for (after, first), carry in plan.derivatives.items() if after == name}
        alike = all(nexts[first].axes == value.axes for first in by)

        def at(v: Value, alike: bool = alike, axes: Axes = value.axes) -> str:
            return module.at(v, linear) if alike else lines.shaped(v, axes)

        terms = [f"{at(slope)}[k] * {at(nexts[first])}[k - 1]" for first, slope in by.items()]
        line = f"{at(value)}[k] += {' + '.join(terms)}"
        made += [line] if len(line) <= WIDTH - 8 else [f"{at(value)}[k] += {term}" for term in terms]
    return tuple(made)
