"""The line of mathematics above or beside each piece of generated code.

Forward that is an equation of the cell. Of a derivative it is its own formula, by the names that memory has
in the code: what is added to or multiplied in place later is written out where the last of it happens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import sympy as sp

from gategen.graph import Pointwise, Value
from gategen.plan import (
    FIRST_STEP,
    NEWTON,
    NEWTON_BACK,
    START_STATES,
    InBuffer,
    Kernel,
    MatMul,
    Plan,
    Rule,
    Schedule,
    Stage,
    TimeLoop,
)
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.printer import Printer

OBVIOUS = re.compile(r"\w+ [+*]?= \w+")  # the code says the same
LONGEST = 200  # nodes of what is written out; powers of powers would double with every equation


@dataclass(frozen=True)
class Remark:
    """What stands above some code: lines, and the gates of which it computes parts before the loop."""

    lines: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()

    @property
    def text(self) -> tuple[str, ...]:
        early = f"The parts of {listed(self.gates)} that wait for no state, for all steps at once."
        last = {line.partition(" = ")[0]: line for line in self.lines}  # of the same memory
        said = tuple(line for line in last.values() if not OBVIOUS.fullmatch(line))
        return (early, *said) if self.gates else said


@dataclass(frozen=True)
class Comments:
    """Of one schedule: a line for each value, and the gates that a value known before the loop is part of."""

    lines: Mapping[str, str]
    parts: Mapping[str, str]

    def of(self, values: Iterable[Value], once: bool = False) -> Remark:
        """The remark on some values; `once`: there is a single step, of which nothing is known before."""
        names = [v.name for v in values]
        parts = {} if once else self.parts
        gates = dict.fromkeys(parts[n] for n in names if n in parts)
        lines = dict.fromkeys(self.lines[n] for n in names if n not in parts and n in self.lines)
        return Remark(tuple(lines), tuple(gates))


def listed(names: Sequence[str]) -> str:
    """`z, r and n`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def comments(plan: Plan, rule: Rule) -> tuple[Comments, Comments]:
    """Those of both directions of a rule: derivatives have formulas, and are no equations of the cell."""
    back = formulas(rule, rule.backward)
    if plan.of is not None:
        return formulas(rule, rule.forward), back
    cell = plan.cell
    if rule.name == NEWTON:  # of the loop, and beside it the derivatives
        step = plan.step.forward
        there, here = (forward_comments(cell, s, cell.equations, step) for s in (step, rule.backward))
        return there, Comments({**back.lines, **here.lines}, {})
    if rule.name == NEWTON_BACK:  # of the loop too
        return formulas(plan.step, plan.step.backward), back
    equations = {FIRST_STEP: cell.first, START_STATES: ()}.get(rule.name, cell.equations)
    return forward_comments(cell, rule.forward, equations), back


def forward_comments(
    cell: Cell, schedule: Schedule, equations: Sequence[lang.Eq], step: Schedule | None = None
) -> Comments:
    """Each value belongs to the first equation that needs it; `step` is the one that makes next states."""
    reads = {op.out.name: [v.name for v in op.reads] for op in schedule.graph.ops}
    reads |= {op.out.name: [v.name for v in op.reads] for op in pointwise(schedule.stages)}
    early = {v.name for stage in schedule.before for v in stage.writes}
    nexts = {carry.name: carry.next.name for carry in (step or schedule).graph.states}
    targets = [nexts[eq.lhs.state.name] if isinstance(eq.lhs, lang.Next) else eq.lhs.name for eq in equations]
    others = {*targets}
    lines: dict[str, str] = {}
    parts: dict[str, str] = {}
    for eq, name, line in zip(equations, targets, cell.text(tuple(equations)), strict=True):
        front = [name]
        while front:
            at = front.pop()
            if at in lines or (at in others and at != name):
                continue
            lines[at] = line
            if at in early and name not in early:
                parts[at] = f"{eq.lhs}" if isinstance(eq.lhs, lang.Next) else name
            front += reads.get(at, [])
    return Comments(lines, parts)


def pointwise(stages: Iterable[Stage]) -> list[Pointwise]:
    return [op for stage in stages if isinstance(stage, Kernel | TimeLoop) for op in stage.ops]


# ---------------------------------------------------------------------------------------------- derivatives


def formulas(rule: Rule, schedule: Schedule) -> Comments:
    """`d_n = d_h * z * (1 - n**2)`, for every gradient and every tangent that has a name in the code."""
    order = pointwise(schedule.stages)
    names = {v.name: memory_name(v, rule, schedule) for op in order for v in (op.out, *op.reads)}
    ahead = {v for stage in schedule.ahead for v in stage.writes}
    waited = {v for stage in schedule.loop for v in stage.reads if v in ahead}
    printer = Printer({op.out.name: k for k, op in enumerate(order)}, names)
    first_reader = {value: op.out for op in reversed(order) for value in op.reads}
    made: dict[Value, sp.Expr] = {}
    whole: dict[Value, sp.Expr] = {}
    factors: dict[Value, sp.Expr] = {}  # what the loop multiplies gradients by
    scaled: dict[sp.Expr, Value] = {}  # gradients that are another one times such a factor
    for op in order:
        expr = op.expr.xreplace(whole)
        if op.out in waited:
            factors[op.out] = expr
        elif (op.out in ahead or op.out not in schedule.slot) and nodes(expr) < LONGEST:
            whole[op.out] = expr
        if op.out not in ahead:
            terms = [spelled(term, factors, scaled) for term in sp.Add.make_args(expr)]
            scaled.setdefault(expr, op.out)
            expr = sp.Add(*terms)
        made[op.out] = expr
    lines: dict[str, str] = {}
    for op in reversed(order):  # what has no name in the code is part of what reads it first
        if op.out in whole and op.out not in schedule.slot and op.out in first_reader:
            lines[op.out.name] = lines[first_reader[op.out].name]
        else:
            lines[op.out.name] = formula(names[op.out.name], made[op.out], printer)
    for stage in schedule.stages:
        if isinstance(stage, MatMul):
            products = product_lines(stage, rule, schedule)
            added = {
                name: f"{lines[name]} + {line.partition(' = ')[2]}"
                for name, line in products.items()
                if stage.add
            }
            lines |= products | added
    return Comments(lines, {})


def nodes(expr: sp.Expr) -> int:
    """How large an expression is; no more is counted than needed."""
    return sum(1 for _ in islice(sp.preorder_traversal(expr), LONGEST))


def spelled(term: sp.Expr, factors: Mapping[Value, sp.Expr], scaled: Mapping[sp.Expr, Value]) -> sp.Expr:
    """A term by what its factors are made of, or by another gradient that is some of it already."""
    parts = list(sp.Mul.make_args(term))
    while found := next((part for part in parts if part in factors), None):
        rest = [part for part in parts if part is not found]
        other = next((part for part in rest if found * part in scaled), None)
        if other is not None:
            rest[rest.index(other)] = scaled[found * other]
        else:
            rest += sp.Mul.make_args(factors[found])
        parts = rest
    return sp.Mul(*parts).xreplace(factors)


def formula(name: str, expr: sp.Expr, printer: Printer) -> str:
    """`name = expr`, or `name += ...` and `name *= ...` where the code adds to what is there."""
    terms = [printer(term) for term in printer.terms(expr)]
    if len(terms) > 1 and terms.count(name) == 1:
        own = next(term for term in sp.Add.make_args(expr) if printer(term) == name)
        return f"{name} += {printer(expr - own)}"
    factors = [printer(factor) for factor in sp.Mul.make_args(expr)]
    if len(factors) > 1 and factors.count(name) == 1:
        own = next(factor for factor in sp.Mul.make_args(expr) if printer(factor) == name)
        return f"{name} *= {printer(expr / own)}"
    return f"{name} = {printer(expr)}"


def product_lines(stage: MatMul, rule: Rule, schedule: Schedule) -> dict[str, str]:
    operands = [memory_name(v, rule, schedule) for v in stage.operand]
    members = [member for weight in stage.weights for member in weight.members]
    turned = ".T" if stage.transposed else ""
    one = len(stage.out) > 1  # operand, of which each member makes a value of its own
    sides = [
        f"{m}{turned} @ {v}" for m, v in zip(members, operands * (len(members) if one else 1), strict=False)
    ]
    sides = sides if one else [" + ".join(sides)]
    return {
        v.name: f"{memory_name(v, rule, schedule)} = {side}"
        for v, side in zip(stage.out, sides, strict=False)
    }


def memory_name(value: Value, rule: Rule | None, schedule: Schedule) -> str:
    """What the code calls the memory of a value: a carried gradient, a member of a stack, a state."""
    slot = schedule.slot.get(value)
    buffers = rule.buffers if rule else schedule.buffer
    buffer = buffers.get(slot.home.name) if slot and isinstance(slot.home, InBuffer) else None
    name: str = value.name
    if slot is None or buffer is None or not buffer.starts:
        return name
    member = buffer.member_at.get(slot.rank, name)
    if buffer.kind == "carry":
        return buffer.name
    return f"{member}_next" if slot.shift else member
