"""Lifetimes: how long each value must last, and which may take each other's memory in a chain.

A new value joins the chain of an old one that dies where the new one is computed: a pointwise result may
overwrite an operand of its own size, entry by entry. Which memory a chain gets is left to `place.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from gategen.graph import BEFORE, LOOP, Graph, Op, Pointwise, Value
from gategen.plan.groups import side_by_side
from gategen.plan.stages import Draft, alike


class Chains:
    """The chains of a graph whose ops run in this order.

    `kept` values must outlive the step, so nothing overwrites them; `may(root, new)` can refuse to let `new`
    join the chain that begins with `root`.
    """

    def __init__(
        self,
        graph: Graph,
        order: Sequence[Op],
        kept: Iterable[Value] = (),
        may: Callable[[Value, Value], bool] = lambda root, new: True,
    ) -> None:
        self.begins: dict[Value, Value] = {}  # what joined another one's chain, with the first value of that
        made_at = {op.out: k for k, op in enumerate(order)}
        last = {read: k for k, op in enumerate(order) for read in op.reads}
        ends = {*graph.nexts}
        safe = {*graph.given, *kept, *ends, *graph.results}
        for k, op in enumerate(order):
            if not isinstance(op, Pointwise) or op.out in ends:
                continue
            dying = [v for v in op.reads if last[v] == k and v not in safe and alike(v, op.out)]
            dying = [v for v in dying if may(self.root(v), op.out)]
            if dying:
                self.begins[op.out] = min(map(self.root, dying), key=made_at.__getitem__)

    def root(self, value: Value) -> Value:
        """The first value of the chain."""
        return self.begins.get(value, value)


# ---------------------------------------------------------------------------------------------- how long

NOWHERE, ROW, TIME = 0, 1, 2  # not beyond its kernel, within the step, for all steps


def needs(draft: Draft, kept: Iterable[Value]) -> dict[Value, int]:
    """How long each computed value must last."""
    need: dict[Value, int] = dict.fromkeys((op.out for op in draft.ops), NOWHERE)
    for op in draft.ops:
        if not isinstance(op, Pointwise):
            need[op.out] = ROW if draft.level(op.out) == LOOP else TIME
        for read in op.reads:
            if read in need and draft.home[read] != draft.home[op.out]:
                within = draft.level(read) == draft.level(op.out) == LOOP
                need[read] = max(need[read], ROW if within else TIME)
    for value in (*kept, *draft.graph.results):
        if value in need:
            need[value] = TIME
    return need


def in_place(
    draft: Draft, kept: Iterable[Value], need: Mapping[Value, int], placed: Set[Value], arrays: bool = False
) -> Chains:
    """The chains of a draft over what is not `placed` yet.

    With `arrays` what is computed ahead of the loop does not lie where a gradient among others will: a few
    steps of it in one piece stay in the cache.

    A product in the loop writes its stack of rows at once. Where it is transposed, or where not all of the
    stack would last in a buffer of all steps, no lasting value joins one member's chain and drags the stack
    along.
    """

    sides = side_by_side(draft.ops) if arrays else set()

    def free(root: Value, new: Value) -> bool:
        ahead = new in sides and draft.level(root) == BEFORE and draft.level(new) == LOOP
        return not ahead and root not in placed and new not in placed

    chains = Chains(draft.graph, draft.ops, kept, free)
    lasting = {chains.root(v) for v, long in need.items() if long == TIME}
    rows = {
        op.out
        for group in draft.groups
        if draft.level(group.first.out) == LOOP
        and (group.first.transposed or not all(member.out in lasting for member in group.products))
        for op in group.products
    }
    return Chains(
        draft.graph,
        draft.ops,
        kept,
        lambda root, new: free(root, new) and not (root in rows and need[new] == TIME),
    )
