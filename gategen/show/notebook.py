"""What a notebook shows of a cell, of its derivative and of a plan: LaTeX, and HTML with LaTeX in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from gategen import summary as numbers
from gategen.graph import Graph, text
from gategen.graph.adjoint import adjoint
from gategen.plan import Plan
from gategen.show import export, latex, plan_text
from gategen.spec.cell import Cell
from gategen.spec.language import as_said


@dataclass(frozen=True)
class Adjoint:
    """The derivative of a cell: a step back in time, and that of the first-step rule where there is one."""

    cell: Cell

    @property
    def graphs(self) -> tuple[Graph, ...]:
        return tuple(map(adjoint, export.both_steps(self.cell)))

    def __str__(self) -> str:
        return "\n\n".join(map(text, self.graphs))

    def _repr_latex_(self) -> str:
        return _math(latex.gradients(self.cell))

    def _repr_html_(self) -> str:
        return _html(latex.gradients(self.cell))


def cell_latex(cell: Cell) -> str:
    """The equations, as Jupyter typesets them."""
    return _math(latex.equations(cell))


def cell_html(cell: Cell) -> str:
    """The equations, and what the cell comes to: sizes, parameters, class, operations."""
    found = numbers.summary(cell)
    sizes = [f"{symbol} ({as_said(cell.size_of(symbol))})" for symbol in cell.inputs]
    states = [f"{state} ({as_said(state.size)})" for state in cell.states]
    rows = [("inputs", ", ".join(sizes)), ("states", ", ".join(states)), ("class", found.kind)]
    rows += [(f"{head} {way}".strip(), what) for head, way, what in numbers.rows(found, latex.formula)]
    return _html(latex.equations(cell)) + _table(rows)


def plan_latex(made: Plan) -> str:
    """The plan as a `tabular`."""
    return latex.plan_table(made)


def plan_html(made: Plan) -> str:
    """What runs before, in and after the time loop, and what it comes to."""
    return f"<pre>{escape(plan_text(made))}</pre>"


def _blocks(source: str) -> Iterator[tuple[bool, str]]:
    """LaTeX in pieces: comments, which are captions, and what stands between them."""
    block: list[str] = []
    for line in source.splitlines():
        if line.startswith("% "):
            if block:
                yield False, "\n".join(block)
            block = []
            yield True, line[2:]
        else:
            block.append(line)
    if block:
        yield False, "\n".join(block)


def _math(source: str) -> str:
    blocks = [block for caption, block in _blocks(source) if not caption]
    return "\n".join(f"$$\n{block}\n$$" for block in blocks)


def _html(source: str) -> str:
    parts = (
        f"<p>{escape(part)}</p>" if caption else f"$$\n{escape(part)}\n$$"
        for caption, part in _blocks(source)
    )
    return "\n".join(parts)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{escape(head)}</th><td>{escape(what)}</td></tr>" for head, what in rows)
    return f"\n<table>{body}</table>"
