"""A cell in numbers: parameters, operations, products and memory, as formulas in its sizes.

Counted from the plan, so that the numbers are those of the generated modules:

    parameters   entries of all arrays that `init` returns, trained or not
    operations   floating-point operations of one step of one sequence, wherever they run: what left the loop
                 over time is done for every step too. A product of an (m, n) matrix with a vector is 2*m*n, a
                 multiplication and an addition an entry, and so is a step's part in the gradient of the
                 matrix. Of the elementwise arithmetic each + - * / counts 1, an integer power p - 1
                 multiplications, any other function, choice or comparison 1; a sum counts 1 a term. What is
                 computed once for all steps counts nothing
    products     matrix products of a run: those in the loop, which run once a step and cut it into phases,
                 and those that serve all steps at once; gates that share a stacked matrix share one product
    tape         bytes that `forward` saves for `backward`, in float32, for each step and sequence. The states
                 have one row more, the initial one; values of no step come once a run. Inputs are not counted
                 (the tape holds the caller's own arrays), nor the marks of where a sequence is over

The step is counted, not the rule of a first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import sympy as sp
from sympy.core.relational import Relational

from gategen.graph import length
from gategen.graph.ops import in_quotients
from gategen.plan import (
    ColumnSum,
    Contraction,
    Field,
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
    Weight,
    plan,
)
from gategen.spec.cell import Cell

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Work:
    """What one direction of a step does."""

    operations: sp.Expr  # a step and sequence
    loop_products: int  # one after the other, once a step
    other_products: int  # over all steps at once


@dataclass(frozen=True)
class Tape:
    """What a run saves, in bytes of float32."""

    step: sp.Expr  # for each step and sequence
    sequence: sp.Expr  # for each sequence: the initial states
    run: sp.Expr  # once: what has no step
    buffers: tuple[str, ...]  # what it holds


@dataclass(frozen=True)
class Summary:
    """A cell in numbers. `kind` is its class: recurrent, elementwise or linear."""

    name: str
    kind: str
    parameters: sp.Expr
    forward: Work
    backward: Work
    tape: Tape


def summary(cell: Cell) -> Summary:
    """What the generated modules of a cell hold and do."""
    return of_plan(plan(cell, arrays=True))


def of_plan(made: Plan) -> Summary:
    fields = {field.name: field for field in made.every_field}
    return Summary(
        made.cell.name,
        made.kind,
        sp.expand(sp.Add(*map(entries, made.fields))),
        work(made.step.forward, fields),
        work(made.step.backward, fields),
        tape(made.step),
    )


def entries(field: Field) -> sp.Expr:
    """How many numbers a field of `Params` has."""
    if not field.rows:
        return sp.S.One
    return field.height * field.width if field.columns else field.height


# ---------------------------------------------------------------------------------------------- work


def work(schedule: Schedule, fields: dict[str, Field]) -> Work:
    total = sp.Add(*(operations(stage, fields) for stage in schedule.stages))
    around = (*schedule.before, *schedule.ahead, *schedule.after)
    return Work(sp.expand(total), len(products(schedule.loop)), len(products(around)))


def products(stages: Iterable[Stage]) -> list[Stage]:
    return [stage for stage in stages if isinstance(stage, (MatMul, OuterSum))]


def operations(stage: Stage, fields: dict[str, Field]) -> sp.Expr:
    """The operations of one stage, for one step of one sequence."""
    match stage:
        case MatMul(_, operand, weights, along=along):
            times = length(operand[0].size) / length(along) if along else 1
            each = (2 * (weight.stop - weight.start) * columns(weight, fields) for weight in weights)
            return times * sp.Add(*each)
        case OuterSum(_, [left], [right], along=[_, axis]):
            return 2 * length(left.size) * length(axis)
        case OuterSum(_, left, right, _, blocks):
            both = (sp.Add(*(length(v.size) for v in side)) for side in (left, right))
            return 2 * sp.Mul(*both) / length(blocks)
        case Kernel(ops, size, static):
            return sp.S.Zero if static else length(size) * sum(arithmetic(op.expr) for op in ops)
        case Contraction(_, left, right):
            axes = dict.fromkeys((*left.axes, *right.axes))
            return 2 * sp.Mul(*map(length, axes))
        case Shifted():
            return sp.S.Zero
        case RunningSum(out):
            return length(out.size)
        case Sum(_, operand) | ColumnSum(_, operand):
            return sp.Add(*(length(v.size) for v in operand))


def columns(weight: Weight, fields: dict[str, Field]) -> sp.Expr:
    if weight.columns is None:
        return fields[weight.field].width
    left, right = weight.columns
    return right - left


def arithmetic(expr: sp.Basic) -> int:
    """How many operations the value of an expression takes."""
    inner = sum(map(arithmetic, expr.args))
    if isinstance(expr, sp.Add):
        subtracted = [arg for arg in expr.args if negated(arg)]
        spared = len(subtracted) - (len(subtracted) == len(expr.args))  # a - b is one operation
        return inner + len(expr.args) - 1 - spared
    if isinstance(expr, sp.Mul):
        below = [arg for arg in expr.args if reciprocal(arg)]
        spared = len(below) - (len(below) == len(expr.args))  # a / b is one operation
        return inner + len(expr.args) - 1 - spared
    if isinstance(expr, sp.Pow):
        return arithmetic(expr.base) + raising(expr.exp)
    if isinstance(expr, (sp.Function, Relational)):
        return inner + 1
    return 0


def raising(exponent: sp.Expr) -> int:
    """Multiplications of an integer power, and the division of a negative one; 1 for a root."""
    if not isinstance(exponent, sp.Integer):
        return 1
    return abs(int(exponent)) - 1 + (int(exponent) < 0)


def negated(expr: sp.Basic) -> bool:
    return isinstance(expr, sp.Mul) and expr.args[0] == -1


def reciprocal(expr: sp.Basic) -> bool:
    return isinstance(expr, sp.Pow) and isinstance(expr.exp, sp.Integer) and bool(expr.exp < 0)


# ---------------------------------------------------------------------------------------------- tape


def tape(rule: Rule) -> Tape:
    def total(*kinds: str) -> sp.Expr:
        return sp.expand(FLOAT32 * sp.Add(*(b.width for b in rule.saved if b.kind in kinds)))

    names = sorted(rule.saved, key=lambda b: b.kind != "state")  # the states first, as in the module's `Tape`
    return Tape(total("state", "time"), total("state"), total("static"), tuple(b.name for b in names))


# ---------------------------------------------------------------------------------------------- formulas

LETTERS = {"input": "I", "hidden": "H"}


def formula(
    expr: sp.Expr,
    *,
    power: str = "^{}",
    times: str = " ",
    word: Callable[[str], str] = str,
    names: bool = False,
) -> str:
    """`3 H I + 3 H^2 + 3 H`: a polynomial in sizes, highest powers first, and of them those of the input.

    Sizes are letters where they have one, with `names` always their names. `power` is how an exponent is
    written, `times` what stands between factors, `word` spells a name.
    """

    def factor(symbol: sp.Symbol, exponent: int) -> str:
        name = str(symbol)
        spelled = word(name) if names or name not in LETTERS else LETTERS[name]
        return spelled + (power.format(exponent) if exponent > 1 else "")

    def term(monomial: sp.Expr, count: sp.Expr) -> str:
        powers = sorted(sizes_in(monomial).items(), key=lambda item: str(item[0]))
        factors = [factor(symbol, exponent) for symbol, exponent in powers if exponent > 0]
        over = "".join(f"/{factor(symbol, -exponent)}" for symbol, exponent in powers if exponent < 0)
        return times.join([*([str(count)] if count != 1 or not factors else []), *factors]) + over

    terms = sp.expand(in_quotients(expr)).as_coefficients_dict()
    return " + ".join(term(m, terms[m]) for m in sorted(terms, key=_by_degree)) or "0"


def sizes_in(monomial: sp.Expr) -> dict[sp.Symbol, int]:
    return {symbol: int(power) for symbol, power in monomial.as_powers_dict().items() if symbol != 1}


def _by_degree(monomial: sp.Expr) -> tuple[int, bool, str]:
    sizes = sizes_in(monomial)
    return (
        -sum(power for power in sizes.values() if power > 0),
        not any(str(symbol) == "input" for symbol in sizes),
        str(monomial),
    )


def rows(found: Summary, spell: Callable[[sp.Expr], str] = formula) -> list[tuple[str, str, str]]:
    """The numbers as a listing: what, of which direction, how much."""
    listing = [("parameters", "", spell(found.parameters))]
    directions = (("forward", found.forward), ("backward", found.backward))
    listing += [
        ("operations", way, f"{spell(work.operations)} a step and sequence") for way, work in directions
    ]
    listing += [
        ("products", way, f"{work.loop_products} a step, {work.other_products} for all steps at once")
        for way, work in directions
    ]
    parts = (
        (found.tape.step, "a step and sequence"),
        (found.tape.sequence, "a sequence"),
        (found.tape.run, "a run"),
    )
    held = ", ".join(f"{spell(size)} {what}" for size, what in parts if size != 0)
    return [*listing, ("tape", "", f"bytes of float32: {held}")]


HEADER = (
    "cell",
    "class",
    "parameters",
    "operations forward",
    "operations backward",
    "products forward",
    "products backward",
    "tape bytes",
)


def row(found: Summary) -> tuple[str, ...]:
    """A line of the table under `HEADER`."""
    ways = found.forward, found.backward
    return (
        found.name,
        found.kind,
        formula(found.parameters),
        *(formula(work.operations) for work in ways),
        *(f"{work.loop_products} a step + {work.other_products}" for work in ways),
        formula(found.tape.step),
    )
