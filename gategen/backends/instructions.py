"""Expressions as instructions over memory: one operation, its operands, and where the result goes.

The common ground of backends that compute whole arrays at a time. `assign` turns an expression into
instructions that write in place where they can; `merge` joins instructions that do the same to neighbouring
slices, so that `z = sigmoid(a_z)` and `r = sigmoid(a_r)` become one call over both. Nothing here knows how an
instruction is spelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import sympy as sp
from sympy.core.relational import Relational

from gategen.graph import Length, Pointwise, Value, length
from gategen.plan import Home, Slot, offset_rank
from gategen.spec import language as lang
from gategen.spec.functions import TABLE, row_of
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
    """Instructions for a run of pointwise ops. `place` gives the memory of a value, or None for scratch."""

    def __init__(self, place: Callable[[Value], View | None], number: Callable[[sp.Expr], str]) -> None:
        self.place = place
        self.number = number
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
            out = self.local[op.out] = self.temporary(op.out.size)
        self.assign(op.expr, out)

    def temporary(self, size: object) -> View:
        width = sp.Integer(1) if size == 1 else length(size)  # type: ignore[arg-type]
        return View(self.new(), sp.S.Zero, width, 0, size == 1)

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
        return View(self.new(), sp.S.Zero, out.stop - out.start, 0, out.single)

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
        return bool(isinstance(expr, (Value, Length)) or expr.is_number)

    def operand(self, expr: sp.Expr, like: View) -> Operand:
        """Where the value of `expr` can be read: its own memory if it is atomic, else scratch it is computed
        into.
        """
        if isinstance(expr, Value):
            return self.view(expr)
        if isinstance(expr, Length) or expr.is_number or not expr.atoms(Value):
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


# ---------------------------------------------------------------------------------------------- merge


def merge(instructions: Sequence[Instruction], spread: bool = False) -> list[Instruction]:
    """Equal operations on neighbouring slices as one, in an order that keeps every dependence.

    With `spread` one slice may be an operand for all neighbours: that needs arrays that lie slice by slice.
    """
    return Merger(instructions, spread).made


class Merger:
    """Joins the instructions of one kernel."""

    def __init__(self, instructions: Sequence[Instruction], spread: bool) -> None:
        self.instructions, self.spread = instructions, spread
        self.after = dependencies(instructions)
        self.where: dict[Scratch, View] = {}  # scratch that moved into wider arrays
        homes = [view.home for one in instructions for view in [*one.reads, one.out]]
        self.extra = 1 + max((home.number for home in homes if isinstance(home, Scratch)), default=0)
        self.made: list[Instruction] = []
        waiting = list(range(len(instructions)))
        done: set[int] = set()
        while waiting:
            ready = [k for k in waiting if self.after[k] <= done]
            late = [k for k in waiting if not self.after[k] <= done]
            runs = (self.grown(k, ready) for k in ready)
            run = next((run for run in runs if not self.waits(run, late)), None)
            run = run or self.grown(ready[0], ready)
            self.made.append(self.joint([instructions[k] for k in run]))
            done.update(run)
            waiting = [k for k in waiting if k not in run]

    def grown(self, first: int, ready: Sequence[int]) -> list[int]:
        """The instructions that are ready and can be one with `first`, in the order of their slices."""
        run = [first]
        alike = [k for k in ready if self.instructions[k].name == self.instructions[first].name]
        while True:
            for k in alike:
                if k in run:
                    continue
                if self.lengthens(run, run[-1], k):
                    run.append(k)
                    break
                if self.lengthens(run, k, run[0]):
                    run.insert(0, k)
                    break
            else:
                return run

    def lengthens(self, run: Sequence[int], j: int, k: int) -> bool:
        """Whether `k` continues `j` as the instructions of the run continue each other."""
        way = self.joins(j, k)
        return way is not None and (len(run) == 1 or way == self.joins(run[0], run[1]))

    def waits(self, run: Sequence[int], late: Sequence[int]) -> bool:
        """Whether an instruction that is not ready yet could be joined to `run`, and does not wait for it."""
        for j in late:
            if self.instructions[j].name != self.instructions[run[0]].name:
                continue
            if self.lengthens(run, run[-1], j) or self.lengthens(run, j, run[0]):
                front, seen = [j], {j}
                while front:
                    new = self.after[front.pop()] - seen
                    seen |= new
                    front += new
                if seen.isdisjoint(run):
                    return True
        return False

    def joins(self, j: int, k: int) -> tuple[bool, ...] | None:
        """Whether `k` continues `j`, the same operation on the slices directly behind: which operands both
        share.
        """
        a, b = self.instructions[j], self.instructions[k]
        if a.name != b.name or len(a.args) != len(b.args) or a.out.single:
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
            return (a == b and (a.single or self.spread)) or (not a.single and self.behind(a, b))
        if isinstance(a, Test) and isinstance(b, Test):
            return a.sign == b.sign and self.follows(a.left, b.left) and self.follows(a.right, b.right)
        return a == b

    def behind(self, a: View, b: View) -> bool:
        a, b = placed(a, self.where), placed(b, self.where)
        return not a.single and not b.single and (a.home, a.shift, a.stop) == (b.home, b.shift, b.start)

    def joint(self, run: Sequence[Instruction]) -> Instruction:
        """One instruction for a run; scratch that it writes moves into one wider scratch array."""
        first = run[0]
        if len(run) > 1 and self.fresh(first.out):
            at: sp.Expr = sp.S.Zero
            for one in run:
                width = one.out.stop - one.out.start
                assert isinstance(one.out.home, Scratch)
                self.where[one.out.home] = View(Scratch(self.extra), at, at + width)
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


def dependencies(instructions: Sequence[Instruction]) -> list[set[int]]:
    """For each instruction those that must come before it."""
    found: list[set[int]] = []
    written: dict[object, list[tuple[int, View]]] = {}  # by memory: what has been written, and read
    read: dict[object, list[tuple[int, View]]] = {}
    for k, one in enumerate(instructions):
        clashes = [(view, written) for view in one.reads] + [(one.out, written), (one.out, read)]
        found.append(
            {j for view, before in clashes for j, other in before.get(view.memory, ()) if view.meets(other)}
        )
        written.setdefault(one.out.memory, []).append((k, one.out))
        for view in one.reads:
            read.setdefault(view.memory, []).append((k, view))
    return found


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
    before = dependencies(instructions)
    owner: dict[str, int] = {}
    group = list(range(len(instructions)))

    def root(k: int) -> int:
        while group[k] != k:
            k = group[k]
        return k

    for k, one in enumerate(instructions):
        for op in one.ops:
            group[root(k)] = root(owner.setdefault(op, k))
    while True:
        made: dict[int, list[int]] = {}
        for k in range(len(instructions)):
            made.setdefault(root(k), []).append(k)
        waits = {
            name: {root(j) for k in members for j in before[k]} - {name} for name, members in made.items()
        }
        order: list[int] = []
        while ready := [name for name in made if name not in order and waits[name].issubset(order)]:
            order.append(ready[0])
        if len(order) == len(made):
            return [[instructions[k] for k in made[name]] for name in order]
        first, second, *_ = cycle(waits, next(name for name in made if name not in order), order)
        group[first] = second


def cycle(waits: dict[int, set[int]], start: int, done: Sequence[int]) -> list[int]:
    """Names that wait for each other, in a ring."""
    path = [start]
    while True:
        following = min(name for name in waits[path[-1]] if name not in done)
        if following in path:
            return path[path.index(following) :]
        path.append(following)


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
        for scratch, end in last.items():
            if end == k:
                free.append(owner[scratch])
        homes = {old: View(Scratch(new), sp.S.Zero, widths[old]) for old, new in owner.items()}
        made.append(resolve(one, homes))
    return made, arrays


def slot_view(slot: Slot) -> View:
    return View(slot.home, slot.start, slot.stop, slot.shift, slot.size == 1)
