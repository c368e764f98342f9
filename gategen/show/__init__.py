"""A cell at any stage, for people, for papers (`latex.py`) and for programs (`export.py`).

What is here is the choice among them, the text for people, and the spec file that `gategen new` writes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from gategen import plan
from gategen import summary as numbers
from gategen.backends.cupy.launches import launches, rows
from gategen.graph import text
from gategen.graph.adjoint import adjoint
from gategen.show import export, latex
from gategen.spec import language as lang
from gategen.spec.cell import Array, Cell
from gategen.spec.language import Eq, Shape, Size, as_said
from gategen.spec.printer import ATOM, Printer
from gategen.spec.text.writer import write


def show(cell: Cell, stage: str, form: str) -> Any:
    """One stage of a cell: text, or for "json" what `json.dumps` takes (see `export.py`)."""
    views: dict[tuple[str, str], Callable[[Cell], Any]] = {
        ("equations", "text"): write,
        ("equations", "latex"): latex.equations,
        ("equations", "json"): export.equations,
        ("graph", "text"): lambda cell: "\n\n".join(map(text, export.both_steps(cell))),
        ("graph", "latex"): latex.graph,
        ("graph", "json"): export.graphs,
        ("adjoint", "text"): lambda cell: "\n\n".join(map(text, map(adjoint, export.both_steps(cell)))),
        ("adjoint", "latex"): latex.gradients,
        ("adjoint", "json"): export.adjoints,
        ("plan", "text"): lambda cell: plan_text(plan.plan(cell, arrays=True)),
        ("plan", "latex"): lambda cell: latex.plan_table(plan.plan(cell, arrays=True)),
        ("plan", "json"): export.planned,
        ("kernels", "text"): kernels_text,
        ("kernels", "latex"): latex.launch_table,
        ("kernels", "json"): export.launched,
    }
    return views[stage, form](cell)


# ------------------------------------------------------------------------------------------ text


def plan_text(made: plan.Plan) -> str:
    """The plan, and under it what it comes to, and which loops CUDA takes all steps of in one launch."""
    found = (*numbers.rows(numbers.of_plan(made)), *time_loops(made))
    return "\n".join([str(plan.text(made)), "", *listing(found)])


def listing(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Rows of three columns, of which the first is left out where it is as above."""
    last = ""
    for head, way, what in rows:
        yield f"{'' if head == last else head:12}{way:10}{what}" if way else f"{head:12}{what}"
        last = head


def kernels_text(cell: Cell) -> str:
    """Which kernels of the CuPy module take all steps, and what is launched beside them."""
    return "\n".join(listing(row for found in launches(plan.plan(cell)) for row in rows(found)))


def time_loops(made: plan.Plan) -> Iterator[tuple[str, str, str]]:
    """For CUDA each loop that is one stage of all steps: a title, the direction and the stage."""
    if made.kind != "recurrent":
        step = plan.loops(plan.plan(made.cell)).step
        for way, schedule in (("forward", step.forward), ("backward", step.backward)):
            for stage in schedule.stages:
                if isinstance(stage, plan.TimeLoop):
                    yield "for CUDA", way, plan.stage_text(stage, schedule)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


# ------------------------------------------------------------------------------------------ a spec file


class Spec(Printer):
    """Expressions as a spec file writes them; notes the functions it needs."""

    def __init__(self, rank: dict[str, int] | None = None) -> None:
        super().__init__(rank)
        self.used: set[str] = set()

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, lang.Next):
            return f"{expr.state}.next", ATOM
        if isinstance(expr, lang.Count):
            self.used.add("size")
            return f'size("{expr}")', ATOM
        if isinstance(expr, Relational) and expr.rel_op == "==":
            self.used.add("equal")
            return f"equal({self(expr.lhs)}, {self(expr.rhs)})", ATOM
        return super().spell(expr)

    def number(self, value: sp.Number) -> tuple[str, int]:
        if isinstance(value, sp.Rational) and not value.is_Integer:
            self.used.add("Rational")
            return f"Rational({value.p}, {value.q})", ATOM
        return super().number(value)

    def call(self, expr: sp.Function) -> str:
        written = super().call(expr)
        self.used.add(written.partition("(")[0])
        return written

    def of_matrices(self, expr: sp.Function) -> tuple[str, int]:
        word = lang.MATRIX_WORDS[type(expr)]
        self.used |= {word} if word.isidentifier() else set()
        return super().of_matrices(expr)

    def applied(self, word: str, args: str) -> str:
        self.used.add(word)
        return super().applied(word, args)

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if abs(exponent) == sp.Rational(1, 2):
            self.used.add("sqrt")
        return super().power(base, exponent)

    def key_text(self, expr: sp.Basic) -> str:
        return Printer()(expr)


def spec_source(cell: Cell, name: str) -> str:
    """A commented spec file of a cell called `name` with the equations of `cell`."""
    printer = Spec({eq.lhs.name: k for k, eq in enumerate(cell.equations)})
    body = [f'    "{name}",', *(_written(eq, printer) for eq in cell.equations)]
    if cell.outputs != (cell.states[0].next,):
        outputs = ", ".join(map(printer, cell.outputs))
        body.append(f"    output=({outputs})," if len(cell.outputs) > 1 else f"    output={outputs},")
    if cell.first:
        body.append("    # Instead of the equations above at the first step, when no initial state is given.")
        body += ["    first=[", *("    " + _written(eq, printer) for eq in cell.first), "    ],"]
    body.append(f"    title={_quoted(f'{name}, after {cell.name}')},")
    declarations = _declarations(cell, printer)
    patterns = {word for a in cell.arrays for c in a.contents for word in c.words}
    words = {"Cell", "Eq", *printer.used, *patterns, *(kind for kind, _ in declarations)}
    return "\n".join(
        [
            _docstring(cell, name),
            "",
            *_imports(words),
            "",
            *_commented(declarations),
            "",
            "# Everything is elementwise but W @ v. The order of the equations does not matter.",
            f"{name} = Cell(",
            *body,
            ")",
            "",
        ]
    )


def _docstring(cell: Cell, name: str) -> str:
    what = _wrapped(f"The equations are those of gategen's `{cell.name}`: {cell.title}.", 100)
    source = _wrapped(cell.reference, 100)
    use = [f"    gategen build {name}.py     writes generated/{name}_numpy.py and its like",
           f"    gategen verify {name}.py    checks the derived gradients"]  # fmt: skip
    text = "\n".join([f"{name}: a recurrent cell to start from.", "", *what, *source, "", *use])
    return '"""' + text.replace("\\", "\\\\").replace('"', "'") + '\n"""'


def _imports(words: Iterable[str]) -> list[str]:
    sympys = sorted({"Rational", "erf"} & set(words))
    ours = sorted(set(words) - set(sympys), key=lambda word: (word.islower(), word))
    names = textwrap.wrap(", ".join(ours), 100)
    one_line = f"from gategen import {names[0]}"
    lines = (
        [one_line]
        if len(names) == 1
        else ["from gategen import (", *(f"    {n.rstrip(',')}," for n in names), ")"]
    )
    return [*([f"from sympy import {', '.join(sympys)}", ""] if sympys else []), *lines]


_COMMENTS = {
    "inputs": "Read at every step. The first is the sequence; others are passed by name.",
    "states": "Carried from step to step; h.next is the value after the step.",
    "matrices": "Weights, for @ alone. Their shapes are inferred from use.",
    "vectors": "Biases, gains, peepholes.",
    "scalars": "One trained number each.",
    "constants": "Fixed numbers: gategen build --set NAME=VALUE changes them.",
    "gates": "Intermediate values, each defined by exactly one equation.",
}


def _commented(declarations: Iterable[tuple[str, str]]) -> list[str]:
    """The declarations, under a comment where a new kind begins."""
    lines: list[str] = []
    last = ""
    for kind, line in declarations:
        lines += ["", f"# {_COMMENTS[kind]}"] if kind != last else []
        lines.append(line)
        last = kind
    return lines[1:]


def _declarations(cell: Cell, printer: Spec) -> list[tuple[str, str]]:
    """Kind and line; neighbours that are alike share one. States may start from parameters."""

    def state_options(state: Any) -> str:
        initial = "" if state.initial == 0 else f", initial={printer(state.initial)}"
        return _option("size", state.size, "hidden") + initial

    def of_kind(kind: type) -> list[Any]:
        """Those of the input first, as people write them."""
        return sorted(
            (a for a in cell.arrays if isinstance(a.members[0], kind)),
            key=lambda a: (_parameter_options(a), "input" not in str(a.shape)),
        )

    gates = dict.fromkeys(eq.lhs for eq in cell.all_equations if isinstance(eq.lhs, lang.Gate))
    return [
        *_declared("inputs", cell.inputs, lambda x: _option("size", x.size, "input")),
        *_declared("matrices", of_kind(lang.Matrix), _parameter_options),
        *_declared("vectors", of_kind(lang.Vector), _parameter_options),
        *_declared("scalars", of_kind(lang.Scalar), _parameter_options),
        *(("constants", f"{c} = constants({c}={printer(c.value)})") for c in cell.constants),
        *_declared("states", cell.states, state_options),
        *_declared("gates", tuple(gates), lambda _: ""),
    ]


def _declared(kind: str, symbols: Iterable[Any], options: Callable[[Any], str]) -> Iterator[tuple[str, str]]:
    for given, alike in groupby(symbols, options):
        names = [symbol.name for symbol in alike]
        for part in (names[k : k + 8] for k in range(0, len(names), 8)):
            yield kind, f'{", ".join(part)} = {kind}("{" ".join(part)}"{given})'


def _parameter_options(array: Array) -> str:
    parameter: Any = array.members[0]
    trained = "" if parameter.trainable else ", trainable=False"
    trained += f", initial={array.initial}" if array.initial else ""
    rows = parameter.block.rows if parameter.block else None
    if isinstance(parameter, lang.Matrix):
        shape = (rows, parameter.shape[1]) if rows and parameter.shape else parameter.shape
        return _option("shape", shape, None) + trained
    if isinstance(parameter, lang.Vector):
        return _option("size", rows or parameter.size, "hidden") + trained
    return trained


def _option(word: str, value: Size | Shape | None, default: Size | None) -> str:
    plain = as_said(value)
    return "" if plain == default else f", {word}={plain!r}".replace("'", '"')


def _written(eq: Eq, printer: Spec) -> str:
    return f"    Eq({printer(eq.lhs)}, {printer(eq.rhs)}),"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
