"""What the public functions of a module take and return, as records that templates print.

Fields, sizes, inputs, states, outputs, the tape: each thing has its name in the code, its shape as text, and
what else is said of it. Nothing here spells an operation.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate, groupby

from gategen.backends.contents import Filling, brief, filling
from gategen.backends.folding import (
    WIDTH,
    assigned,
    call,
    listing,
    returned,
    taking,
    together,
    wrapped,
)
from gategen.backends.module import Module, Target, tape_buffers
from gategen.backends.names import SIZE_LETTERS, argument_name, size_argument
from gategen.errors import UnsupportedError
from gategen.graph import length, shape_of
from gategen.plan import FIRST_STEP, Buffer, Field, Told, lengths_told, sizes_told
from gategen.spec.cell import Cell
from gategen.spec.language import Extent, Input, Size, State, factors, regrouped, shared
from gategen.spec.names import names_of_size
from gategen.spec.printer import Printer

# ---------------------------------------------------------------------------------------------- the cell


@dataclass(frozen=True)
class CellRecord:
    """What a module says of its cell."""

    name: str
    title: str
    quoted_title: str  # as it stands inside of a docstring
    reference: tuple[str, ...]  # lines of a docstring
    equations: tuple[str, ...]
    first_equations: tuple[str, ...]  # of the rule for the first step
    known: tuple[str, ...]  # `with eps = 1e-05, S = lower`: constants and fixed parameters
    sha: str  # of all that a spec says


def cell_record(module: Module) -> CellRecord:
    cell, title = module.cell, module.cell.title.rstrip(".")
    known = [f"{c} = {module.number(c.value)}" for c in cell.constants]
    known += [brief(a) for a in cell.arrays if a.contents and not a.trainable]
    return CellRecord(
        name=cell.name,
        title=title,
        quoted_title=quoted(title),
        reference=tuple(map(quoted, textwrap.wrap(cell.reference, 100, break_long_words=False))),
        equations=cell.text(),
        first_equations=cell.text(cell.first) if cell.first else (),
        known=tuple(textwrap.wrap(f"with {', '.join(known)}.", 100) if known else ()),
        sha=sha_of(cell),
    )


def sha_of(cell: Cell) -> str:
    """What a module has as SPEC_SHA256."""
    return sha256("\n".join(facts(cell)).encode()).hexdigest()


def facts(cell: Cell) -> list[str]:
    """All that makes a cell what it is."""
    said = [cell.name, *cell.text(cell.all_equations), *(f"{c}={c.value}" for c in cell.constants)]
    said += [f"{s}: {s.size}" for s in cell.inputs]
    said += [f"{s}: {s.size} = {Printer()(s.initial)}" for s in cell.states]
    said += [f"{a.name}: {a.shape} {a.trainable} {a.initial}".rstrip() for a in cell.arrays]
    return said + [str(s) for s in cell.outputs]


def quoted(text: str) -> str:
    """As it stands inside of a docstring: it ends none, and no backslash means anything."""
    return text.replace("\\", "\\\\").replace('"""', r"\"\"\"")


# ---------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class FieldRecord:
    """A field of `Params`."""

    name: str
    gradient: str
    shape: str
    rank: str
    members: str  # what lies in it, one below the other
    packed: tuple[str, ...]  # the arrays that a user packs into it
    parts: str  # the expression that takes it apart again
    pack: str  # the expression that makes it of the arrays in `named`


def field_record(module: Module, f: Field) -> FieldRecord:
    names = module.names
    name, single = names["field", f.name], len(f.packed) == 1
    tail = f", {names.size(f.width)})" if f.columns else ",)"
    pieces = [f'{m}=named["{m}"]' for m in f.packed]
    pack = f'named["{f.packed[0]}"]' if single else call(f"{name}=stack(", pieces).removeprefix(f"{name}=")
    return FieldRecord(
        name=name,
        gradient=names["field gradient", f.name],
        shape=f"({names.size(f.height)}{tail}" if f.rows else "()",
        rank="2" if f.columns else "1" if f.rows else "0",
        members=members_of(module, f),
        packed=f.packed,
        parts=f"params.{name}" if single else f"*{module.target.xp}.split(params.{name}, {cuts(module, f)})",
        pack=pack if f.rows else f"{pack}.reshape(())",
    )


def cuts(module: Module, f: Field) -> str:
    """Where a field is cut into its arrays: their number where all are as long, else rows."""
    if len(set(f.rows)) == 1:
        return str(len(f.rows))
    ends = accumulate(map(length, f.rows[:-1]))
    return f"[{', '.join(map(module.names.size, ends))}]"


def members_of(module: Module, f: Field) -> str:
    """What lies in a field, one below the other, and whether it is fixed."""
    names = ", ".join([f"{f.array}[{k}]" for k in range(len(f.members))] if f.array else f.members)
    if f.trainable:
        return names
    arrays = {a.name: a for a in module.cell.arrays}
    held = ", ".join(brief(arrays[name]) if arrays[name].contents else name for name in f.packed)
    return f"fixed: {held if len(held) <= 60 else names}"


# ---------------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class SizeRecord:
    """A size of the cell."""

    name: str
    letter: str  # its name in the code
    argument: str  # the same in the arguments of `init`
    source: str = ""  # what tells it: an expression of the shapes of `params`, or the name of an input
    at: int = -1  # which entry of the shape of that input


@dataclass(frozen=True)
class Measured:
    """The sizes that one function needs."""

    call: str  # the line that calls `measure`
    x_size: str  # what to call the last entries of the shape of x, behind T and B
    others: tuple[str, ...]  # lines that find sizes of other inputs, which need not be arrays yet


@dataclass(frozen=True)
class Measure:
    """How functions find the sizes."""

    sizes: tuple[SizeRecord, ...]  # those that the shapes of the parameters tell
    late: tuple[SizeRecord, ...]  # those that only the shape of an input tells
    lines: tuple[str, ...]  # those of `measure` itself
    result: str  # what it returns
    here: Measured  # in most functions
    step: Measured  # where it is a run of one step
    unpack: Measured


def size_record(module: Module, size: str, source: str = "") -> SizeRecord:
    letters = module.names.sizes
    return SizeRecord(size, letters[size], size_argument(size, letters), source)


def measure_record(module: Module, fields: Iterable[FieldRecord]) -> Measure:
    sizes, late = measured_sizes(module), late_sizes(module)
    letters = [size.letter for size in sizes]
    parts = " ".join(f.parts for f in fields)
    given = " ".join(module.names.letter(s.size) for s in (*module.cell.inputs, *module.cell.states))
    return Measure(
        sizes=sizes,
        late=late,
        lines=together([(size.letter, size.source) for size in sizes]),
        result=listing(letters) or "()",
        here=measured(module, sizes, late, None),
        step=measured(module, sizes, late, given),
        unpack=measured(module, sizes, late, parts),
    )


def measured(
    module: Module, sizes: Iterable[SizeRecord], late: Iterable[SizeRecord], text: str | None
) -> Measured:
    """The sizes that `text` mentions (None: all)."""

    def used(size: SizeRecord) -> bool:
        return text is None or mentions(text, size.letter)

    names = [size.letter if used(size) else "_" for size in sizes]
    x_sizes = shape_of(module.cell.inputs[0].size)
    letters = {size.name: size.letter for size in late if used(size)}
    of_others = [size for size in late if size.name not in x_sizes and used(size)]
    return Measured(
        call="measure(params)" if set(names) <= {"_"} else f"{listing(names)} = measure(params)",
        x_size=", ".join(letters.get(str(size), "_") for size in x_sizes),
        others=tuple(
            f"{s.letter} = ({'0, ' * -s.at}*{module.target.shape.format(s.source)})[{s.at}]"
            for s in of_others
        ),
    )


def mentions(text: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", text) is not None


def measured_sizes(module: Module) -> tuple[SizeRecord, ...]:
    """The sizes that the shapes of the parameters tell, with the expression that tells each."""

    def source(told: Told) -> str:
        length = f"params.{module.names['field', told.field]}.shape[{told.axis}]"
        if told.whole:
            return f"({source(found[told.whole])}) // max(1, {length})"
        rest = " - ".join([length, *map(said_length, told.others)])
        whole = told.count == 1 and not told.times
        rest = f"({rest})" if told.others and not whole else rest
        each = rest if told.count == 1 else f"{rest} // {told.count}"
        known = (str(part) if isinstance(part, int) else f"({source(found[part])})" for part in told.times)
        return f"{each} // max(1, {' * '.join(known)})" if told.times else each

    def said_length(size: Size) -> str:
        """By its letter, or a product by what tells it."""
        product = len(factors(size)) > 1 and found.get(str(size))
        return f"({source(product)})" if product else module.names.letter(size)

    def waits_for(told: Told) -> set[str]:
        """The sizes whose letters stand in what tells this one."""
        products = {size for size in told.others if len(factors(size)) > 1 and size in found}
        inside = (found[str(size)] for size in (told.whole, *told.times, *products) if size in found)
        own = {name for size in {*told.others} - products for name in names_of_size(size)}
        return own.union(*map(waits_for, inside))

    found = lengths_told(module.plan.fields)
    waiting = {size: told for size, told in found.items() if len(factors(size)) == 1}
    ordered: list[SizeRecord] = []
    while waiting:
        size = next((size for size, told in waiting.items() if not waits_for(told) & waiting.keys()), "")
        if not size:
            raise UnsupportedError(
                f"the shapes of {module.cell.name} tell {' and '.join(waiting)} only together; "
                f"a vector or a matrix of the size {next(iter(waiting))} alone would tell them apart"
            )
        ordered.append(size_record(module, size, source(waiting.pop(size))))
    return tuple(ordered)


def late_sizes(module: Module) -> tuple[SizeRecord, ...]:
    """The sizes that only the shape of an input tells, with the input."""
    known = sizes_told(module.plan.fields)
    found: dict[str, SizeRecord] = {}
    for symbol in module.cell.inputs:
        axes = shape_of(symbol.size)
        for k, size in enumerate(axes):
            alone = len(factors(size)) == 1 and not shared(size)[0]
            if isinstance(size, str) and size not in known and alone:
                record = size_record(module, size, module.names["memory", symbol.name])
                found.setdefault(size, replace(record, at=k - len(axes)))
    return tuple(found.values())


@dataclass(frozen=True)
class Share:
    """A size that is shared out among as many as another says."""

    whole: str  # its letter
    argument: str  # what `init` calls it
    count: str
    said: str  # among how many, as text of an f-string


def share_record(module: Module, whole: str, count: Size) -> Share:
    letters = module.names.sizes
    number = module.names.letter(count)
    said = f"{count}" if isinstance(count, int) else f"{size_argument(count, letters)} = {{{number}}}"
    return Share(letters[whole], size_argument(whole, letters), number, said)


def checked_sizes(sizes: Sequence[SizeRecord], shapes: str) -> str:
    """The line that checks dtype and sizes, and names those that some shapes mention."""
    names = [s.letter if s.name == "hidden" or mentions(shapes, s.letter) else "_" for s in sizes]
    arguments = [f"{size.argument}={size.argument}" for size in sizes]
    return call(f"dtype, {', '.join(names)} = proper(", ["dtype", *arguments])


# ---------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class InputRecord:
    """An input of the step."""

    name: str
    argument: str  # its name among the arguments of `forward` and `step`
    rank: str  # how many axes it has
    row_rank: str  # the same where it is of one step, or constant in time
    size: str  # of a matrix both, `N, F`
    over: str  # what makes an array of one number a row broadcast over it
    said_size: str  # of the spec: `"hidden"`, `3`
    shape: str  # of all steps
    broadcast: str  # the expression that gives it to every step, where it was constant in time
    gradient: str
    gradient_rows: str  # the same with all features in one axis
    result: str  # the gradient as `backward` returns it
    first_gradient: str  # that at the first step, where it has a rule of its own


def input_record(module: Module, symbol: Input) -> InputRecord:
    names = module.names
    name, argument = names["memory", symbol.name], argument_name(module.cell, symbol.name)
    gradient, size = module.input_gradient(symbol.name), names.letter(symbol.size)
    ruled, shape = module.plan.rule(FIRST_STEP) is not None, f"(T, B, {size})"
    summed = f'{gradient}.sum(axis=0) if "{argument}" in constant else {gradient}'
    own = shape_of(symbol.size)
    rows = f"{gradient}.reshape(T, B, {names.size(length(own))})" if len(own) > 1 else gradient
    return InputRecord(
        name=name,
        argument=argument,
        rank=str(2 + len(own)),
        row_rank=str(1 + len(own)),
        size=size,
        over=over_all(symbol.size),
        said_size=said(symbol.size),
        shape=shape,
        broadcast=module.target.broadcast.format(name, shape),
        gradient=gradient,
        gradient_rows=rows,
        result=gradient if argument == "x" else summed,
        first_gradient=names.of("first gradient", symbol.name, f"first_d_{symbol.name}") if ruled else "",
    )


def said(size: Extent) -> str:
    """A size as Python says it."""
    if isinstance(size, tuple):
        return f"({', '.join(map(said, size))})"
    plain = regrouped(size)
    return f'"{plain}"' if isinstance(plain, str) else f"{plain}"


def over_all(size: Extent) -> str:
    """What makes an array of one number a row broadcast over the features of a value of this size."""
    return f"[...{', None' * (len(size) - 1)}]" if isinstance(size, tuple) else ""


@dataclass(frozen=True)
class StateRecord:
    """A state."""

    name: str
    array: str  # its values at all times
    carry: str  # its gradient
    kept: str  # the gradient, set aside while a finished sequence goes through the step
    size: str  # of a matrix both, `H, K`
    width: str  # how many numbers a row of it has
    over: str  # what makes an array of one number a row broadcast over it
    said_size: str  # of the spec: `"hidden"`, `3`
    initial: str  # a number; empty where a rule makes it


def state_record(module: Module, symbol: State) -> StateRecord:
    names, initial = module.names, symbol.initial
    return StateRecord(
        name=symbol.name,
        array=names["memory", symbol.name],
        carry=module.carry(symbol.name, module.plan.step),
        kept=names.of("kept", symbol.name, f"kept_{symbol.name}"),
        size=names.letter(symbol.size),
        width=names.size(length(symbol.size)),
        over=over_all(symbol.size),
        said_size=said(symbol.size),
        initial=module.number(initial) if initial.is_number else "",
    )


@dataclass(frozen=True)
class RunningRecord:
    """A running statistic of a batch norm: a field of `Buffers`."""

    name: str
    local: str  # its name in `forward`
    size: str
    start: str  # zeros or ones


@dataclass(frozen=True)
class Buffers:
    """All running statistics."""

    fields: tuple[RunningRecord, ...]
    sizes: tuple[SizeRecord, ...]  # what `init_buffers` is told beside hidden
    checks: str


def buffers_of(module: Module, sizes: Iterable[SizeRecord]) -> Buffers | None:
    names = module.names
    fields = tuple(
        RunningRecord(
            name := str(s.value.name),
            names.find("given", name) or name,
            names.letter(s.value.size),
            "zeros" if s.kind == "mean" else "ones",
        )
        for s in module.plan.step.forward.graph.statistics
    )
    used = " ".join(field.size for field in fields)
    told = [size for size in sizes if size.name == "hidden" or mentions(used, size.letter)]
    told.sort(key=lambda size: size.name != "hidden")
    return Buffers(fields, tuple(told[1:]), checked_sizes(told, used)) if fields else None


# ---------------------------------------------------------------------------------------------- outputs, tape


@dataclass(frozen=True)
class OutputRecord:
    """An output."""

    name: str
    said_name: str  # of the spec: `h'`
    said_size: str  # of the spec: `"hidden"`, `3`
    shape: str
    array: str  # what it lies in
    source: str  # the same as an array of its own
    first: str  # that at the first step, where it has a rule of its own; empty where it is there already
    given: str  # its gradient as the caller gives it
    gradient: str  # the same as an array
    over: str  # what makes an array of one number a row broadcast over it
    line: str  # it with zeros where a sequence is over; empty where that is more than one line


def output_records(module: Module, sources: Sequence[str], own: Container[str]) -> tuple[OutputRecord, ...]:
    """The outputs, by what they lie in; what lies in memory of its own (`own`) needs no copy."""
    names, outputs, ruled = module.names, module.plan.step.forward.graph.outputs, module.plan.rule(FIRST_STEP)
    records = (
        OutputRecord(
            name=names.find("output", name) or name,
            said_name=str(module.cell.outputs[k]),
            said_size=said(value.size),
            shape=f"(T, B, {names.letter(value.size)})",
            array=source,
            source=source if source in own else f"{source}.copy()",
            first=names["first output", name] if ruled and not source.endswith("[1:]") else "",
            given="d_y" if len(outputs) == 1 else f"d_y[{k}]",
            gradient=gradient,
            over=over_all(value.size),
            line="",
        )
        for k, ((name, value), source, gradient) in enumerate(
            zip(outputs, sources, module.seeds(module.plan.step), strict=True)
        )
    )
    return tuple(replace(record, line=line_of(record, module.target)) for record in records)


def line_of(output: OutputRecord, target: Target) -> str:
    """The line that makes an output, if one does."""
    ended = f"{target.xp}.where(finished{output.over}, 0, {output.array}){target.kept_dtype}"
    line = f"{output.name} = {output.source} if finished is None else {ended}"
    return "" if output.first or len(line) > WIDTH - 4 else line


@dataclass(frozen=True)
class Result:
    """The outputs together, as `forward` and `step` return them."""

    type: str
    value: str
    step: str  # of the outputs of one step, of all that `forward` gives
    several: int  # how many there are, where there are several


def result_of(outputs: Sequence[OutputRecord], array: str) -> Result:
    if len(outputs) == 1:
        return Result(array, outputs[0].name, "y[0]", 0)
    names = ", ".join(output.name for output in outputs)
    return Result(f"tuple[{array}, ...]", f"({names})", "tuple(part[0] for part in y)", len(outputs))


@dataclass(frozen=True)
class Array:
    """Memory that a function makes, with its shape."""

    name: str
    shape: str
    members: str = ""  # what lies in it, where that is several
    dtype: str = "dtype"


def array_of(module: Module, buffer: Buffer, steps: str = "T", rows: bool = False) -> Array:
    """A buffer as memory that a function makes for all steps, or for some."""
    shape = module.shape(buffer, rows).replace("(T,", f"({steps},")
    members = ", ".join(buffer.members) if len(buffer.members) > 1 else ""
    return Array(module.names["memory", buffer.name], shape, members, module.dtype(buffer.name))


def empties(memory: Iterable[Array], xp: str) -> tuple[str, ...]:
    """The lines that make some memory, all arrays of one shape in one line."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for array in memory:
        alike.setdefault((array.shape, array.members, array.dtype), []).append(array.name)
    lines: list[str] = []
    for (shape, members, dtype), names in alike.items():
        made = f"{xp}.empty({shape}, {dtype})"
        line = f"{names[0]} = {made}" + (f"  # {members}" if members else "")
        if len(names) > 1:
            lines += assigned(names, f"({made} for _ in range({len(names)}))").split("\n")
        elif len(line) <= WIDTH - 4:
            lines.append(line)
        else:
            said = (f"# {part.strip()}" for part in wrapped(members, WIDTH - 8))
            lines += [*said, f"{names[0]} = {made}"]
    return tuple(lines)


@dataclass(frozen=True)
class TapeItem:
    """A field of `Tape`."""

    name: str
    type: str
    comment: str
    shape: str = ""  # where an earlier tape lends its memory
    dtype: str = "dtype"

    @property
    def value(self) -> str:
        """The expression that `forward` puts there."""
        return "initial is not None" if self.name == "given" else self.name


# ---------------------------------------------------------------------------------------------- all together


@dataclass(frozen=True)
class Signature:
    """What the public functions take."""

    xp: str
    target: Target
    cell: CellRecord
    sizes: tuple[SizeRecord, ...]
    measure: Measure
    fields: tuple[FieldRecord, ...]
    ranks: str
    stacks: bool  # whether a field holds several arrays
    init_checks: str
    shares: tuple[Share, ...]  # what `init` must be able to share out
    filling: Filling
    no_input_size: bool  # whether no array has the size `input`
    inputs: tuple[InputRecord, ...]
    extra: tuple[InputRecord, ...]  # all but the first
    renamed: tuple[InputRecord, ...]  # those of which the argument has another name
    states: tuple[StateRecord, ...]
    buffers: Buffers | None
    ruled: bool  # whether there is a rule of its own for states that nobody gave
    parallel: bool  # whether `forward` can find the states of all steps at once
    parallel_back: bool  # whether `backward` can find the gradients that it carries so


def signature(module: Module) -> Signature:
    cell = module.cell
    sizes = tuple(size_record(module, size) for size in cell.sizes)
    fields = tuple(field_record(module, f) for f in module.plan.fields)
    inputs = tuple(input_record(module, s) for s in cell.inputs)
    return Signature(
        xp=module.target.xp,
        target=module.target,
        cell=cell_record(module),
        sizes=sizes,
        measure=measure_record(module, fields),
        fields=fields,
        ranks=ranks_of(fields),
        stacks=any(len(f.packed) > 1 for f in fields),
        init_checks=checked_sizes(sizes, " ".join(f.shape for f in fields)),
        shares=tuple(share_record(module, whole, count) for whole, count in cell.shares),
        filling=filling(module),
        no_input_size=not cell.has_input_size,
        inputs=inputs,
        extra=inputs[1:],
        renamed=tuple(i for i in inputs if i.name != i.argument),
        states=tuple(state_record(module, s) for s in cell.states),
        buffers=buffers_of(module, sizes),
        ruled=len(module.plan.rules) > 1,
        parallel=module.parallel,
        parallel_back=module.parallel_back,
    )


def tape_items(module: Module, given: Signature) -> tuple[TapeItem, ...]:
    """All that `forward` leaves behind."""
    array, plan = f"{given.xp}.ndarray", module.plan
    held = [
        (b, module.names["memory", b.name], module.shape(b), module.dtype(b.name))
        for b in tape_buffers(plan.step)
    ]
    shapes = [(s.array, f"(T + 1, B, {s.size})") for s in given.states]
    items = [
        *(TapeItem(i.name, array, i.shape) for i in given.inputs),
        *(TapeItem(name, array, f"{shape}  the initial state first", shape) for name, shape in shapes),
        *(
            TapeItem(name, array, f"{shape}  {members(b, f'    {name}: {array}  # {shape}  ')}", shape, dtype)
            for b, name, shape, dtype in held
        ),
        TapeItem("finished", f"{array} | None", "(T, B, 1) where a sequence is over"),
        TapeItem("given", "bool", "whether the caller gave the initial states"),
    ]
    if given.parallel:
        items.append(TapeItem("iterations", "int", "of Newton's method; 0 where all steps went one by one"))
    if given.extra:
        items.append(TapeItem("constant", "list[str]", "inputs that were (B, size), constant in time"))
    if given.buffers:
        items += [
            TapeItem("valid", array, "(T, B, 1) 1 where a sequence still runs, else 0"),
            TapeItem("count", "float", "how many positions that is"),
            TapeItem("training", "float", "1 where the batch gave the statistics, else 0"),
        ]
    if plan.rule(FIRST_STEP):
        items.append(TapeItem("first_tape", "Any", "what the first step left behind"))
    return tuple(items)


def members(buffer: Buffer, before: str) -> str:
    """What lies in a buffer, in a line that begins so: the first and the last where it is too long."""
    said = ", ".join(buffer.members)
    return said if len(before + said) <= WIDTH else f"{buffer.members[0]} to {buffer.members[-1]}"


@dataclass(frozen=True)
class Passing:
    """What passes between the public functions, and what they return."""

    outputs: tuple[OutputRecord, ...]
    result: Result
    tape: tuple[TapeItem, ...]
    forward_work: tuple[str, ...]  # the lines that make what `forward` needs beside the memory of the tape


def passing(module: Module, given: Signature, sources: Sequence[str], memory: Iterable[Array]) -> Passing:
    """`sources` are what the outputs lie in, `memory` is all that `forward` writes."""
    tape = tape_items(module, given)
    taped = {item.name for item in tape}
    work = tuple(array for array in memory if array.name not in taped)
    outputs = output_records(module, sources, {array.name for array in work})
    result = result_of(outputs, f"{given.xp}.ndarray")
    return Passing(outputs, result, tape, empties(work, given.xp))


@dataclass(frozen=True)
class Calls:
    """Lines that may be too long for one."""

    init: str
    forward: str
    backward: str
    step: str
    parameters: str  # the names of the arrays that `pack` expects
    parts: str  # `unpack` takes the fields apart
    start: str  # `forward` has a rule make the initial states
    memory: str  # it takes the memory of the tape
    tape: str  # it makes a tape of it
    untape: str  # `backward` takes a tape apart
    grads: str
    shapes: str  # what `shapes` returns
    no_gradients: str  # of the parameters, to be added to, or all to be overwritten
    no_d_final: str
    in_parts: str  # `forward` returns a run that leaves no tape
    part: str  # `in_parts` runs some steps


def calls_of(module: Module, given: Signature, passing: Passing) -> Calls:
    tape, result = passing.tape, passing.result
    lent = [item for item in tape if item.shape]
    unread = {"iterations", *([] if given.ruled else ["given"])}
    targets = ["_" if item.name in unread else item.name for item in tape]
    gradients = [f"{i.argument}={i.result}" for i in given.inputs]
    first_entries = listing([f"{s.array}[0]" for s in given.states])
    late = "".join(f"{size.letter}, " for size in given.measure.late)
    params = "d_params" if given.ruled else f"Params({', '.join(f.gradient for f in given.fields)})"
    sizes = ", ".join(size.letter for size in given.measure.sizes)
    made = "empty" if module.overwrites else "zeros"
    none = f"({given.xp}.{made}(shape, dtype) for shape in shapes({sizes}))"
    initial = f"initial=States({', '.join(s.carry for s in given.states)})"
    return Calls(
        init=init_head(given),
        forward=forward_head(given, passing.result),
        backward=backward_head(given),
        step=step_head(given, result),
        parameters=parameters_of(given.fields),
        parts=tuple_call("parts = (", [f.parts for f in given.fields], WIDTH - 8),
        start=f"{first_entries} = start_states(params, {late}B, dtype)",
        memory="\n".join(
            call(
                taking([item.name for item in lent if item.dtype == dtype], "memory("),
                ["tape", dtype, *(f"{item.name}={item.shape}" for item in lent if item.dtype == dtype)],
            )
            for dtype in dict.fromkeys(item.dtype for item in lent)
        ),
        tape=tape_call(passing),
        untape=call("(", targets, ") = tape"),
        grads=call("return Grads(", [f"params={params}", *gradients, initial]),
        shapes=returned([f.shape for f in given.fields]),
        no_gradients=assigned([f.gradient for f in given.fields], none) if given.fields else "",
        no_d_final=call("States(", [f"{given.xp}.zeros((B, {s.size}), dtype)" for s in given.states]),
        in_parts=in_parts_call(given, passing.outputs),
        part=part_call(given, passing.outputs),
    )


def ranks_of(fields: Sequence[FieldRecord]) -> str:
    """How many axes each field has: `(2, 2, 1)`, of many fields `(2,) * 9 + (1,) * 4`."""
    ranks = [field.rank for field in fields]
    if len(ranks) <= 12:
        return f"({listing(ranks)})"
    return " + ".join(f"({rank},) * {len([*group])}" for rank, group in groupby(ranks))


def parameters_of(fields: Iterable[FieldRecord]) -> str:
    """The line that names all arrays."""
    names = [f'"{name}"' for field in fields for name in field.packed]
    return tuple_call("PARAMETERS = (", names, WIDTH)


def tuple_call(head: str, entries: Sequence[str], width: int) -> str:
    """The line that makes a tuple."""
    return call(head, entries, ",)" if len(entries) == 1 else ")", width)


def tape_call(passing: Passing) -> str:
    """The lines that return what `forward` gives, with a tape where one was asked for."""
    start, values = f"return {passing.result.value}, final,", [item.value for item in passing.tape]
    line = f"{start} Tape({', '.join(values)}) if tape else None"
    if len(line) <= WIDTH - 8:
        return line
    return "\n".join([call("kept = Tape(", values), f"{start} kept if tape else None"])


def in_parts_call(given: Signature, outputs: Sequence[OutputRecord]) -> str:
    """The line that returns a run that leaves no tape."""
    rooms = [f"np.empty({output.shape}, dtype)" for output in outputs]
    room = rooms[0] if len(rooms) == 1 else f"({', '.join(rooms)})"
    further = [*(i.name for i in given.extra), *(["buffers"] if given.buffers else [])]
    further += ["parallel=parallel"] if given.parallel else []
    return call("return in_parts(", ["params", "x", "initial", "lengths", "steps", room, *further])


def part_call(given: Signature, outputs: Sequence[OutputRecord]) -> str:
    """The line that runs some steps, where no tape is left."""
    targets = ["y[now]"] if len(outputs) == 1 else [f"y[{k}][now]" for k in range(len(outputs))]
    result = targets[0] if len(targets) == 1 else f"({', '.join(targets)})"
    arguments = ["params", "x[now]", "initial=initial", "lengths=rest", "tape=tape"]
    arguments += ["parallel=parallel"] if given.parallel else []
    arguments += ["buffers=buffers", "training=False"] if given.buffers else []
    arguments += [
        f"{i.argument}={i.name} if {i.name}.ndim == {i.row_rank} else {i.name}[now]" for i in given.extra
    ]
    return call(f"{result}, initial, tape = forward(", arguments)


def init_head(given: Signature) -> str:
    """The line that begins `init`."""
    further = [f"{size.argument}: int" for size in given.sizes if size.name not in SIZE_LETTERS]
    further += [f"{asked.argument}: Any = None" for asked in given.filling.asked]
    sizes = ["input_size: int", "hidden_size: int"]
    if given.no_input_size:
        sizes = ["input_size: int = 1", "hidden_size: Any = None"]
    options = ["*", "seed: Any = None", 'dtype: Any = "float32"']
    return call("def init(", [*sizes, *options, *further], ") -> Params:")


def forward_head(given: Signature, result: Result) -> str:
    """The line that begins `forward`."""
    array = f"{given.xp}.ndarray"
    fixed = ["params: Params", f"x: {array}", "*", "initial: States | None = None", "lengths: Any = None"]
    further = ["buffers: Buffers | None = None", "training: bool = True"] if given.buffers else []
    further += [f"{i.argument}: {array}" for i in given.extra]
    end = f") -> tuple[{result.type}, States, Tape | None]:"
    last = ["tape: Any = True", *(["parallel: bool = False"] if given.parallel else [])]
    return call("def forward(", [*fixed, *last, *further], end, WIDTH)


def backward_head(given: Signature) -> str:
    """The line that begins `backward`."""
    arguments = ["params: Params", "tape: Tape", "d_y: Any", "d_final: States | None = None"]
    further = ["*", "parallel: bool = False"] if given.parallel_back else []
    return call("def backward(", [*arguments, *further], ") -> Grads:", WIDTH)


def step_head(given: Signature, result: Result) -> str:
    """The line that begins `step`."""
    array = f"{given.xp}.ndarray"
    further = [f"{i.argument}: {array}" for i in given.extra]
    further += ["buffers: Buffers", "training: bool = False"] if given.buffers else []
    fixed = ["params: Params", f"x_t: {array}", "state: States | None = None"]
    return call("def step(", [*fixed, *(further and ["*", *further])], f") -> tuple[{result.type}, States]:")
