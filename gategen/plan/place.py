"""place: give every value that outlives its kernel a slot in a buffer, beside its likes and in place.

What lies side by side follows the rows of `Params` (`layout.py`), what shares memory the chains
(`chains.py`). No stage is written here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import sympy as sp

from gategen.graph import BEFORE, LOOP, BatchSum, Outer, Pointwise, Reduce, Value, fresh, length
from gategen.plan.chains import ROW, TIME, Chains, in_place, needs
from gategen.plan.data import Buffer, Given, InBuffer, InGradient, Slot
from gategen.plan.layout import Layout
from gategen.plan.stages import Draft, alike
from gategen.spec.language import Size


class Memory:
    """Buffers, and the slots of values in them; grows while a graph is placed."""

    def __init__(self, known: Mapping[Value, Slot], taken: Iterable[str]) -> None:
        self.buffers: list[Buffer] = []
        self.slots: dict[Value, Slot] = dict(known)
        self.taken = set(taken)

    def add(self, wish: str, kind: str, values: Sequence[Value], labels: Sequence[str] = ()) -> None:
        """A buffer of its own for `values`, side by side."""
        name = fresh(wish, self.taken)
        self.taken.add(name)
        at: sp.Expr = sp.S.Zero
        starts: list[sp.Expr] = []
        for value in values:
            self.slots[value] = Slot(InBuffer(name), at, value.size)
            starts.append(at)
            at += length(value.size)
        members, matrix = tuple(labels or (v.name for v in values)), len(values[0].shape) > 1
        assert len(values) == 1 or all(len(v.shape) < 2 for v in values), "a matrix has a buffer for itself"
        along = values[0].axes if matrix else ()
        self.buffers.append(Buffer(name, kind, at, members, tuple(starts), along))


def place(
    draft: Draft,
    layout: Layout,
    kept: Iterable[Value],
    known: Mapping[Value, Slot],
    taken: Iterable[str],
    arrays: bool = False,
) -> Memory:
    """Slots for all values that need one; `kept` values must last, `known` ones have a slot already."""
    memory = Memory(known, taken)
    need = needs(draft, kept)
    place_given(draft, layout, memory)
    for carry in draft.graph.states:
        if draft.graph.backwards:
            place_carry(
                draft, carry.name, carry.current, draft.copies.get(carry.next, carry.next), need, memory
            )
        else:
            memory.add(carry.name, "state", [carry.current])
            memory.slots[carry.next] = replace(memory.slots[carry.current], shift=1)
    place_steps(draft, layout, in_place(draft, kept, need, set(memory.slots), arrays), need, memory)
    place_gradients(draft, layout, memory)
    place_statics(draft, memory)
    return memory


# ---------------------------------------------------------------------------------------------- from outside


def place_given(draft: Draft, layout: Layout, memory: Memory) -> None:
    """Inputs lie in arrays of their own, vectors and scalars in `Params`; matrices have weights."""
    for value in draft.graph.inputs:
        if value not in memory.slots:
            memory.taken.add(value.name)
            memory.slots[value] = Slot(InBuffer(value.name), sp.S.Zero, value.size)
            along = value.axes if value.wide else ()
            memory.buffers.append(Buffer(value.name, "input", length(value.size), (value.name,), axes=along))
    for value in draft.graph.parameters:
        if value not in memory.slots and (len(value.shape) < 2 or value.name in layout.slots):
            given = Slot(Given(value.name), sp.S.Zero, value.size)
            memory.slots[value] = layout.slots.get(value.name, given)


def place_carry(
    draft: Draft, name: str, current: Value, following: Value, need: Mapping[Value, int], memory: Memory
) -> None:
    """One memory for the latest value of a state, and for what first adds to it.

    With `d_h += d_y` the sum may live there until the next value is there: it is read no later than that is
    computed.
    """
    memory.add(name, "carry", [current])
    memory.slots[following] = memory.slots[current]
    end, readers = draft.at[following], draft.readers.get(current, ())
    assert all(k <= end for k in readers), f"{current} is read after {following} replaced it"
    if len(readers) != 1 or readers[0] == end:
        return
    heir = draft.ops[readers[0]]
    if heir.out in {carry.next for carry in draft.graph.states}:
        return  # it has the memory of its own state
    last = max(draft.readers.get(heir.out, ()), default=end)
    if last == end and not isinstance(draft.ops[end], Pointwise):
        return  # a product must not overwrite its own operand
    if isinstance(heir, Pointwise) and alike(heir.out, current) and need[heir.out] < TIME and last <= end:
        memory.slots[heir.out] = memory.slots[current]


# ---------------------------------------------------------------------------------------------- a step


def place_steps(
    draft: Draft, layout: Layout, chains: Chains, need: Mapping[Value, int], memory: Memory
) -> None:
    """Slots for all values with rows: stacked buffers first, then one buffer each for the rest."""
    members: dict[Value, list[Value]] = defaultdict(list)
    for op in draft.ops:
        if op.out not in memory.slots and not op.out.static:
            members[chains.root(op.out)].append(op.out)
    kind = {root: max(need[v] for v in chain) for root, chain in members.items()}
    done: set[Value] = set()
    for stack in (
        *product_stacks(draft, layout),
        *gradient_stacks(draft, layout, chains),
        *coefficient_stacks(draft, layout, chains),
        *sum_stacks(draft, layout, chains),
        *([root] for root in members),
    ):
        roots = [root for root in dict.fromkeys(stack) if root in members and root not in done]
        done.update(roots)
        for wanted in (TIME, ROW):
            for here in apart([root for root in roots if kind[root] == wanted]):
                faces = [face(members[root], need) for root in here]
                name = faces[0].name if len(here) == 1 else stack_name(draft, faces[0], wanted)
                memory.add(name, "time" if wanted == TIME else "row", here, [v.name for v in faces])
                memory.slots |= {value: memory.slots[root] for root in here for value in members[root]}


def apart(stack: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """The vectors of a stack, and each matrix by itself."""
    if vectors := [v for v in stack if len(v.shape) < 2]:
        yield vectors
    yield from ([v] for v in stack if len(v.shape) > 1)


def face(chain: Sequence[Value], need: Mapping[Value, int]) -> Value:
    """The value a chain is known by: the last one that lasts, else the last one."""
    return next((v for v in reversed(chain) if need[v] == TIME), chain[-1])


def stack_name(draft: Draft, first: Value, wanted: int) -> str:
    if first.role == "term" and not draft.graph.backwards:
        return "terms" if wanted == TIME else "dot_u"
    dot = "dot_" if first.role == "tangent" else ""
    if draft.graph.backwards and draft.level(first) == BEFORE:
        return f"{dot}k_gates"
    back = "d_" if draft.graph.backwards else ""
    return f"{dot}{back}gates" if wanted == TIME else f"{dot}{back}u"


def product_stacks(draft: Draft, layout: Layout) -> list[list[Value]]:
    """Products of one operand, in the order of their rows in `Params`."""
    return [
        [op.out for op in sorted(group.products, key=lambda op: layout.row(op.matrix))]
        for group in draft.groups
        if not group.first.transposed and len(group.products) > 1
    ]


def gradient_stacks(draft: Draft, layout: Layout, chains: Chains) -> list[list[Value]]:
    """The operands of the gradients of one field, side by side in the order of its rows."""
    names = {value: name for name, value in draft.graph.sums}
    for op in draft.ops:
        if isinstance(op, Pointwise) and op.out.role == "tangent" and op.out in names:
            names |= dict.fromkeys(op.reads, names[op.out])  # products of gradients and of their tangents
    lefts: dict[tuple[str, bool], dict[str, Value]] = defaultdict(dict)
    for op in draft.ops:
        if isinstance(op, Outer) and names.get(op.out) in layout.weights:
            weight = layout.weights[names[op.out]]
            moving = op.left.role == "tangent"
            lefts[weight.field, moving].setdefault(weight.members[0], chains.root(op.left))
    stacks = [
        [lefts[field.name, moving][member] for member in field.members if member in lefts[field.name, moving]]
        for field in layout.fields
        for moving in (True, False)
    ]
    return merged(sorted(filter(None, stacks), key=len, reverse=True))


def coefficient_stacks(draft: Draft, layout: Layout, chains: Chains) -> list[list[Value]]:
    """What the loop multiplies gradients of one field by, in the order of its rows."""
    factors = {
        chains.root(op.out): multiplying(op)
        for op in draft.ops
        if isinstance(op, Pointwise) and draft.level(op.out) == LOOP
    }
    made = {op.out for op in draft.ops if draft.level(op.out) == BEFORE}
    stacks = (
        [chains.root(v) for gradient in stack for v in factors.get(gradient, ()) if v in made]
        for stack in gradient_stacks(draft, layout, chains)
    )
    return [stack for stack in stacks if stack]


def multiplying(op: Pointwise) -> list[Value]:
    """The factors of a product; of a tangent, which is a sum of products, those that are tangents."""
    if op.out.role == "tangent":
        factors = (v for term in sp.Add.make_args(op.expr) for v in sp.Mul.make_args(term))
        return [v for v in factors if isinstance(v, Value) and v.role == "tangent"]
    return [v for v in sp.Mul.make_args(op.expr) if isinstance(v, Value)]


def sum_stacks(draft: Draft, layout: Layout, chains: Chains) -> list[list[Value]]:
    """The operands of one sum over features, and those of the sums over steps and rows of one field."""
    stacks = [[*map(chains.root, op.operands)] for op in draft.ops if isinstance(op, Reduce)]
    sums = {op.out: chains.root(op.operand) for op in draft.ops if isinstance(op, BatchSum)}
    fields: dict[str, list[tuple[int, Value]]] = defaultdict(list)
    for name, value in draft.graph.sums:
        if value in sums and name in layout.slots:
            slot = layout.slots[name]
            fields[slot.home.name].append((slot.rank, sums[value]))
    return [
        *stacks,
        *([root for _, root in sorted(rows, key=lambda row: row[0])] for rows in fields.values()),
    ]


def merged(stacks: Iterable[list[Value]]) -> list[list[Value]]:
    """Stacks that share values as one, each still in one piece where that can be.

    What a stack adds goes to that end of the other one where the shared values lie: if they are all of it,
    what precedes them goes before them and the rest behind.
    """
    made: list[list[Value]] = []
    homes: dict[Value, int] = {}  # the first of these that has the value
    for stack in stacks:
        k = min((homes[v] for v in stack if v in homes), default=len(made))
        if k == len(made):
            made.append([])
        home, at = made[k], {v: j for j, v in reversed([*enumerate(stack)])}
        inside = {*home}
        shared = [v for v in home if v in at]
        new = [v for v in stack if v not in inside]
        if shared == home:
            early = [v for v in new if shared and at[v] < at[shared[0]]]
            home[:] = [*early, *home, *(v for v in new if not shared or at[v] > at[shared[0]])]
        elif home[: len(shared)] == shared:
            home[:0] = new
        else:
            home += new
        for v in new:
            homes.setdefault(v, k)
    return made


# ---------------------------------------------------------------------------------------------- static values


def place_gradients(draft: Draft, layout: Layout, memory: Memory) -> None:
    """Gradients of vectors and scalars lie in the fields they belong to."""
    for name, value in draft.graph.sums if draft.graph.backwards else ():
        if value not in memory.slots and name in layout.slots:
            slot = layout.slots[name]
            memory.slots[value] = replace(slot, home=InGradient(slot.home.name))


def place_statics(draft: Draft, memory: Memory) -> None:
    """Other static values side by side with those of their stem and shape, numbers one by one."""
    likes: dict[tuple[str, tuple[Size, ...]], list[Value]] = defaultdict(list)
    for op in draft.ops:
        if op.out.static and op.out not in memory.slots and op.out not in draft.in_fields:
            likes[op.out.name.rsplit("_", 1)[0], op.out.shape].append(op.out)
    for (stem, shape), values in likes.items():
        if len(shape) == 1 and len(values) > 1:
            values.sort(key=lambda value: reader_place(value, draft, memory))
            bare = len(stem) == 1 or stem in ("dot", "dot_d")
            memory.add(f"{stem}_parts" if bare else stem, "static", values)
            continue
        for value in values:
            memory.add(value.name, "static", [value])


def reader_place(value: Value, draft: Draft, memory: Memory) -> tuple[int, str]:
    """Where what reads a static value lies, so that stacks of them line up."""
    seen: set[Value] = set()
    front = [value]
    while front:
        found = sorted({k for v in front for k in draft.readers.get(v, ())})
        readers = [out for out in (draft.ops[k].out for k in found) if out not in seen]
        for reader in readers:
            slot = memory.slots.get(reader)
            if slot is not None and not reader.static:
                homes = [InBuffer(buffer.name) for buffer in memory.buffers]
                at = homes.index(slot.home) if slot.home in homes else 0
                return at * 1000 + slot.rank, value.name
        seen.update(readers)
        front = readers
    return 0, value.name
