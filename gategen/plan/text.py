"""The plan as people read it: parameters, tape, and the stages of each pass, one a line."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from gategen.graph import Value, length
from gategen.plan.data import (
    Buffer,
    ColumnSum,
    Contraction,
    Field,
    InBuffer,
    InGradient,
    Kernel,
    MatMul,
    OuterSum,
    Plan,
    Rule,
    RunningSum,
    Schedule,
    Shifted,
    Stage,
    Sum,
    TimeLoop,
    Weight,
    members_between,
)


def text(plan: Plan) -> str:
    """The plan as people read it."""
    lines = [f"cell      {plan.cell.name} ({plan.kind})"]
    lines.append("params    " + "   ".join(map(field_text, plan.fields)))
    if plan.computed:
        lines.append("computed  " + "   ".join(map(field_text, plan.computed)))
    for rule in plan.rules:
        width = 10 if not rule.title else 16
        lines.append(f"{rule.title}tape".ljust(width) + "   ".join(map(buffer_text, rule.saved)))
        last = ""
        for which, when, what in stage_rows(rule):
            head = "" if which == last else f"{rule.title}{which}"
            lines.append(f"{head:{width}}{when:8}{what}")
            last = which
    for k, (which, when, what) in enumerate(newton_rows(plan)):
        lines.append(f"{'' if k else which:10}{when:8}{what}")
    return "\n".join(lines)


def stage_rows(rule: Rule) -> list[tuple[str, str, str]]:
    """Direction, when, and what is done: a row a stage, `when` only where it changes."""
    rows = []
    for name, schedule in (("forward", rule.forward), ("backward", rule.backward)):
        for when, stages in (
            ("before", schedule.before),
            ("ahead", schedule.ahead),
            ("step", schedule.loop),
            ("after", schedule.after),
        ):
            for k, stage in enumerate(stages):
                rows.append((name, when if k == 0 else "", stage_text(stage, schedule)))
    return rows


def newton_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """The same of an iteration that finds all states at once; what it carries, and a row a stage."""
    if plan.newton is None:
        return []
    schedule, carried = plan.newton.rule.backward, ", ".join(c.name for c in plan.newton.carried)
    method = "one iteration" if plan.newton.linear else "iterations"
    rows = [("parallel", "carries", f"{carried} ({method})")]
    for k, stage in enumerate(schedule.stages):
        rows.append(("parallel", "" if k else "step", stage_text(stage, schedule)))
    return rows


SHORT = {"input": "I", "hidden": "H"}


def size_text(expr: sp.Expr) -> str:
    """`3H`, `H + I`: sizes by their letters."""
    terms = []
    for symbol, count in sorted(expr.as_coefficients_dict().items(), key=lambda p: str(p[0])):
        letter = " * ".join(SHORT.get(str(factor), str(factor)) for factor in sp.Mul.make_args(symbol))
        terms.append(str(count) if symbol == 1 else f"{'' if count == 1 else count}{letter}")
    return " + ".join(terms)


def stack_text(name: str, members: Sequence[str]) -> str:
    if len(members) == 1:
        return members[0] if name == members[0] else f"{name}[{members[0]}]"
    stem = f"{name}_"
    return f"{name}[{' '.join(m.removeprefix(stem) for m in members)}]"


def field_text(field: Field) -> str:
    shape = (
        f"({size_text(field.height)}, {size_text(field.width)})"
        if field.columns
        else f"({size_text(field.height)},)"
    )
    return f"{stack_text(field.name, field.members)} {shape if field.rows else '()'}"


def buffer_text(buffer: Buffer) -> str:
    lead = {
        "state": "T+1, B, ",
        "time": "T, B, ",
        "row": "B, ",
        "stretch": "stretches*B, ",
        "carry": "B, ",
        "input": "T, B, ",
        "static": "",
    }
    width = ", ".join(map(size_text, map(length, buffer.axes))) or size_text(buffer.width)
    return f"{stack_text(buffer.name, buffer.members)} ({lead[buffer.kind]}{width})"


def places(values: Sequence[Value], schedule: Schedule) -> str:
    """Where adjacent values lie: a whole buffer by its name, a part of it with its members."""
    slots = [schedule.slot[v] for v in values]
    home = slots[0].home
    buffer = schedule.buffer.get(home.name) if isinstance(home, InBuffer) else None
    if buffer is None or len(buffer.members) == 1 or slots[-1].stop - slots[0].start == buffer.width:
        name = f"d_{home.name}" if isinstance(home, InGradient) else home.name
        return name + ("'" if slots[0].shift else "")
    inside = members_between(buffer, slots[0].start, slots[-1].stop)
    return f"{buffer.name}[{' '.join(inside)}]"


def weight_text(weight: Weight) -> str:
    stem = weight.field
    if len(weight.members) == 1 and weight.members[0] == stem:
        return stem
    return stack_text(stem, weight.members) + ("" if weight.columns is None else "[:, ...]")


def stage_text(stage: Stage, schedule: Schedule) -> str:
    match stage:
        case MatMul(out, operand, weights, transposed, add, blocks, along):
            sign = "+=" if add else "="
            right = "".join(map(weight_text, weights)) + ("" if transposed else ".T")
            right += "" if blocks == 1 else f", {blocks} blocks"
            right += f", over={along}" if along else ""
            return f"{places(out, schedule)} {sign} {places(operand, schedule)} @ {right}"
        case Kernel(ops, _, static):
            outs = [op.out.name for op in ops]
            reads = dict.fromkeys(v.name for op in ops for v in op.reads if v.name not in outs)
            return f"{', '.join(outs)} <- {'once' if static else 'kernel'}({', '.join(reads)})"
        case Sum(out, operand, add, "sum"):
            return f"{out} {'+=' if add else '='} sum({places(operand, schedule)})"
        case Sum(out, operand, add):
            left = [str(axis) for axis in operand[0].axes if axis not in out.axes]
            along = f", over={', '.join(left)}" if out.axes else ""
            return f"{out} = max({f'{out}, ' if add else ''}{places(operand, schedule)}{along})"
        case RunningSum(out, operand, backwards, axis):
            how = (f", over={axis}" if axis else "") + ", from the last" * backwards
            return f"{out} = cumsum({places((operand,), schedule)}{how})"
        case Shifted(out, operand, by, axis):
            return f"{out} = shifted({places((operand,), schedule)}, {by}, over={axis})"
        case Contraction(out, left, right):
            axes = dict.fromkeys(axis for v in (left, right) for axis in v.axes if axis not in out.axes)
            both = f"{places([left], schedule)} * {places([right], schedule)}"
            return f"{out} = sum({both}, over={', '.join(map(str, axes))})"
        case OuterSum(weight, left, right, add, blocks, along):
            sign = "+=" if add else "="
            said = "" if blocks == 1 else f", {blocks} blocks"
            said += f", over all but {' and '.join(map(str, along))}" if along else ""
            return (
                f"d_{weight_text(weight)} {sign} {places(left, schedule)}.T @ {places(right, schedule)}{said}"
            )
        case ColumnSum(out, operand):
            rows = {InBuffer(buffer.name) for buffer in schedule.buffers if buffer.kind in ("row", "stretch")}
            over = "rows" if schedule.slot[operand[0]].home in rows else "steps and rows"
            return f"{places(out, schedule)} = sum of {places(operand, schedule)} over {over}"
        case TimeLoop(_, _, carries, stores, sums):
            made = dict.fromkeys((*stores, *(v for _, v in carries), *(total for _, total in sums)))
            outs = [value.name for value in made]
            return f"{', '.join(outs)} <- all steps({', '.join(v.name for v in stage.reads)})"
