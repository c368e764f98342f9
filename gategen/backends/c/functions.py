"""The functions of a C file, and all that its templates print of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from gategen.backends import interface
from gategen.backends.c.lines import (
    ALL,
    CALLS,
    FUNCTIONS,
    KEYWORDS,
    LOOP,
    MACRO,
    ONCE,
    STEPPED,
    CModule,
    CPrinter,
    Lines,
    Notes,
    Pack,
    c_name,
)
from gategen.backends.c.text import mentions
from gategen.backends.c.weights import CWeights, c_weights
from gategen.backends.module import Module, Way, tape_buffers
from gategen.backends.names import Role
from gategen.backends.pointwise import grouped, times
from gategen.graph import Value, length
from gategen.plan import (
    FIRST_STEP,
    START_STATES,
    STEP,
    Buffer,
    ColumnSum,
    Field,
    InBuffer,
    MatMul,
    Rule,
    Schedule,
)
from gategen.plan.phases import parts, phases
from gategen.spec.elementwise import called, helpers
from gategen.spec.language import Input, State


@dataclass(frozen=True)
class TileRow:
    """The sums of one row of a product, in a function for several rows."""

    name: str
    below: str  # how far from the first row of the left side
    behind: str  # and of the tile


@dataclass(frozen=True)
class Tile:
    """A function for a product of some rows."""

    sums: tuple[TileRow, ...]

    @property
    def rows(self) -> int:
        return len(self.sums)

    @property
    def alone(self) -> bool:
        return self.rows == 1


def tile(rows: int) -> Tile:
    factors = ["", "{} + ", *(f"{k} * {{}} + " for k in range(2, rows))]
    return Tile(
        tuple(
            TileRow(n, f.format("pitch"), f.format("PANEL"))
            for n, f in zip("stuvwyzq"[:rows], factors, strict=False)
        )
    )


FIELD_ROLES: tuple[Role, Role] = ("field", "field gradient")
SUMS = ("sum", "largest", "running_sum", "running_sum_back", "column_sums")  # helpers
OTHERS = ("outer", "from_left", "shift_on", "shift_back")
SUMS_DOWN = ("largest_down", "running_sum_down", "running_sum_back_down")
SUMS_OF_MATRICES = ("dot", "dots", "dots_by_row", "add_multiples", "add_products")
TILES = tuple(map(tile, (8, 6, 5, 4, 3, 2, 1)))


@dataclass(frozen=True)
class Room:
    """Memory: how many entries it has for a few steps, and for each of them."""

    name: str
    some: str
    each: str  # empty where it is not kept for every step
    comment: str = ""
    state: bool = False  # whether it has an entry for the time behind the last step
    backward: bool = False  # whether the way back reads it
    member: str = ""  # of the tape


@dataclass(frozen=True)
class Ended:
    """An array that the caller gives for all steps; behind the lengths it counts as 0."""

    name: str  # as the caller calls it
    now: str  # that of the steps at hand
    copy: str  # the memory of a copy
    width: str
    shape: str  # of a row
    forward: bool = False  # whether the way there reads it
    backward: bool = False


@dataclass(frozen=True)
class Copied:
    """What is copied from memory of a run to the caller's."""

    target: str
    source: str
    pitch: str
    width: str
    shape: str  # of a row


@dataclass(frozen=True)
class Carried:
    """A state, or its gradient on the way back."""

    name: str
    array: str
    width: str
    kept: str = ""
    initial: str = ""  # a number; empty where a rule makes it
    shape: str = ""  # of a row


@dataclass(frozen=True)
class Statistic:
    """A running statistic of a batch norm."""

    name: str
    array: str
    source: str  # of its new value
    width: str


@dataclass(frozen=True)
class RuleOnce:
    """A rule for a single step, as two functions."""

    forward: CFunction
    backward: CFunction
    held: tuple[Room, ...]  # what is left behind, beside states
    outputs: tuple[Copied, ...]
    seeds: tuple[str, ...]  # gradients of the outputs
    carries: tuple[Carried, ...]
    d_inputs: tuple[Copied, ...]
    clearing: tuple[str, ...]


@dataclass(frozen=True)
class CFunction:
    """One direction of a rule."""

    unpacked: tuple[str, ...] = ()  # lines that name the fields of `params`
    rooms: tuple[Room, ...] = ()
    packs: tuple[Pack, ...] = ()
    zeroed: tuple[str, ...] = ()  # lines that set sums to 0
    first: tuple[str, ...] = ()  # before all steps
    before: tuple[str, ...] = ()
    loop: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    last: tuple[str, ...] = ()  # behind all steps
    at_once: bool = False  # whether all steps are one part
    row_by_row: bool = False  # whether each row of the batch goes through the steps on its own
    width: str = "1"  # of all that is kept for every step
    weights: CWeights | None = None  # where the lines read what is computed of parameters
    pulls: CWeights | None = None  # where they sum up gradients of that

    @property
    def parts(self) -> str:
        """In how many parts the rows of the batch go through the steps."""
        return "B" if self.row_by_row else "at_most(threads(), (B + 7) / 8)"

    @property
    def start(self) -> str:
        """Where a part begins."""
        return "part" if self.row_by_row else "cut(B, part, parts)"

    @property
    def stop(self) -> str:
        return "part + 1" if self.row_by_row else "cut(B, part + 1, parts)"

    @property
    def opening(self) -> tuple[str, ...]:
        """The lines that name fields and memory, pack matrices, and set sums to 0."""
        rooms = []
        for room in self.rooms:
            said = f"  // {room.comment}" if room.comment else ""
            rooms.append(f"real *const {room.name} = take(&work, {room.some});{said}")
        packs = [f"real *const {pack.name} = take(&work, {pack.size});" for pack in self.packs]
        packed = [line for pack in self.packs for line in pack.lines]
        made = (*self.weights.makes, self.weights.make) if self.weights else ()
        zeros = self.pulls.zeros if self.pulls else ()
        return (*self.unpacked, *made, *zeros, *rooms, *packs, *packed, *self.zeroed, *self.first)

    @property
    def packing(self) -> tuple[str, ...]:
        """The lines that pack all matrices."""
        packs = [f"real *const {pack.name} = take(&work, {pack.size});" for pack in self.packs]
        made = (*self.weights.makes, self.weights.make) if self.weights else ()
        return (*self.fields_packed, *packs, *made, *(line for pack in self.packs for line in pack.lines))

    @property
    def fields_packed(self) -> tuple[str, ...]:
        text = "\n".join(line for pack in self.packs for line in pack.lines)
        return tuple(u for u in self.unpacked if mentions(text, u.split(" = ")[0].split("const ")[-1]))

    @property
    def opening_packed(self) -> tuple[str, ...]:
        """The same where somebody else packs the matrices."""
        bare = replace(self, packs=()).opening
        if self.weights and not self.weights.scalars:
            make = self.weights.make
            unless = ("if (!packed) {", f"    {make}", "}")
            bare = tuple(part for line in bare for part in (unless if line == make else (line,)))
        return (
            *bare,
            *(f"const real *const {p.name} = packed ? find(&packed, {p.size}) : NULL;" for p in self.packs),
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """How many entries of memory it takes."""
        rooms = (*(f"rounded({room.some})" for room in self.rooms), *(pack.size for pack in self.packs))
        return (*rooms, *self.computed_entries)

    @property
    def computed_entries(self) -> tuple[str, ...]:
        """The same of what is computed of parameters."""
        there = self.weights.rooms if self.weights else ()
        return (*there, *(self.pulls.rooms_back if self.pulls else ()))

    @property
    def text(self) -> str:
        lines = (*self.zeroed, *self.first, *self.before, *self.loop, *self.after, *self.last)
        packs = (line for pack in self.packs for line in pack.lines)
        return "\n".join((*lines, *packs))


class CFile(Notes):
    """The C text of a cell."""

    def __init__(self, module: CModule) -> None:
        super().__init__(module)
        self.plan, self.cell, self.names = module.plan, module.cell, module.names
        self.direct: dict[tuple[str, bool], set[str]] = {}  # buffers in the caller's memory, by rule and way
        self.weights = c_weights(
            module, letters_of(module), {f.name: member(f.name) for f in module.plan.fields}
        )

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    def width(self, value: Value | State | Input) -> str:
        """How many entries a row of it has."""
        return self.names.width(length(value.size), value.size if isinstance(value.size, tuple) else ())

    # ------------------------------------------------------------------------------------------ functions

    def room(self, buffer: Buffer, steps: str = "most") -> Room:
        name, width = self.names["memory", buffer.name], self.names.width(buffer.width, buffer.axes)
        members = f" {', '.join(buffer.members)}" if len(buffer.members) > 1 else ""
        shapes = {"state": "(T + 1, B, {})", "static": "({})" if buffer.axes else "({},)", "row": "(B, {})"}
        inner = self.names.letter(buffer.axes) if buffer.axes else width
        shape = shapes.get(buffer.kind, "(T, B, {})").format(inner)
        said = f"{shape} {members}".strip()
        if buffer.kind == "static":
            return Room(name, width, "", said)
        each = times("B", width)
        if buffer.kind not in STEPPED:
            return Room(name, each, "", said)
        state = buffer.kind == "state"
        more = f" + {each}" if state else ""
        note = "  the initial state first" if state else ""
        some = each if steps == "1" else f"{steps} * {each}"
        return Room(name, f"{some}{more}", each, f"{said}{note}", state)

    def saved(self, rule: Rule) -> tuple[Buffer, ...]:
        """What a run leaves behind."""
        if not rule.forward.graph.states:
            return ()
        return tuple(b for b in rule.saved if b.kind == "state" or b in tape_buffers(rule))

    def own(self, schedule: Schedule, rule: Rule, text: str, once: bool, alone: bool) -> tuple[Room, ...]:
        """The memory that the lines of a direction need beside what is left behind and what is the caller's.

        once: whether a single step is taken.
        alone: whether nothing of it is left behind.
        """
        states = {b.name for b in self.saved(rule) if b.kind == "state"}
        given = states if alone else {b.name for b in self.saved(rule)}
        given |= self.direct.get((rule.name, schedule.graph.backwards), set())
        kinds = ("row", "time", "static")
        rooms = (
            self.room(b, "1" if once else "most")
            for b in schedule.buffers
            if b.kind in kinds and b.name not in given
        )
        return tuple(room for room in rooms if mentions(text, room.name))

    def function(self, way: Way) -> CFunction:
        """One direction of the step, for all steps."""
        schedule, rule = way.schedule, way.rule
        names = self.names.inner()
        apart_of = parts(schedule)
        apart = (*apart_of.first, *apart_of.last)
        tape = rule.tape if not schedule.graph.backwards else ()

        def lines(where: str) -> Lines:
            return Lines(self, way, names, where, tape)

        first, before, loop, after, last = lines(ALL), lines(ALL), lines(LOOP), lines(ALL), lines(ALL)
        for other in (loop, after):
            other.packs = before.packs
        after.cleared = before.cleared
        first.run(apart_of.first)
        before.run([s for s in schedule.before if s not in apart])
        for phase in phases(schedule):
            loop.run((*phase.products, *phase.program))
        after.run([s for s in schedule.after if s not in apart])
        last.run(apart_of.last)
        made = CFunction(
            packs=tuple(before.packs.values()),
            zeroed=self.zeroed(schedule),
            first=tuple(first.lines),
            before=tuple(before.lines),
            loop=tuple(loop.lines),
            after=tuple(after.lines),
            last=tuple(last.lines),
            at_once=apart_of.at_once,
            row_by_row=any(v.wide for v in schedule.graph.values)
            and not any(isinstance(stage, MatMul) for stage in schedule.loop),
        )
        return self.fitted(made, schedule, rule)

    def once(
        self, way: Way, ends: Iterable[Value] = (), alone: bool = True, prepacked: bool = False
    ) -> CFunction:
        """One direction of a rule, for a single step; with `prepacked` matrices may be packed already."""
        lines = Lines(self, way, self.names.inner(), ONCE, ends)
        lines.prepacked = prepacked
        lines.run(way.schedule.stages)
        made = CFunction(
            packs=tuple(lines.packs.values()), zeroed=self.zeroed(way.schedule), loop=tuple(lines.lines)
        )
        return self.fitted(made, way.schedule, way.rule, once=True, alone=alone)

    def with_values(self, made: CFunction, values: CFunction) -> CFunction:
        """A function that computes forward values anew before its own lines."""
        rooms = {room.name: room for room in (*values.rooms, *made.rooms)}
        return replace(
            made,
            unpacked=tuple(dict.fromkeys((*values.unpacked, *made.unpacked))),
            rooms=tuple(rooms.values()),
            loop=(*values.loop, *made.loop),
        )

    def zeroed(self, schedule: Schedule) -> tuple[str, ...]:
        """Sums over steps begin with 0; those of parameters have the caller's memory."""
        found: dict[str, None] = {}
        for stage in schedule.stages:
            if isinstance(stage, ColumnSum):
                home = schedule.slot[stage.out[0]].home
                if isinstance(home, InBuffer):
                    buffer = schedule.buffer[home.name]
                    width = self.names.width(buffer.width, buffer.axes)
                    found[f"zero({width}, {self.names['memory', home.name]});"] = None
        return tuple(found)

    def fitted(
        self, made: CFunction, schedule: Schedule, rule: Rule, once: bool = False, alone: bool = False
    ) -> CFunction:
        """With the fields and the memory that the lines mention."""
        text = made.text
        rooms = self.own(schedule, rule, text, once, alone)
        names = [f for f in self.plan.fields if mentions(text, self.names["field", f.name])]
        unpacked = [
            f"const real *const {self.names['field', f.name]} = params->{member(f.name)};" for f in names
        ]
        for f in self.plan.fields:
            gradient = self.names["field gradient", f.name]
            if mentions(text, gradient):
                unpacked.append(f"real *const {gradient} = d_params->{member(f.name)};")
        weights, pulls = (self.computed_in(text, role) for role in FIELD_ROLES)
        if pulls and once:
            made = replace(made, loop=(*made.loop, pulls.pull))
        elif pulls:
            made = replace(made, last=(*made.last, pulls.pull))
        buffers = {b.name: b for b in (*schedule.buffers, *self.saved(rule))}
        widths = [b.width for b in buffers.values() if b.kind in ("time", "state")]
        return replace(
            made,
            unpacked=tuple(unpacked),
            rooms=rooms,
            width=self.size(sp.Add(*widths)) if widths else "1",
            weights=weights,
            pulls=pulls,
        )

    def computed_in(self, text: str, role: Role) -> CWeights | None:
        """What is computed of parameters, where a text mentions it in this role."""
        there = any(mentions(text, self.names[role, f.name]) for f in self.plan.computed)
        return self.weights if there else None

    # ------------------------------------------------------------------------------------------ all together

    def copied(self, rule: Rule, schedule: Schedule, value: Value, target: str) -> Copied:
        """What is copied to the caller's memory, or lies there."""
        slot = schedule.slot[value]
        buffer = self.buffers_of(schedule)[slot.home.name]
        base = self.now.get((rule.name, slot.home.name)) or self.names["memory", slot.home.name]
        width = self.names.width(buffer.width, buffer.axes)
        own, shape = self.width(value), self.names.letter(value.size)
        if slot.home.name in self.direct.get((rule.name, schedule.graph.backwards), ()):
            return Copied(base, "", width, own, shape)
        terms = [
            base,
            *([times("B", width)] if slot.shift else []),
            *([self.size(slot.start)] * (slot.start != 0)),
        ]
        return Copied(target, " + ".join(terms), width, own, shape)

    def lend(self, rule: Rule, schedule: Schedule, values: Iterable[Value]) -> None:
        """Notes which of these values can lie in the caller's memory from the start."""
        saved = {b.name for b in self.saved(rule)}
        given = {schedule.slot[v].home.name for v in schedule.graph.inputs if v in schedule.slot}
        found = self.direct.setdefault((rule.name, schedule.graph.backwards), set())
        for value in values:
            slot = schedule.slot[value]
            buffer = self.buffers_of(schedule)[slot.home.name]
            whole = buffer.kind == "time" and buffer.width == length(value.size)
            if whole and buffer.name not in saved | given:
                found.add(buffer.name)

    def buffers_of(self, schedule: Schedule) -> dict[str, Buffer]:
        found = {b.name: b for rule in self.plan.rules for b in rule.buffers.values()}
        return found | schedule.buffer

    def rule_once(self, rule: Rule) -> RuleOnce:
        """The rule for the first step, or for the initial states."""
        module, names, step = self.module, self.names, self.plan.step
        there, back = module.ways(rule)
        seeds = module.gradients_of_outputs(rule)
        graph = rule.forward.graph
        if graph.states:
            own = [self.seed_now(v) for v in module.gradients_of_outputs(step)]
            targets = [names.of("first output", o.target, f"first_{o.target}") for o in self.outputs()]
            carries = [module.carry(s.name, rule) for s in self.cell.states]
        else:
            own = [module.carry(s.name, step) for s in self.cell.states]
            targets = [names["memory", s.name] for s in self.cell.states]
            carries = []
        for value, now in zip(seeds, own, strict=True):
            self.now[rule.name, rule.backward.slot[value].home.name] = now
        for s in self.cell.inputs if graph.states else ():
            self.now[rule.name, s.name] = self.now[STEP, s.name]
        forward, backward = self.once(there, rule.tape, alone=not graph.states), self.once(back)
        if not graph.states:
            backward = self.with_values(backward, forward)
        held = tuple(b for b in self.saved(rule) if b.kind != "state")
        cleared = [b for b in held if module.singular and b.kind != "static"]
        lines = Lines(self, there, names, ONCE, ())
        gradient = dict(rule.backward.graph.outputs)
        inputs = [s for s in self.cell.inputs if s.name in gradient]
        return RuleOnce(
            forward,
            backward,
            tuple(replace(self.room(b, steps="1"), member=member(b.name)) for b in held),
            tuple(
                self.copied(rule, rule.forward, v, target)
                for target, (_, v) in zip(targets, graph.outputs, strict=True)
            ),
            tuple(own),
            tuple(
                Carried(member(s.name), carry, self.width(s), names.of("kept", s.name, f"kept_{carry}"))
                for s, carry in zip(self.cell.states, carries, strict=False)
            ),
            tuple(
                self.copied(rule, rule.backward, gradient[s.name], f"d_{names['memory', s.name]}_at_first")
                for s in inputs
            ),
            tuple(lines.clearing(b) for b in cleared),
        )

    def seed_now(self, value: Value) -> str:
        """What the gradient of an output is called at the steps at hand."""
        home = self.plan.step.backward.slot[value].home.name
        return self.now.setdefault(
            (STEP, home), self.names.of("now", home, f"{self.names['memory', home]}_now")
        )

    def outputs(self) -> tuple[Copied, ...]:
        """The outputs of the step, copied to what the caller calls them."""
        step = self.plan.step
        found = step.forward.graph.outputs
        wishes = ["y"] if len(found) == 1 else [self.names.find("output", name) or name for name, _ in found]
        return tuple(
            self.copied(step, step.forward, v, self.caller(name, wish))
            for wish, (name, v) in zip(wishes, found, strict=True)
        )

    def taped(self, step: Rule, backward: CFunction, first: RuleOnce | None) -> tuple[Room, ...]:
        """What a run of all steps leaves behind."""
        rooms = (replace(self.room(b), member=member(b.name)) for b in self.saved(step))
        return tuple(
            replace(room, backward=mentions(backward.text, room.name) or (room.state and first is not None))
            for room in rooms
        )

    def caller(self, output: str, wish: str) -> str:
        """What the caller's memory of an output is called."""
        thing = f"{output} of the caller"
        if not self.names.find("output", thing):  # nothing else is called y
            self.names.put("output", thing, wish if wish == "y" else self.names.new(wish))
        return self.names["output", thing]

    def ended(self, name: str, home: str, value: Value | Input) -> Ended:
        """An array that the caller gives for all steps."""
        now = self.now.setdefault((STEP, home), self.names.of("now", home, f"{name}_now"))
        copy, shape = self.names.of("view", home, f"{name}_copy"), self.names.letter(value.size)
        return Ended(name, now, copy, self.width(value), shape)

    def context(self) -> dict[str, object]:
        """All that the templates of C print."""
        plan, module = self.plan, self.module
        step, first_rule, start_rule = plan.step, plan.rule(FIRST_STEP), plan.rule(START_STATES)
        graph, gradient = step.forward.graph, dict(step.backward.graph.outputs)
        inputs, seeds = self.ends()
        forward_way, backward_way = module.ways(step)
        self.lend(step, step.forward, [v for _, v in graph.outputs])
        self.lend(step, step.backward, [gradient[s.name] for s in self.cell.inputs])
        forward, backward = self.function(forward_way), self.function(backward_way)
        lines = Lines(self, forward_way, self.names, ALL, ())
        singular = [b for b in self.saved(step) if b.kind == "time"] if module.singular else []
        first = self.rule_once(first_rule) if first_rule else None
        start = self.rule_once(start_rule) if start_rule else None
        quick = None if graph.statistics else self.once(forward_way, step.tape, prepacked=True)
        tape = self.taped(step, backward, first)
        needed = self.needed(quick, (forward, backward, quick, first, start))
        return {
            **self.head(),
            "inputs": tuple(read_by(i, forward, backward) for i in inputs),
            "seeds": tuple(read_by(s, forward, backward) for s in seeds),
            "d_inputs": self.d_inputs(inputs),
            "fields": self.fields(),
            "states": self.states(),
            "carries": self.carries(),
            "outputs": self.outputs(),
            "statistics": self.statistics(),
            "tape": tape,
            "tape_back": tuple(room for room in tape if room.backward),
            "forward": forward,
            "backward": backward,
            "clearing": tuple(lines.clearing(b) for b in singular),
            "quick": quick,
            "first": first,
            "start": start,
            "mask": graph.mask is not None,
            "kernels": tuple(self.kernels),
            "ruled": bool(first or start),
            "fewest": 64 if any(v.wide for v in graph.values) else 256,
            "functions": self.called(),
            "helpers": self.helpers_used(),
            **needed,
            "adds_up": bool(first or start) or needed["tiles_needed"],
            "made": self.weights,
            "tiles": TILES,
            "outers": tuple(dict.fromkeys(self.outers)),
        }

    def head(self) -> dict[str, object]:
        """What the cell, its type of real numbers and its sizes are called."""
        letters, prefix = letters_of(self.module), self.cell.name
        return {
            "cell": interface.cell_record(self.module),
            "prefix": prefix,
            "real": f"{prefix}_real" if f"{prefix}_real" not in FUNCTIONS else f"{prefix}_c_real",
            "guard": f"{prefix.upper()}_C_H",
            "sizes_declared": "".join(f", size_t {letter}" for letter in letters),
            "sizes_first": ", ".join(f"size_t {letter}" for letter in letters) or "void",
            "sizes_passed": "".join(f", {letter}" for letter in letters),
            "unused": [f"(void){name};" for name in ("params", *letters)],
            "sizes": tuple(interface.size_record(self.module, size) for size in self.cell.sizes),
            "letters": letters,
            "bare": not self.plan.fields,
        }

    def ends(self) -> tuple[tuple[Ended, ...], tuple[Ended, ...]]:
        """The inputs and the gradients of outputs; lines can be made once these have names."""
        step, names = self.plan.step, self.names
        inputs = tuple(self.ended(names["memory", s.name], s.name, s) for s in self.cell.inputs)
        seeds = []
        for value in self.module.gradients_of_outputs(step):
            home = step.backward.slot[value].home.name
            seeds.append(self.ended(names["memory", home], home, value))
        return inputs, tuple(seeds)

    def d_inputs(self, inputs: Sequence[Ended]) -> tuple[Copied, ...]:
        """The gradients of the inputs."""
        step, gradient = self.plan.step, dict(self.plan.step.backward.graph.outputs)
        targets = [
            self.names.of("gradient", s.name, f"d_{i.name}")
            for s, i in zip(self.cell.inputs, inputs, strict=True)
        ]
        return tuple(
            self.copied(step, step.backward, gradient[s.name], target)
            for s, target in zip(self.cell.inputs, targets, strict=True)
        )

    def fields(self) -> tuple[dict[str, object], ...]:
        """The fields of `params`."""
        return tuple(
            {
                "member": member(f.name),
                "array": self.names["field", f.name],
                "gradient": self.names["field gradient", f.name],
                "entries": entries_of(self, f),
                "shape": shape_of(self, f),
                "members": interface.members_of(self.module, f),
            }
            for f in self.plan.fields
        )

    def states(self) -> tuple[Carried, ...]:
        """The states, with the numbers that they begin with where no rule makes them."""
        numbers = CPrinter({}, {}, self.names.sizes)
        ruled = self.plan.rule(START_STATES)
        return tuple(
            Carried(
                member(s.name),
                self.names["memory", s.name],
                self.width(s),
                shape=self.names.letter(s.size),
                initial="" if ruled else numbers(s.initial),
            )
            for s in self.cell.states
        )

    def carries(self) -> tuple[Carried, ...]:
        """The gradients of the states that go from step to step."""
        carries = [self.module.carry(s.name, self.plan.step) for s in self.cell.states]
        return tuple(
            Carried(member(s.name), carry, self.width(s), self.names.of("kept", s.name, f"kept_{carry}"))
            for s, carry in zip(self.cell.states, carries, strict=True)
        )

    def statistics(self) -> tuple[Statistic, ...]:
        """The running statistics of batch norm, which training updates."""
        step, found = self.plan.step, []
        for s in step.forward.graph.statistics:
            name = str(s.value.name)
            source = self.copied(step, step.forward, s.update, name).source
            given = self.names.of("given", name, name)
            found.append(Statistic(member(name), given, source, self.names.letter(s.value.size)))
        return tuple(found)

    def called(self) -> tuple[str, ...]:
        """The functions of numbers that the lines call."""
        used = [name for kernel in self.kernels for line in kernel.body for name in called(line)]
        return helpers([*used, *(called(self.weights.text) if self.weights else ())], CALLS)

    def helpers_used(self) -> dict[str, bool]:
        """Which functions of arrays the lines call."""
        return {
            "sums": bool({*SUMS, *SUMS_DOWN} & self.helpers),
            "matrices": bool(set(SUMS_OF_MATRICES) & self.helpers),
            **{name: name in self.helpers for name in (*SUMS, *SUMS_DOWN, *SUMS_OF_MATRICES, *OTHERS)},
            "larger": bool({"largest", "largest_down"} & self.helpers),
            "dot": bool({"dot", "dots_by_row"} & self.helpers),
        }

    def needed(
        self, quick: CFunction | None, functions: Sequence[CFunction | RuleOnce | None]
    ) -> dict[str, bool]:
        """Which helpers the lines call."""
        text = "\n".join(self.texts(functions))
        text += "\npack_rows( multiply(" * bool(self.weights and self.weights.multiplies)
        runs = [made for made in functions[:2] if isinstance(made, CFunction)]
        return {
            "packs_columns": "pack_columns(" in text,
            "packs_rows": "pack_rows(" in text or "outer(" in text,
            "tiles_needed": "multiply(" in text or "multiply_all(" in text or "outer(" in text,
            "panels": any(word in text for word in ("pack_columns(", "pack_rows(", "multiply", "outer(")),
            "multiplies": "multiply(" in text or "multiply_all(" in text,
            "multiplies_all": "multiply_all(" in text,
            "finds": bool(quick and quick.packs),
            "few": "few(" in text,
            "few_rows": "few_rows(" in text,
            "in_parts": not all(made.at_once for made in runs),
            "threaded": "multiply_all(" in text or "outer(" in text or not all(r.row_by_row for r in runs),
        }

    def texts(self, functions: Sequence[CFunction | RuleOnce | None]) -> Iterator[str]:
        for made in functions:
            if isinstance(made, RuleOnce):
                yield from (made.forward.text, made.backward.text)
            elif made:
                yield made.text


def read_by(given: Ended, forward: CFunction, backward: CFunction) -> Ended:
    """The record, with which directions read the array."""
    return replace(
        given,
        forward=mentions(forward.text, given.now),
        backward=mentions(backward.text, given.now),
    )


def letters_of(module: Module) -> list[str]:
    """The sizes that the arrays of a cell have, in its order."""
    told = {size.name for size in (*interface.measured_sizes(module), *interface.late_sizes(module))}
    return [module.names.sizes[size] for size in module.cell.sizes if size in told]


def member(name: str) -> str:
    """A member of a struct, which is no word of the language and no macro."""
    return c_name(name) if name in KEYWORDS or MACRO.fullmatch(name) else name


def entries_of(file: CFile, f: Field) -> str:
    """How many entries a field of `Params` has."""
    found = file.module.fields[f.name]
    if not found.rows:
        return "1"
    height = file.size(found.height)
    return times(grouped(height), file.size(found.width)) if found.columns else height


def shape_of(file: CFile, f: Field) -> str:
    found = file.module.fields[f.name]
    if not found.rows:
        return "one number"
    height = file.size(found.height)
    return f"({height}, {file.size(found.width)})" if found.columns else f"({height},)"
