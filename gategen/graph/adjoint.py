"""`adjoint`: the backward step of a recurrence, as a recurrence (backpropagation through time).

Reverse accumulation over the ops (Griewank & Walther, Evaluating Derivatives, chapter 3), with one rule for
each:

    Pointwise y = f(a, b)    d_a += d_y * df/da
    Product   p = W @ v      d_v += W.T @ d_p      d_W += Outer(d_p, v)
    Contract  m = C @ k      d_C += d_m k^T        d_k += C.T @ d_m
    Reduce    m = sum(v)     d_v += d_m, broadcast
              m = max(v)     d_v += d_m where v is m, shared where several are
    CumSum    s = cumsum(v)  d_v += d_s, summed up from the last feature on
    Shift     s = v, by k    d_v += d_s, shifted by -k
    Outer     M = sum l r^T  d_l += d_M @ r        d_r += d_M.T @ l
    BatchSum  s = sum v      d_v += d_s, broadcast
    MatrixOp  M = A @ B      d_A += d_M @ B.T      d_B += A.T @ d_M
              M = inv(A)     d_A -= M.T @ d_M @ M.T
              M = expm(A)    d_A += the derivative of expm at A.T in the direction of d_M
              M = A.T        d_A += d_M.T

A value that was broadcast gets the sum of what reached it, of a matrix along the axes that it does not have.
`df/da` is written in terms of `y` where that is what the forward step saved. The result reads the forward
values as inputs and runs the other way in time.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator

import sympy as sp

from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.ops import (
    BatchSum,
    Carry,
    Contract,
    CumSum,
    Graph,
    MatrixOp,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Role,
    Shift,
    Value,
    axes,
    derivative,
    extent,
    shape_of,
    values_in,
)
from gategen.spec.names import Extent, Size

Ends = tuple[tuple[str, Value], ...]


def adjoint(graph: Graph) -> Graph:
    """The recurrence that pulls gradients back through `graph`.

    Its inputs are the forward values it reads and `d_<output>` for every output; its states `d_<state>` start
    from the gradients of the final states and end at those of the initial ones; its outputs are the gradients
    of the inputs and its sums those of the parameters, under the forward names.
    """
    return _Adjoint(graph).graph()


def partial(op: Pointwise, by: Value) -> sp.Expr:
    """d out / d by, in terms of `out` where the derivative needs the value itself."""
    expr = op.expr
    if isinstance(expr, sp.Pow) and expr.base == by and abs(expr.exp) == sp.Rational(1, 2):
        return expr.exp * op.out ** ((expr.exp - 1) / expr.exp)
    found = derivative(expr, by).xreplace({expr: op.out})
    if found.has(sp.DiracDelta):  # what SymPy has `sign` jump by
        found = found.replace(sp.DiracDelta, lambda *_: sp.S.Zero)
    return found


def is_narrow(value: Value, size: Extent) -> bool:
    """Whether `value` was broadcast over the features of something of this size."""
    return {*value.axes} < {*axes(size)}


def is_still(op: Op) -> bool:
    """Whether nothing is differentiated through an op, whatever it reads."""
    return isinstance(op, Reduce) and op.how == "bound"


class _Adjoint:
    def __init__(self, graph: Graph) -> None:
        self.forward = graph
        self.builder = Builder((v.name for v in graph.values), graph.orders)
        self.terms: dict[Value, list[sp.Expr]] = defaultdict(list)
        # Terms to be summed over features, or over steps and rows, by their own size, and after how many ops
        # the last of them was known.
        self.broadcast: dict[Value, dict[tuple[Extent, bool], list[sp.Expr]]] = defaultdict(dict)
        self.complete: dict[tuple[Value, Extent, bool], int] = {}
        self.moved: dict[Value, int] = {}
        self.totals: dict[Value, Value | None] = {}
        self.laters: set[Value] = set()
        self.outside: set[Value] = set()  # gradients that come from outside
        self.active = self.differentiable()
        # whether this makes matrices of matrices, which broadcast by their shapes
        self.of_weights = not (graph.inputs or graph.states or graph.outputs)

    def differentiable(self) -> set[Value]:
        """The values that depend on something a gradient is wanted for."""
        active = {v for v in self.forward.given if v not in self.forward.fixed}
        for op in self.forward.ops:
            if not active.isdisjoint(op.reads) and not is_still(op):
                active.add(op.out)
        return active

    def graph(self) -> Graph:
        forward, builder = self.forward, self.builder
        inputs: list[Value] = []
        seeds: list[Value] = []
        laters = {
            c.name: builder.value(f"d_{c.name}_later", c.next.shape, role="carried", of=c.current)
            for c in forward.states
        }
        self.laters.update(laters.values())
        for carry in forward.states:
            self.terms[carry.next].append(laters[carry.name])
        for name, value in forward.outputs:
            inputs.append(builder.gradient(Value(name, value.shape, False, "output", value)))
            self.terms[value].append(inputs[-1])
        for name, value in forward.sums:
            if value in self.active:
                seeds.append(builder.gradient(Value(name, value.shape, True, "output", value)))
                self.terms[value].append(seeds[-1])
        self.outside.update(self.laters, inputs, seeds)
        for op in reversed(forward.ops):
            self.pull(op)
        states = tuple(Carry(f"d_{c.name}", laters[c.name], self.ending(c.current)) for c in forward.states)
        wanted = [v for v in forward.inputs if v in self.active]
        outputs = tuple((v.name, self.ending(v)) for v in wanted)
        sums = tuple((v.name, self.ending(v)) for v in forward.parameters if v in self.active)
        return self.pruned(inputs, seeds, states, outputs, sums)

    def pruned(
        self, inputs: list[Value], seeds: list[Value], states: tuple[Carry, ...], outputs: Ends, sums: Ends
    ) -> Graph:
        """The graph, reading only those forward values that it needs."""
        made = {op.out for op in self.builder.ops} | {c.current for c in states} | {*inputs, *seeds}
        reads = {v for op in self.builder.ops for v in op.reads} - made
        taped = [v for v in self.forward.values if v in reads]
        return check(
            Graph(
                f"{self.forward.name}_adjoint",
                (*inputs, *(v for v in taped if not v.static)),
                (*seeds, *(v for v in taped if v.static)),
                states,
                self.ordered(),
                outputs,
                sums,
                tuple(v for v in self.forward.fixed if v in reads),
                self.forward.mask,
                (),  # what a run leaves of them is the result of no loss
                self.forward.blocks,
                not self.forward.backwards,
            )
        )

    def ordered(self) -> tuple[Op, ...]:
        """The ops; one that adds up terms comes right behind the last of them, whose memory is free there."""
        moved = self.moved
        at = {op.out: (moved.get(op.out, k), op.out not in moved) for k, op in enumerate(self.builder.ops)}
        return tuple(sorted(self.builder.ops, key=lambda op: at[op.out]))

    # ------------------------------------------------------------------------------------------ gradients

    def total(self, value: Value) -> Value | None:
        """The whole gradient of a value, named; None where nothing reached it."""
        if value not in self.totals:
            terms = [*self.terms.get(value, ()), *self.reduced(value)]
            if not terms:
                self.totals[value] = None
            elif len(terms) == 1 and self.is_whole(terms[0], value):
                self.totals[value] = terms[0]
            else:
                self.totals[value] = self.builder.add(Pointwise(self.builder.gradient(value), sp.Add(*terms)))
        return self.totals[value]

    def is_whole(self, term: sp.Expr, value: Value) -> bool:
        """Whether a gradient that exists already can be that of `value`: a carried one lasts for one step
        only.
        """
        return isinstance(term, Value) and term.shape == value.shape and term not in self.laters

    def ending(self, value: Value) -> Value:
        """The gradient of something given, as a value of its own even where it is 0."""
        total = self.total(value)
        if total is None:
            return self.builder.add(Pointwise(self.builder.gradient(value), sp.S.Zero))
        own = (total.role, total.of) == ("gradient", value)
        if total not in self.outside and (value.static or own):
            return total
        return self.builder.add(Pointwise(self.builder.gradient(value), total))

    def give(self, value: Value, term: sp.Expr, size_from: Value) -> None:
        """Add `term` to the gradient of `value`, to be summed over whatever `value` was broadcast over."""
        if value not in self.active or term == 0:
            return
        step = not size_from.static
        if is_narrow(value, size_from.size) or (value.static and step):
            self.broadcast[value].setdefault((size_from.size, step), []).append(term)
            self.complete[value, size_from.size, step] = len(self.builder.ops)
        else:
            self.terms[value].append(term)

    def reduced(self, value: Value) -> Iterator[Value]:
        """What reached a broadcast value: one sum for all terms of one size."""
        builder = self.builder
        alone = len(self.broadcast[value]) == 1 and not self.terms.get(value)
        role: Role = "gradient" if alone else "term"
        for (size, step), terms in self.broadcast[value].items():
            total = sp.Add(*terms)
            if total == 0:
                continue
            known: int | None = self.complete[value, size, step]
            if step and len(axes(size)) > 1 and is_narrow(value, size):
                total = sp.Add(*(self.contracted(term, value, size) for term in sp.Add.make_args(total)))
                if not value.static:
                    yield total
                    continue
                size, known = value.size, None
            named = total
            if not isinstance(total, Value):
                named = builder.once(
                    total,
                    functools.partial(builder.pointwise, f"g_{value.name}", total, size=size, step=step),
                )
                if known is not None:
                    self.moved.setdefault(named, known)
            if is_narrow(value, size):
                named = builder.reduced(f"sum_{named}", named, size=value.size)
            if value.static and step:
                named = builder.summed(named, value.shape, functools.partial(builder.gradient, value, role))
            yield named

    def contracted(self, term: sp.Expr, value: Value, size: Extent) -> sp.Expr:
        """The sum of a term over the axes that `value` does not have: `i * (d_C @ k)` of `d_C * i * k`.

        Two factors are one contraction, of which one is often a vector; more are multiplied before.
        """
        builder, factors = self.builder, sp.Mul.make_args(term)
        along = {f: {axis for v in values_in(f) for axis in v.axes} for f in factors}
        kept = [f for f in factors if along[f] <= {*value.axes}]
        rest = [f for f in factors if f not in kept]
        over = [axis for axis in axes(size) if axis not in value.axes]
        for axis in reversed(over[1:]):  # one after the other, where a vector leads
            vectors = [f for f in rest if along[f] - {*value.axes} == {axis}]
            broad = [f for f in rest if len(along[f] - {*value.axes}) > 1]
            if vectors and broad:
                whole, vector = (self.named(sp.Mul(*some), f"g_{value.name}") for some in (broad, vectors))
                left = tuple(a for a in axes(size) if a != axis)
                first = builder.contracted(f"{whole}_{vector}", whole, vector, left)
                last = sp.Mul(first, *(f for f in rest if f not in (*broad, *vectors)))
                return sp.Mul(*kept, self.contracted(last, value, extent(left)))
        full = [f for f in rest if along[f] == {*axes(size)}]
        parts = [sp.Mul(*full), sp.Mul(*(f for f in rest if f not in full))]
        if len(rest) == 2:
            parts = rest
        if 1 not in parts:
            left, right = (self.named(part, f"g_{value.name}") for part in parts)
            total = builder.contracted(f"{left}_{right}", left, right, value.axes)
        else:
            one = self.named(sp.Mul(*rest), f"g_{value.name}")
            total = builder.reduced(f"sum_{one}", one, size=value.size)
        return sp.Mul(*kept, total)

    def named(self, expr: sp.Expr, wish: str) -> Value:
        if isinstance(expr, Value):
            return expr
        return self.builder.once(expr, lambda: self.builder.pointwise(wish, expr))

    def pull(self, op: Op) -> None:
        if op.out not in self.active:
            return
        gradient = self.total(op.out)
        if gradient is None:
            return
        match op:
            case Pointwise() if self.of_weights:
                for read in op.reads:
                    if read in self.active:
                        self.terms[read].append(self.gathered(read, gradient * partial(op, read), op.out))
            case MatrixOp():
                self.pull_matrix(op, gradient)
            case Pointwise():
                for read in op.reads:
                    if read in self.active:
                        self.give(read, gradient * partial(op, read), op.out)
            case Product(_, matrix, operand, transposed, blocks):
                if operand in self.active:
                    through = self.product(matrix, gradient, not transposed, operand.size, blocks)
                    self.give(operand, through, operand)
                if matrix in self.active:
                    self.terms[matrix].append(self.outer(matrix, gradient, operand, transposed, blocks))
            case Contract(_, left, right):
                for read, other in ((left, right), (right, left)):
                    if read in self.active:
                        self.across(read, gradient, other)
            case Reduce(_, operands, "sum"):
                for operand in operands:
                    self.terms[operand].append(gradient)
            case Reduce(_, operands):
                for operand, share in zip(operands, self.builder.shares(op), strict=True):
                    self.give(operand, gradient * share, operand)
            case CumSum(_, operand, backwards, axis):
                total = CumSum(self.builder.gradient(operand, "term"), gradient, not backwards, axis)
                self.terms[operand].append(self.builder.add(total))
            case Shift(_, operand, by, axis):
                self.terms[operand].append(self.shifted(operand, gradient, -by, axis))
            case BatchSum(_, operand):
                self.terms[operand].append(gradient)
            case Outer(_, left, right, blocks):
                if left in self.active:
                    self.terms[left].append(self.product(gradient, right, False, left.size, blocks))
                if right in self.active:
                    self.terms[right].append(self.product(gradient, left, True, right.size, blocks))

    def across(self, read: Value, gradient: Value, other: Value) -> None:
        """Add to the gradient of one side of a contraction: a product with the other side."""
        both = {*gradient.axes, *other.axes}
        if both == {*read.axes} and not read.static:
            self.terms[read].append(gradient * other)
            return
        order = read.axes if both == {*read.axes} else self.order(both)
        self.give(read, gradient * other, Value("", order))

    def order(self, both: set[Size]) -> tuple[Size, ...]:
        """Axes in the order in which they stand in something of the forward step."""
        return next(
            tuple(axis for axis in axes(order) if axis in both)
            for order in self.forward.orders
            if both <= {*axes(order)}
        )

    def product(self, matrix: Value, operand: Value, transposed: bool, size: Extent, blocks: Size) -> Value:
        wish = f"{matrix.name}{'T' if transposed else ''}_{operand.name}"
        out = self.builder.value(wish, shape_of(size))
        return self.builder.add(Product(out, matrix, operand, transposed, blocks))

    def shifted(self, operand: Value, gradient: Value, by: int, axis: Size) -> Value:
        """A gradient that is shifted; once, for all that were shifted as far and added up."""
        builder = self.builder
        return builder.once(
            ("shifted", gradient, by, axis),
            lambda: builder.add(Shift(builder.gradient(operand, "term"), gradient, by, axis)),
        )

    def outer(self, matrix: Value, gradient: Value, operand: Value, transposed: bool, blocks: Size) -> Value:
        left, right = (operand, gradient) if transposed else (gradient, operand)
        return self.builder.add(Outer(self.builder.gradient(matrix, "term"), left, right, blocks))

    # ------------------------------------------------------------------------------------------ matrices

    def gathered(self, value: Value, term: sp.Expr, like: Value) -> sp.Expr:
        """A term of the gradient of a value that was broadcast to a matrix, summed over that."""
        if value.shape == like.shape:
            return term
        named = term
        if not (isinstance(term, Value) and term.shape == like.shape):
            named = self.builder.add(
                Pointwise(self.builder.value(f"g_{value.name}", like.shape, True, "term", value), term)
            )
        return self.of_matrices("sum", value.shape, named)

    def of_matrices(self, word: str, shape: tuple[Size, ...], *operands: Value) -> Value:
        first = operands[0].name
        wish = {"transpose": f"{first}_T", "sum": f"sum_{first}"}.get(word, f"g_{first}")
        return self.builder.add(MatrixOp(self.builder.value(wish, shape, True), word, operands))

    def turned(self, value: Value) -> Value:
        return self.builder.once(
            ("turned", value), lambda: self.of_matrices("transpose", value.shape[::-1], value)
        )

    def product_of(self, left: Value, right: Value) -> Value:
        return self.of_matrices("multiply", (left.shape[0], right.shape[1]), left, right)

    def pull_matrix(self, op: MatrixOp, gradient: Value) -> None:
        match op.word, op.operands:
            case "transpose", [operand]:
                self.add_to(operand, lambda: self.turned(gradient))
            case "sum", [operand]:
                self.add_to(operand, lambda: gradient)
            case "multiply", [left, right]:
                self.add_to(left, lambda: self.product_of(gradient, self.turned(right)))
                self.add_to(right, lambda: self.product_of(self.turned(left), gradient))
            case "inverse", [operand]:
                turned = self.turned(op.out)
                both = self.product_of(self.product_of(turned, gradient), turned)
                self.add_to(operand, lambda: -both)
            case "exponential", [first, *rest]:
                for k, operand in enumerate(op.operands):
                    ways = [gradient if j == k else self.turned(v) for j, v in enumerate(rest, 1)]
                    ways += [gradient] if k == 0 else []
                    self.add_to(
                        operand,
                        functools.partial(
                            self.of_matrices, "exponential", op.out.shape, self.turned(first), *ways
                        ),
                    )

    def add_to(self, value: Value, term: Callable[[], sp.Expr]) -> None:
        if value in self.active:
            self.terms[value].append(term())
