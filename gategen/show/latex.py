r"""A cell at each stage as LaTeX, for papers: `aligned` equations, and the plan as a `tabular` listing.

All of it needs `amsmath` alone. Vectors are multiplied entry by entry with circled dots; products with a
matrix stand side by side. In the derived gradients

    \delta v                  is the gradient of the loss by the value v of this step,
    \delta h^{\leftarrow}     what the step after hands back for the state h,
    \partial L / \partial W   the gradient of a parameter, summed over steps t and rows b of the batch.

Products and invented names of short expressions are written out where they are read, as a paper would.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import ClassVar

import sympy as sp

from gategen import summary as numbers
from gategen.backends.cupy.launches import launches, rows
from gategen.graph import (
    BatchSum,
    Contract,
    CumSum,
    Graph,
    Length,
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
from gategen.plan import Plan, plan
from gategen.plan.text import buffer_text, field_text, newton_rows, stage_rows
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.contents import contents_of
from gategen.spec.elementwise import Row
from gategen.spec.functions import row_of
from gategen.spec.language import Eq
from gategen.spec.printer import ATOM, POWER, PRODUCT, SUM, Printer, leading_minus

FIRST = "first step, where no initial state is given:"

_GREEK = frozenset(
    """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi
    psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
    """.split()
)


class Latex(Printer):
    """Expressions as LaTeX: the products between vectors, entry by entry, are circled dots."""

    relations: ClassVar[dict[str, str]] = {"==": "=", "<=": r"\le", ">=": r"\ge"}

    def at(self, expr: sp.Basic, outer: int) -> str:
        latex, own = self.spell(expr)
        return bracketed(latex) if own < outer else latex

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, sp.Symbol):
            return self.symbol(expr)
        if isinstance(expr, lang.matvec):
            matrix, operand, transposed = expr.args
            if isinstance(matrix, lang.computed):
                return self.times(
                    self.at(matrix.args[0], POWER) + (r"^{\top}" if transposed else ""), operand
                )
            name = name_latex(matrix.name)
            name = rf"{superscript(name)}^{{\top}}" if transposed else name
            return self.times(name, operand)
        return super().spell(expr)

    def of_matrices(self, expr: sp.Function) -> tuple[str, int]:
        if isinstance(expr, lang.unit):
            return "I", ATOM
        inner = expr.args[0]
        if isinstance(expr, lang.leaf):
            return self.spell(inner)
        match expr:
            case lang.matmul():
                return r" \, ".join(self.at(arg, PRODUCT) for arg in expr.args), PRODUCT
            case lang.transposed():
                return transposed(self.at(inner, ATOM)), POWER
            case lang.inverse():
                return f"{superscript(self.at(inner, ATOM))}^{{-1}}", POWER
            case lang.frobenius():
                return rf"\left\|{self(inner)}\right\|_{{F}}", ATOM
        return upright(lang.MATRIX_WORDS[type(expr)]) + bracketed(self(inner)), ATOM

    def symbol(self, symbol: sp.Symbol) -> tuple[str, int]:
        return name_latex(symbol.name), ATOM

    def scalar(self, factor: sp.Expr) -> bool:
        """Whether a factor is one number, which takes no circled dot."""
        numbers = (sp.Number, lang.Scalar, lang.Constant, lang.Count, lang.frobenius)
        return isinstance(factor, numbers)

    def number(self, value: sp.Number) -> tuple[str, int]:
        if isinstance(value, sp.Rational) and not value.is_Integer:
            return rf"\frac{{{value.p}}}{{{value.q}}}", PRODUCT
        mantissa, _, exponent = super().number(value)[0].partition("e")
        power = rf"10^{{{int(exponent)}}}" if exponent else ""
        scaled = power if mantissa == "1" else rf"{mantissa} \cdot {power}"
        return scaled if power else mantissa, PRODUCT if power or value < 0 else ATOM

    def call(self, expr: sp.Function) -> str:
        word = self.name(expr)
        if isinstance(expr, lang.Word):
            return word + bracketed(self.arguments(expr))
        args = list(map(self, expr.args))
        if isinstance(expr, sp.Abs):
            return rf"\left|{args[0]}\right|"
        if isinstance(expr, lang.outer):
            v, k = (self.at(arg, ATOM) for arg in expr.args)
            return f"{v} {transposed(k)}"
        if isinstance(expr, lang.concat):
            return rf"\left[{'; '.join(args)}\right]"
        if isinstance(expr, lang.where):
            condition, a, b = args
            return rf"\begin{{cases}} {a} & {condition} \\ {b} & \text{{otherwise}} \end{{cases}}"
        return word + bracketed(", ".join(args))

    def over(self, expr: lang.Over | lang.Along) -> str:
        axis = rf"\mathrm{{{escaped(expr.axis)}}}"
        if isinstance(expr, lang.sum_over):
            return rf"\sum_{{{axis}}} {self.at(expr.args[0], PRODUCT)}"
        if isinstance(expr, lang.shifted):
            by = expr.args[1]
            return f"{{{self.at(expr.args[0], ATOM)}}}_{{{axis} {'-' if by > 0 else '+'} {abs(by)}}}"
        word = upright(expr.word.removesuffix("_"))
        return rf"{word}_{{{axis}}}{bracketed(', '.join(self.of_axis(expr)))}"

    def convolution(self, expr: lang.convolved) -> tuple[str, int]:
        axes = ", ".join(rf"\mathrm{{{escaped(axis)}}}" for axis in expr.axes)
        sides = [self.array(lang.stack_of(expr.weights)), self.at(expr.value, ATOM)]
        return rf" \ast_{{{axes}}} ".join(sides if expr.left else reversed(sides)), PRODUCT

    def name(self, expr: sp.Function) -> str:
        row = row_of(expr)
        return self.word(row) if row else upright(type(expr).__name__.removesuffix("_"))

    def word(self, row: Row) -> str:
        return row.latex or upright(row.name)

    def times(self, matrix: str, operand: sp.Expr) -> tuple[str, int]:
        return f"{matrix} {self.at(operand, ATOM)}", PRODUCT

    def times_weight(self, value: sp.Expr, matrix: sp.Expr, turned: sp.Expr) -> tuple[str, int]:
        if isinstance(matrix, lang.computed):
            name = self.at(matrix.args[0], POWER)
        else:
            name = name_latex(matrix.name)
        return f"{self.at(value, ATOM)} {transposed(name) if turned else name}", PRODUCT

    def array(self, name: str) -> str:
        return name_latex(name)

    def quoted(self, word: str) -> str:
        return rf"\text{{{word}}}"

    def keyword(self, word: str, value: str) -> str:
        return rf"\mathrm{{{word}}} = {value}"

    def applied(self, word: str, args: str) -> str:
        return upright(word) + bracketed(args)

    def row(self, text: str, k: int) -> str:
        return f"{text}_{{{k}}}"

    def product(self, expr: sp.Expr) -> tuple[str, int]:
        if leading_minus(expr):
            return f"-{self.at(-expr, PRODUCT)}", SUM
        above, below = sp.fraction(expr)
        if below != 1:
            return rf"\frac{{{self(above)}}}{{{self(below)}}}", PRODUCT
        numbers = [f for f in sp.Mul.make_args(expr) if self.scalar(f)]
        vectors = [f for f in sp.Mul.make_args(expr) if f not in numbers]
        parts = [r" \, ".join(self.at(f, PRODUCT) for f in self.factors(numbers))] if numbers else []
        parts += [r" \odot ".join(self.at(f, PRODUCT) for f in self.factors(vectors))] if vectors else []
        return r" \, ".join(parts), PRODUCT

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if leading_minus(exponent):
            return rf"\frac{{1}}{{{self(base**-exponent)}}}", PRODUCT
        if exponent == sp.Rational(1, 2):
            return rf"\sqrt{{{self(base)}}}", ATOM
        return f"{superscript(self.at(base, ATOM))}^{{{self(exponent)}}}", PRODUCT

    def key_text(self, expr: sp.Basic) -> str:
        return Printer()(expr)


# ------------------------------------------------------------------------------------------ names


def upright(name: str) -> str:
    return rf"\operatorname{{{escaped(name)}}}"


def bracketed(latex: str) -> str:
    return rf"\left({latex}\right)"


def name_latex(name: str) -> str:
    """`W_z` as W_{z}, `g_h_0` as g_{h, 0}, greek names as letters, words upright; the rest is escaped."""
    stem, _, below = name.removesuffix("'").partition("_")
    prime = "'" if name.endswith("'") else ""
    indices = ", ".join(word_latex(word) for word in below.split("_") if word)
    return word_latex(stem) + prime + (f"_{{{indices}}}" if indices else "")


def word_latex(word: str) -> str:
    if word in _GREEK:
        return rf"\{word}"
    return word if re.fullmatch(r"[A-Za-z]|[0-9]+", word) else rf"\mathrm{{{escaped(word)}}}"


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "{}_$&#%"},
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def aligned(lines: Iterable[tuple[str, str]]) -> str:
    """Left and right sides as one `aligned` block."""
    body = " \\\\\n".join(f"    {left} &= {right}" for left, right in lines)
    return "\n".join([r"\begin{aligned}", body, r"\end{aligned}"])


# ------------------------------------------------------------------------------------------ equations


def equations(cell: Cell) -> str:
    """An `aligned` block, others for the first-step rule and for what parameters hold or begin with."""
    blocks = [_equations_block(cell.equations)]
    if cell.first:
        blocks += [f"% {FIRST}", _equations_block(cell.first)]
    for trained, said in ((False, "fixed:"), (True, "trained, and at first:")):
        stated = [p for p in cell.parameters if p.contents and p.trainable == trained]
        if stated:
            rows = ((name_latex(p.name), contents_latex(p.contents)) for p in stated)
            blocks += [f"% {said}", aligned(rows)]
    return "\n".join([f"% {cell.name}: {cell.title}", *blocks])


def contents_latex(contents: lang.Contents) -> str:
    """What a parameter holds: words, numbers, columns or matrices of numbers."""
    if contents.word == "number":
        return Latex()(sp.sympify(contents.args[0]))
    if contents.word in ("rows", "columns"):
        args = [contents.args] if contents.word == "columns" else contents.args
        rows = (row if isinstance(row, tuple) else (row,) for row in args)
        lines = (" & ".join(contents_latex(contents_of(part)) for part in row) for row in rows)
        body = r" \\ ".join(lines)
        return rf"\begin{{pmatrix}} {body} \end{{pmatrix}}"
    inner = (contents_latex(contents_of(part)) for part in contents.args)
    return upright(contents.word) + (bracketed(", ".join(inner)) if contents.args else "")


def _equations_block(equations: Sequence[Eq]) -> str:
    latex = Latex({eq.lhs.name: k for k, eq in enumerate(equations)})
    return aligned((latex(eq.lhs), latex(eq.rhs)) for eq in equations)


# ------------------------------------------------------------------------------------------ graphs

Spelling = Mapping[Value, tuple[str, int]]


class OfValues(Latex):
    """Expressions over the values of a graph, each spelled as it was found it should be."""

    def __init__(self, graph: Graph, spelling: Spelling) -> None:
        super().__init__(ranks(graph))
        self.spelling = spelling
        self.of_input = {op.out: op.operand in graph.inputs for op in graph.ops if isinstance(op, Product)}

    def symbol(self, symbol: sp.Symbol) -> tuple[str, int]:
        if isinstance(symbol, Length):
            letter = numbers.LETTERS.get(symbol.name)
            return letter or rf"\mathrm{{{escaped(symbol.name)}}}", ATOM
        return self.spelling.get(symbol) or super().symbol(symbol)

    def scalar(self, factor: sp.Expr) -> bool:
        if isinstance(factor, (Value, Length)):
            return isinstance(factor, Length) or factor.size == 1
        return super().scalar(factor)

    def term_key(self, term: sp.Expr) -> tuple[bool, bool, int, str]:
        """As in equations: products with an input, products, arithmetic, parameters."""
        number, minus, rank, name = super().term_key(term)
        if term in self.of_input:
            rank = 0 if self.of_input[term] else 1
        elif isinstance(term, Value) and term.static:
            rank = 4
        return number, minus, rank, name


def graph(cell: Cell) -> str:
    """What is computed of parameters, the step in single assignment, products written where they are read;
    then the first-step rule.
    """
    blocks = [f"% {cell.name}: {cell.title}"]
    if computed := weights(cell):
        blocks += ["% computed of parameters:", graph_block(computed)]
    blocks += [graph_block(flatten(cell))]
    if cell.first:
        blocks += [f"% {FIRST}", graph_block(flatten(cell, first=True))]
    return "\n".join(blocks)


def graph_block(graph: Graph) -> str:
    spelling = forward_spelling(graph)
    printer = OfValues(graph, spelling)
    lines = [(printer(op.out), line) for op in graph.ops if (line := right_side(op, printer))]
    return aligned([*lines, *_running(graph, printer)])


def _running(graph: Graph, printer: OfValues) -> list[tuple[str, str]]:
    """New running statistics, which are no ops of their own."""
    return [(rf"{name_latex(s.value.name)}^{{\mathrm{{new}}}}", printer(s.update)) for s in graph.statistics]


def right_side(op: Op, printer: OfValues) -> str:
    """What stands right of the equals sign; nothing for an op that is written out where it is read."""
    match op:
        case Pointwise(_, expr):
            return printer(expr)
        case Product():
            return ""
        case Contract(_, left, right):
            return rf"\sum_{{i}} {printer.at(left, PRODUCT)} \odot {printer.at(right, PRODUCT)}"
        case Reduce(_, operands, "sum"):
            return " + ".join(rf"\sum_{{i}} {printer.at(operand, PRODUCT)}" for operand in operands)
        case Reduce(_, operands):
            return rf"\max_{{i}} {bracketed(', '.join(map(printer, operands)))}"
        case CumSum(_, operand, backwards, axis):
            sign = r"\geq" if backwards else r"\leq"
            along = rf"\mathrm{{{escaped(str(axis))}}}" if axis else "i"
            return rf"\sum_{{j {sign} {along}}} {bracketed(printer(operand))}_{{j}}"
        case Shift(_, operand, by, axis):
            moved = rf"\mathrm{{{escaped(str(axis))}}} {'-' if by > 0 else '+'} {abs(by)}"
            return f"{bracketed(printer(operand))}_{{{moved}}}"
        case Outer(_, left, right):
            one, other = printer.at(left, ATOM), printer.at(right, ATOM)
            if op.along and op.along[0] == left.axes[-1]:
                return rf"\sum_{{t, b}} {transposed(one)} {other}"
            return rf"\sum_{{t, b}} {one} {transposed(other)}"
        case BatchSum(_, operand):
            return rf"\sum_{{t, b}} {printer.at(operand, PRODUCT)}"
        case MatrixOp(_, word, operands):
            return of_matrices(word, [printer.at(v, ATOM) for v in operands])


def of_matrices(word: str, operands: Sequence[str]) -> str:
    """An op on static matrices."""
    match word, operands:
        case "transpose", [one]:
            return transposed(one)
        case "multiply", _:
            return r" \, ".join(operands)
        case "inverse", [one]:
            return f"{superscript(one)}^{{-1}}"
        case "sum", [one]:
            return rf"\sum {one}"
        case "unit", _:
            return "I"
    return upright("expm") + bracketed(", ".join(operands))


def transposed(latex: str) -> str:
    return rf"{superscript(latex)}^{{\top}}"


def superscript(latex: str) -> str:
    """A name, ready to carry a superscript: in braces where it carries one."""
    return f"{{{latex}}}" if "^" in latex or "'" in latex else latex


def forward_spelling(graph: Graph) -> dict[Value, tuple[str, int]]:
    """How the values of a forward step are written: by their names, products written out."""
    spelling = own_names(graph)
    spell_products(graph.ops, OfValues(graph, spelling), spelling)
    return spelling


def own_names(graph: Graph) -> dict[Value, tuple[str, int]]:
    """Names that are not written as they are: next states, and column blocks, which are numbered."""
    blocks = {block: (name, k) for name, parts in graph.blocks for k, block in enumerate(parts)}
    numbered = {block: (rf"{name_latex(name)}^{{({k})}}", ATOM) for block, (name, k) in blocks.items()}
    return {c.next: (name_latex(f"{c.name}'"), ATOM) for c in graph.states} | numbered


def spell_products(ops: Iterable[Op], printer: OfValues, spelling: dict[Value, tuple[str, int]]) -> None:
    for op in ops:
        if isinstance(op, Product):
            matrix, operand = printer.at(op.matrix, ATOM), printer.at(op.operand, ATOM)
            right = op.operand.wide and op.along == op.operand.axes[-1]  # of its rows, which are columns
            left = transposed(matrix) if op.transposed != right else matrix
            spelling[op.out] = f"{operand} {left}" if right else f"{left} {operand}", PRODUCT


# ------------------------------------------------------------------------------------------ gradients

LONG = 60  # an invented value whose LaTeX has more characters keeps its name, and is defined first


def gradients(cell: Cell) -> str:
    """The backward step as a paper prints it; then that of the first-step rule."""
    blocks = [
        f"% {cell.name}: {cell.title}",
        r"% $\delta v$ is the gradient of the loss $L$ by $v$ (gategen show --stage graph defines each $v$),",
        r"% $\delta h^{\leftarrow}$ what the step after hands back for the state $h$;",
        r"% $t$ are steps, $b$ sequences.",
        gradient_block(flatten(cell), cell.equations),
    ]
    if cell.first:
        blocks += [f"% {FIRST}", gradient_block(flatten(cell, first=True), cell.first)]
    if computed := weights(cell):
        blocks += ["% of what is computed of parameters:", computed_block(computed)]
    return "\n".join(blocks)


def computed_block(forward: Graph) -> str:
    """What is computed of parameters, and how gradients go back to these."""
    back = adjoint(forward)
    known = {v.name: v for v in back.parameters}
    ends = {value: name for name, value in back.sums}
    ends |= {v: v.of.name for v in known.values() if v.role == "gradient"}
    spelling = {value: gradient_of(name_latex(name), True) for value, name in ends.items()}
    printer = OfValues(back, spelling)
    lines = [(printer(op.out), right_side(op, printer)) for op in (*forward.ops, *back.ops)]
    return aligned(lines)


def gradient_block(forward: Graph, equations: Sequence[Eq]) -> str:
    """Forward values that need a name, the gradients of a step, then those of the parameters."""
    back = adjoint(forward)
    spelling = forward_spelling(forward)
    labels = gradient_labels(forward, back, spelling)
    ahead = OfValues(forward, spelling)
    kept = {*forward.given, *(c.next for c in forward.states)}
    kept |= {op.out for op in forward.ops if op.out.name in {eq.lhs.name for eq in equations}}
    spell_short(forward.ops, kept, ahead, spelling)
    defined = [op for op in read_by(back, forward, kept) if op.out not in spelling]
    spelling |= labels
    printer = OfValues(back, spelling)
    spell_products([op for op in back.ops if op.out not in labels], printer, spelling)
    lines = [(ahead(op.out), right_side(op, ahead)) for op in defined]
    read = {v for op in back.ops for v in op.reads}
    ops = sorted(back.ops, key=lambda op: op.out.static and op.out not in read)
    lines += [(printer(op.out), line) for op in ops if (line := right_side(op, printer))]
    return aligned([*lines, *second_names(forward, back, printer)])


def spell_short(
    ops: Iterable[Op], kept: Set[Value], printer: OfValues, spelling: dict[Value, tuple[str, int]]
) -> None:
    """Write short arithmetic that `flatten` invented a name for as what it is."""
    for op in ops:
        if isinstance(op, Pointwise) and op.out not in kept:
            latex, precedence = printer.spell(op.expr)
            if len(latex) <= LONG:
                spelling[op.out] = latex, precedence


def read_by(back: Graph, forward: Graph, kept: Set[Value]) -> list[Op]:
    """The forward ops with invented names whose values the gradients need."""
    needed = {v for op in back.ops for v in op.reads}
    ops: list[Op] = []
    for op in reversed(forward.ops):
        if op.out in needed - kept:
            needed.update(op.reads)
            ops.append(op)
    return ops[::-1]


def gradient_labels(forward: Graph, back: Graph, spelling: Spelling) -> dict[Value, tuple[str, int]]:
    """How each gradient is written: by the name of what it is the gradient of."""
    known, given = {*forward.values}, {v.name: v for v in forward.given}
    forwards = OfValues(forward, spelling)
    labels: dict[Value, tuple[str, int]] = {}
    for value in (*(op.out for op in back.ops), *back.given):
        if value.role == "gradient" and value not in known:
            own = forwards.at(value.of, ATOM) if value.of in known else name_latex(value.of.name)
            labels[value] = gradient_of(own, value.static)
    for name, value in back.sums:
        labels.setdefault(value, gradient_of(forwards.at(given[name], ATOM), True))
    for carry in back.states:
        state = name_latex(carry.current.of.name)
        labels[carry.current] = (rf"\delta {superscript(state)}^{{\leftarrow}}", ATOM)
    return labels


def gradient_of(latex: str, static: bool) -> tuple[str, int]:
    return (rf"\frac{{\partial L}}{{\partial {latex}}}" if static else rf"\delta {latex}"), ATOM


def second_names(forward: Graph, back: Graph, printer: OfValues) -> list[tuple[str, str]]:
    """Gradients that are another value under a second name: those of two biases that are added."""
    ends = [(name, value) for name, value in (*back.outputs, *back.sums)]
    ends += [(c.current.of.name, c.next) for c in back.states]
    known = {v.name: v for v in forward.given}
    lines = []
    for name, value in ends:
        label = gradient_of(printer.at(known[name], ATOM), known[name].static)[0]
        lines += [(label, printer(value))] if label != printer(value) else []
    return lines


# ------------------------------------------------------------------------------------------ the plan


def plan_table(made: Plan) -> str:
    """The plan as the rows of a `tabular`, and under a line what it comes to."""
    listing = [("params", "", field_text(field)) for field in made.fields]
    listing += [("computed", "", field_text(field)) for field in made.computed]
    for rule in made.rules:
        listing += [(f"{rule.title}tape", "", buffer_text(buffer)) for buffer in rule.saved]
        listing += [(f"{rule.title}{which}", when, what) for which, when, what in stage_rows(rule)]
    listing += newton_rows(made)
    total = numbers.rows(numbers.of_plan(made), formula)
    return "\n".join(
        [
            f"% {made.cell.name}: {made.cell.title}",
            r"\begin{tabular}{lll}",
            rf"    \multicolumn{{3}}{{l}}{{\texttt{{{escaped(made.cell.name)}}} ({made.kind})}} \\ \hline",
            *(rf"    {row[0]} & {row[1]} & \texttt{{{escaped(row[2])}}} \\" for row in thinned(listing)),
            r"    \hline",
            *(rf"    {' & '.join(row)} \\" for row in thinned(total)),
            r"\end{tabular}",
        ]
    )


def launch_table(cell: Cell) -> str:
    """What the CuPy module launches, as the rows of a `tabular`."""
    listing = [row for found in launches(plan(cell)) for row in rows(found)]
    return "\n".join(
        [
            f"% {cell.name}: {cell.title}",
            r"\begin{tabular}{lll}",
            rf"    \multicolumn{{3}}{{l}}{{\texttt{{{escaped(cell.name)}}}}} \\ \hline",
            *(rf"    {' & '.join(map(escaped, row))} \\" for row in thinned(listing)),
            r"\end{tabular}",
        ]
    )


def formula(expr: sp.Expr) -> str:
    """A number of the summary, set in a line."""
    spelled = numbers.formula(expr, power="^{{{}}}", times=r" \, ", word=r"\mathrm{{{}}}".format)
    return f"${spelled}$"


def thinned(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The rows, with what begins like the row above left out there."""
    made = []
    last = ""
    for head, when, what in rows:
        made.append(("" if head == last else head, when, what))
        last = head
    return made
