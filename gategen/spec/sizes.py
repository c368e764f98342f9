"""Sizes by unification: every vector gets a size, every matrix a shape, or an error that names the symbols.

Elementwise terms have one size, a size-1 value broadcasts, `W @ v` ties the columns of `W` to `v` and its
rows to what surrounds it. Sizes are names (`"hidden"`) or integers; what is still unknown is a `Variable`.
`infer` does so for all equations of a cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from gategen.errors import SpecError
from gategen.spec import language as lang
from gategen.spec.equations import Eq
from gategen.spec.language import Shape, Size
from gategen.spec.printer import text
from gategen.spec.quoting import placed


@dataclass(frozen=True)
class Variable:
    """An unknown size: the rows or the columns of a matrix that was declared without a shape."""

    owner: str
    side: str

    def __str__(self) -> str:
        return f"the {self.side} of {self.owner}"


Term = Size | Variable
Extent = Term | tuple[Term, ...]  # of a value: its one size, or the sizes of the axes of a matrix
REDUCTIONS = (*lang.REDUCTIONS, lang.logsumexp)


class Unifier:
    """Gathers equalities between sizes; `gates` holds the sizes of the equations read so far."""

    def __init__(self, whole: Mapping[str, str] | None = None) -> None:
        self.whole_sizes = whole or {}  # in shares: `heads*hidden/heads` of `hidden`
        self.known: dict[Variable, Term] = {}
        self.gates: dict[str, Extent] = {}
        self.matrices: dict[str, tuple[Term, Term | tuple[Term, ...]]] = {}
        self.uses: dict[str, str] = {}  # of each matrix: that of a product, or beside others
        self.made: list[tuple[Any, tuple[Term, ...]]] = []  # products with weights, and their sizes
        self.units = 0  # how many unit matrices were met: each has a size of its own

    def find(self, term: Any) -> Any:
        while isinstance(term, Variable) and term in self.known:
            term = self.known[term]
        return term

    def equate(self, a: Extent, b: Extent, message: str, left: Any = None, right: Any = None) -> Extent:
        """One size from two, those of `left` and `right`, or a `SpecError` with `message` and both sizes."""
        a, b = self.find(a), self.find(b)
        self.guess(a, b)
        if a == b or self.axes(a) == self.axes(b):
            return a
        if isinstance(a, tuple) or isinstance(b, tuple):
            return self.clash(a, b, message)
        if isinstance(a, Variable):
            self.known[a] = b
            return b
        if isinstance(b, Variable):
            self.known[b] = a
            return a
        hint = "elementwise values have one size, or size 1; a product W @ v changes the size"
        if left is not None and right is not None and left.is_Symbol and right.is_Symbol:
            hint += f"; outer({text(left)}, {text(right)}) is the matrix of all products"
        hint = "a square matrix has one size twice" if "not square" in message else hint
        for value, other in ((left, b), (right, a)):
            size = f'"{other}"' if isinstance(other, str) else other
            if (x := _elementwise(lang.Input, value)) is not None:
                made = f'{x} = inputs("{x}", size={size})'
                hint = f"{made} makes {x} as wide; a product W @ {x} changes the size"
            elif left is None and (v := _elementwise(lang.Vector, value)) is not None and v.size != other:
                hint = f'{v} = vectors("{v}", size={size}) makes {v} as wide as the state'
        raise SpecError(f"sizes contradict: {message.format(a=describe(a), b=describe(b))}", hint=hint)

    def guess(self, a: Extent, b: Extent) -> None:
        """Unknown sizes of the axes of a matrix are those of another one, in their order."""
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            for one, other in zip(map(self.find, a), map(self.find, b), strict=True):
                if isinstance(one, Variable) != isinstance(other, Variable) or isinstance(one, Variable):
                    unknown, known = (one, other) if isinstance(one, Variable) else (other, one)
                    if unknown != known:
                        self.known[unknown] = known

    def clash(self, a: Extent, b: Extent, message: str) -> Extent:
        """The error of a matrix where its sizes, or a vector, are wanted."""
        hint = "a matrix C of every row becomes a vector by C @ k or C.T @ v, and outer(v, k) is a matrix"
        a, b = (tuple(map(self.find, s)) if isinstance(s, tuple) else s for s in (a, b))
        if isinstance(a, tuple) and isinstance(b, tuple) and {*a} == {*b}:
            hint = "the sizes of all matrices stand in one order: outer(v, k) for outer(k, v)"
        raise SpecError(f"sizes contradict: {message.format(a=describe(a), b=describe(b))}", hint=hint)

    # ------------------------------------------------------------------------------------------ reading

    def size(self, expr: sp.Basic) -> Extent:
        """The size of an expression, of a matrix of every row both of them; 1 where it broadcasts."""
        if isinstance(expr, (lang.Input, lang.State, lang.Vector)):
            return expr.size
        if isinstance(expr, lang.Next):
            return expr.state.size
        if isinstance(expr, lang.Gate):
            return self.gates[expr.name]
        if isinstance(expr, lang.matvec):
            return self.product(expr)
        if isinstance(expr, lang.matmat):
            return self.times_weight(expr)
        if isinstance(expr, lang.frobenius):
            self.whole(expr.args[0])
            return 1
        if isinstance(expr, lang.computed):
            return self.whole(expr.args[0])
        if isinstance(expr, lang.outer):
            return self.outer(expr)
        if isinstance(expr, lang.Matrix):
            self.use(expr, "beside others, entry by entry")
            rows, columns = self.shape(expr, None)
            if expr.block or isinstance(columns, tuple):
                stacked = f"a block of {expr.block.owner}" if expr.block else "a matrix of stacked columns"
                raise SpecError(
                    f"{expr} is {stacked} and stands beside others, entry by entry",
                    hint="declare a matrix for this use alone",
                )
            return rows, columns
        if isinstance(expr, lang.batch_norm):
            return self.normed(expr)
        if isinstance(expr, (lang.Over, lang.Along)):
            return self.along_axis(expr)
        if isinstance(expr, lang.convolved):
            return self.convolution(expr)
        if isinstance(expr, (lang.max_, lang.logsumexp, lang.softmaxed, lang.cumsum)):
            self.refuse_matrices(expr)
        if isinstance(expr, REDUCTIONS):
            for arg in expr.args:
                self.size(arg)
            return 1
        if isinstance(expr, lang.Joint):
            for value in expr.values:
                self.size(value)
            return self.common(expr.part)
        return self.common(expr.args)

    def common(self, args: Iterable[sp.Basic]) -> Extent:
        """The one size of the arguments of an elementwise expression."""
        size: Extent = 1
        first: sp.Basic | None = None
        sized = [(arg, self.find(self.size(arg))) for arg in args if isinstance(arg, (sp.Expr, Relational))]
        sized = [(arg, own) for arg, own in sized if own != 1]
        if any(len(self.axes(own)) > 1 for _, own in sized):
            return self.along(sized)
        for arg, own in sized:
            if first is not None:
                message = f"{text(first)} has size {{a}}, {text(arg)} has size {{b}}"
                size = self.equate(size, own, message, first, arg)
            else:
                size, first = own, arg
        return size

    def axes(self, size: Extent) -> tuple[Term, ...]:
        """The sizes of the axes of a value: both of a matrix, `heads` and `keys` of `heads*keys`."""
        if isinstance(size, tuple):
            return tuple(axis for part in size for axis in self.axes(part))
        found = self.find(size)
        return (found,) if isinstance(found, Variable) else lang.factors(found)

    def fills(self, matrix: Extent, size: Extent) -> bool:
        """Whether a vector of that size stands in every row or column of a matrix."""
        return (
            isinstance(matrix, tuple)
            and not isinstance(size, tuple)
            and {*self.axes(size)} <= {*self.axes(matrix)}
        )

    def along(self, sized: Sequence[tuple[sp.Basic, Extent]]) -> Extent:
        """The sizes of what has most axes, beside which others have some of them."""
        sized = [(arg, self.find(own)) for arg, own in sized]  # one of them may have told another
        matrix, whole = max(sized, key=lambda pair: (len(self.axes(pair[1])), isinstance(pair[1], tuple)))
        sizes = self.axes(whole)
        for arg, own in sized:
            self.guess(whole, own)
            own = self.find(own)
            if isinstance(own, Variable) and not isinstance(whole, tuple):
                self.known[own] = whole  # beside vectors it is a vector of the same size
            axes, sizes = self.axes(own), self.axes(whole)
            unknown = [axis for axis in sizes if isinstance(axis, Variable)]
            missing = [axis for axis in axes if axis not in sizes]
            if len(missing) == len(unknown) == 1 and isinstance(missing[0], (str, int)):
                self.known[unknown[0]] = missing[0]  # the only one that it can be
                sizes = self.axes(whole)
            if {*axes} == {*sizes}:
                self.equate(own, whole, f"{text(arg)} has size {{a}}, {text(matrix)} {{b}}")
            elif not {*axes} <= {*sizes}:
                raise SpecError(
                    f"sizes contradict: {text(arg)} has size {describe(own)}, {text(matrix)} has the sizes "
                    f"{describe(sizes)}",
                    hint=f"beside a matrix a vector has one of its sizes, {' or '.join(map(str, sizes))}",
                )
        return whole

    def use(self, matrix: Any, how: str) -> None:
        """A matrix serves in products, or stands beside others: its rows are then stacked, or not."""
        other = self.uses.setdefault(matrix.name, how)
        if other != how:
            raise SpecError(
                f"{matrix} stands {other}, and {how}", hint="declare two matrices, one for each use"
            )

    def along_axis(self, expr: Any) -> Extent:
        """The size of what goes along one axis: without it, or that of the value."""
        size: Extent = self.find(self.size(expr.args[0]))
        axes = () if size == 1 else self.axes(size)
        if expr.axis not in map(str, axes):
            shown = text(expr.args[0])
            raise SpecError(
                f"{shown} has size {describe(size)}, and no axis {expr.axis}",
                hint=f"over one of its sizes: {' or '.join(map(str, axes))}" if axes else "a vector",
            )
        if isinstance(expr, lang.normed_over):
            return self.wide_as(expr.args[0], size, expr)
        if isinstance(expr, (lang.softmax_over, lang.cumsum_over, lang.shifted)):
            return size
        return joined([axis for axis in axes if str(axis) != expr.axis])

    def convolution(self, expr: Any) -> Extent:
        """The sizes of a convolution: those of the product with the weights of any place."""
        size, shown = self.find(self.size(expr.value)), text(expr.value)
        if not isinstance(size, tuple):
            raise SpecError(
                f"{shown} in {text(expr)} is a vector, of size {describe(size)}",
                hint="conv is of matrices of every row, whose one axis the weights multiply; "
                'of a vector the entries are shifted by shifted(v, 1, over="hidden")',
            )
        at = -2 if expr.left else -1
        free = [str(self.find(axis)) for k, axis in enumerate(size) if k != len(size) + at]
        for axis in expr.axes:
            if axis not in free:
                raise SpecError(
                    f"{text(expr)} goes along {axis}, which is not among the axes that the weights leave, "
                    f"of {describe(size)}",
                    hint=f"over one of these: {' or '.join(free)}",
                )
        before = len(self.made)
        made = [self.size(expr.product(weight, expr.value)) for weight in expr.weights]
        self.made[before:] = [(expr, size) for _, size in self.made[before:]]  # what stands in an equation
        return made[0]

    def wide_as(self, value: sp.Basic, size: Extent, expr: Any) -> Extent:
        """The size of a norm, whose gain and shift have no other axes than the value."""
        whole = self.common(expr.part)
        if {*self.axes(whole)} != {*self.axes(size)}:
            raise SpecError(
                f"{text(value)} has size {describe(size)}, its gain or shift {describe(whole)}",
                hint=f"their sizes are among those of {text(value)}",
            )
        return size

    def refuse_matrices(self, expr: Any) -> None:
        """What is for the features of vectors alone."""
        for arg in expr.values if isinstance(expr, lang.Joint) else expr.args:
            size = self.find(self.size(arg))
            if isinstance(size, tuple):
                word = type(expr).__name__.replace("softmaxed", "softmax")
                raise SpecError(
                    f"{text(expr)} is of a matrix, of size {describe(size)}",
                    hint=f'it goes along one axis: {word}({text(arg)}, over="{size[-1]}")',
                )

    def normed(self, expr: Any) -> Extent:
        size = self.common(expr.args)
        if isinstance(size, tuple):
            raise SpecError(
                f"batch_norm of a matrix, of size {describe(size)}",
                hint="it is for vectors; layer_norm takes matrices",
            )
        return size

    def outer(self, expr: Any) -> Extent:
        sizes = [self.find(self.size(arg)) for arg in expr.args]
        v, k = map(text, expr.args)
        for arg, own in zip(expr.args, sizes, strict=True):
            if isinstance(own, (tuple, Variable)) or own == 1:
                what = "no vector" if own == 1 else "a matrix" if isinstance(own, tuple) else f"of {own}"
                hint = (
                    f"outer(v, k) takes two vectors of known, different sizes, and {v} * {k} is elementwise"
                )
                raise SpecError(f"{text(arg)} in outer({v}, {k}) is {what}", hint=hint)
        left, right = map(self.axes, sizes)
        if {*left} <= {*right} or {*right} <= {*left}:
            raise SpecError(
                f"the sizes {describe(sizes[0])} and {describe(sizes[1])} of outer({v}, {k}) make no matrix",
                hint="the sizes of a matrix differ: give one of them another name, such as keys, "
                "which may be as long",
            )
        return tuple(dict.fromkeys((*left, *right)))

    def applied(self, expr: Any) -> Term:
        """The size of `C @ k` or `C.T @ v` with a matrix of every row."""
        matrix, operand, transposed = expr.args
        whole, own = self.find(self.size(matrix)), self.size(operand)
        if not isinstance(whole, tuple):
            shown = text(operand)
            raise SpecError(
                f"{matrix} is a vector and stands on the left of @",
                hint=f"the inner product is sum_({matrix} * {shown}), and {matrix} * {shown} is elementwise",
            )
        *heads, rows, columns = whole
        outer, inner = (columns, rows) if transposed else (rows, columns)
        axes = self.axes(own)
        if not {inner} <= {*axes} <= {*heads, inner}:
            side = "rows" if transposed else "columns"
            message = f"the {side} of {matrix} have size {{a}}, {text(operand)} has size {{b}}"
            self.equate(joined((*heads, inner)), own, message)
        return joined((*heads, outer))

    def times_weight(self, expr: Any) -> Extent:
        """The sizes of `C @ W`."""
        value, matrix, transposed = expr.args
        size = self.find(self.size(value))
        shown = f"({text(matrix)})" if isinstance(matrix, lang.computed) else text(matrix)
        if not isinstance(size, tuple):
            vector = f"({text(value)})" if value.args else text(value)
            raise SpecError(
                f"the left side of @ must be a matrix, not {text(value)}",
                hint=f"the matrix stands on the left: {shown}{'.T' if transposed else ''} @ {vector}",
            )
        if isinstance(matrix, lang.computed):
            rows, columns = self.whole(matrix.args[0])
        else:
            self.use(matrix, "on the left of @")
            rows, width = self.shape(matrix, None)
            if isinstance(width, tuple):
                raise SpecError(
                    f"{matrix} has stacked columns {describe(width)} and stands on the right of a matrix",
                    hint="a matrix of its own for each of them",
                )
            columns = width
        inner, outer = (columns, rows) if transposed else (rows, columns)
        side = "columns" if transposed else "rows"
        self.equate(inner, size[-1], f"the {side} of {shown} have size {{a}}, those of {text(value)} {{b}}")
        return self.new_axis(expr, size, len(size) - 1, outer)

    def new_axis(self, expr: Any, size: tuple[Term, ...], at: int, axis: Term) -> Extent:
        """The sizes of a product with a weight, which takes the place of one axis."""
        made = (*size[:at], self.find(axis), *size[at + 1 :])
        self.made.append((expr, made))
        return made

    def check_made(self, equations: Sequence[Eq]) -> None:
        """The sizes of what weights make of matrices are different names or numbers."""
        for expr, size in self.made:
            try:
                found = tuple(map(self.solved, size))
                shares = {lang.shared(a)[0] for a in found} - {"", *self.whole_sizes}
                plain = not shares and all(len(lang.factors(a)) == 1 and a != 1 for a in found)
                if not plain or len(set(found)) < len(found):
                    raise SpecError(
                        f"{text(expr)} would be a matrix of the sizes {describe(found)}",
                        hint="they are different names, which may be as long; C @ k is a vector",
                    )
            except SpecError as error:
                raise placed(error, next(eq for eq in equations if eq.rhs.has(expr))) from None

    def product(self, expr: Any) -> Extent:
        matrix, operand, transposed = expr.args
        if not isinstance(matrix, (lang.Matrix, lang.computed)):
            return self.applied(expr)
        if isinstance(matrix, lang.computed):
            whole: tuple[Term, Term | tuple[Term, ...]] = self.whole(matrix.args[0])
            rows, columns = whole
            matrix = f"({text(matrix)})"
            if isinstance(operand, lang.concat):
                raise SpecError(
                    f"{matrix} is a matrix that is computed and meets {len(operand.args)} stacked vectors",
                    hint="a matrix for each of them: (mask * U) @ h + W @ x",
                )
        else:
            self.use(matrix, "on the left of @")
            rows, columns = self.shape(matrix, operand)
        if isinstance(operand, lang.concat) and transposed:
            raise SpecError(
                f"{matrix}.T meets stacked vectors: only columns can be stacked",
                hint="declare the matrix the other way round: A @ concat(...)",
            )
        if isinstance(operand, lang.concat):
            return self.stacked(matrix, operand, rows, columns)
        if isinstance(columns, tuple):
            raise SpecError(
                f"{matrix} has stacked columns {describe(columns)} but meets {text(operand)}",
                hint=f"{matrix} @ concat(...), with {len(columns)} vectors",
            )
        size = self.find(self.size(operand))
        if isinstance(size, tuple) and lang.shared(columns)[0]:
            message = f"{matrix} @ {text(operand)} is a product with vectors, but this has size {{b}}"
            self.clash(columns, size, message)
        if isinstance(size, tuple):
            inner, outer = (rows, columns) if transposed else (columns, rows)
            side = "rows" if transposed else "columns"
            message = f"the {side} of {matrix} have size {{a}}, the rows of {text(operand)} {{b}}"
            self.equate(inner, size[-2], message)
            return self.new_axis(expr, size, len(size) - 2, outer)
        if lang.shared(columns)[0]:
            return self.blockwise(matrix, operand, columns, rows, size, bool(transposed))
        inner, outer = (rows, columns) if transposed else (columns, rows)
        side = "rows" if transposed else "columns"
        self.equate(inner, size, f"the {side} of {matrix} have size {{a}}, {text(operand)} has size {{b}}")
        return self.find(outer)  # type: ignore[no-any-return]

    def blockwise(
        self, matrix: Any, operand: Any, columns: Term, rows: Term, size: Extent, transposed: bool
    ) -> Term:
        """A product with a block-diagonal matrix, whose columns are those of one block."""
        whole, _ = lang.shared(columns)
        whole = self.whole_sizes.get(whole, whole)
        inner, outer = (rows, whole) if transposed else (whole, rows)
        message = f"the blocks of {matrix} share {{a}}, {text(operand)} has size {{b}}"
        self.equate(inner, size, message)
        return outer

    def stacked(self, matrix: Any, operand: Any, rows: Term, columns: Term | tuple[Term, ...]) -> Term:
        if not isinstance(columns, tuple) or len(columns) != len(operand.args):
            parts = ", ".join(f'"{describe(self.find(self.size(part)))}"' for part in operand.args)
            raise SpecError(
                f"{matrix} meets {len(operand.args)} stacked vectors, "
                f"but its columns are {describe(columns)}",
                hint=f'matrices("{matrix}", shape=("{describe(self.find(rows))}", ({parts})))',
            )
        for k, (column, part) in enumerate(zip(columns, operand.args, strict=True)):
            message = f"column block {k} of {matrix} has size {{a}}, {text(part)} has size {{b}}"
            self.equate(column, self.size(part), message)
        return self.find(rows)  # type: ignore[no-any-return]

    def shape(self, matrix: Any, operand: Any) -> tuple[Term, Term | tuple[Term, ...]]:
        if matrix.name not in self.matrices:
            if matrix.shape is not None:
                self.matrices[matrix.name] = matrix.shape
            elif isinstance(operand, lang.concat):
                columns = tuple(Variable(matrix.name, f"column block {k}") for k in range(len(operand.args)))
                self.matrices[matrix.name] = Variable(matrix.name, "rows"), columns
            else:
                self.matrices[matrix.name] = Variable(matrix.name, "rows"), Variable(matrix.name, "columns")
        return self.matrices[matrix.name]

    # ------------------------------------------------------------------------------------------ matrices

    def whole(self, expr: sp.Expr) -> tuple[Term, Term]:
        """The shape of an expression of matrices."""
        if not lang.is_matrix(expr):
            raise SpecError(f"{text(expr)} is no matrix", hint="an expression of matrices stands left of @")
        if isinstance(expr, lang.leaf):
            return self.plain(expr.args[0])
        if isinstance(expr, lang.unit):
            self.units += 1
            size = Variable("identity", f"size {self.units}")
            return size, size
        if isinstance(expr, sp.Add):
            return self.alike(expr.args)
        if isinstance(expr, (sp.Mul, sp.Pow)):
            for norm in expr.atoms(lang.frobenius):
                self.whole(norm.args[0])
            parts = [part for part in expr.args if lang.is_matrix(part)]
            wide = [part for part in parts if not _is_column(part)]
            shape = self.alike(wide or parts)
            for part in parts if wide else ():
                if _is_column(part):
                    column = part.base if isinstance(part, sp.Pow) else part
                    message = f"{text(wide[0])} has {{a}} rows, {text(column)} has {{b}}"
                    self.equate(shape[0], self.whole(part)[0], message)
            return shape
        (rows, columns), *rest = [self.whole(arg) for arg in expr.args]
        if isinstance(expr, lang.transposed):
            return columns, rows
        if isinstance(expr, lang.matmul):
            left, right = map(text, expr.args)
            self.equate(columns, rest[0][0], f"{left} has columns of {{a}}, {right} has rows of {{b}}")
            return rows, rest[0][1]
        if isinstance(expr, (lang.inverse, lang.exponential)):
            message = f"{text(expr)} is of a matrix that is not square: {{a}} rows and {{b}} columns"
            self.equate(rows, columns, message)
            return rows, columns
        return rows, 1

    def plain(self, matrix: Any) -> tuple[Term, Term]:
        """The shape of a matrix of one block."""
        rows, columns = self.shape(matrix, None)
        if isinstance(columns, tuple) or matrix.block:
            raise SpecError(
                f"{matrix} has stacked {'rows' if matrix.block else 'columns'} and stands in an expression "
                "of matrices",
                hint="a matrix of its own for each block",
            )
        return rows, columns

    def alike(self, parts: Sequence[sp.Expr]) -> tuple[Term, Term]:
        """The one shape of the operands of an elementwise expression of matrices."""
        shape, *rest = [self.whole(part) for part in parts]
        for part, other in zip(parts[1:], rest, strict=True):
            for a, b, side in zip(shape, other, ("rows", "columns"), strict=True):
                self.equate(a, b, f"{text(parts[0])} has {side} of {{a}}, {text(part)} has {side} of {{b}}")
        return shape

    # ------------------------------------------------------------------------------------------ answers

    def solved_extent(self, size: Extent) -> Any:
        return tuple(map(self.solved, size)) if isinstance(size, tuple) else self.solved(size)

    def solved(self, term: Term) -> Size:
        found = self.find(term)
        if isinstance(found, Variable):
            raise SpecError(
                f"{found} cannot be inferred",
                hint=f"say it where it is declared, in a size name known or new: "
                f'matrices("{found.owner}", shape=("hidden", "input"))',
            )
        return found  # type: ignore[no-any-return]

    def solved_shape(self, name: str) -> Shape:
        rows, columns = self.matrices[name]
        if isinstance(columns, tuple):
            return self.solved(rows), tuple(map(self.solved, columns))
        return self.solved(rows), self.solved(columns)


def _is_column(expr: sp.Expr) -> bool:
    """Whether an expression of matrices has one column: made of `row_norms` alone."""
    if isinstance(expr, (sp.Add, sp.Mul, sp.Pow)):
        return all(_is_column(part) for part in expr.args if lang.is_matrix(part))
    return isinstance(expr, lang.row_norm)


def joined(axes: Sequence[Term]) -> Term:
    """The size of a vector with these axes; 1 of none."""
    return "*".join(map(str, axes)) if len(axes) > 1 else axes[0] if axes else 1


def describe(size: Term | tuple[Term, ...]) -> str:
    if isinstance(size, tuple):
        return f"({', '.join(map(describe, size))})"
    return str(size if isinstance(size, Variable) else lang.regrouped(size))


# ---------------------------------------------------------------------------------------------- of a cell


def infer(
    equations: Sequence[Eq],
    first: Sequence[Eq],
    states: Sequence[lang.State],
    outputs: Sequence[Any],
    whole: Mapping[str, str],
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Shape]]:
    """The sizes of the gates, those of the gates of the first step, and the shapes of the matrices."""
    unifier = Unifier(whole)
    gates: list[dict[str, Any]] = []
    for one in (equations, first):
        unifier.gates = {}
        for eq in one:
            try:
                _unify(unifier, eq)
            except SpecError as error:
                raise placed(error, eq) from None
        gates.append(unifier.gates)
    for state in states:
        own = unifier.find(unifier.size(state.initial))
        if own != 1 and not unifier.fills(state.size, own):
            try:
                unifier.equate(state.size, own, f"{state} has size {{a}}, its initial value {{b}}")
            except SpecError as error:
                raise error.at(state.where) from None
    unifier.check_made((*equations, *first))
    try:
        sizes = [{name: unifier.solved_extent(size) for name, size in part.items()} for part in gates]
        shapes = {name: unifier.solved_shape(name) for name in unifier.matrices}
    except SpecError as error:
        culprit = next((eq for eq in (*equations, *first) if _mentions(eq, error.message)), None)
        raise (placed(error, culprit) if culprit else error) from None
    for symbol in outputs:
        later, at_first = (part.get(symbol.name) for part in sizes)
        if first and later != at_first:
            message = f"sizes contradict: output {symbol} has size {later}, and {at_first} in the first step"
            raise SpecError(message, hint="give it one size in both sets of equations")
    return sizes[0], sizes[1], shapes


def _unify(unifier: Unifier, eq: Eq) -> None:
    size = unifier.find(unifier.size(eq.rhs))
    if isinstance(eq.lhs, lang.Next):
        own = eq.lhs.state.size
        if size != 1 and not unifier.fills(own, size):
            message = f"{eq.lhs.state} has size {{a}}, its next value {{b}}"
            unifier.equate(eq.lhs.state.size, size, message, None, eq.rhs)
        return
    unifier.gates[eq.lhs.name] = size


def _elementwise(kind: type, expr: sp.Basic | None) -> Any:
    """A symbol of this kind in an expression itself, not in a product or a sum over the features."""
    if isinstance(expr, kind):
        return expr
    if expr is None or isinstance(expr, (lang.matvec, *REDUCTIONS)):
        return None
    return next(filter(None, (_elementwise(kind, arg) for arg in expr.args)), None)


def _mentions(eq: Eq, message: str) -> bool:
    return any(isinstance(s, lang.Matrix) and f"of {s.name} " in message for s in lang.names_in(eq.rhs))
