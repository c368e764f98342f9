"""A cell at each stage as plain data for programs: dictionaries, lists, strings, numbers, for `json.dumps`.

Keys keep their meaning from release to release; new ones may come. Expressions are text in the language of
specs. A size is its name or an integer; a width or an offset is Python arithmetic over size names
(`"2*hidden"`), as are the formulas of a summary. What each function gives is told in its docstring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from typing import Any

from gategen import summary as numbers
from gategen.backends.cupy.launches import launches
from gategen.diff import ALIKE, MOVED, UNLIKE, Difference, Line
from gategen.graph import (
    BatchSum,
    Contract,
    CumSum,
    Graph,
    MatrixOp,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Shift,
    Value,
    flatten,
    ranks,
    weights,
)
from gategen.graph.adjoint import adjoint
from gategen.plan import (
    FIRST_STEP,
    START_STATES,
    Buffer,
    ColumnSum,
    Contraction,
    Field,
    Kernel,
    MatMul,
    Newton,
    OuterSum,
    Rule,
    RunningSum,
    Schedule,
    Shifted,
    Stage,
    Sum,
    TimeLoop,
    Weight,
    loops,
    plan,
)
from gategen.spec.cell import Cell
from gategen.spec.language import Eq, Extent, Shape, as_said, regrouped
from gategen.spec.printer import Printer

Json = dict[str, Any]

arithmetic = partial(numbers.formula, power="**{}", times="*", names=True)


def equations(cell: Cell) -> Json:
    """Everything a spec says, with the sizes that were inferred.

    name, title, reference  text
    sizes                   size names
    inputs                  size by name, the sequence first
    states                  by name: size (of a matrix of every row a list of sizes), initial (an expression)
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
        "inputs": {x.name: _extent(x.size) for x in cell.inputs},
        "states": {s.name: {"size": _extent(s.size), "initial": Printer()(s.initial)} for s in cell.states},
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


def _extent(size: Extent) -> Any:
    """A size, of a matrix of every row the list of its sizes."""
    return list(size) if isinstance(size, tuple) else regrouped(size)


def _lists(shape: Shape) -> list[Any]:
    return [list(size) if isinstance(size, tuple) else size for size in as_said(shape)]


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
    """The graph of the step, that of the first step where the cell has a rule for it, and that of what is
    computed of parameters; see `graph`.
    """
    return list(map(graph, both_steps(cell)))


def adjoints(cell: Cell) -> list[Json]:
    """The backward steps of `graphs`; see `graph`."""
    return [graph(adjoint(forward)) for forward in both_steps(cell)]


def both_steps(cell: Cell) -> list[Graph]:
    """The step, the first step where it has equations of its own, and what is computed of parameters."""
    computed = weights(cell)
    first = [flatten(cell, first=True)] if cell.first else []
    return [flatten(cell), *first, *([computed] if computed else [])]


def graph(graph: Graph) -> Json:
    """The ops of a graph in order, and what goes in and comes out.

    name, backwards     text; whether it runs from the last step to the first
    inputs, parameters  shape by name: what is read at each step, and what is there once
    states              by name: the values current (before the step) and next (after it)
    ops                 each with op, out, shape, and by its kind
                            pointwise          expression
                            product            matrix, operand, transposed: matrix (or matrix.T) @ operand;
                                               along: which axis of a matrix is multiplied, else null
                            reduce             operands, how: "sum", "max" or "bound" (the largest, through
                                               which nothing is differentiated) over their features, or over
                                               the axes that out does not have
                            cumsum             operand, backwards: its running sum from the first feature
                                               on, or from the last; axis: along which one, else null
                            shift              operand, by, axis: the value by places further on along one
                                               axis, with zeros before it, or behind it where by is below 0
                            batchsum           operand: its sum over steps and rows
                            matrixop           word, operands: an op on static matrices
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
            ends = {"matrix": matrix.name, "operand": operand.name}
            return {**head, **ends, "transposed": transposed, "along": op.along or None}
        case Outer(_, left, right) | Contract(_, left, right):
            return {**head, "left": left.name, "right": right.name}
        case Reduce(_, operands, how):
            return {**head, "operands": _names(operands), "how": how}
        case CumSum(_, operand, backwards, axis):
            return {**head, "operand": operand.name, "backwards": backwards, "axis": axis or None}
        case Shift(_, operand, by, axis):
            return {**head, "operand": operand.name, "by": by, "axis": axis}
        case BatchSum(_, operand):
            return {**head, "operand": operand.name}
        case MatrixOp(_, word, operands):
            return {**head, "word": word, "operands": _names(operands)}


# ---------------------------------------------------------------------------------------------- the plan


def planned(cell: Cell) -> Json:
    """What runs when, in which memory.

    name, class     text
    fields          of `Params`: name, members (the cell's own names, stacked in this order), shape, trainable
    computed        the same of what is computed of them; only where there is such
    step            forward and backward, each with buffers, before, loop and after
    first, start    the same for the rule of a first step and for trained initial states; null without such
    cuda            the step where CUDA takes all steps in one launch, a stage behind an empty loop; else null
    parallel        how an iteration finds the states of all steps at once: what is carried from step to step,
                    `linear` where one iteration is all, and the stages of a step; only where that is possible
    summary         see `summary`

    A direction's buffers have name, kind, width, axes (of a matrix of every row, else null) and members, and
    saved: whether the tape holds it. `before`,
    `loop` and `after` list stages, each with its kind in `stage`:

        matmul      out, operand, weight, transposed, add: out (+)= operand @ weight.T, or @ weight; along:
                    which axis of a matrix is multiplied, else null
        kernel      size, static, ops (out and expression): elementwise
        sum         out, operand, add, how: over the features (of a matrix over the axes that out does not
                    have), "sum", or the largest ("max", "bound")
        runningsum  out, operand, backwards: the running sum over the features, or from the last one on;
                    axis: along which one of several, else null
        shifted     out, operand, by, axis: by places further on along one axis, 0 where nothing is
        contraction out, left, right: left * right, summed over the axes that out does not have
        outersum    weight, left, right, add: gradient of the weight (+)= left.T @ right over steps and rows;
                    along: which axes of matrices are those of the weight, else null
        columnsum   out, operand: over all steps and rows
        timeloop    ops, size, carries (a value before the step, and what takes its place), stores (what is
                    kept for every step), sums (a value, and its sum over the steps)

    `out`, `operand`, `left`, `right` are lists of values that lie side by side; a weight has field, members,
    rows (from, to) and columns (from, to; null for all).
    """
    made = plan(cell, arrays=True)
    return {
        "name": cell.name,
        "class": made.kind,
        "fields": list(map(_field, made.fields)),
        **({"computed": list(map(_field, made.computed))} if made.computed else {}),
        "step": _rule(made.step),
        "first": _rule(made.rule(FIRST_STEP)),
        "start": _rule(made.rule(START_STATES)),
        "cuda": None if made.kind == "recurrent" else _rule(loops(plan(cell)).step),
        **({"parallel": _newton(made.newton)} if made.newton else {}),
        "summary": summary(numbers.of_plan(made)),
    }


def launched(cell: Cell) -> Json:
    """What the CuPy module launches in a run, by direction.

    entries         kernels that take all steps at once, entry by entry, whatever the sizes
    stretches       those of them that can cut the steps into stretches, which takes two launches more
    blocks          the kernel that takes all steps at once by blocks that wait for each other; else null
    units, most     it does so where B * units, a size, is at most so much
    rows            the kernel that takes all steps at once by blocks that take a row each; else null
    steps           kernels and products of every step: where there is more, or no such kernel
    first, start    those of a first step and of trained initial states; null without such
    beside          those that are done once, however many steps there are
    """
    return {"name": cell.name} | {
        found.way: {
            "entries": list(found.entries),
            "stretches": list(found.stretches),
            "blocks": found.blocks or None,
            "units": found.units or None,
            "most": found.most if found.blocks else None,
            "rows": found.rows or None,
            "steps": asdict(found.step),
            "first": found.first and asdict(found.first),
            "start": found.start and asdict(found.start),
            "beside": asdict(found.beside),
        }
        for found in launches(plan(cell))
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


def _newton(newton: Newton) -> Json:
    stages = newton.rule.backward.stages
    printer = Printer({op.out.name: k for k, op in enumerate(_pointwise(stages))})
    return {
        "carried": [carry.name for carry in newton.carried],
        "linear": newton.linear,
        "step": [_stage(stage, printer) for stage in stages],
    }


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
    return [op for stage in stages if isinstance(stage, Kernel | TimeLoop) for op in stage.ops]


def _buffer(buffer: Buffer) -> Json:
    return {
        "name": buffer.name,
        "kind": buffer.kind,
        "width": arithmetic(buffer.width),
        "axes": list(buffer.axes) or None,
        "members": list(buffer.members),
    }


def _stage(stage: Stage, printer: Printer) -> Json:
    head: Json = {"stage": type(stage).__name__.lower()}
    match stage:
        case MatMul(out, operand, weights, transposed, add, _, along):
            ends = {"out": _names(out), "operand": _names(operand), "weights": [*map(_weight, weights)]}
            return {**head, **ends, "transposed": transposed, "add": add, "along": along or None}
        case Kernel(ops, size, static):
            lines = [{"out": op.out.name, "expression": printer(op.expr)} for op in ops]
            return {**head, "size": _extent(size), "static": static, "ops": lines}
        case Sum(out, operand, add, how):
            return {**head, "out": [out.name], "operand": _names(operand), "add": add, "how": how}
        case RunningSum(out, operand, backwards, axis):
            ends = {"out": [out.name], "operand": [operand.name]}
            return {**head, **ends, "backwards": backwards, "axis": axis or None}
        case Shifted(out, operand, by, axis):
            return {**head, "out": [out.name], "operand": [operand.name], "by": by, "axis": axis}
        case Contraction(out, left, right):
            return {**head, "out": [out.name], "left": [left.name], "right": [right.name]}
        case OuterSum(weight, left, right, add, _, along):
            ends = {"left": _names(left), "right": _names(right)}
            return {**head, "weight": _weight(weight), **ends, "add": add, "along": list(along) or None}
        case ColumnSum(out, operand):
            return {**head, "out": _names(out), "operand": _names(operand)}
        case TimeLoop(ops, size, carries, stores, sums):
            lines = [{"out": op.out.name, "expression": printer(op.expr)} for op in ops]
            pairs = {"carries": [*map(_names, carries)], "sums": [*map(_names, sums)]}
            return {**head, "size": _extent(size), "ops": lines, "stores": _names(stores), **pairs}


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
