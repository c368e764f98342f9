"""Matrices that are computed of parameters, once a call: which a cell has, under names of their own.

`inner` is the same cell with a parameter in the place of each of them: all that plans steps works on that
one, and `graph.weights` says how the computed parameters are made.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from gategen.errors import SpecWarning
from gategen.spec import language as lang
from gategen.spec.equations import Eq
from gategen.spec.names import Shape, Size
from gategen.spec.printer import text

NAMES = 3  # of matrices, in the name of what is computed of them


@dataclass(frozen=True)
class Computed:
    """A parameter that is computed: a matrix, or a scalar, which is the norm of one."""

    symbol: lang.Matrix | lang.Scalar
    expr: sp.Expr

    @property
    def reads(self) -> list[Any]:
        """The parameters that it is made of."""
        return [symbol for symbol in lang.names_in(self.expr) if isinstance(symbol, lang.Parameter)]


def computed_of(
    equations: Iterable[Eq], shapes: Mapping[str, Shape], taken: Iterable[str]
) -> dict[sp.Expr, Computed]:
    """What is computed in some equations, by what stands there, in the order in which they meet it."""
    found: dict[sp.Expr, Computed] = {}
    used = set(taken)
    for node in (node for eq in equations for node in sorted(_nodes(eq.rhs), key=text)):
        if node in found:
            continue
        name = _free(_wish(node), used)
        used.add(name)
        expr = node.args[0] if isinstance(node, lang.computed) else node
        trainable = any(s.trainable for s in lang.names_in(expr) if isinstance(s, lang.Parameter))
        symbol: Any = lang.Scalar(name, None, None, trainable)
        if isinstance(node, lang.computed):
            symbol = lang.Matrix(name, shape_of(expr, shapes), None, None, trainable)
        found[node] = Computed(symbol, expr)
    return found


def inner(cell: Any) -> Any:
    """The cell whose computed matrices are parameters."""
    swap: dict[Any, Any] = {node: made.symbol for node, made in cell.computed_nodes.items()}
    if not swap:
        return cell
    for p in cell.parameters:  # what told their shapes may be gone
        if isinstance(p, lang.Matrix):
            swap[p] = lang.Matrix(p.name, cell.shapes[p.name], *p.fields[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpecWarning)
        return cell._copy(cell.name, swap, cell.where)


def _nodes(expr: sp.Expr) -> Iterator[sp.Expr]:
    traversal = sp.preorder_traversal(expr)
    for node in traversal:
        if isinstance(node, (lang.computed, lang.frobenius)):
            traversal.skip()
            yield node


def _wish(node: sp.Expr) -> str:
    """`U_mask`, `inv_A`, `norm_W`; `computed_A` where nothing else tells it from A."""
    top = node.args[0] if isinstance(node, lang.computed) else node
    stems = [s.name for s in lang.names_in(top) if isinstance(s, lang.Matrix)][:NAMES]
    if isinstance(top, (lang.inverse, lang.exponential, lang.frobenius)):
        stems = [lang.MATRIX_WORDS[type(top)], *stems]
    return "_".join(stems if len(stems) > 1 else ["computed", *stems])


def _free(wish: str, taken: set[str]) -> str:
    name, k = wish, 1
    while name in taken:
        k += 1
        name = f"{wish}_{k}"
    return name


# ---------------------------------------------------------------------------------------------- shapes

Known = tuple["Size | None", "Size | None"]


def shape_of(expr: sp.Expr, shapes: Mapping[str, Shape]) -> Any:
    """The shape of an expression of matrices by those of its matrices; None of a unit matrix alone."""
    if isinstance(expr, lang.leaf):
        return shapes[expr.args[0].name]
    if isinstance(expr, lang.unit):
        return None
    if isinstance(expr, (sp.Add, sp.Mul, sp.Pow)):
        known = [shape_of(part, shapes) for part in expr.args if lang.is_matrix(part)]
        known = [shape for shape in known if shape is not None]
        return next((shape for shape in known if shape[1] != 1), known[0] if known else None)
    parts = [shape_of(arg, shapes) for arg in expr.args]
    if isinstance(expr, lang.matmul):
        left, right = parts
        return right if left is None else left if right is None else (left[0], right[1])
    if parts[0] is None or isinstance(expr, (lang.inverse, lang.exponential)):
        return parts[0]
    return parts[0][::-1] if isinstance(expr, lang.transposed) else (parts[0][0], 1)
