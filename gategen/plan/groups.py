"""Groups: the products that can be one, because they meet one operand or are only added up.

That their weights also lie side by side is for `layout.py` to arrange and for `write.py` to find out; a group
whose weights do not becomes several products.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from gategen.graph import Graph, Op, Outer, Pointwise, Product, Value


@dataclass(frozen=True)
class Group:
    """Products that can be one; `total` is the sum that is all that reads them, where there is one."""

    products: tuple[Product, ...]
    total: Pointwise | None = None

    @property
    def first(self) -> Product:
        return self.products[0]

    @property
    def summed(self) -> bool:
        """Whether they are added up in one value, as `merge` leaves them."""
        return len(self.products) > 1 and self.products[1].out == self.first.out


@dataclass(frozen=True)
class Merged:
    """The ops of a graph, in which the products of a group that are added up all write one value."""

    ops: tuple[Op, ...]
    groups: tuple[Group, ...]


def grouped(graph: Graph, level: Mapping[Value, str], readers: Mapping[Value, list[Op]]) -> list[Group]:
    """Products of one operand at one level, and transposed ones at one level that are only added up."""
    ends = {*graph.results, *graph.nexts}
    found: dict[object, list[Product]] = defaultdict(list)
    total: dict[object, Pointwise] = {}
    terms: dict[Value, frozenset[sp.Expr]] = {}  # of the sums that read products
    for op in graph.ops:
        if not isinstance(op, Product):
            continue
        key: object = ("own", op.out)
        if not op.transposed:
            key = ("rows", op.operand, level[op.out], op.blocks)
        elif op.out not in ends and (reader := only_sum(op, readers[op.out], terms)):
            key = ("sum", reader.out, level[op.out], op.blocks)
            total[key] = reader
        found[key].append(op)
    return [Group(tuple(products), total.get(key)) for key, products in found.items()]


def only_sum(op: Product, readers: Sequence[Op], terms: dict[Value, frozenset[sp.Expr]]) -> Pointwise | None:
    """The op that adds the product to something of its own size, if nothing else reads it.

    `terms` are those of sums, as far as they were asked for.
    """
    match readers:
        case [Pointwise(out, expr) as reader] if op.out.size == out.size:
            if out not in terms:
                terms[out] = frozenset(sp.Add.make_args(expr))
            return reader if op.out in terms[out] else None
    return None


def readers_of(graph: Graph) -> dict[Value, list[Op]]:
    found: dict[Value, list[Op]] = {value: [] for value in graph.values}
    for op in graph.ops:
        for read in op.reads:
            found[read].append(op)
    return found


def merge(graph: Graph, groups: Iterable[Group]) -> Merged:
    """The graph's ops and product groups, with added-up products as one.

    Where `d_h = q_z + q_r + rest` the group `q_z, q_r` becomes one product of that sum, known as `q_z`; where
    there is no rest it writes `d_h` itself.
    """
    made: list[Group] = []
    sums: dict[Value, list[Op]] = {}  # what takes the place of each sum
    moved: set[Value] = set()
    for group in groups:
        if group.total is None:
            made.append(group)
            continue
        total = group.total.out
        *before, reader = sums.get(total, [group.total])
        assert isinstance(reader, Pointwise), f"{total} is no sum any more"
        products, ops = add_up(group.products, reader)
        made.append(Group(products))
        sums[total] = [*before, *ops]
        kept = products[0].out
        moved.update(op.out for op in group.products if op.out != kept)
    kept_ops = (one for op in graph.ops if op.out not in moved for one in sums.get(op.out, [op]))
    return Merged(tuple(kept_ops), tuple(made))


def add_up(group: Sequence[Product], reader: Pointwise) -> tuple[tuple[Product, ...], list[Op]]:
    """`group` as one product, and what comes in the place of the sum `reader`: all of it but the first, and
    the rest of the sum; or where there is no rest, all of it.
    """
    rest = reader.expr.xreplace({op.out: sp.S.Zero for op in group[1:]})
    if rest == group[0].out:
        made = tuple(replace(op, out=reader.out) for op in group)
        return made, [*made]
    made = tuple(replace(op, out=group[0].out) for op in group)
    return made, [*made[1:], Pointwise(reader.out, rest)]


def side_by_side(ops: Iterable[Op]) -> set[Value]:
    """The gradients that lie beside others: those whose outer products have a right side in common."""
    rights: dict[Value, set[Value]] = {}
    for op in ops:
        if isinstance(op, Outer):
            rights.setdefault(op.right, set()).add(op.left)
    return {left for lefts in rights.values() if len(lefts) > 1 for left in lefts}
