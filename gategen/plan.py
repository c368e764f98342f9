"""The planner: what runs before, in and after the time loop, in which buffers, with which stacked products.

It knows no target language. Small passes, in the order of this file:

    hoist      split a sum in the loop into the part that waits for the state and the part that does not
    retape     recompute in the backward step what is cheaper to compute than to save
    stage      cut each level (before, loop, after) into products and pointwise kernels
    share      name a subexpression that several ops of one kernel compute
    stack      lay parameters, products and gradients side by side so that one product serves all gates
    place      give every value that outlives its kernel a slot in a buffer, in place where it can be
    classify   recurrent, elementwise or linear

`plan(cell)` runs them all; `text(plan)` prints the result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import sympy as sp

from gategen import language as lang
from gategen.adjoint import adjoint
from gategen.cell import Cell
from gategen.graph import (
    AFTER,
    BEFORE,
    LOOP,
    BatchSum,
    Builder,
    Graph,
    Op,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Value,
    check,
    flatten,
    fresh,
    length,
    levels,
    ranks,
    start,
    values_in,
)
from gategen.language import Size
from gategen.printer import Printer

# ---------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Slot:
    """`size` features of a buffer, from `start` on."""

    buffer: str
    start: sp.Expr
    size: Size
    shift: int = 0  # 1: the value after the step, in a buffer of states

    @property
    def stop(self) -> sp.Expr:
        return self.start + length(self.size)


@dataclass(frozen=True)
class Buffer:
    """Memory of one kind.

    kind      shape          what for
    "input"   (T, B, width)  an input of the step
    "state"   (T+1, B, width)  a state at all times, [t] before step t and [t + 1] after it
    "carry"   (B, width)     a state of which only the latest value is kept
    "time"    (T, B, width)  a value kept for every step
    "row"     (B, width)     a value that lives within one step
    "static"  (width,)       one value for all steps
    """

    name: str
    kind: str
    width: sp.Expr
    members: tuple[str, ...]
    starts: tuple[sp.Expr, ...] = ()


@dataclass(frozen=True)
class Weight:
    """Rows and columns of a field of `Params`; `columns` is None where they are all its columns."""

    field: str
    start: sp.Expr
    stop: sp.Expr
    columns: tuple[sp.Expr, sp.Expr] | None
    members: tuple[str, ...]


@dataclass(frozen=True)
class MatMul:
    """`out (+)= operand @ weight.T`, or with `transposed` `operand @ weight`."""

    out: tuple[Value, ...]
    operand: tuple[Value, ...]
    weight: Weight
    transposed: bool
    add: bool = False


@dataclass(frozen=True)
class Kernel:
    """Pointwise ops over values of one size that need nothing but each other and what is in memory."""

    ops: tuple[Pointwise, ...]
    size: Size
    static: bool = False


@dataclass(frozen=True)
class Sum:
    """`out = sum over the features of operand`, for every row."""

    out: Value
    operand: Value


@dataclass(frozen=True)
class OuterSum:
    """Rows of the gradient of a field: `left.T @ right` over all steps and rows."""

    weight: Weight
    left: tuple[Value, ...]
    right: tuple[Value, ...]
    add: bool = False


@dataclass(frozen=True)
class ColumnSum:
    """`out = sum of operand` over all steps and rows."""

    out: tuple[Value, ...]
    operand: tuple[Value, ...]


Stage = MatMul | Kernel | Sum | OuterSum | ColumnSum


@dataclass(frozen=True)
class Field:
    """A field of `Params`: stacked rows (and column blocks) of the cell's own parameters."""

    name: str
    members: tuple[str, ...]
    rows: tuple[Size, ...]
    columns: tuple[Size, ...] | None
    trainable: bool

    @property
    def height(self) -> sp.Expr:
        return sp.Add(*map(length, self.rows))

    @property
    def width(self) -> sp.Expr:
        return sp.Add(*map(length, self.columns or ()))


@dataclass(frozen=True)
class Schedule:
    """A graph, cut into stages, with a place for every value that needs one."""

    graph: Graph
    before: tuple[Stage, ...]
    loop: tuple[Stage, ...]
    after: tuple[Stage, ...]
    buffers: tuple[Buffer, ...]
    slots: tuple[tuple[Value, Slot], ...]

    @cached_property
    def slot(self) -> dict[Value, Slot]:
        return dict(self.slots)

    @cached_property
    def buffer(self) -> dict[str, Buffer]:
        return {buffer.name: buffer for buffer in self.buffers}

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (*self.before, *self.loop, *self.after)


@dataclass(frozen=True)
class Pair:
    """A forward step, its backward step, and the forward values the backward step reads from the tape."""

    forward: Schedule
    backward: Schedule
    tape: tuple[Value, ...]


@dataclass(frozen=True)
class Plan:
    """Everything a backend needs to know of a cell. `first` and `start` are None where the cell has no such rule."""

    cell: Cell
    kind: str
    fields: tuple[Field, ...]
    step: Pair
    first: Pair | None
    start: Pair | None


# ---------------------------------------------------------------------------------------------- hoist


def hoist(graph: Graph) -> Graph:
    """`a = W @ x + b + U @ h` becomes `g = W @ x + b` before the loop and `a = g + U @ h` in it.

    What reads parameters alone is summed first, once per call: `b + c`.
    """
    level = levels(graph)
    builder = Builder(v.name for v in graph.values)
    loop_given = {carry.current for carry in graph.states}

    def waits(term: sp.Expr) -> bool:
        return any(v in loop_given or level.get(v, BEFORE) != BEFORE for v in values_in(term))

    for op in graph.ops:
        if not (isinstance(op, Pointwise) and level[op.out] == LOOP and isinstance(op.expr, sp.Add)):
            builder.add(op)
            continue
        early = [term for term in op.expr.args if not waits(term) and not term.is_number]
        late = [term for term in op.expr.args if term not in early]
        stem = op.out.name.removeprefix("a_")
        if not graph.backwards and (len(early) > 1 or any(not isinstance(term, Value) for term in early)):
            early = [hoisted(builder, early, stem)]
        builder.add(Pointwise(op.out, sp.Add(*early, *late)))
    return check(replace(graph, ops=tuple(builder.ops)))


def hoisted(builder: Builder, terms: Sequence[sp.Expr], stem: str) -> Value:
    """One value before the loop for the sum of `terms`."""
    static = [term for term in terms if all(v.static for v in values_in(term))]
    rest = [term for term in terms if term not in static]
    if rest and (len(static) > 1 or any(not isinstance(term, Value) for term in static)):
        total = sp.Add(*static)
        static = [builder.once(total, lambda: builder.pointwise(f"bias_{stem}", total))]
    whole = sp.Add(*rest, *static)
    return whole if isinstance(whole, Value) else builder.once(whole, lambda: builder.pointwise(f"x_{stem}", whole))


# ---------------------------------------------------------------------------------------------- retape


def retape(forward: Graph, backward: Graph) -> Graph:
    """The backward graph, computing by itself what is cheap arithmetic on what it reads anyway.

    One rule: a forward value that is a single sum or product of at most three values, all of which the backward step
    reads (or was given), and that meets no outer product (whose operand must lie in memory anyway), is recomputed.
    """
    made = {op.out: op for op in forward.ops if isinstance(op, Pointwise)}
    nexts = {carry.next for carry in forward.states}
    given = set(forward.given) | nexts
    in_memory = {v for op in backward.ops if isinstance(op, (Outer, Product)) for v in op.reads}
    needed = [v for v in (*backward.inputs, *backward.parameters) if v in made and v not in nexts]
    available = given | set(needed)
    again: list[Pointwise] = []
    for op in forward.ops:
        if op.out in needed and op.out not in in_memory and cheap(made[op.out].expr) and available.issuperset(op.reads):
            again.append(made[op.out])
    dropped = {op.out for op in again}
    known = {*backward.inputs, *backward.parameters} - dropped
    extra = [v for op in again for v in op.reads if v not in dropped and v not in known]
    extra = list(dict.fromkeys(extra))
    return check(
        replace(
            backward,
            inputs=(*(v for v in backward.inputs if v not in dropped), *(v for v in extra if not v.static)),
            parameters=(*(v for v in backward.parameters if v not in dropped), *(v for v in extra if v.static)),
            ops=(*again, *backward.ops),
        )
    )


def cheap(expr: sp.Expr) -> bool:
    """Arithmetic of at most three values, no function and no division."""
    if not isinstance(expr, (sp.Add, sp.Mul)) or len(values_in(expr)) > 3:
        return False
    return all(
        isinstance(node, (sp.Add, sp.Mul, sp.Symbol, sp.Number))
        or (isinstance(node, sp.Pow) and node.exp.is_Integer and node.exp > 0)
        for node in sp.preorder_traversal(expr)
    )


def alive(graph: Graph, keep: Iterable[Value] = ()) -> Graph:
    """The graph without ops that nothing reads."""
    needed = {v for _, v in (*graph.outputs, *graph.sums)} | {c.next for c in graph.states} | set(keep)
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if op.out in needed:
            needed.update(op.reads)
            ops.append(op)
    return replace(graph, ops=tuple(reversed(ops)))


# ---------------------------------------------------------------------------------------------- stage


Group = tuple[Product, ...]


def groups(graph: Graph, level: dict[Value, str]) -> tuple[Group, ...]:
    """Products that can be one: those of one operand at one level, and transposed ones that are only added up."""
    readers = readers_of(graph)
    ends = {v for _, v in (*graph.outputs, *graph.sums)} | {c.next for c in graph.states}
    found: dict[object, list[Product]] = defaultdict(list)
    for op in graph.ops:
        if isinstance(op, Product):
            found[group_key(op, readers[op.out], ends, level)].append(op)
    return tuple(map(tuple, found.values()))


def group_key(op: Product, readers: list[Op], ends: set[Value], level: dict[Value, str]) -> tuple[object, ...]:
    if not op.transposed:
        return "rows", op.operand, level[op.out]
    (reader,) = readers if len(readers) == 1 else (None,)
    if isinstance(reader, Pointwise) and op.out not in ends and op.out in sp.Add.make_args(reader.expr):
        return "sum", reader.out, level[op.out]
    return "own", op.out


def merge(graph: Graph, level: dict[Value, str]) -> tuple[tuple[Op, ...], tuple[Group, ...]]:
    """The ops and the product groups, with added-up products as one.

    Where `d_h = q_z + q_r + rest` the group `q_z, q_r` becomes one product of that sum, known as `q_z`; where there is
    no rest it writes `d_h` itself.
    """
    ops: list[Op] = list(graph.ops)
    made: list[Group] = []
    for group in groups(graph, level):
        if not group[0].transposed or group_key(group[0], readers_of(graph)[group[0].out], set(), level)[0] != "sum":
            made.append(group)
            continue
        (reader,) = readers_of(graph)[group[0].out]
        assert isinstance(reader, Pointwise)
        at = next(k for k, op in enumerate(ops) if op.out == reader.out)
        current = ops[at]
        assert isinstance(current, Pointwise)
        rest = current.expr.xreplace({op.out: sp.S.Zero for op in group[1:]})
        out = reader.out if rest == group[0].out else group[0].out
        made.append(tuple(replace(op, out=out) for op in group))
        gone = {op.out for op in group}
        tail = [] if out == reader.out else [Pointwise(reader.out, rest)]
        ops[at : at + 1] = [*made[-1], *tail]
        ops = [op for op in ops if not (isinstance(op, Product) and op.out in gone - {out})]
        ops = [op for k, op in enumerate(ops) if op not in ops[:k]]
    return tuple(ops), tuple(made)


def readers_of(graph: Graph) -> dict[Value, list[Op]]:
    found: dict[Value, list[Op]] = defaultdict(list)
    for op in graph.ops:
        for read in op.reads:
            found[read].append(op)
    return found


@dataclass(frozen=True)
class Draft:
    """Stages in order, before anything has a place: groups of products, sums, and kernels."""

    stages: tuple[Group | Kernel | Reduce | Outer | BatchSum, ...]

    @property
    def reads(self) -> list[tuple[Value, ...]]:
        return [draft_reads(stage) for stage in self.stages]


def draft_reads(stage: Group | Kernel | Reduce | Outer | BatchSum) -> tuple[Value, ...]:
    if isinstance(stage, tuple):
        return tuple(v for op in stage for v in op.reads)
    if isinstance(stage, Kernel):
        return tuple(v for op in stage.ops for v in op.reads)
    return stage.reads


def draft(
    every: Sequence[Op], level: dict[Value, str], grouped: Sequence[Group], which: str, late: bool
) -> Draft:
    """The ops of one level as stages: at each depth the products and sums, then one kernel per size.

    A pointwise op runs as early as its operands allow, or with `late` as late as its readers allow: forward, gates
    of one stacked product are then computed side by side, backward their gradients are.
    """
    ops = [op for op in every if level[op.out] == which]
    inside = {op.out: op for op in ops}
    group_of = {op.out: g for g in grouped for op in g if op.out in inside}
    depth: dict[Value, int] = {}

    def deepest(values: Iterable[Value]) -> int:
        return max((find(v) for v in values if v in inside), default=0)

    def find(value: Value) -> int:
        if value not in depth:
            op = inside[value]
            if isinstance(op, Product):
                outs = {member.out for member in group_of[value]}
                found = 1 + deepest(v for member in group_of[value] for v in member.reads)
                depth.update(dict.fromkeys(outs, found))
            else:
                depth[value] = deepest(op.reads) + (not isinstance(op, Pointwise))
        return depth[value]

    for op in ops:
        find(op.out)
    if late:
        postpone(ops, depth)
    stages: list[Group | Kernel | Reduce | Outer | BatchSum] = []
    for d in range(max(depth.values(), default=-1) + 1):
        here = [op for op in ops if depth[op.out] == d]
        done: set[Value] = set()
        for op in here:
            if isinstance(op, Product) and op.out not in done:
                stages.append(group_of[op.out])
                done.update(member.out for member in group_of[op.out])
        stages += [op for op in here if isinstance(op, (Reduce, Outer, BatchSum))]
        stages += kernels([op for op in here if isinstance(op, Pointwise)])
    return Draft(tuple(stages))


def postpone(ops: Sequence[Op], depth: dict[Value, int]) -> None:
    """Move each pointwise op to the last kernel that still serves all its readers."""
    latest: dict[Value, int] = {}
    for op in reversed(ops):
        limit = latest.get(op.out)
        if isinstance(op, Pointwise) and limit is not None:
            depth[op.out] = max(depth[op.out], limit)
        for read in op.reads:
            own = depth[op.out] - (not isinstance(op, Pointwise))
            latest[read] = min(latest.get(read, own), own)


def kernels(ops: Sequence[Pointwise]) -> list[Kernel]:
    """Pointwise ops as kernels of one size, in an order in which each finds what it reads."""
    made: list[Kernel] = []
    waiting = list(ops)
    while waiting:
        outs = {op.out for op in waiting}
        head = next(op for op in waiting if outs.isdisjoint(op.reads))
        size, static = head.out.size, head.out.static
        taken: list[Pointwise] = []
        blocked: set[Value] = set()
        for op in waiting:
            same = (op.out.size, op.out.static, len(op.out.shape)) == (size, static, len(head.out.shape))
            if same and blocked.isdisjoint(op.reads):
                taken.append(op)
            else:
                blocked.add(op.out)
        made.append(Kernel(tuple(taken), size, static))
        waiting = [op for op in waiting if op not in taken]
    return made


# ---------------------------------------------------------------------------------------------- share


def share(kernel: Kernel, builder: Builder) -> Kernel:
    """Name what several ops of a kernel compute: `1 - z` is one buffer used by three gradients."""
    known: dict[sp.Expr, Value] = {}
    ops: list[Pointwise] = []
    for op in kernel.ops:
        ops.append(Pointwise(op.out, op.expr.xreplace(known)))
        if isinstance(op.expr, (sp.Add, sp.Mul)):
            known.setdefault(op.expr, op.out)
    counts: dict[sp.Expr, int] = defaultdict(int)
    for op in ops:
        for part in parts(op.expr):
            if part != op.expr:
                counts[part] += 1
    repeated = [e for e, n in counts.items() if n > 1 and not any(e is not f and f.has(e) for f in counts if counts[f] > 1)]
    names: dict[sp.Expr, Value] = {}
    made: list[Pointwise] = []
    for op in ops:
        for part in parts(op.expr):
            if part in repeated and part not in names:
                reads = values_in(part)
                size = next((v.size for v in reads if v.size != 1), 1)
                names[part] = builder.value(share_name(part), (size,), all(v.static for v in reads))
                made.append(Pointwise(names[part], part))
        made.append(Pointwise(op.out, op.expr.xreplace(names) if op.expr not in names else names[op.expr]))
    return replace(kernel, ops=tuple(made))


def parts(expr: sp.Expr) -> list[sp.Expr]:
    """The sums, products and powers inside an expression that are worth a name, outermost first."""
    if isinstance(expr, (lang.where,)):
        return [p for arg in expr.args[1:] for p in parts(arg)]
    own = [expr] if isinstance(expr, (sp.Add, sp.Mul, sp.Pow)) and len(values_in(expr)) > 0 else []
    if isinstance(expr, sp.Mul) and len(expr.args) == 2 and expr.args[0].is_Number:
        own = []
    return own + [p for arg in expr.args for p in parts(arg) if isinstance(arg, sp.Expr)]


def share_name(expr: sp.Expr) -> str:
    reads = values_in(expr)
    if expr == 1 - reads[0]:
        return f"not_{reads[0]}"
    return "_".join(["s", *(v.name for v in reads[:2])])


# ---------------------------------------------------------------------------------------------- stack


@dataclass(frozen=True)
class Layout:
    """Where the cell's parameters lie in `Params`: a weight for every matrix (block), a slot for every vector."""

    fields: tuple[Field, ...]
    weights: dict[str, Weight]
    slots: dict[str, Slot]


def arrange(items: Sequence[Value], sets: Sequence[frozenset[Value]]) -> list[Value]:
    """The first order of `items`, by preference, in which each set lies side by side; the last sets may give way."""
    for count in range(len(sets), -1, -1):
        found = _arranged([], list(items), [s for s in sets[:count] if len(s) > 1])
        if found is not None:
            return found
    return list(items)


def _arranged(
    done: list[Value], left: list[Value], sets: Sequence[frozenset[Value]]
) -> list[Value] | None:
    if not left:
        return done
    opened = [s for s in sets if not s.isdisjoint(done) and not s.issubset(done)]
    for item in left:
        if all(item in s for s in opened):
            rest = [other for other in left if other != item]
            found = _arranged([*done, item], rest, sets)
            if found is not None:
                return found
    return None


def lay_out(cell: Cell, forward: Graph, backward: Graph, forward_groups: Sequence[Group]) -> Layout:
    """Stack the matrices that meet one operand, in an order that keeps their gradients side by side too."""
    owner = {block: name for name, blocks in forward.blocks for block in blocks}
    shapes = {p.name: cell.shapes[p.name] for p in cell.parameters if isinstance(p, lang.Matrix)}
    trainable = {p.name: p.trainable for p in cell.parameters}
    uses: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(forward_groups, key=len, reverse=True):
        for op in group:
            name = owner.get(op.matrix, op.matrix.name)
            if group not in uses[name]:
                uses[name].append(group)
    taken: set[str] = set()
    stacks: list[list[str]] = []
    for group in sorted(forward_groups, key=len, reverse=True):
        by_columns: dict[object, list[str]] = defaultdict(list)
        for op in group:
            name = owner.get(op.matrix, op.matrix.name)
            if name not in taken:
                by_columns[shapes[name][1], trainable[name]].append(name)
                taken.add(name)
        stacks += by_columns.values()
    stacks += [[name] for name in shapes if name not in taken]
    stacks.sort(key=lambda stack: min(list(shapes).index(name) for name in stack))

    lefts = gradient_operands(backward, owner)
    order = arrange_gradients(forward, stacks, lefts, owner)
    names: list[str] = [p.name for p in cell.parameters]
    fields: list[Field] = []
    weights: dict[str, Weight] = {}
    inputs_first = sorted(stacks, key=lambda stack: not meets_input(stack, forward, owner))
    for stack in inputs_first:
        members = sorted(stack, key=lambda name: order.get(name, names.index(name)))
        columns = shapes[members[0]][1]
        blocks = columns if isinstance(columns, tuple) else (columns,)
        field = Field(
            field_name(members, [f.name for f in fields], names),
            tuple(members),
            tuple(shapes[name][0] for name in members),  # type: ignore[misc]
            blocks,
            trainable[members[0]],
        )
        fields.append(field)
        weights |= block_weights(field, forward)
    vector_fields, slots = lay_out_vectors(cell, forward, weights, fields, names)
    return Layout((*fields, *vector_fields), weights, slots)


def meets_input(stack: Sequence[str], graph: Graph, owner: dict[Value, str]) -> bool:
    return any(
        isinstance(op, Product) and owner.get(op.matrix, op.matrix.name) in stack and op.operand in graph.inputs
        for op in graph.ops
    )


def block_weights(field: Field, graph: Graph) -> dict[str, Weight]:
    made: dict[str, Weight] = {}
    blocks = dict(graph.blocks)
    start_row: sp.Expr = sp.S.Zero
    for name, rows in zip(field.members, field.rows, strict=True):
        stop_row = start_row + length(rows)
        if name in blocks:
            column: sp.Expr = sp.S.Zero
            for block in blocks[name]:
                end = column + length(block.shape[1])
                made[block.name] = Weight(field.name, start_row, stop_row, (column, end), (name,))
                column = end
        else:
            made[name] = Weight(field.name, start_row, stop_row, None, (name,))
        start_row = stop_row
    return made


def gradient_operands(backward: Graph, owner: dict[Value, str]) -> dict[str, Value]:
    """For each matrix, the chain of values whose outer product with its operand is its gradient."""
    level = levels(backward)
    order = [op for which in (BEFORE, LOOP, AFTER) for op in backward.ops if level[op.out] == which]
    chains = Chains(backward, order)
    made = {op.out: op for op in backward.ops}
    found: dict[str, Value] = {}
    for name, value in backward.sums:
        op = made.get(value)
        if isinstance(op, Outer):
            matching = [block for block in owner if block.name == name]
            found.setdefault(owner[matching[0]] if matching else name, chains.root(op.left))
    return found


def arrange_gradients(
    forward: Graph, stacks: Sequence[Sequence[str]], lefts: dict[str, Value], owner: dict[Value, str]
) -> dict[str, int]:
    """The place of each matrix in its stack."""
    kinds = activation_kinds(forward, owner)
    names = [name for stack in stacks for name in stack if name in lefts]
    preference = list(dict.fromkeys(kinds.get(name, "") for name in kinds))
    names.sort(key=lambda n: (preference.index(kinds[n]) if n in kinds else 99, list(kinds).index(n) if n in kinds else 0))
    chains = list(dict.fromkeys(lefts[name] for name in names))
    sets = [frozenset(lefts[name] for name in stack if name in lefts) for stack in stacks]
    order = arrange(chains, sorted(sets, key=len, reverse=True))
    return {name: order.index(lefts[name]) for name in names}


def activation_kinds(forward: Graph, owner: dict[Value, str]) -> dict[str, str]:
    """For each matrix, the function its product ends up in: gates of one function lie side by side."""
    readers: dict[Value, list[Pointwise]] = defaultdict(list)
    for op in forward.ops:
        if isinstance(op, Pointwise):
            for read in op.reads:
                readers[read].append(op)
    kinds: dict[str, str] = {}
    for op in forward.ops:
        if isinstance(op, Product):
            value, seen = op.out, 0
            while readers[value] and isinstance(readers[value][0].expr, (sp.Add, sp.Mul)) and seen < 9:
                value, seen = readers[value][0].out, seen + 1
            last = readers[value][0].expr if readers[value] else None
            kinds.setdefault(owner.get(op.matrix, op.matrix.name), type(last).__name__)
    return kinds


def field_name(members: Sequence[str], taken: Sequence[str], names: Sequence[str]) -> str:
    """`W` for W_z, W_r, W_n; the parameter's own name where it is alone."""
    if len(members) == 1:
        return fresh(members[0], taken)
    stems = {name.split("_")[0] for name in members}
    wish = stems.pop() if len(stems) == 1 else "_".join(members)
    return fresh(wish, {*taken, *(n for n in names if n not in members)})


def lay_out_vectors(
    cell: Cell, graph: Graph, weights: dict[str, Weight], fields: Sequence[Field], names: Sequence[str]
) -> tuple[list[Field], dict[str, Slot]]:
    """Stack vectors of one stem in the order of the products they are added to."""
    taken = [f.name for f in fields]
    stems: dict[object, list[lang.Vector]] = defaultdict(list)
    for p in cell.parameters:
        if isinstance(p, lang.Vector):
            stems[p.name.split("_")[0], p.trainable].append(p)
    made: list[Field] = []
    slots: dict[str, Slot] = {}
    for group in stems.values():
        group.sort(key=lambda p: neighbour_row(p.name, graph, weights, fields, list(names)))
        members = tuple(p.name for p in group)
        field = Field(field_name(members, taken, names), members, tuple(p.size for p in group), None, group[0].trainable)
        made.append(field)
        taken.append(field.name)
        at: sp.Expr = sp.S.Zero
        for p in group:
            slots[p.name] = Slot(field.name, at, p.size)
            at += length(p.size)
    for p in cell.parameters:
        if isinstance(p, lang.Scalar):
            field = Field(fresh(p.name, taken), (p.name,), (), None, p.trainable)
            made.append(field)
            taken.append(field.name)
            slots[p.name] = Slot(field.name, sp.S.Zero, 1)
    return made, slots


def neighbour_row(
    name: str, graph: Graph, weights: dict[str, Weight], fields: Sequence[Field], names: list[str]
) -> tuple[int, int, int]:
    """Where the product lies that a vector is added to (through sums of sums)."""
    products = {op.out: op for op in graph.ops if isinstance(op, Product)}
    reached = {v for v in graph.parameters if v.name == name}
    for op in graph.ops:
        if isinstance(op, Pointwise) and not reached.isdisjoint(op.reads):
            for read in op.reads:
                if read in products and products[read].matrix.name in weights:
                    weight = weights[products[read].matrix.name]
                    field = next(f for f in fields if f.name == weight.field)
                    return fields.index(field), field.members.index(weight.members[0]), names.index(name)
            if all(v.static for v in op.reads) or isinstance(op.expr, sp.Add):
                reached.add(op.out)
    return len(fields), 0, names.index(name)


# ---------------------------------------------------------------------------------------------- place


class Chains:
    """Values that may take each other's memory: a pointwise result may overwrite an operand that dies with it.

    `kept` values must outlive the step, so nothing overwrites them; `may(old, new)` can refuse a pair.
    """

    def __init__(
        self,
        graph: Graph,
        order: Sequence[Op] = (),
        kept: Iterable[Value] = (),
        may: Callable[[Value, Value], bool] = lambda old, new: True,
    ) -> None:
        self.parent: dict[Value, Value] = {}
        order = order or graph.ops
        made_at = {op.out: k for k, op in enumerate(order)}
        last = {read: k for k, op in enumerate(order) for read in op.reads}
        ends = {c.next for c in graph.states}
        safe = {*graph.given, *kept, *ends, *(v for _, v in (*graph.outputs, *graph.sums))}
        for k, op in enumerate(order):
            if not isinstance(op, Pointwise) or op.out in ends:
                continue
            dying = [
                v for v in op.reads if last[v] == k and v not in safe and alike(v, op.out) and may(self.root(v), op.out)
            ]
            if dying:
                self.parent[op.out] = min(dying, key=lambda v: made_at[self.root(v)])

    def root(self, value: Value) -> Value:
        while value in self.parent:
            value = self.parent[value]
        return value


def alike(a: Value, b: Value) -> bool:
    return (a.size, a.static, len(a.shape)) == (b.size, b.static, len(b.shape))


def stage_ops(stage: Group | Kernel | Reduce | Outer | BatchSum) -> tuple[Op, ...]:
    if isinstance(stage, tuple):
        return stage
    return stage.ops if isinstance(stage, Kernel) else (stage,)


NOWHERE, ROW, TIME = 0, 1, 2


class Placer:
    """Finds a slot for every value of one graph that needs one, then writes the stages over those slots."""

    def __init__(
        self, graph: Graph, layout: Layout, kept: Sequence[Value], known: dict[Value, Slot], taken: Iterable[str]
    ) -> None:
        self.graph = graph
        self.layout = layout
        self.kept = set(kept)
        self.taken = set(taken)
        self.level = levels(graph)
        ops, self.groups = merge(graph, self.level)
        builder = Builder(v.name for v in graph.values)
        self.drafts = {
            which: [
                share(stage, builder) if isinstance(stage, Kernel) else stage
                for stage in draft(ops, self.level, self.groups, which, graph.backwards).stages
            ]
            for which in (BEFORE, LOOP, AFTER)
        }
        self.order = [op for which in self.drafts.values() for stage in which for op in stage_ops(stage)]
        self.level |= {op.out: which for which in self.drafts for stage in self.drafts[which] for op in stage_ops(stage)}
        self.copies = self.late_carries(builder)
        self.home = {
            op.out: (which, k)
            for which, stages in self.drafts.items()
            for k, stage in enumerate(stages)
            for op in stage_ops(stage)
        }
        self.buffers: list[Buffer] = []
        self.slots: dict[Value, Slot] = dict(known)
        self.need = self.needs()
        self.place_given()
        self.place_states()
        self.chains = self.find_chains()
        self.place_steps()
        self.place_statics()

    def late_carries(self, builder: Builder) -> dict[Value, Value]:
        """Copies for carried states whose next value is there before the current one was read for the last time."""
        if not self.graph.backwards:
            return {}
        made_at = {op.out: k for k, op in enumerate(self.order)}
        copies: dict[Value, Value] = {}
        for carry in self.graph.states:
            last = max((k for k, op in enumerate(self.order) if carry.current in op.reads), default=-1)
            if last > made_at[carry.next] or self.level[carry.next] != LOOP:
                copy = builder.value(carry.next.name, carry.next.shape)
                copies[carry.next] = copy
                op = Pointwise(copy, carry.next)
                self.drafts[LOOP].append(Kernel((op,), copy.size))
                self.order.append(op)
                self.level[copy] = LOOP
        return copies

    # ------------------------------------------------------------------------------------------ needs

    def needs(self) -> dict[Value, int]:
        """How long each value must last: not beyond its kernel, within the step, or for all steps."""
        need: dict[Value, int] = dict.fromkeys((op.out for op in self.order), NOWHERE)
        for op in self.order:
            if not isinstance(op, Pointwise):
                need[op.out] = ROW if self.level[op.out] == LOOP else TIME
            for read in op.reads:
                if read in need and self.home[read] != self.home[op.out]:
                    across = self.level[read] != self.level[op.out] or self.level[read] != LOOP
                    need[read] = max(need[read], TIME if across else ROW)
        for value in (*self.kept, *(v for _, v in (*self.graph.outputs, *self.graph.sums))):
            if value in need:
                need[value] = TIME
        return need

    def invent(self, wish: str) -> str:
        name = fresh(wish, self.taken)
        self.taken.add(name)
        return name

    def buffer(self, wish: str, kind: str, values: Sequence[Value], labels: Sequence[str] = ()) -> None:
        """A buffer of its own for `values`, side by side."""
        name = self.invent(wish)
        at: sp.Expr = sp.S.Zero
        starts: list[sp.Expr] = []
        for value in values:
            self.slots[value] = Slot(name, at, value.size)
            starts.append(at)
            at += length(value.size)
        self.buffers.append(Buffer(name, kind, at, tuple(labels or (v.name for v in values)), tuple(starts)))

    def place_given(self) -> None:
        for value in self.graph.inputs:
            if value not in self.slots:
                self.taken.add(value.name)
                self.slots[value] = Slot(value.name, sp.S.Zero, value.size)
                self.buffers.append(Buffer(value.name, "input", length(value.size), (value.name,)))
        for value in self.graph.parameters:
            if value in self.slots or len(value.shape) == 2:
                continue
            self.slots[value] = self.layout.slots.get(value.name) or Slot(value.name, sp.S.Zero, value.size)

    def place_states(self) -> None:
        for carry in self.graph.states:
            if self.graph.backwards:
                self.buffer(carry.name, "carry", [carry.current])
                following = self.copies.get(carry.next, carry.next)
                self.slots[following] = self.slots[carry.current]
                self.inherit_carry(carry.current, following)
            else:
                self.buffer(carry.name, "state", [carry.current])
                slot = self.slots[carry.current]
                self.slots[carry.next] = replace(slot, shift=1)

    def inherit_carry(self, current: Value, following: Value) -> None:
        """`d_h += d_y`: what first adds to a carried gradient may live in its memory until the next one is there."""
        end = next(k for k, op in enumerate(self.order) if op.out == following)
        readers = [k for k, op in enumerate(self.order) if current in op.reads]
        assert all(k <= end for k in readers), f"{current} is read after {following} replaced it"
        if len(readers) != 1 or readers[0] == end:
            return
        heir = self.order[readers[0]]
        last = max((k for k, op in enumerate(self.order) if heir.out in op.reads), default=end)
        if isinstance(heir, Pointwise) and alike(heir.out, current) and self.need[heir.out] < TIME and last <= end:
            self.slots[heir.out] = self.slots[current]

    # ------------------------------------------------------------------------------------------ chains

    def find_chains(self) -> Chains:
        """In-place chains, none of which drags a stacked row buffer along for one member's sake."""
        placed = set(self.slots)
        free = Chains(self.graph, self.order, self.kept, lambda old, new: old not in placed and new not in placed)
        lasting = {free.root(v) for v, need in self.need.items() if need == TIME}
        rows = {
            op.out
            for group in self.groups
            if not group[0].transposed and self.level[group[0].out] == LOOP
            for op in group
            if not all(member.out in lasting for member in group)
        }
        rows |= {
            op.out for group in self.groups if group[0].transposed and self.level[group[0].out] == LOOP for op in group
        }
        return Chains(
            self.graph,
            self.order,
            self.kept,
            lambda old, new: old not in placed
            and new not in placed
            and not (old in rows and self.lasting(new)),
        )

    def lasting(self, value: Value) -> bool:
        return self.need[value] == TIME

    # ------------------------------------------------------------------------------------------ steps

    def place_steps(self) -> None:
        """Slots for all values with rows: stacked buffers first, then one buffer each for the rest."""
        members: dict[Value, list[Value]] = defaultdict(list)
        for op in self.order:
            if op.out not in self.slots and not op.out.static:
                members[self.chains.root(op.out)].append(op.out)
        kind = {root: max(self.need[v] for v in chain) for root, chain in members.items()}
        stacks = [*self.product_stacks(), *self.gradient_stacks(members, kind)]
        done: set[Value] = set()
        for stack in stacks:
            roots = [r for r in dict.fromkeys(stack) if r in members and r not in done]
            self.place_stack(roots, members, kind)
            done.update(roots)
        for root in members:
            if root not in done and kind[root] != NOWHERE:
                self.place_stack([root], members, kind)

    def place_stack(self, roots: list[Value], members: dict[Value, list[Value]], kind: dict[Value, int]) -> None:
        for wanted, name in ((TIME, "time"), (ROW, "row")):
            here = [root for root in roots if kind[root] == wanted]
            if here:
                last = [self.face(members[root]) for root in here]
                self.buffer(self.stack_name(here, last, wanted), name, here, [v.name for v in last])
                for root in here:
                    for value in members[root]:
                        self.slots[value] = self.slots[root]

    def face(self, chain: Sequence[Value]) -> Value:
        """The value a chain is known by: the one that lasts, else the last one."""
        return next((v for v in reversed(chain) if self.need[v] == TIME), chain[-1])

    def stack_name(self, roots: Sequence[Value], faces: Sequence[Value], wanted: int) -> str:
        if len(roots) == 1:
            return faces[0].name
        if self.graph.backwards:
            return "d_gates" if wanted == TIME else "d_u"
        return "gates" if wanted == TIME else "u"

    def product_stacks(self) -> list[list[Value]]:
        """Products of one operand, in the order of their rows in `Params`."""
        return [
            [op.out for op in self.by_row(group)] for group in self.groups if not group[0].transposed and len(group) > 1
        ]

    def by_row(self, group: Iterable[Product]) -> list[Product]:
        fields = [field.name for field in self.layout.fields]

        def row(op: Product) -> tuple[int, int]:
            weight = self.weight(op.matrix)
            members = self.layout.fields[fields.index(weight.field)].members
            return fields.index(weight.field), members.index(weight.members[0])

        return sorted(group, key=row)

    def weight(self, matrix: Value) -> Weight:
        return self.layout.weights[matrix.name]

    def gradient_stacks(self, members: dict[Value, list[Value]], kind: dict[Value, int]) -> list[list[Value]]:
        """The operands of the gradients of one field, side by side in the order of its rows."""
        lefts: dict[str, dict[str, Value]] = defaultdict(dict)
        for op in self.order:
            if isinstance(op, Outer):
                for weight in (w for w in self.layout.weights.values() if self.is_gradient(op, w)):
                    lefts[weight.field].setdefault(weight.members[0], self.chains.root(op.left))
        stacks = []
        for field in self.layout.fields:
            if len(lefts[field.name]) > 0:
                stacks.append([lefts[field.name][m] for m in field.members if m in lefts[field.name]])
        return merged(sorted(stacks, key=len, reverse=True))

    def is_gradient(self, op: Outer, weight: Weight) -> bool:
        names = [name for name, value in self.graph.sums if value == op.out]
        return any(self.layout.weights.get(name) == weight for name in names)

    # ------------------------------------------------------------------------------------------ statics

    def place_statics(self) -> None:
        """Gradients go into the fields they belong to; other static values side by side with their likes."""
        for name, value in self.graph.sums:
            if value not in self.slots and self.graph.backwards and name in self.layout.slots:
                slot = self.layout.slots[name]
                self.slots[value] = replace(slot, buffer=f"d_{slot.buffer}")
        alike_statics: dict[object, list[Value]] = defaultdict(list)
        for op in self.order:
            if op.out.static and op.out not in self.slots and len(op.out.shape) < 2:
                stem = op.out.name.rsplit("_", 1)[0]
                alike_statics[stem, op.out.shape].append(op.out)
        for (stem, shape), values in alike_statics.items():  # type: ignore[misc]
            if shape == () or len(values) == 1:
                for value in values:
                    self.buffer(value.name, "static", [value])
            else:
                values.sort(key=self.reader_place)
                self.buffer(stem if len(stem) > 1 else f"{stem}_parts", "static", values)

    def reader_place(self, value: Value) -> tuple[int, str]:
        """Where what reads a static value lies, so that stacks of them line up."""
        seen: set[Value] = set()
        front = [value]
        while front:
            readers = [op.out for op in self.order for v in front if v in op.reads and op.out not in seen]
            for reader in readers:
                slot = self.slots.get(reader)
                if slot is not None and not reader.static:
                    names = [buffer.name for buffer in self.buffers]
                    place = names.index(slot.buffer) if slot.buffer in names else 0
                    return place * 1000 + offset_rank(slot.start), value.name
            seen.update(readers)
            front = readers
        return 0, value.name

    # ------------------------------------------------------------------------------------------ stages

    def schedule(self) -> Schedule:
        before, loop, after = (tuple(self.stages(self.drafts[which])) for which in (BEFORE, LOOP, AFTER))
        return Schedule(self.graph, before, loop, after, tuple(self.buffers), tuple(self.slots.items()))

    def stages(self, drafts: Iterable[Group | Kernel | Reduce | Outer | BatchSum]) -> Iterable[Stage]:
        outers: list[Outer] = []
        sums: list[BatchSum] = []
        for stage in drafts:
            if isinstance(stage, Outer):
                outers.append(stage)
                continue
            if isinstance(stage, BatchSum):
                sums.append(stage)
                continue
            yield from self.flush(outers, sums)
            if isinstance(stage, tuple):
                yield from self.products(stage)
            elif isinstance(stage, Reduce):
                yield Sum(stage.out, stage.operand)
            else:
                kept = tuple(op for op in stage.ops if len(op.out.shape) < 2)
                if kept:
                    yield replace(stage, ops=kept)
        yield from self.flush(outers, sums)

    def flush(self, outers: list[Outer], sums: list[BatchSum]) -> Iterable[Stage]:
        yield from self.outer_sums(outers)
        yield from self.column_sums(sums)
        outers.clear()
        sums.clear()

    def adjacent(self, a: Value, b: Value) -> bool:
        """Whether `b` lies directly behind `a`."""
        first, second = self.slots[a], self.slots[b]
        return (first.buffer, first.shift, first.stop) == (second.buffer, second.shift, second.start)

    def products(self, group: Group) -> Iterable[MatMul]:
        summed = len(group) > 1 and group[0].out == group[1].out
        runs: list[list[Product]] = []
        for op in self.by_row(group):
            if runs and self.continues(runs[-1][-1], op, summed):
                runs[-1].append(op)
            else:
                runs.append([op])
        for k, run in enumerate(runs):
            out = (group[0].out,) if summed else tuple(op.out for op in run)
            operand = tuple(op.operand for op in run) if summed else (run[0].operand,)
            weight = joined([self.weight(op.matrix) for op in run])
            yield MatMul(out, operand, weight, run[0].transposed, add=summed and k > 0)

    def continues(self, a: Product, b: Product, summed: bool) -> bool:
        first, second = self.weight(a.matrix), self.weight(b.matrix)
        stacked = (first.field, first.stop, first.columns) == (second.field, second.start, second.columns)
        return stacked and (self.adjacent(a.operand, b.operand) if summed else self.adjacent(a.out, b.out))

    def outer_sums(self, outers: Sequence[Outer]) -> Iterable[OuterSum]:
        """Outer products into the fields of the gradient, those that lie side by side as one."""
        made: list[tuple[Weight, list[Outer]]] = []
        target = self.outer_targets()
        fields = [field.name for field in self.layout.fields]
        waiting = [(self.layout.weights[name], op) for op in outers for name in target[op.out]]
        waiting.sort(key=lambda p: (fields.index(p[0].field), str(p[0].columns), p[1].right.name))
        rank = {f.name: {m: k for k, m in enumerate(f.members)} for f in self.layout.fields}
        waiting.sort(key=lambda p: (fields.index(p[0].field), str(p[0].columns), p[1].right.name, rank[p[0].field][p[0].members[0]]))
        for weight, op in waiting:
            if made:
                last, ops = made[-1]
                whole = (last.field, last.stop, last.columns) == (weight.field, weight.start, weight.columns)
                if whole and ops[-1].right == op.right and self.adjacent(ops[-1].left, op.left):
                    made[-1] = joined([last, weight]), [*ops, op]
                    continue
            made.append((weight, [op]))
        written: list[Weight] = []
        for weight, ops in made:
            add = any(overlap(weight, other) for other in written)
            written.append(weight)
            yield OuterSum(weight, tuple(op.left for op in ops), (ops[0].right,), add)

    def outer_targets(self) -> dict[Value, list[str]]:
        """The matrices whose gradient each outer product is, or is a term of."""
        terms = {op.out: op.expr for op in self.order if isinstance(op, Pointwise) and len(op.out.shape) == 2}
        target: dict[Value, list[str]] = defaultdict(list)
        for name, value in self.graph.sums:
            for part in sp.Add.make_args(terms.get(value, value)):
                target[part].append(name)
        return target

    def column_sums(self, sums: Sequence[BatchSum]) -> Iterable[ColumnSum]:
        made: list[list[BatchSum]] = []

        def place(op: BatchSum) -> tuple[str, int, str]:
            slot = self.slots[op.out]
            return slot.buffer, offset_rank(slot.start), op.out.name

        for op in sorted(sums, key=place):
            last = made[-1][-1] if made else None
            if last and self.adjacent(last.out, op.out) and self.adjacent(last.operand, op.operand):
                made[-1].append(op)
            else:
                made.append([op])
        for run in made:
            yield ColumnSum(tuple(op.out for op in run), tuple(op.operand for op in run))


def merged(stacks: Sequence[list[Value]]) -> list[list[Value]]:
    """Stacks that share values as one: what comes before the shared values goes before them, the rest behind."""
    made: list[list[Value]] = []
    for stack in stacks:
        home = next((other for other in made if not set(other).isdisjoint(stack)), None)
        if home is None:
            made.append(list(stack))
            continue
        first = next(k for k, v in enumerate(stack) if v in home)
        home[:0] = stack[:first]
        home += [v for v in stack if v not in home]
    return made


def joined(weights: Sequence[Weight]) -> Weight:
    first, last = weights[0], weights[-1]
    return replace(first, stop=last.stop, members=tuple(m for w in weights for m in w.members))


def overlap(a: Weight, b: Weight) -> bool:
    return a.field == b.field and a.columns == b.columns and not set(a.members).isdisjoint(b.members)


def offset_rank(start: sp.Expr) -> int:
    """An order of offsets: what they are when every size is 16."""
    return int(start.subs(dict.fromkeys(start.free_symbols, 16)))


def distinct_ends(graph: Graph) -> Graph:
    """The graph with a value of its own for every sum, output and next state, so that each can have its own place."""
    builder = Builder(v.name for v in graph.values)
    builder.ops = list(graph.ops)
    used: set[Value] = {*graph.given}

    def own(value: Value) -> Value:
        if value in used:
            copy = builder.value(value.name, value.shape, value.static)
            value = builder.add(Pointwise(copy, value))
        used.add(value)
        return value

    states = tuple(replace(c, next=own(c.next)) for c in graph.states)
    late = {c.next for c in states}
    outputs = graph.outputs if not graph.backwards else tuple((n, own(v)) for n, v in graph.outputs)
    sums = tuple((n, own(v)) for n, v in graph.sums)
    ops = [op for op in builder.ops if op.out not in late] + [op for op in builder.ops if op.out in late]
    ordered = builder.ops if not graph.backwards else settled(ops)
    return check(replace(graph, ops=tuple(ordered), states=states, outputs=outputs, sums=sums))


def settled(ops: Sequence[Op]) -> list[Op]:
    """The ops in an order of dependence that keeps the given one where it can."""
    waiting, done = list(ops), list[Op]()
    outs = {op.out for op in ops}
    while waiting:
        op = next(op for op in waiting if outs.isdisjoint(op.reads))
        waiting.remove(op)
        outs.discard(op.out)
        done.append(op)
    return done


# ---------------------------------------------------------------------------------------------- classify


def classify(graph: Graph) -> str:
    """`recurrent` (a product waits for the state), `linear` (elementwise and affine in the state), or `elementwise`."""
    level = levels(graph)
    moving = {carry.current for carry in graph.states}
    linear = True
    for op in graph.ops:
        if moving.isdisjoint(op.reads):
            continue
        moving.add(op.out)
        if level[op.out] != LOOP:
            continue
        if not isinstance(op, Pointwise):
            return "recurrent"
        slopes = [op.expr.diff(v) for v in op.reads if v in moving]
        linear = linear and all(moving.isdisjoint(values_in(slope)) for slope in slopes)
    return "linear" if linear else "elementwise"


# ---------------------------------------------------------------------------------------------- plan


def plan(cell: Cell) -> Plan:
    """What runs when and where, for a cell and its gradient."""
    forward = distinct_ends(alive(hoist(flatten(cell))))
    backward = derive(forward)
    layout = lay_out(cell, forward, backward, groups(forward, levels(forward)))
    step = pair(forward, backward, layout)
    first = beginning = None
    if cell.first:
        graph = distinct_ends(alive(flatten(cell, first=True)))
        first = pair(graph, derive(graph), layout)
    graph_of_start = start(cell)
    if graph_of_start is not None:
        beginning = pair(graph_of_start, derive(graph_of_start), layout)
    return Plan(cell, classify(forward), layout.fields, step, first, beginning)


def derive(forward: Graph) -> Graph:
    return distinct_ends(alive(retape(forward, adjoint(forward))))


def pair(forward: Graph, backward: Graph, layout: Layout) -> Pair:
    """Both directions, sharing the tape."""
    made = {op.out for op in forward.ops}
    tape = tuple(v for v in (*backward.inputs, *backward.parameters) if v in made)
    fields = {field.name for field in layout.fields}
    states = {carry.name for carry in forward.states}
    names = {*fields, *(v.name for v in forward.given if v.name not in states)}
    ahead = Placer(forward, layout, tape, {}, names).schedule()
    shared = {v: ahead.slot[v] for v in (*backward.inputs, *backward.parameters) if v in ahead.slot}
    taken = {*names, *(f"d_{name}" for name in fields), *(b.name for b in ahead.buffers)}
    back = Placer(backward, layout, (), shared, taken).schedule()
    return Pair(ahead, back, tape)


# ---------------------------------------------------------------------------------------------- text


def text(plan: Plan) -> str:
    """The plan as people read it."""
    lines = [f"cell      {plan.cell.name} ({plan.kind})"]
    lines.append("params    " + "   ".join(field_text(field) for field in plan.fields))
    for title, pair in (("", plan.step), ("first ", plan.first), ("start ", plan.start)):
        if pair is not None:
            lines += pair_text(pair, title)
    return "\n".join(lines)


def pair_text(pair: Pair, title: str) -> list[str]:
    names = dict.fromkeys(pair.forward.slot[v].buffer for v in pair.tape)
    names |= dict.fromkeys(b.name for b in pair.forward.buffers if b.kind == "state")
    kept = [b for b in pair.forward.buffers if b.name in names]
    lines = [f"{title}tape".ljust(10) + "   ".join(buffer_text(b) for b in kept)]
    for name, schedule in (("forward", pair.forward), ("backward", pair.backward)):
        head = f"{title}{name}".ljust(10)
        for when, stages in (("before", schedule.before), ("step", schedule.loop), ("after", schedule.after)):
            for k, stage in enumerate(stages):
                lines.append(f"{head}{when if k == 0 else '':8}{stage_text(stage, schedule)}")
                head = " " * 10
    return lines


SHORT = {"input": "I", "hidden": "H"}


def size_text(expr: sp.Expr) -> str:
    """`3H`, `H + I`: sizes by their letters."""
    terms = []
    for symbol, count in sorted(expr.as_coefficients_dict().items(), key=lambda p: str(p[0])):
        letter = SHORT.get(str(symbol), str(symbol))
        terms.append(str(count) if symbol == 1 else f"{'' if count == 1 else count}{letter}")
    return " + ".join(terms)


def stack_text(name: str, members: Sequence[str]) -> str:
    if len(members) == 1:
        return members[0] if name == members[0] else f"{name}[{members[0]}]"
    stem = f"{name}_"
    return f"{name}[{' '.join(m.removeprefix(stem) for m in members)}]"


def field_text(field: Field) -> str:
    shape = f"({size_text(field.height)}, {size_text(field.width)})" if field.columns else f"({size_text(field.height)},)"
    return f"{stack_text(field.name, field.members)} {shape if field.rows else '()'}"


def buffer_text(buffer: Buffer) -> str:
    lead = {"state": "T+1, B, ", "time": "T, B, ", "row": "B, ", "carry": "B, ", "input": "T, B, ", "static": ""}
    return f"{stack_text(buffer.name, buffer.members)} ({lead[buffer.kind]}{size_text(buffer.width)})"


def places(values: Sequence[Value], schedule: Schedule) -> str:
    """Where adjacent values lie: a whole buffer by its name, a part of it with its members."""
    slots = [schedule.slot[v] for v in values]
    buffer = schedule.buffer.get(slots[0].buffer)
    if buffer is None or len(buffer.members) == 1 or slots[-1].stop - slots[0].start == buffer.width:
        return slots[0].buffer + ("'" if slots[0].shift else "")
    low, high = offset_rank(slots[0].start), offset_rank(slots[-1].stop)
    inside = [m for m, at in zip(buffer.members, buffer.starts, strict=True) if low <= offset_rank(at) < high]
    return f"{buffer.name}[{' '.join(inside)}]"


def weight_text(weight: Weight) -> str:
    stem = weight.field
    if len(weight.members) == 1 and weight.members[0] == stem:
        return stem
    return stack_text(stem, weight.members) + ("" if weight.columns is None else "[:, ...]")


def stage_text(stage: Stage, schedule: Schedule) -> str:
    match stage:
        case MatMul(out, operand, weight, transposed, add):
            sign = "+=" if add else "="
            return (
                f"{places(out, schedule)} {sign} {places(operand, schedule)} @ {weight_text(weight)}"
                f"{'' if transposed else '.T'}"
            )
        case Kernel(ops, _, static):
            outs = [op.out.name for op in ops]
            reads = dict.fromkeys(v.name for op in ops for v in op.reads if v.name not in outs)
            return f"{', '.join(outs)} <- {'once' if static else 'kernel'}({', '.join(reads)})"
        case Sum(out, operand):
            return f"{out} = sum({operand})"
        case OuterSum(weight, left, right, add):
            sign = "+=" if add else "="
            return f"d_{weight_text(weight)} {sign} {places(left, schedule)}.T @ {places(right, schedule)}"
        case ColumnSum(out, operand):
            return f"{places(out, schedule)} = sum of {places(operand, schedule)} over steps and rows"


__all__ = ["Plan", "plan", "ranks", "text"]
_ = (cached_property, pairwise, Printer)
