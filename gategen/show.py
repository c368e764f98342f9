"""A cell as text for people, for LaTeX and for programs, and written back as a spec file to start from."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar

import sympy as sp
from sympy.core.relational import Relational

from gategen import language as lang
from gategen.adjoint import adjoint
from gategen.cell import Cell
from gategen.errors import UnsupportedError
from gategen.graph import BatchSum, Graph, Op, Outer, Pointwise, Product, Reduce, Value, flatten, ranks, text
from gategen.language import Eq, Shape, Size
from gategen.printer import ATOM, PRODUCT, Printer, leading_minus
from gategen.text import write

FIRST = "first step, where no initial state is given:"


def show(cell: Cell, stage: str, form: str) -> Any:
    """One stage of a cell: text, or for "json" what `json.dumps` takes. Raises `UnsupportedError`."""
    views: dict[tuple[str, str], Callable[[Cell], Any]] = {
        ("equations", "text"): write,
        ("equations", "latex"): equations_latex,
        ("equations", "json"): equations_json,
        ("graph", "text"): lambda cell: "\n\n".join(map(text, _graphs(cell))),
        ("graph", "json"): lambda cell: list(map(graph_json, _graphs(cell))),
        ("adjoint", "text"): lambda cell: "\n\n".join(text(adjoint(graph)) for graph in _graphs(cell)),
        ("adjoint", "json"): lambda cell: [graph_json(adjoint(graph)) for graph in _graphs(cell)],
        ("plan", "text"): plan_text,
    }
    if (stage, form) not in views:
        forms = " or ".join(other for known, other in views if known == stage)
        raise UnsupportedError(f"the {stage} of a cell has no {form} form: --format {forms}")
    return views[stage, form](cell)


def _graphs(cell: Cell) -> list[Graph]:
    """The step, and the first step where it has equations of its own."""
    return [flatten(cell), *([flatten(cell, first=True)] if cell.first else [])]


def plan_text(cell: Cell) -> str:
    from gategen import plan

    return str(plan.text(plan.plan(cell)))


# ------------------------------------------------------------------------------------------ text


def equations_text(cell: Cell) -> str:
    """Title, equations, first-step rule, constants and where the cell comes from."""
    lines = [f"{cell.name}: {cell.title}", "", *_aligned(cell.text())]
    if cell.first:
        lines += ["", FIRST, "", *_aligned(cell.text(cell.first))]
    starts = [f"{state} = {Printer()(state.initial)}" for state in cell.states if state.initial != 0]
    notes = [
        ("output", [str(symbol) for symbol in cell.outputs]),
        ("starts from", starts),
        ("constants", [f"{c} = {Printer()(c.value)}" for c in cell.constants]),
        ("reference", _wrapped(cell.reference, 94)),
    ]
    width = max(len(word) for word, found in notes if found) + 2
    for word, found in notes:
        separator = "\n" + " " * width if word == "reference" else ", "
        lines += ["", *f"{word:{width}}{separator.join(found)}".splitlines()] if found else []
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _aligned(equations: Sequence[str]) -> list[str]:
    split = [equation.split(" = ", 1) for equation in equations]
    width = max(len(left) for left, _ in split)
    return [f"    {left:{width}} = {right}" for left, right in split]


# ------------------------------------------------------------------------------------------ LaTeX

_GREEK = frozenset(
    """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi
    psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
    """.split()
)


class Latex(Printer):
    """Equations as LaTeX: the products between vectors, entry by entry, are circled dots."""

    words: ClassVar[dict[str, str]] = {
        "sigmoid": r"\sigma",
        **{name: rf"\{name}" for name in ("tanh", "exp", "log", "sin", "cos")},
        "maximum": r"\max",
        "minimum": r"\min",
        "sum_": r"\operatorname{sum}",
    }
    relations: ClassVar[dict[str, str]] = {"==": "=", "<=": r"\le", ">=": r"\ge"}

    def at(self, expr: sp.Basic, outer: int) -> str:
        latex, own = self.spell(expr)
        return _bracketed(latex) if own < outer else latex

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, sp.Symbol):
            return _latex_name(expr.name), ATOM
        if isinstance(expr, lang.matvec):
            matrix, operand, transposed = expr.args
            name = _latex_name(matrix.name) + (r"^{\top}" if transposed else "")
            return f"{name} {self.at(operand, ATOM)}", PRODUCT
        return super().spell(expr)

    def number(self, value: sp.Number) -> tuple[str, int]:
        if isinstance(value, sp.Rational) and not value.is_Integer:
            return rf"\frac{{{value.p}}}{{{value.q}}}", PRODUCT
        mantissa, _, exponent = super().number(value)[0].partition("e")
        power = rf"10^{{{int(exponent)}}}" if exponent else ""
        scaled = power if mantissa == "1" else rf"{mantissa} \cdot {power}"
        return scaled if power else mantissa, PRODUCT if power or value < 0 else ATOM

    def call(self, expr: sp.Function) -> str:
        name, args = type(expr).__name__, list(map(self, expr.args))
        if name == "Abs":
            return rf"\left|{args[0]}\right|"
        if name == "concat":
            return rf"\left[{'; '.join(args)}\right]"
        if name == "where":
            condition, a, b = args
            return rf"\begin{{cases}} {a} & {condition} \\ {b} & \text{{otherwise}} \end{{cases}}"
        word = self.words.get(name, rf"\operatorname{{{_escaped(name)}}}")
        return word + _bracketed(", ".join(args))

    def product(self, expr: sp.Expr) -> tuple[str, int]:
        if leading_minus(expr):
            return f"-{self.at(-expr, PRODUCT)}", 1
        above, below = sp.fraction(expr)
        if below != 1:
            return rf"\frac{{{self(above)}}}{{{self(below)}}}", PRODUCT
        numbers = [
            f for f in sp.Mul.make_args(expr) if isinstance(f, (sp.Number, lang.Scalar, lang.Constant))
        ]
        vectors = [f for f in sp.Mul.make_args(expr) if f not in numbers]
        parts = [r" \, ".join(self.at(f, PRODUCT) for f in self.factors(numbers))] if numbers else []
        parts += [r" \odot ".join(self.at(f, PRODUCT) for f in self.factors(vectors))] if vectors else []
        return r" \, ".join(parts), PRODUCT

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if leading_minus(exponent):
            return rf"\frac{{1}}{{{self(base**-exponent)}}}", PRODUCT
        if exponent == sp.Rational(1, 2):
            return rf"\sqrt{{{self(base)}}}", ATOM
        return f"{self.at(base, ATOM)}^{{{self(exponent)}}}", PRODUCT

    def key_text(self, expr: sp.Basic) -> str:
        return Printer()(expr)


def _bracketed(latex: str) -> str:
    return rf"\left({latex}\right)"


def _latex_name(name: str) -> str:
    stem, _, below = name.removesuffix("'").partition("_")
    prime = "'" if name.endswith("'") else ""
    return _latex_word(stem) + prime + (f"_{{{_latex_word(below)}}}" if below else "")


def _latex_word(word: str) -> str:
    if word in _GREEK:
        return rf"\{word}"
    return word if len(word) == 1 or word.isdigit() else rf"\mathrm{{{_escaped(word)}}}"


def _escaped(word: str) -> str:
    return word.replace("_", r"\_")


def equations_latex(cell: Cell) -> str:
    """An `aligned` block, and another one for the first-step rule."""
    blocks = [_latex_block(cell.equations)]
    if cell.first:
        blocks += [f"% {FIRST}", _latex_block(cell.first)]
    return "\n".join([f"% {cell.name}: {cell.title}", *blocks])


def _latex_block(equations: Sequence[Eq]) -> str:
    latex = Latex({eq.lhs.name: k for k, eq in enumerate(equations)})
    lines = [f"    {latex(eq.lhs)} &= {latex(eq.rhs)}" for eq in equations]
    return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])


# ------------------------------------------------------------------------------------------ for programs


def equations_json(cell: Cell) -> dict[str, Any]:
    """Everything a spec says, with the sizes that were inferred."""
    return {
        "name": cell.name,
        "title": cell.title,
        "reference": cell.reference,
        "sizes": list(cell.sizes),
        "inputs": {x.name: cell.size_of(x) for x in cell.inputs},
        "states": {s.name: {"size": s.size, "initial": Printer()(s.initial)} for s in cell.states},
        "parameters": {
            p.name: {"role": p.role, "shape": _shape(cell, p), "trainable": p.trainable}
            for p in cell.parameters
        },
        "constants": {c.name: float(c.value) for c in cell.constants},
        "outputs": [str(symbol) for symbol in cell.outputs],
        "equations": _pairs(cell, cell.equations),
        "first": _pairs(cell, cell.first),
    }


def _shape(cell: Cell, parameter: Any) -> list[Any]:
    if isinstance(parameter, lang.Matrix):
        return [list(size) if isinstance(size, tuple) else size for size in cell.shapes[parameter.name]]
    return [] if isinstance(parameter, lang.Scalar) else [parameter.size]


def _pairs(cell: Cell, equations: Sequence[Eq]) -> list[dict[str, str]]:
    split = (equation.split(" = ", 1) for equation in (cell.text(equations) if equations else ()))
    return [{"name": left, "expression": right} for left, right in split]


def graph_json(graph: Graph) -> dict[str, Any]:
    """The ops of a graph in order, and what goes in and comes out."""
    printer = Printer(ranks(graph))
    return {
        "name": graph.name,
        "backwards": graph.backwards,
        "inputs": _shapes(graph.inputs),
        "parameters": _shapes(graph.parameters),
        "states": {c.name: {"current": c.current.name, "next": c.next.name} for c in graph.states},
        "ops": [_op_json(op, printer) for op in graph.ops],
        "outputs": {name: value.name for name, value in graph.outputs},
        "sums": {name: value.name for name, value in graph.sums},
    }


def _shapes(values: Iterable[Value]) -> dict[str, list[Any]]:
    return {value.name: list(value.shape) for value in values}


def _op_json(op: Op, printer: Printer) -> dict[str, Any]:
    head = {"op": type(op).__name__.lower(), "out": op.out.name, "shape": list(op.out.shape)}
    match op:
        case Pointwise(_, expr):
            return {**head, "expression": printer(expr)}
        case Product(_, matrix, operand, transposed):
            return {**head, "matrix": matrix.name, "operand": operand.name, "transposed": transposed}
        case Outer(_, left, right):
            return {**head, "left": left.name, "right": right.name}
        case Reduce(_, operand) | BatchSum(_, operand):
            return {**head, "operand": operand.name}


# ------------------------------------------------------------------------------------------ a spec file


class Spec(Printer):
    """Expressions as a spec file writes them; notes the functions it needs."""

    def __init__(self, rank: dict[str, int] | None = None) -> None:
        super().__init__(rank)
        self.used: set[str] = set()

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, lang.Next):
            return f"{expr.state}.next", ATOM
        if isinstance(expr, lang.step):
            self.used.add("where")
            return f"where({self(expr.args[0])} > 0, 1, 0)", ATOM
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
    words = {"Cell", "Eq", *printer.used, *(kind for kind, _ in declarations)}
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
            (p for p in cell.parameters if isinstance(p, kind)),
            key=lambda p: (_parameter_options(p), "input" not in str(cell.shapes.get(p.name, ""))),
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


def _parameter_options(parameter: Any) -> str:
    trained = "" if parameter.trainable else ", trainable=False"
    if isinstance(parameter, lang.Matrix):
        return _option("shape", parameter.shape, None) + trained
    return (_option("size", parameter.size, "hidden") if isinstance(parameter, lang.Vector) else "") + trained


def _option(word: str, value: Size | Shape | None, default: Size | None) -> str:
    return "" if value == default else f", {word}={value!r}".replace("'", '"')


def _written(eq: Eq, printer: Spec) -> str:
    return f"    Eq({printer(eq.lhs)}, {printer(eq.rhs)}),"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
