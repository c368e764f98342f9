"""Expressions as instructions over memory: one operation, its operands, and where the result goes.

The common ground of backends that compute whole arrays at a time. `assign` turns an expression into
instructions that write in place where they can; `merge` joins instructions that do the same to neighbouring
slices, so that `z = sigmoid(a_z)` and `r = sigmoid(a_r)` become one call over both. Nothing here knows how an
instruction is spelled.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from heapq import heappop, heappush
from itertools import chain, product
from operator import or_
from typing import cast

import sympy as sp
from sympy.core.relational import Relational

from gategen.graph import Length, Pointwise, Value, axes, length
from gategen.plan import Home, Slot, offset_rank
from gategen.spec import language as lang
from gategen.spec.functions import TABLE, row_of
from gategen.spec.language import Axes, Extent
from gategen.spec.printer import Printer, fraction, leading_minus


@dataclass(frozen=True)
class Scratch:
    """An array of a kernel's own, by its number."""

    number: int


@dataclass(frozen=True)
class View:
    """A stretch of features of an array."""

    home: Home | Scratch
    start: sp.Expr
    stop: sp.Expr
    shift: int = 0
    single: bool = False  # size 1 (or one number): broadcasts
    axes: Axes = ()  # where matrices are computed, those along which it differs

    @cached_property
    def span(self) -> tuple[int, int]:
        """Where it begins and ends, as numbers that can be compared."""
        return offset_rank(self.start), offset_rank(self.stop)

    @property
    def memory(self) -> tuple[Home | Scratch, int]:
        """The array that it is a stretch of."""
        return self.home, self.shift

    def meets(self, other: View) -> bool:
        """Whether the two share memory."""
        if self.memory != other.memory:
            return False
        return bool(max(self.span[0], other.span[0]) < min(self.span[1], other.span[1]))


@dataclass(frozen=True)
class Text:
    """A number or a size, as text."""

    text: str


@dataclass(frozen=True)
class Test:
    """A comparison, the condition of `where`."""

    sign: str
    left: View | Text
    right: View | Text


Operand = View | Text | Test
Key = tuple[object, ...]  # by which neighbours are found


@dataclass(frozen=True)
class Instruction:
    """`out = name(*args)`; `ops` are the graph's values it works for, in order."""

    name: str
    args: tuple[Operand, ...]
    out: View
    ops: tuple[str, ...]

    @property
    def reads(self) -> list[View]:
        found: list[View] = []
        for arg in self.args:
            if isinstance(arg, View):
                found.append(arg)
            elif isinstance(arg, Test):
                found += [side for side in (arg.left, arg.right) if isinstance(side, View)]
        return found


COMMUTE = frozenset({"add", "multiply", *(row.name for row in TABLE if row.symmetric)})


# ---------------------------------------------------------------------------------------------- assign


class Assembler:
    """Instructions for a run of pointwise ops. `place` gives the memory of a value, or None for scratch.

    `whole` is the size of all scratch arrays, where vectors stand beside matrices.
    """

    def __init__(
        self,
        place: Callable[[Value], View | None],
        number: Callable[[sp.Expr], str],
        whole: Extent | None = None,
    ) -> None:
        self.place = place
        self.number = number
        self.whole = whole
        self.scratch = 0
        self.local: dict[Value, View] = {}
        self.made: list[Instruction] = []
        self.label = ""
        self.printer = Printer()

    def op(self, op: Pointwise) -> None:
        """Append the instructions of one op."""
        self.label = op.out.name
        out = self.place(op.out)
        if out is None:
            out = self.local[op.out] = self.temporary(self.whole or op.out.size)
        self.assign(op.expr, out)

    def temporary(self, size: Extent) -> View:
        along = axes(size)
        return View(self.new(), sp.S.Zero, length(size), 0, size == 1, along if len(along) > 1 else ())

    def new(self) -> Scratch:
        self.scratch += 1
        return Scratch(self.scratch)

    def view(self, value: Value) -> View:
        return self.local.get(value) or self.place(value) or self._missing(value)

    def _missing(self, value: Value) -> View:
        raise AssertionError(f"{value} has no place")

    def emit(self, name: str, args: Iterable[Operand], out: View) -> None:
        self.made.append(Instruction(name, tuple(args), out, (self.label,)))

    def like(self, out: View) -> View:
        return View(self.new(), sp.S.Zero, out.stop - out.start, 0, out.single, out.axes)

    def assign(self, expr: sp.Expr, out: View) -> None:
        """Leave `expr` in `out`, which may be the memory of one of its operands."""
        if (self.counted(expr, out) > 1 or self.below(expr, out)) and not self.direct(expr):
            safe = self.like(out)
            before = len(self.made)
            self.assign(expr, safe)
            last = self.made[-1]
            assert len(self.made) > before and last.out == safe
            self.made[-1] = replace(last, out=out)
            return
        if self.atomic(expr):
            source = self.operand(expr, out)
            if source != out:
                self.emit("copy", [source], out)
        elif isinstance(expr, sp.Add):
            self.sum(expr, out)
        elif isinstance(expr, sp.Mul):
            self.product(expr, out)
        elif isinstance(expr, sp.Pow):
            self.power(expr, out)
        else:
            self.function(expr, out)

    def counted(self, expr: sp.Basic, out: View) -> int:
        """How often `expr` reads the memory of `out`."""
        return sum(
            1
            for node in sp.preorder_traversal(expr)
            if isinstance(node, Value) and self.view(node).meets(out)
        )

    def below(self, expr: sp.Expr, out: View) -> bool:
        """Whether a denominator, which is read last, lies in `out`."""
        return isinstance(expr, sp.Mul) and any(self.counted(part, out) for part in fraction(expr)[1])

    def direct(self, expr: sp.Expr) -> bool:
        """Whether one instruction computes all of it."""
        return all(self.atomic(arg) for arg in expr.args) and len(expr.args) <= 2

    @staticmethod
    def atomic(expr: sp.Basic) -> bool:
        return isinstance(expr, Value) or of_sizes(expr)

    def operand(self, expr: sp.Expr, like: View) -> Operand:
        """Where the value of `expr` can be read: its own memory if it is atomic, else scratch it is computed
        into.
        """
        if isinstance(expr, Value):
            return self.view(expr)
        if self.atomic(expr):
            return Text(self.number(expr))
        scratch = self.like(like)
        self.assign(expr, scratch)
        return scratch

    def ordered(self, parts: Sequence[sp.Expr], out: View) -> list[sp.Expr]:
        """What lies in `out` first, then what must be computed, then what can be read as it is."""
        return sorted(parts, key=lambda part: (not self.counted(part, out), self.atomic(part)))

    def sum(self, expr: sp.Expr, out: View) -> None:
        head, *rest = self.ordered(self.printer.terms(expr), out)
        negative = leading_minus(head)
        source = self.head(-head if negative else head, out)
        if negative and not any(not leading_minus(term) for term in rest):
            self.emit("multiply", [source, Text("-1")], out)
            source, negative = out, False
        if negative:
            k = next(k for k, term in enumerate(rest) if not leading_minus(term))
            self.emit("subtract", [self.operand(rest.pop(k), out), source], out)
            source = out
        for term in rest:
            minus = leading_minus(term)
            other = self.operand(-term if minus else term, out)
            self.emit("subtract" if minus else "add", [source, other], out)
            source = out

    def head(self, expr: sp.Expr, out: View) -> Operand:
        """The first operand of a fold: read where it is, or computed straight into `out`."""
        if self.atomic(expr):
            return self.operand(expr, out)
        self.assign(expr, out)
        return out

    def product(self, expr: sp.Expr, out: View) -> None:
        above, below = fraction(expr)
        numbers = [factor for factor in above if not factor.atoms(Value)]
        rest = self.ordered(self.printer.factors([f for f in above if f not in numbers]), out)
        minus = numbers == [sp.Integer(-1)] and bool(rest)
        factor = sp.Mul(*numbers)
        parts = [*rest, *([] if minus or factor == 1 else [factor])]
        if not parts:
            self.emit("divide", [Text("1"), self.operand(sp.Mul(*below), out)], out)
            return
        self.fold("multiply", parts, out, copy=not below and not minus)
        top = out if len(parts) > 1 else self.last_or(parts[0], out)
        if below:
            self.emit("divide", [top, self.operand(sp.Mul(*below), out)], out)
            top = out
        if minus:
            self.emit("multiply", [top, Text("-1")], out)

    def last_or(self, expr: sp.Expr, out: View) -> Operand:
        return self.operand(expr, out) if self.atomic(expr) else out

    def fold(self, name: str, parts: Sequence[sp.Expr], out: View, copy: bool = False) -> None:
        head, *rest = parts
        source = self.head(head, out)
        for part in rest:
            self.emit(name, [source, self.operand(part, out)], out)
            source = out
        if not rest and copy and source != out:
            self.emit("copy", [source], out)

    def power(self, expr: sp.Expr, out: View) -> None:
        base, exponent = expr.base, expr.exp
        if exponent == -1:
            self.emit("divide", [Text("1"), self.head(base, out)], out)
        elif leading_minus(exponent):
            self.assign(sp.Pow(base, -exponent), out)
            self.emit("divide", [Text("1"), out], out)
        elif exponent == sp.Rational(1, 2):
            self.emit("sqrt", [self.head(base, out)], out)
        elif exponent.is_Integer and exponent <= 4:
            source = self.operand(base, out)
            if self.counted(base, out) and exponent > 2:
                copy = self.like(out)
                self.emit("copy", [source], copy)
                source = copy
            self.emit("multiply", [source, source], out)
            for _ in range(int(exponent) - 2):
                self.emit("multiply", [out, source], out)
        else:
            self.emit("power", [self.head(base, out), Text(self.number(exponent))], out)

    def function(self, expr: sp.Expr, out: View) -> None:
        if isinstance(expr, lang.where):
            condition, a, b = expr.args
            self.emit("where", [self.test(condition, out), self.operand(a, out), self.operand(b, out)], out)
            return
        row = row_of(expr)
        assert row, f"{type(expr).__name__} is no function of the table"
        name = row.name
        if len(expr.args) == 1:
            self.emit(name, [self.head(expr.args[0], out)], out)
        else:
            self.emit(name, [self.operand(arg, out) for arg in expr.args], out)

    def test(self, condition: Relational, out: View) -> Test:
        left, right = (self.operand(side, out) for side in (condition.lhs, condition.rhs))
        assert not isinstance(left, Test) and not isinstance(right, Test)
        return Test(condition.rel_op, left, right)


def of_sizes(expr: sp.Basic) -> bool:
    """Whether `expr` is arithmetic of sizes and numbers, which Python has as a number."""
    if isinstance(expr, Length) or (isinstance(expr, sp.Expr) and expr.is_number):
        return True
    if isinstance(expr, sp.Pow):
        return bool(expr.exp.is_Integer) and of_sizes(expr.base)
    return isinstance(expr, (sp.Add, sp.Mul)) and all(map(of_sizes, expr.args))


# ---------------------------------------------------------------------------------------------- merge


def merge(instructions: Sequence[Instruction], spread: bool = False) -> list[Instruction]:
    """Equal operations on neighbouring slices as one, in an order that keeps every dependence.

    With `spread` one slice may be an operand for all neighbours: that needs arrays that lie slice by slice.
    """
    return Merger(instructions, spread).made


@dataclass
class Run:
    """Instructions that can be one, in the order of their slices; knows how it grew.

    `missed` are those that could have been added if they had been ready, each with the number of members at
    that time.
    """

    members: list[int]
    fronts: list[bool] = field(default_factory=list)  # whether each but the first one was put in front
    missed: dict[int, int] = field(default_factory=dict)
    grown: bool = False  # as far as it can

    @property
    def own(self) -> int:
        """The members as bits."""
        return sum(1 << k for k in self.members)

    def add(self, k: int, *, front: bool) -> None:
        self.members.insert(0 if front else len(self.members), k)
        self.fronts.append(front)

    def rewind(self, k: int) -> None:
        """Back to where `k` was missed, if it was: it is ready now."""
        if k in self.missed:
            size = self.missed[k]
            while len(self.members) > size:
                self.members.pop(0 if self.fronts.pop() else -1)
            self.missed = {other: at for other, at in self.missed.items() if at < size}
            self.grown = False


class Merger:
    """Joins the instructions of one kernel.

    What could be joined is looked up, not searched for: `ends` holds the instructions by what must follow
    them, `starts` by what they follow. A run that waits for something is kept, and grown further when an
    instruction is ready that it might have had.
    """

    def __init__(self, instructions: Sequence[Instruction], spread: bool) -> None:
        self.instructions, self.spread = instructions, spread
        self.order = Order.of(instructions)
        self.where: dict[Scratch, View] = {}  # scratch that moved into wider arrays
        self.readers: dict[Scratch, list[int]] = {}  # the instructions that know a scratch
        for k, one in enumerate(instructions):
            for home in {view.home for view in [*one.reads, one.out]}:
                if isinstance(home, Scratch):
                    self.readers.setdefault(home, []).append(k)
        self.extra = 1 + max((home.number for home in self.readers), default=0)
        self.known: dict[int, tuple[set[Key], set[Key]]] = {}  # what each starts and ends with
        self.starts: dict[Key, set[int]] = {}
        self.ends: dict[Key, set[int]] = {}
        for k in range(len(instructions)):
            self.enter(k)
        self.made: list[Instruction] = []
        self.waiting = set(range(len(instructions)))
        self.ready = [k for k, nearest in enumerate(self.order.nearest) if not nearest]
        self.runs: dict[int, Run] = {}  # those that wait, by the instruction they were grown from
        self.touched: dict[int, set[int]] = {}  # by instruction, the runs that have it or might have it
        missing = list(map(len, self.order.nearest))
        while self.ready:
            run = self.chosen()
            for k in run:
                self.leave(k)
                self.forget(k)
                self.waiting.remove(k)
                del self.ready[bisect_left(self.ready, k)]
            self.made.append(self.joint([instructions[k] for k in run]))
            for later in (later for k in run for later in self.order.later[k]):
                missing[later] -= 1
                if not missing[later]:
                    insort(self.ready, later)
                    for start in self.touched.get(later, ()):
                        if start in self.runs:
                            self.runs[start].rewind(later)

    def chosen(self) -> list[int]:
        """The first run that waits for nothing; where each waits for something, the first."""
        first: list[int] = []
        seen: set[int] = set()
        for k in self.ready:
            if k in seen:
                continue
            run = self.runs.get(k) or Run([k])
            if not run.grown:
                self.grow(run)
                if not self.waits(run):
                    return run.members
                self.runs[k] = run
                for other in (*run.members, *run.missed):
                    self.touched.setdefault(other, set()).add(k)
            first = first or run.members
            seen.update(run.members)
        return first

    def forget(self, k: int) -> None:
        """Forget the runs that an instruction can change."""
        for start in self.touched.pop(k, ()):
            self.runs.pop(start, None)

    def enter(self, k: int) -> None:
        self.known[k] = self.start_keys(k), self.end_keys(k)
        for index, keys in zip((self.starts, self.ends), self.known[k], strict=True):
            for key in keys:
                index.setdefault(key, set()).add(k)

    def leave(self, k: int) -> None:
        for index, keys in zip((self.starts, self.ends), self.known[k], strict=True):
            for key in keys:
                index[key].discard(k)

    def start_keys(self, k: int) -> set[Key]:
        """What an instruction may end with that this one continues."""
        one = self.instructions[k]
        orders = (one.args, one.args[::-1]) if one.name in COMMUTE else (one.args,)
        return {key for args in orders for key in self.keys(one, args, 0)}

    def end_keys(self, k: int) -> set[Key]:
        one = self.instructions[k]
        return set() if one.out.single else self.keys(one, one.args, 1)

    def keys(self, one: Instruction, args: Sequence[Operand], edge: int) -> set[Key]:
        """By what two instructions are found that may be neighbours; `joins` tells whether they are.

        `edge` is 0 for where the slices begin, 1 for where they end.
        """

        def known(arg: Operand) -> list[object]:
            if isinstance(arg, Test):
                return [(arg.sign, *sides) for sides in product(known(arg.left), known(arg.right))]
            return [arg, at(arg)] if isinstance(arg, View) and not arg.single else [arg]

        def at(view: View) -> object:
            memory, span = self.placed(view)
            return memory, span[edge]

        out = None if self.fresh(one.out) else at(one.out)
        return {(one.name, out, *found) for found in product(*map(known, args))}

    def placed(self, view: View) -> tuple[object, tuple[int, int]]:
        """The array in which a view lies by now, and where in it."""
        part = self.where.get(view.home) if isinstance(view.home, Scratch) else None
        if part is None:
            return view.memory, view.span
        start = part.span[0]
        return (part.home, view.shift), (start + view.span[0], start + view.span[1])

    def grow(self, run: Run) -> None:
        """Add the instructions that are ready and can be one with those of a run."""
        front = back = True  # whether it must be looked what could stand there
        before = after = None

        def nearest(found: Iterator[int]) -> int | None:
            for k in found:
                if self.is_ready(k):
                    return k
                run.missed.setdefault(k, len(run.members))
            return None

        while True:
            if front:
                before = nearest(self.leading(run.members))
            if back:
                after = nearest(self.following(run.members))
            if before is None and after is None:
                break
            if before is None or (after is not None and after <= before):
                run.add(cast(int, after), front=False)
                front, back = len(run.members) == 2 or before == after, True
            else:
                run.add(before, front=True)
                front, back = True, len(run.members) == 2
        run.grown = True

    def following(self, run: Sequence[int]) -> Iterator[int]:
        """The instructions that could stand behind a run."""
        way, last = self.way(run), run[-1]
        found = {k for key in self.known[last][1] for k in self.starts.get(key, ())}
        return (k for k in sorted(found) if self.lengthens(way, last, k) and k not in run)

    def leading(self, run: Sequence[int]) -> Iterator[int]:
        """The instructions that could stand before a run."""
        way, head = self.way(run), run[0]
        found = {k for key in self.known[head][0] for k in self.ends.get(key, ())}
        return (k for k in sorted(found) if self.lengthens(way, k, head) and k not in run)

    def is_ready(self, k: int) -> bool:
        at = bisect_left(self.ready, k)
        return at < len(self.ready) and self.ready[at] == k

    def waits(self, run: Run) -> bool:
        """Whether an instruction that is not ready yet could be joined to `run`, and does not wait for it."""
        beside = chain(self.following(run.members), self.leading(run.members))
        return any(not self.is_ready(k) and not self.order.before[k] & run.own for k in beside)

    def way(self, run: Sequence[int]) -> tuple[bool, ...] | None:
        """How the instructions of a run continue each other; None of a single one."""
        return self.joins(run[0], run[1]) if len(run) > 1 else None

    def lengthens(self, way: tuple[bool, ...] | None, j: int, k: int) -> bool:
        """Whether `k` continues `j` in this way; for None in any."""
        found = self.joins(j, k)
        return found is not None and way in (None, found)

    def joins(self, j: int, k: int) -> tuple[bool, ...] | None:
        """Whether `k` continues `j`, the same operation on the slices directly behind: which operands both
        share.
        """
        a, b = self.instructions[j], self.instructions[k]
        if a.name != b.name or len(a.args) != len(b.args) or a.out.single or b.out.single:
            return None
        new = self.fresh(a.out) and self.fresh(b.out) and a.out.home != b.out.home
        if not (new or self.behind(a.out, b.out)):
            return None
        orders = (b.args, tuple(reversed(b.args))) if a.name in COMMUTE else (b.args,)
        found = next((args for args in orders if self.continues(a.args, args)), None)
        return None if found is None else tuple(p == q for p, q in zip(a.args, found, strict=True))

    def fresh(self, view: View) -> bool:
        return isinstance(view.home, Scratch) and view.home not in self.where

    def continues(self, a: Sequence[Operand], b: Sequence[Operand]) -> bool:
        return all(self.follows(p, q) for p, q in zip(a, b, strict=True))

    def follows(self, a: Operand, b: Operand) -> bool:
        if isinstance(a, View) and isinstance(b, View):
            return (not a.single and self.behind(a, b)) or ((a.single or self.spread) and a == b)
        if isinstance(a, Test) and isinstance(b, Test):
            return a.sign == b.sign and self.follows(a.left, b.left) and self.follows(a.right, b.right)
        return a == b

    def behind(self, a: View, b: View) -> bool:
        if a.single or b.single:
            return False
        (memory, (_, end)), (other, (start, _)) = self.placed(a), self.placed(b)
        return end == start and memory == other

    def joint(self, run: Sequence[Instruction]) -> Instruction:
        """One instruction for a run; scratch that it writes moves into one wider scratch array."""
        first = run[0]
        if len(run) > 1 and self.fresh(first.out):
            at: sp.Expr = sp.S.Zero
            for one in run:
                width = one.out.stop - one.out.start
                assert isinstance(one.out.home, Scratch)
                self.move(one.out.home, View(Scratch(self.extra), at, at + width))
                at += width
            self.extra += 1
        moved = [resolve(one, self.where) for one in run]
        args = list(moved[0].args)
        for one in moved[1:]:
            other = one.args if self.continues(args, one.args) else tuple(reversed(one.args))
            args = [widened(p, q) for p, q in zip(args, other, strict=True)]
        out = widened(moved[0].out, moved[-1].out)
        assert isinstance(out, View)
        return Instruction(first.name, tuple(args), out, tuple(label for one in run for label in one.ops))

    def move(self, scratch: Scratch, part: View) -> None:
        """From now on `scratch` lies in a wider array."""
        waiting = [k for k in self.readers[scratch] if k in self.waiting]
        for k in waiting:
            self.forget_neighbours(k)
            self.leave(k)
        self.where[scratch] = part
        for k in waiting:
            self.enter(k)
            self.forget_neighbours(k)

    def forget_neighbours(self, k: int) -> None:
        """Forget the runs that have, or might have, an instruction in them or beside them."""
        starts, ends = self.known[k]
        before = (j for key in starts for j in self.ends.get(key, ()))
        behind = (j for key in ends for j in self.starts.get(key, ()))
        for j in {k, *before, *behind}:
            self.forget(j)


@dataclass(frozen=True)
class Order:
    """Which of some instructions must come before which; sets of them are bits of a number."""

    before: tuple[int, ...]  # for each all that must come before it
    nearest: tuple[tuple[int, ...], ...]  # for each those of them that no other of them waits for
    later: tuple[tuple[int, ...], ...]  # the other way round

    @classmethod
    def of(cls, instructions: Sequence[Instruction]) -> Order:
        before: list[int] = []
        nearest: list[tuple[int, ...]] = []
        later: list[list[int]] = [[] for _ in instructions]
        for k, clashing in enumerate(clashes(instructions)):
            found, all_before = [], 0
            while clashing:
                last = clashing.bit_length() - 1
                found.append(last)
                all_before |= before[last] | 1 << last
                clashing &= ~all_before
                later[last].append(k)
            before.append(all_before)
            nearest.append(tuple(found))
        return cls(tuple(before), tuple(nearest), tuple(map(tuple, later)))


def clashes(instructions: Sequence[Instruction]) -> Iterator[int]:
    """For each instruction those before it that write what it reads or writes, or read what it writes."""
    cuts: dict[object, set[int]] = {}  # of each array, where a view of it begins or ends
    for one in instructions:
        for view in (*one.reads, one.out):
            cuts.setdefault(view.memory, set()).update(view.span)
    number = {(memory, at): k for memory, found in cuts.items() for k, at in enumerate(sorted(found))}
    written = {memory: [0] * len(found) for memory, found in cuts.items()}  # of the stretch behind each cut
    read = {memory: [0] * len(found) for memory, found in cuts.items()}

    def stretch(view: View) -> slice:
        begin, end = (number[view.memory, at] for at in view.span)
        return slice(begin, end)

    for k, one in enumerate(instructions):
        pairs = [*((view, written) for view in one.reads), (one.out, written), (one.out, read)]
        yield reduce(or_, (bits for view, users in pairs for bits in users[view.memory][stretch(view)]), 0)
        for view, users in ((one.out, written), *((view, read) for view in one.reads)):
            parts, where = users[view.memory], stretch(view)
            parts[where] = [bits | 1 << k for bits in parts[where]]


def placed(view: View, where: dict[Scratch, View]) -> View:
    if isinstance(view.home, Scratch) and view.home in where:
        part = where[view.home]
        return replace(view, home=part.home, start=part.start + view.start, stop=part.start + view.stop)
    return view


def resolve(one: Instruction, where: dict[Scratch, View]) -> Instruction:
    def moved(arg: Operand) -> Operand:
        if isinstance(arg, View):
            return placed(arg, where)
        if isinstance(arg, Test):
            left, right = moved(arg.left), moved(arg.right)
            assert not isinstance(left, Test) and not isinstance(right, Test)
            return Test(arg.sign, left, right)
        return arg

    return replace(one, args=tuple(map(moved, one.args)), out=placed(one.out, where))


def widened(a: Operand, b: Operand) -> Operand:
    if isinstance(a, View) and isinstance(b, View) and not a.single:
        return replace(a, stop=b.stop)
    if isinstance(a, Test) and isinstance(b, Test):
        left, right = widened(a.left, b.left), widened(a.right, b.right)
        assert not isinstance(left, Test) and not isinstance(right, Test)
        return Test(a.sign, left, right)
    return a


# ---------------------------------------------------------------------------------------------- blocks


def blocks(instructions: Sequence[Instruction]) -> list[list[Instruction]]:
    """The instructions in an order in which those that work for one value, or share a call, stand together.

    Each block is as small as the dependences allow: values whose instructions wait for each other are one.
    """
    order = Order.of(instructions)
    owner: dict[str, int] = {}
    group = list(range(len(instructions)))

    def root(k: int) -> int:
        while group[k] != k:
            group[k] = k = group[group[k]]
        return k

    for k, one in enumerate(instructions):
        for op in one.ops:
            group[root(k)] = root(owner.setdefault(op, k))
    waits: dict[int, set[int]] = {}
    for k, nearest in enumerate(order.nearest):
        waits.setdefault(root(k), set()).update(map(root, nearest))
    for ring in rings(waits):
        for name in ring:
            group[name] = ring[0]
    made: dict[int, list[int]] = {}
    for k in range(len(instructions)):
        made.setdefault(root(k), []).append(k)
    first = {name: members[0] for name, members in made.items()}
    later: dict[int, set[int]] = {name: set() for name in made}
    missing = dict.fromkeys(made, 0)
    for k, nearest in enumerate(order.nearest):
        for j in nearest:
            if root(j) != root(k) and root(k) not in later[root(j)]:
                later[root(j)].add(root(k))
                missing[root(k)] += 1
    ready = sorted((first[name], name) for name in made if not missing[name])
    found: list[list[Instruction]] = []
    while ready:
        _, name = heappop(ready)
        found.append([instructions[k] for k in made[name]])
        for other in later[name]:
            missing[other] -= 1
            if not missing[other]:
                heappush(ready, (first[other], other))
    return found


def rings(waits: Mapping[int, Iterable[int]]) -> list[list[int]]:
    """The names in groups, of which each waits for all others of its group (Tarjan 1972)."""
    number: dict[int, int] = {}
    lowest: dict[int, int] = {}
    path: list[int] = []
    inside: set[int] = set()
    found: list[list[int]] = []
    for start in waits:
        stack = [] if start in number else [(start, iter(waits[start]))]
        while stack:
            name, others = stack[-1]
            if name not in number:
                number[name] = lowest[name] = len(number)
                path.append(name)
                inside.add(name)
            other = next(others, None)
            if other is not None:
                if other not in number:
                    stack.append((other, iter(waits[other])))
                elif other in inside:
                    lowest[name] = min(lowest[name], number[other])
                continue
            stack.pop()
            if stack:
                lowest[stack[-1][0]] = min(lowest[stack[-1][0]], lowest[name])
            if lowest[name] == number[name]:
                at = path.index(name)
                ring, path = path[at:], path[:at]
                inside.difference_update(ring)
                found.append(ring)
    return found


# ---------------------------------------------------------------------------------------------- scratch


def fit(instructions: Sequence[Instruction]) -> tuple[list[Instruction], list[sp.Expr]]:
    """The instructions with scratch arrays reused where one's life is over; the widths of those that are
    needed.
    """
    widths: dict[Scratch, sp.Expr] = {}
    last: dict[Scratch, int] = {}
    for k, one in enumerate(instructions):
        for view in [*one.reads, one.out]:
            if isinstance(view.home, Scratch):
                old = widths.get(view.home, view.stop)
                widths[view.home] = view.stop if offset_rank(view.stop) >= offset_rank(old) else old
                last[view.home] = k
    over: dict[int, list[Scratch]] = {}
    for scratch, end in last.items():
        over.setdefault(end, []).append(scratch)
    arrays: list[sp.Expr] = []
    owner: dict[Scratch, int] = {}
    free: list[int] = []
    made: list[Instruction] = []
    for k, one in enumerate(instructions):
        for view in [*one.reads, one.out]:
            if isinstance(view.home, Scratch) and view.home not in owner:
                width = widths[view.home]
                found = next((n for n in free if arrays[n] == width), None)
                if found is None:
                    arrays.append(width)
                    found = len(arrays) - 1
                else:
                    free.remove(found)
                owner[view.home] = found
        free += [owner[scratch] for scratch in over.get(k, ())]
        known = {view.home for view in [*one.reads, one.out] if isinstance(view.home, Scratch)}
        homes = {old: View(Scratch(owner[old]), sp.S.Zero, widths[old]) for old in known}
        made.append(resolve(one, homes))
    return made, arrays


def slot_view(slot: Slot) -> View:
    return View(slot.home, slot.start, slot.stop, slot.shift, slot.size == 1)
