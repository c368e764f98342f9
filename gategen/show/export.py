"""A cell at each stage as plain data for programs: dictionaries, lists, strings, numbers, for `json.dumps`.

Keys keep their meaning from release to release; new ones may come. Expressions are text in the language of
specs. A size is its name or an integer; a width or an offset is Python arithmetic over size names
(`"2*hidden"`), as are the formulas of a summary. What each function gives is told in its docstring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from math import isfinite
from typing import Any

from gategen import summary as numbers
from gategen.diff import ALIKE, MOVED, UNLIKE, Difference, Line
from gategen.graph import BatchSum, Graph, Op, Outer, Pointwise, Product, Reduce, Value, flatten, ranks
from gategen.graph.adjoint import adjoint
from gategen.plan import (
    FIRST_STEP,
    START_STATES,
    Buffer,
    ColumnSum,
    Field,
    Kernel,
    MatMul,
    OuterSum,
    Rule,
    Schedule,
    Stage,
    Sum,
    Weight,
    plan,
)
from gategen.spec.cell import Cell
from gategen.spec.language import Eq, Shape
from gategen.spec.printer import Printer

Json = dict[str, Any]

arithmetic = partial(numbers.formula, power="**{}", times="*", names=True)


def equations(cell: Cell) -> Json:
    """Everything a spec says, with the sizes that were inferred.

    name, title, reference  text
    sizes                   size names
    inputs                  size by name, the sequence first
    states                  by name: size, initial (an expression)
    parameters              by name: role (matrix, vector, scalar), shape, trainable, initial: what `init`
                            puts there, as a spec says it; null where it draws numbers, or asks for them
    constants               number by name
    outputs                 names
    equations, first        lists of {name, expression}, by dependence; first is empty without such a rule
    summary                 see `summary`
    """
    return {
        "name": cell.name,
        "title": cell.title,
        "reference": cell.reference,
        "sizes": list(cell.sizes),
        "inputs": {x.name: cell.size_of(x) for x in cell.inputs},
        "states": {s.name: {"size": s.size, "initial": Printer()(s.initial)} for s in cell.states},
        "parameters": {
            a.name: {
                "role": a.members[0].role,
                "shape": _lists(a.shape),
                "trainable": a.trainable,
                "initial": a.initial or None,
            }
            for a in cell.arrays
        },
        "constants": {c.name: float(c.value) for c in cell.constants},
        "outputs": [str(symbol) for symbol in cell.outputs],
        "equations": _pairs(cell, cell.equations),
        "first": _pairs(cell, cell.first),
        "summary": summary(numbers.summary(cell)),
    }


def _lists(shape: Shape) -> list[Any]:
    return [list(size) if isinstance(size, tuple) else size for size in shape]


def _pairs(cell: Cell, equations: Sequence[Eq]) -> list[dict[str, str]]:
    split = (equation.split(" = ", 1) for equation in (cell.text(equations) if equations else ()))
    return [{"name": left, "expression": right} for left, right in split]


def summary(found: numbers.Summary) -> Json:
    """A cell in numbers, as `gategen.summary` counts them; formulas over size names.

    class               recurrent, elementwise or linear
    parameters          how many numbers are in them
    forward, backward   operations (a step and sequence), loop_products and other_products (integers)
    tape                bytes of float32: step (a step and sequence), sequence, run; buffers (their names)
    """
    tape = found.tape
    return {
        "class": found.kind,
        "parameters": arithmetic(found.parameters),
        "forward": _work(found.forward),
        "backward": _work(found.backward),
        "tape": {
            "step": arithmetic(tape.step),
            "sequence": arithmetic(tape.sequence),
            "run": arithmetic(tape.run),
            "buffers": list(tape.buffers),
        },
    }


def _work(work: numbers.Work) -> Json:
    return {
        "operations": arithmetic(work.operations),
        "loop_products": work.loop_products,
        "other_products": work.other_products,
    }


# ---------------------------------------------------------------------------------------------- graphs


def graphs(cell: Cell) -> list[Json]:
    """The graph of the step, and that of the first step where the cell has a rule for it; see `graph`."""
    return list(map(graph, both_steps(cell)))


def adjoints(cell: Cell) -> list[Json]:
    """The backward steps of `graphs`; see `graph`."""
    return [graph(adjoint(forward)) for forward in both_steps(cell)]


def both_steps(cell: Cell) -> list[Graph]:
    """The step, and the first step where it has equations of its own."""
    return [flatten(cell), *([flatten(cell, first=True)] if cell.first else [])]


def graph(graph: Graph) -> Json:
    """The ops of a graph in order, and what goes in and comes out.

    name, backwards     text; whether it runs from the last step to the first
    inputs, parameters  shape by name: what is read at each step, and what is there once
    states              by name: the values current (before the step) and next (after it)
    ops                 each with op, out, shape, and by its kind
                            pointwise          expression
                            product            matrix, operand, transposed: matrix (or matrix.T) @ operand
                            reduce, batchsum   operand: its sum over features, or over steps and rows
                            outer              left, right: the sum of left right^T over steps and rows
    outputs, sums       name of the value by name: one a step, and one a run
    """
    printer = Printer(ranks(graph))
    return {
        "name": graph.name,
        "backwards": graph.backwards,
        "inputs": _shapes(graph.inputs),
        "parameters": _shapes(graph.parameters),
        "states": {c.name: {"current": c.current.name, "next": c.next.name} for c in graph.states},
        "ops": [_op(op, printer) for op in graph.ops],
        "outputs": {name: value.name for name, value in graph.outputs},
        "sums": {name: value.name for name, value in graph.sums}
        | {s.value.name: s.update.name for s in graph.statistics},
    }


def _shapes(values: Iterable[Value]) -> dict[str, list[Any]]:
    return {value.name: list(value.shape) for value in values}


def _op(op: Op, printer: Printer) -> Json:
    head = {"op": type(op).__name__.lower(), "out": op.out.name, "shape": list(op.out.shape)}
    match op:
        case Pointwise(_, expr):
            return {**head, "expression": printer(expr)}
        case Product(_, matrix, operand, transposed):
            return {**head, "matrix": matrix.name, "operand": operand.name, "transposed": transposed}
        case Outer(_, left, right):
            return {**head, "left": left.name, "right": right.name}
        case Reduce(_, operands):
            return {**head, "operands": _names(operands)}
        case BatchSum(_, operand):
            return {**head, "operand": operand.name}


# ---------------------------------------------------------------------------------------------- the plan


def planned(cell: Cell) -> Json:
    """What runs when, in which memory.

    name, class     text
    fields          of `Params`: name, members (the cell's own names, stacked in this order), shape, trainable
    step            forward and backward, each with buffers, before, loop and after
    first, start    the same for the rule of a first step and for trained initial states; null without such
    summary         see `summary`

    A direction's buffers have name, kind, width and members, and saved: whether the tape holds it. `before`,
    `loop` and `after` list stages, each with its kind in `stage`:

        matmul      out, operand, weight, transposed, add: out (+)= operand @ weight.T, or @ weight
        kernel      size, static, ops (out and expression): elementwise
        sum         out, operand: over the features
        outersum    weight, left, right, add: gradient of the weight (+)= left.T @ right over steps and rows
        columnsum   out, operand: over all steps and rows

    `out`, `operand`, `left`, `right` are lists of values that lie side by side; a weight has field, members,
    rows (from, to) and columns (from, to; null for all).
    """
    made = plan(cell, arrays=True)
    return {
        "name": cell.name,
        "class": made.kind,
        "fields": list(map(_field, made.fields)),
        "step": _rule(made.step),
        "first": _rule(made.rule(FIRST_STEP)),
        "start": _rule(made.rule(START_STATES)),
        "summary": summary(numbers.of_plan(made)),
    }


def _field(field: Field) -> Json:
    shape = [field.height, field.width] if field.columns else [field.height] if field.rows else []
    return {
        "name": field.name,
        "members": list(field.members),
        "shape": list(map(arithmetic, shape)),
        "trainable": field.trainable,
    }


def _rule(rule: Rule | None) -> Json | None:
    if rule is None:
        return None
    saved = {buffer.name for buffer in rule.saved}
    return {"forward": _schedule(rule.forward, saved), "backward": _schedule(rule.backward, set())}


def _schedule(schedule: Schedule, saved: set[str]) -> Json:
    ranks = {op.out.name: k for k, op in enumerate(_pointwise(schedule.stages))}
    printer = Printer(ranks)
    return {
        "buffers": [{**_buffer(buffer), "saved": buffer.name in saved} for buffer in schedule.buffers],
        "before": [_stage(stage, printer) for stage in schedule.before],
        "ahead": [_stage(stage, printer) for stage in schedule.ahead],
        "loop": [_stage(stage, printer) for stage in schedule.loop],
        "after": [_stage(stage, printer) for stage in schedule.after],
    }


def _pointwise(stages: Iterable[Stage]) -> list[Pointwise]:
    return [op for stage in stages if isinstance(stage, Kernel) for op in stage.ops]


def _buffer(buffer: Buffer) -> Json:
    return {
        "name": buffer.name,
        "kind": buffer.kind,
        "width": arithmetic(buffer.width),
        "members": list(buffer.members),
    }


def _stage(stage: Stage, printer: Printer) -> Json:
    head: Json = {"stage": type(stage).__name__.lower()}
    match stage:
        case MatMul(out, operand, weights, transposed, add):
            ends = {"out": _names(out), "operand": _names(operand), "weights": [*map(_weight, weights)]}
            return {**head, **ends, "transposed": transposed, "add": add}
        case Kernel(ops, size, static):
            lines = [{"out": op.out.name, "expression": printer(op.expr)} for op in ops]
            return {**head, "size": size, "static": static, "ops": lines}
        case Sum(out, operand, add):
            return {**head, "out": [out.name], "operand": _names(operand), "add": add}
        case OuterSum(weight, left, right, add):
            return {
                **head,
                "weight": _weight(weight),
                "left": _names(left),
                "right": _names(right),
                "add": add,
            }
        case ColumnSum(out, operand):
            return {**head, "out": _names(out), "operand": _names(operand)}


def _names(values: Iterable[Value]) -> list[str]:
    return [value.name for value in values]


def _weight(weight: Weight) -> Json:
    return {
        "field": weight.field,
        "members": list(weight.members),
        "rows": [arithmetic(weight.start), arithmetic(weight.stop)],
        "columns": None if weight.columns is None else list(map(arithmetic, weight.columns)),
    }


# ---------------------------------------------------------------------------------------------- two cells


def difference(found: Difference) -> Json:
    """How two cells compare.

    left, right            names of the cells
    verdict                same, same up to a change of parameters, or different
    renaming               pairs of text: what is equal
    equations, first_step  {mark, left, right}: mark is same, rewritten or different
    error                  largest difference on random numbers; null where they cannot be run side by side
    note                   text
    """
    words = {ALIKE: "same", MOVED: "rewritten", UNLIKE: "different"}

    def rows(lines: Iterable[Line]) -> list[dict[str, str]]:
        return [{"mark": words[line.mark], "left": line.left, "right": line.right} for line in lines]

    return {
        "left": found.left,
        "right": found.right,
        "verdict": found.verdict,
        "renaming": [list(pair) for pair in found.renaming],
        "equations": rows(found.equations),
        "first_step": rows(found.first_step),
        "error": None if found.error is None or not isfinite(found.error) else found.error,
        "note": found.note,
    }
