"""Chains: which values may take each other's memory, because the old one dies where the new one is computed.

Only pointwise results overwrite an operand, entry by entry, of their own size. Which memory a chain gets is left to
`place.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gategen.graph import Graph, Op, Pointwise, Value
from gategen.plan.stages import alike


class Chains:
    """The chains of a graph whose ops run in this order.

    `kept` values must outlive the step, so nothing overwrites them; `may(root, new)` can refuse to let `new` join the
    chain that begins with `root`.
    """

    def __init__(
        self,
        graph: Graph,
        order: Sequence[Op],
        kept: Iterable[Value] = (),
        may: Callable[[Value, Value], bool] = lambda root, new: True,
    ) -> None:
        self.parent: dict[Value, Value] = {}
        made_at = {op.out: k for k, op in enumerate(order)}
        last = {read: k for k, op in enumerate(order) for read in op.reads}
        ends = {c.next for c in graph.states}
        safe = {*graph.given, *kept, *ends, *(v for _, v in (*graph.outputs, *graph.sums))}
        for k, op in enumerate(order):
            if not isinstance(op, Pointwise) or op.out in ends:
                continue
            dying = [v for v in op.reads if last[v] == k and v not in safe and alike(v, op.out)]
            dying = [v for v in dying if may(self.root(v), op.out)]
            if dying:
                self.parent[op.out] = min(dying, key=lambda v: made_at[self.root(v)])

    def root(self, value: Value) -> Value:
        """The first value of the chain."""
        while value in self.parent:
            value = self.parent[value]
        return value
