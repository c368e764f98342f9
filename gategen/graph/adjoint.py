"""`adjoint`: the backward step of a recurrence, as a recurrence (backpropagation through time).

Reverse accumulation over the ops (Griewank & Walther, Evaluating Derivatives, chapter 3), with one rule for
each:

    Pointwise y = f(a, b)    d_a += d_y * df/da
    Product   p = W @ v      d_v += W.T @ d_p      d_W += Outer(d_p, v)
    Reduce    m = sum(v)     d_v += d_m, broadcast
    Outer     M = sum l r^T  d_l += d_M @ r        d_r += d_M.T @ l
    BatchSum  s = sum v      d_v += d_s, broadcast

A value that was broadcast gets the sum of what reached it. `df/da` is written in terms of `y` where that is
what the forward step saved. The result reads the forward values as inputs and runs the other way in time.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator

import sympy as sp

from gategen.graph.builder import Builder
from gategen.graph.check import check
from gategen.graph.ops import (
    BatchSum,
    Carry,
    Graph,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Role,
    Value,
    derivative,
)
from gategen.spec.language import Size

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


def is_narrow(value: Value, size: Size) -> bool:
    """Whether `value` was broadcast over the features of something of this size."""
    return bool(value.size == 1 and size != 1)


class _Adjoint:
    def __init__(self, graph: Graph) -> None:
        self.forward = graph
        self.builder = Builder(v.name for v in graph.values)
        self.terms: dict[Value, list[sp.Expr]] = defaultdict(list)
        # Terms to be summed over features, or over steps and rows, by their own size, and after how many ops
        # the last of them was known.
        self.broadcast: dict[Value, dict[tuple[Size, bool], list[sp.Expr]]] = defaultdict(dict)
        self.complete: dict[tuple[Value, Size, bool], int] = {}
        self.moved: dict[Value, int] = {}
        self.totals: dict[Value, Value | None] = {}
        self.laters: set[Value] = set()
        self.outside: set[Value] = set()  # gradients that come from outside
        self.active = self.differentiable()

    def differentiable(self) -> set[Value]:
        """The values that depend on something a gradient is wanted for."""
        active = {v for v in self.forward.given if v not in self.forward.fixed}
        for op in self.forward.ops:
            if not active.isdisjoint(op.reads):
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
            named = total
            if not isinstance(total, Value):
                named = builder.once(
                    total,
                    functools.partial(builder.pointwise, f"g_{value.name}", total, size=size, step=step),
                )
                self.moved.setdefault(named, self.complete[value, size, step])
            if is_narrow(value, size):
                named = builder.reduced(f"sum_{named}", named)
            if value.static and step:
                named = builder.summed(named, value.shape, functools.partial(builder.gradient, value, role))
            yield named

    def pull(self, op: Op) -> None:
        if op.out not in self.active:
            return
        gradient = self.total(op.out)
        if gradient is None:
            return
        match op:
            case Pointwise():
                for read in op.reads:
                    if read in self.active:
                        self.give(read, gradient * partial(op, read), op.out)
            case Product(_, matrix, operand, transposed):
                if operand in self.active:
                    self.give(operand, self.product(matrix, gradient, not transposed), operand)
                if matrix in self.active:
                    self.terms[matrix].append(self.outer(matrix, gradient, operand, transposed))
            case Reduce(_, operands):
                for operand in operands:
                    self.terms[operand].append(gradient)
            case BatchSum(_, operand):
                self.terms[operand].append(gradient)
            case Outer(_, left, right):
                if left in self.active:
                    self.terms[left].append(self.product(gradient, right, False))
                if right in self.active:
                    self.terms[right].append(self.product(gradient, left, True))

    def product(self, matrix: Value, operand: Value, transposed: bool) -> Value:
        size = matrix.shape[1] if transposed else matrix.shape[0]
        wish = f"{matrix.name}{'T' if transposed else ''}_{operand.name}"
        return self.builder.add(Product(self.builder.value(wish, (size,)), matrix, operand, transposed))

    def outer(self, matrix: Value, gradient: Value, operand: Value, transposed: bool) -> Value:
        left, right = (operand, gradient) if transposed else (gradient, operand)
        return self.builder.add(Outer(self.builder.gradient(matrix, "term"), left, right))
