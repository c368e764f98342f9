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
from gategen.backends.module import Module, Way, tape_buffers
from gategen.backends.pointwise import grouped, times
from gategen.graph import Value
from gategen.plan import (
    FIRST_STEP,
    START_STATES,
    STEP,
    Buffer,
    ColumnSum,
    Field,
    InBuffer,
    Rule,
    Schedule,
)
from gategen.plan.phases import parts, phases
from gategen.spec.elementwise import called, helpers
from gategen.spec.language import Size


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
            TileRow(n, f.format("down"), f.format("PANEL"))
            for n, f in zip("stuvwyzq"[:rows], factors, strict=False)
        )
    )


TILES = tuple(map(tile, (8, 6, 4, 2, 1)))


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
    forward: bool = False  # whether the way there reads it
    backward: bool = False


@dataclass(frozen=True)
class Copied:
    """What is copied from memory of a run to the caller's."""

    target: str
    source: str
    pitch: str
    width: str


@dataclass(frozen=True)
class Carried:
    """A state, or its gradient on the way back."""

    name: str
    array: str
    width: str
    kept: str = ""
    initial: str = ""  # a number; empty where a rule makes it


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
    width: str = "1"  # of all that is kept for every step

    @property
    def opening(self) -> tuple[str, ...]:
        """The lines that name fields and memory, pack matrices, and set sums to 0."""
        rooms = []
        for room in self.rooms:
            said = f"  // {room.comment}" if room.comment else ""
            rooms.append(f"real *const {room.name} = take(&work, {room.some});{said}")
        packs = [f"real *const {pack.name} = take(&work, {pack.size});" for pack in self.packs]
        packed = [line for pack in self.packs for line in pack.lines]
        return (*self.unpacked, *rooms, *packs, *packed, *self.zeroed, *self.first)

    @property
    def packing(self) -> tuple[str, ...]:
        """The lines that pack all matrices."""
        packs = [f"real *const {pack.name} = take(&work, {pack.size});" for pack in self.packs]
        return (*self.fields_packed, *packs, *(line for pack in self.packs for line in pack.lines))

    @property
    def fields_packed(self) -> tuple[str, ...]:
        text = "\n".join(line for pack in self.packs for line in pack.lines)
        return tuple(u for u in self.unpacked if mentions(text, u.split(" = ")[0].split("const ")[-1]))

    @property
    def opening_packed(self) -> tuple[str, ...]:
        """The same where somebody else packs the matrices."""
        bare = replace(self, packs=()).opening
        return (
            *bare,
            *(f"const real *const {p.name} = packed ? find(&packed, {p.size}) : NULL;" for p in self.packs),
        )

    @property
    def entries(self) -> tuple[str, ...]:
        """How many entries of memory it takes."""
        return (*(f"rounded({room.some})" for room in self.rooms), *(pack.size for pack in self.packs))

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

    def size(self, expr: sp.Expr) -> str:
        return self.names.size(expr)

    # ------------------------------------------------------------------------------------------ functions

    def room(self, buffer: Buffer, steps: str = "most") -> Room:
        name, width = self.names["memory", buffer.name], self.size(buffer.width)
        members = f" {', '.join(buffer.members)}" if len(buffer.members) > 1 else ""
        shapes = {"state": "(T + 1, B, {})", "static": "({},)", "row": "(B, {})"}
        shape = shapes.get(buffer.kind, "(T, B, {})").format(width)
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
                    width = self.size(schedule.buffer[home.name].width)
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
        buffers = {b.name: b for b in (*schedule.buffers, *self.saved(rule))}
        widths = [b.width for b in buffers.values() if b.kind in ("time", "state")]
        return replace(
            made,
            unpacked=tuple(unpacked),
            rooms=rooms,
            width=self.size(sp.Add(*widths)) if widths else "1",
        )

    # ------------------------------------------------------------------------------------------ all together

    def copied(self, rule: Rule, schedule: Schedule, value: Value, target: str) -> Copied:
        """What is copied to the caller's memory, or lies there."""
        slot = schedule.slot[value]
        buffer = self.buffers_of(schedule)[slot.home.name]
        base = self.now.get((rule.name, slot.home.name)) or self.names["memory", slot.home.name]
        width, own = self.size(buffer.width), self.names.letter(value.size)
        if slot.home.name in self.direct.get((rule.name, schedule.graph.backwards), ()):
            return Copied(base, "", width, own)
        terms = [
            base,
            *([times("B", width)] if slot.shift else []),
            *([self.size(slot.start)] * (slot.start != 0)),
        ]
        return Copied(target, " + ".join(terms), width, own)

    def lend(self, rule: Rule, schedule: Schedule, values: Iterable[Value]) -> None:
        """Notes which of these values can lie in the caller's memory from the start."""
        saved = {b.name for b in self.saved(rule)}
        given = {schedule.slot[v].home.name for v in schedule.graph.inputs if v in schedule.slot}
        found = self.direct.setdefault((rule.name, schedule.graph.backwards), set())
        for value in values:
            slot = schedule.slot[value]
            buffer = self.buffers_of(schedule)[slot.home.name]
            whole = buffer.kind == "time" and self.size(buffer.width) == self.names.letter(value.size)
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
                Carried(
                    member(s.name), carry, names.letter(s.size), names.of("kept", s.name, f"kept_{carry}")
                )
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

    def ended(self, name: str, home: str, size: Size) -> Ended:
        """An array that the caller gives for all steps."""
        now = self.now.setdefault((STEP, home), self.names.of("now", home, f"{name}_now"))
        return Ended(name, now, self.names.of("view", home, f"{name}_copy"), self.names.letter(size))

    def context(self) -> dict[str, object]:
        """All that the templates of C print."""
        plan, names, module, cell = self.plan, self.names, self.module, self.cell
        step, first_rule, start_rule = plan.step, plan.rule(FIRST_STEP), plan.rule(START_STATES)
        graph = step.forward.graph
        sizes = tuple(interface.size_record(module, size) for size in cell.sizes)
        letters = letters_of(module)
        inputs = tuple(self.ended(names["memory", s.name], s.name, s.size) for s in cell.inputs)
        seeds = []
        for value in module.gradients_of_outputs(step):
            home = step.backward.slot[value].home.name
            seeds.append(self.ended(names["memory", home], home, value.size))
        forward_way, backward_way = module.ways(step)
        gradient = dict(step.backward.graph.outputs)
        self.lend(step, step.forward, [v for _, v in graph.outputs])
        self.lend(step, step.backward, [gradient[s.name] for s in cell.inputs])
        forward, backward = self.function(forward_way), self.function(backward_way)
        lines = Lines(self, forward_way, names, ALL, ())
        taped = [b for b in self.saved(step) if b.kind == "time"] if module.singular else []
        first = self.rule_once(first_rule) if first_rule else None
        start = self.rule_once(start_rule) if start_rule else None
        quick = None if graph.statistics else self.once(forward_way, step.tape, prepacked=True)
        used = [name for kernel in self.kernels for line in kernel.body for name in called(line)]
        statistics = []
        for s in graph.statistics:
            name = str(s.value.name)
            source = self.copied(step, step.forward, s.update, name).source
            statistics.append(
                Statistic(member(name), names.of("given", name, name), source, names.letter(s.value.size))
            )
        return {
            "cell": interface.cell_record(module),
            "prefix": cell.name,
            "real": f"{cell.name}_real" if f"{cell.name}_real" not in FUNCTIONS else f"{cell.name}_c_real",
            "guard": f"{cell.name.upper()}_C_H",
            "sizes_declared": "".join(f", size_t {letter}" for letter in letters),
            "sizes_first": ", ".join(f"size_t {letter}" for letter in letters) or "void",
            "sizes_passed": "".join(f", {letter}" for letter in letters),
            "unused": [f"(void){name};" for name in ("params", *letters)],
            "sizes": sizes,
            "letters": letters,
            "fields": tuple(
                {
                    "member": member(f.name),
                    "array": names["field", f.name],
                    "gradient": names["field gradient", f.name],
                    "entries": entries_of(self, f),
                    "shape": shape_of(self, f),
                    "members": interface.members_of(module, f),
                }
                for f in plan.fields
            ),
            "states": tuple(
                Carried(
                    member(s.name),
                    names["memory", s.name],
                    names.letter(s.size),
                    initial="" if start_rule else CPrinter({}, {}, names.sizes)(s.initial),
                )
                for s in cell.states
            ),
            "carries": tuple(
                Carried(
                    member(s.name),
                    carry := module.carry(s.name, step),
                    names.letter(s.size),
                    names.of("kept", s.name, f"kept_{carry}"),
                )
                for s in cell.states
            ),
            "inputs": tuple(read_by(i, forward, backward) for i in inputs),
            "outputs": self.outputs(),
            "seeds": tuple(read_by(s, forward, backward) for s in seeds),
            "d_inputs": tuple(
                self.copied(
                    step, step.backward, gradient[s.name], names.of("gradient", s.name, f"d_{i.name}")
                )
                for s, i in zip(cell.inputs, inputs, strict=True)
            ),
            "tape": (tape := self.taped(step, backward, first)),
            "tape_back": tuple(room for room in tape if room.backward),
            "forward": forward,
            "backward": backward,
            "clearing": tuple(lines.clearing(b) for b in taped),
            "quick": quick,
            "first": first,
            "start": start,
            "statistics": tuple(statistics),
            "mask": graph.mask is not None,
            "kernels": tuple(self.kernels),
            "functions": helpers(used, CALLS),
            "ruled": bool(first or start),
            "bare": not plan.fields,
            "helpers": {
                "sums": bool({"sum", "column_sums"} & self.helpers),
                **{name: name in self.helpers for name in ("sum", "outer", "column_sums")},
            },
            **self.needed(quick, (forward, backward, quick, first, start)),
            "tiles": TILES,
            "outers": tuple(dict.fromkeys(self.outers)),
        }

    def needed(
        self, quick: CFunction | None, functions: Sequence[CFunction | RuleOnce | None]
    ) -> dict[str, bool]:
        """Which helpers the lines call."""
        text = "\n".join(self.texts(functions))
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
            "in_parts": not all(made.at_once for made in functions[:2] if isinstance(made, CFunction)),
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
