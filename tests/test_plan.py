"""Plans: each pass before and after, whole plans as text, and memory where no live value is overwritten."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import sympy as sp
from helpers import CELLS, cell_of

from gategen import (
    Eq,
    batch_norm,
    gates,
    inputs,
    layer_norm,
    matrices,
    relu,
    scalars,
    sigmoid,
    states,
    sum_,
    tanh,
    vectors,
)
from gategen.graph import BEFORE, LOOP, Builder, Carry, Graph, Pointwise, Product, Value, flatten, levels
from gategen.graph import text as graph_text
from gategen.graph.adjoint import adjoint
from gategen.plan import (
    ColumnSum,
    Contraction,
    InBuffer,
    Kernel,
    MatMul,
    OuterSum,
    Plan,
    Rule,
    Schedule,
    Shifted,
    Slot,
    Stage,
    Sum,
    TimeLoop,
    loops,
    overwritten,
    plan,
    text,
)
from gategen.plan.analysis import Analysis
from gategen.plan.chains import Chains
from gategen.plan.classify import classify
from gategen.plan.ends import alive, distinct_ends
from gategen.plan.groups import merge
from gategen.plan.hoist import hoist
from gategen.plan.layout import gate_order
from gategen.plan.phases import parts, phases
from gategen.plan.retape import cheap, retape
from gategen.plan.share import share
from gategen.plan.text import stage_rows
from gategen.show import plan_text
from gategen.spec.cell import Cell

x = inputs("x")
h, c, g = states("h c g")
W, U, V, W_z, W_h, U_z = matrices("W U V W_z W_h U_z")
b, e, u, b_z, b_h = vectors("b e u b_z b_h")
s = scalars("s")
z, n, y, a = gates("z n y a")

# Small cells with what the catalogue lacks.
INDRNN = Cell("indrnn", Eq(h.next, tanh(W @ x + u * h + b)))
PEEPHOLE = Cell("peephole", Eq(z, sigmoid(W_z @ x + u * h + b_z)), Eq(h.next, z * h + (1 - z) * (W_h @ x)))
MINGRU = Cell(
    "mingru",
    Eq(z, sigmoid(W_z @ x + b_z)),
    Eq(n, tanh(W_h @ x + b_h)),
    Eq(h.next, (1 - z) * h + z * n),
)
STARTED = states("h", initial=b)
SMALL = {
    cell.name: cell
    for cell in (
        INDRNN,
        PEEPHOLE,
        MINGRU,
        Cell("projected", Eq(h.next, tanh(W @ x + U @ h)), Eq(y, V @ h.next + e), output=y),
        Cell("normed", Eq(h.next, tanh(layer_norm(W @ x + U @ h, gain=u, bias=b)))),
        Cell("batched", Eq(h.next, tanh(batch_norm(W @ x, gain=u, bias=b) + U @ h))),
        Cell("trained_start", Eq(STARTED.next, tanh(W @ x + U @ STARTED + b))),
        Cell("stacked", Eq(g.next, tanh(W @ x + U @ g)), Eq(h.next, tanh(V @ g.next + U_z @ h + s * h))),
        Cell("tied", Eq(g.next, tanh(W @ x + U @ g)), Eq(h.next, tanh(U.T @ g.next + U_z @ h))),
        Cell("deep", Eq(n, tanh(W @ x + U @ h)), Eq(z, tanh(V @ n + b)), Eq(h.next, h + z * n)),
        Cell("summed", Eq(n, relu(W @ x + U @ h)), Eq(h.next, h * e + n * sum_(n))),
        Cell("linear", Eq(h.next, W @ x + U @ h + b)),
    )
}
EVERY = {**CELLS, **SMALL}

# The gradient of g after the step is its carried gradient itself, which d_W then wants of every step.
SWAPPED = Cell("swapped", Eq(h.next, g * b), Eq(g.next, h + W @ x))


@pytest.fixture(scope="session")
def plans() -> dict[str, Plan]:
    return {}


@pytest.fixture
def planned(plans: dict[str, Plan], name: str) -> Plan:
    """The plan of the cell `name`, made once."""
    if name not in plans:
        plans[name] = plan(EVERY[name])
    return plans[name]


every_cell = pytest.mark.parametrize("name", EVERY)


def lines(graph: Graph) -> list[str]:
    """The ops of a graph as text."""
    return [" ".join(line.split()) for line in graph_text(graph).splitlines() if line.startswith("  ")]


def vector(name: str, static: bool = False) -> Value:
    return Value(name, ("hidden",), static)


def graph_of(ops: Iterable[Pointwise], *outputs: Value) -> Graph:
    """A step of no state over whatever its ops read."""
    ops = tuple(ops)
    made = {op.out for op in ops}
    reads = sorted({v for op in ops for v in op.reads} - made, key=str)
    return Graph("test", tuple(reads), (), (), ops, tuple((v.name, v) for v in outputs))


# ---------------------------------------------------------------------------------------------- the passes


def test_hoist_splits_a_sum_into_what_waits_for_the_state_and_what_does_not() -> None:
    graph = flatten(cell_of(Eq(h.next, tanh(W @ x + U @ h + b + e))))
    before, after = lines(graph), lines(hoist(graph, arrays=True))
    assert [op for op in after if op not in before] == [
        "bias_h = b + e",
        "x_h = W_x + bias_h",
        "a_h = U_h + x_h",
    ]
    level = {v.name: which for v, which in levels(hoist(graph, arrays=True)).items()}
    assert (level["x_h"], level["a_h"]) == (BEFORE, LOOP)
    assert lines(hoist(graph)) == before, "a kernel adds biases in its registers"


def test_hoist_leaves_a_sum_with_one_early_value_alone() -> None:
    graph = flatten(cell_of(Eq(h.next, tanh(W @ x + U @ h))))
    assert lines(hoist(graph)) == lines(graph)


def test_retape_recomputes_cheap_values_instead_of_saving_them() -> None:
    graph = flatten(CELLS["caru"])
    backward = adjoint(graph)
    after = retape(graph, backward)
    assert "l" in {v.name for v in backward.inputs}
    assert "l" not in {v.name for v in after.inputs}
    assert lines(after) == ["l = z * sigmoid_a", *lines(backward)]


def test_retape_saves_what_a_product_reads() -> None:
    graph = hoist(flatten(CELLS["gru"]))
    assert "hr" in {v.name for v in retape(graph, adjoint(graph)).inputs}, "d_U_h reads r * h from memory"


def test_retape_asks_for_what_it_recomputes_from() -> None:
    p, q, r, w = map(vector, "pqrw")
    forward = graph_of([Pointwise(r, p + q), Pointwise(w, r * r)], w)
    backward = graph_of([Pointwise(vector("d_r"), 2 * r)], vector("d_r"))
    after = retape(forward, backward)
    assert lines(after) == ["r = p + q", "d_r = 2 * r"]
    assert after.inputs == (p, q)


def test_cheap_is_arithmetic_of_three_values_without_functions_and_division() -> None:
    p, q, r, w = map(vector, "pqrw")
    assert all(map(cheap, (p + q, p * q * r, (1 - p) * q + p * r, p**2 + q)))
    assert not any(map(cheap, (p, p + q + r + w, p + sp.tanh(q), p / q, p * sp.sqrt(q))))


def test_alive_drops_what_nothing_reads() -> None:
    p, q, r, w = map(vector, "pqrw")
    graph = graph_of([Pointwise(q, p + 1), Pointwise(r, q * q), Pointwise(w, q + p)], w)
    assert [op.out for op in alive(graph).ops] == [q, w]


def test_every_promise_of_a_backward_step_has_a_value_of_its_own() -> None:
    graph = adjoint(flatten(cell_of(Eq(h.next, W @ x + h + b))))
    after = distinct_ends(graph)
    promised = [*after.results, *after.nexts]
    assert len(set(promised)) == len(promised)
    assert set(promised).isdisjoint(after.given)


def test_products_of_one_operand_are_a_group_and_added_up_ones_are_one_product() -> None:
    forward = hoist(flatten(CELLS["gru_after"]))
    names = [[op.matrix.name for op in group.products] for group in Analysis(forward).groups]
    assert sorted(names) == [["U_z", "U_r", "U_h"], ["W_z", "W_r", "W_h"]]

    backward = distinct_ends(alive(adjoint(forward)))
    merged = merge(backward, Analysis(backward).groups)
    loop = next(group.products for group in merged.groups if group.first.matrix.name.startswith("U"))
    assert sorted(op.matrix.name for op in loop) == ["U_h", "U_r", "U_z"]
    assert len({op.out for op in loop}) == 1, "they add up in one value"


def test_a_sum_of_products_alone_is_written_by_the_product() -> None:
    backward = distinct_ends(alive(adjoint(hoist(flatten(CELLS["rnn"])))))
    merged = merge(backward, Analysis(backward).groups)
    assert "d_h" in {op.out.name for group in merged.groups for op in group.products}
    assert "d_h" not in {op.out.name for op in merged.ops if isinstance(op, Pointwise)}


def test_share_names_a_repeated_subexpression() -> None:
    p, q, r, v, w = map(vector, "pqrvw")
    ops = (Pointwise(v, p * (1 - q)), Pointwise(w, r * (1 - q)))
    after = share(Kernel(ops, "hidden"), Builder("pqrvw"))
    assert [f"{op.out} = {op.expr}" for op in after.ops[:1]] == ["not_q = 1 - q"]
    not_q = after.ops[0].out
    assert [op.expr for op in after.ops[1:]] == [p * not_q, r * not_q]


def test_share_reads_a_result_that_another_op_holds_whole() -> None:
    p, q, v, w = map(vector, "pqvw")
    after = share(Kernel((Pointwise(v, p * q), Pointwise(w, 1 + p * q)), "hidden"), Builder("pqvw"))
    assert [op.expr for op in after.ops] == [p * q, 1 + v]


def test_share_leaves_alone_what_stands_once() -> None:
    p, q, v, w = map(vector, "pqvw")
    kernel = Kernel((Pointwise(v, p * (1 - q)), Pointwise(w, q * (1 - p))), "hidden")
    assert share(kernel, Builder("pqvw")) == kernel


@every_cell
def test_the_rows_of_all_fields_stand_in_one_order(planned: Plan) -> None:
    """That of the gates: `W_z` before `W_r` means `U_z` before `U_r` and `b_z` before `b_r`."""
    order = list(gate_order(planned.cell))
    for stack in (found.members for found in planned.fields if not found.array):
        assert list(stack) == sorted(stack, key=order.index)


def test_gates_stand_as_they_are_defined_and_those_of_one_function_together() -> None:
    i, f, g, o = gates("i f g o")
    made = [
        Eq(gate, function(matrices(f"W_{gate}") @ x + matrices(f"U_{gate}") @ h + vectors(f"b_{gate}")))
        for gate, function in ((o, sigmoid), (g, tanh), (i, sigmoid), (f, tanh))
    ]
    cell = Cell("grouped", *made, Eq(h.next, i * f + g * o))
    assert [[m.split("_")[1] for m in field.members] for field in plan(cell).fields] == [list("oigf")] * 3


@pytest.mark.parametrize("name", ["gru_after"])
def test_gradients_of_gru_after_lie_side_by_side_where_they_are_of_the_same_gates(planned: Plan) -> None:
    backward = planned.step.backward
    loop = [stage for stage in backward.loop if isinstance(stage, MatMul)]
    assert [[weight.members for weight in stage.weights] for stage in loop] == [[("U_h",), ("U_z", "U_r")]]
    assert [stage.weight.members for stage in backward.after if isinstance(stage, OuterSum)] == [
        ("W_z", "W_r", "W_h"),
        ("U_z", "U_r"),
        ("U_h",),
    ]


def test_a_pointwise_result_takes_the_memory_of_an_operand_that_dies_with_it() -> None:
    p, q, r, v, w = map(vector, "pqrvw")
    ops = [Pointwise(q, p + 1), Pointwise(r, q * p), Pointwise(v, r * q), Pointwise(w, v + r)]
    chains = Chains(graph_of(ops, w), ops)
    assert chains.root(r) == r, "q is read again"
    assert chains.root(v) == q
    assert chains.root(w) == q, "the older of v and r, which both die"
    assert Chains(graph_of(ops, w), ops, [q]).root(v) == v, "q is kept"
    assert Chains(graph_of(ops, w), ops, (), lambda root, new: False).root(w) == w


def test_neither_a_product_nor_a_next_state_takes_the_memory_of_what_it_reads() -> None:
    """A product reads all of its operand for every entry; a next state has a place of its own."""
    p, q, r, v = map(vector, "pqrv")
    matrix = Value("M", ("hidden", "hidden"), True)
    ops = [Pointwise(q, p + 1), Product(r, matrix, q, False), Pointwise(v, r + 1)]
    graph = replace(graph_of(ops, v), parameters=(matrix,))
    chains = Chains(graph, ops)
    assert (chains.root(r), chains.root(v)) == (r, r)
    carried = replace(graph, states=(Carry("p", p, v),), inputs=())
    assert Chains(carried, ops).root(v) == v


@pytest.mark.parametrize("name", ["rnn"])
def test_the_product_the_sum_and_the_gradient_of_an_rnn_share_one_memory_each(name: str) -> None:
    planned = plan(CELLS[name], arrays=True)
    slot = {v.name: s for v, s in planned.step.forward.slots}
    assert slot["W_h_x"] == slot["x_h"], "x_h = W_h_x + b_h, in place"
    assert slot["h_next"] == replace(slot["h"], shift=1)
    slot = {v.name: s for v, s in planned.step.backward.slots}
    assert slot["d_h_later"] == slot["d_h"]


@pytest.mark.parametrize("name", ["gru_type1"])
def test_gates_that_all_last_and_the_carried_gradient_stay_where_they_are(planned: Plan) -> None:
    slot = {v.name: s for v, s in planned.step.forward.slots}
    assert slot["U_z_h"] == slot["z"] and slot["U_r_h"] == slot["r"], "no copy of the stack of products"
    slot = {v.name: s for v, s in planned.step.backward.slots}
    assert slot["d_h_later"] == slot["d_h_next"] == slot["d_h"], "d_h += d_y"


@pytest.mark.parametrize("name", ["ln_lstm"])
def test_a_joint_norm_sums_its_whole_stack_at_once(planned: Plan) -> None:
    sums = [stage for stage in planned.step.forward.stages if isinstance(stage, Sum)]
    assert [len(stage.operand) for stage in sums] == [4, 4, 4, 4, 1, 1]
    columns = [stage for stage in planned.step.backward.after if isinstance(stage, ColumnSum)]
    assert sorted(len(stage.operand) for stage in columns) == [1, 1, 4, 4, 4]


def test_a_joint_norm_of_what_lies_apart_is_summed_up_part_by_part() -> None:
    m, i = layer_norm((x, U @ h))
    forward = plan(Cell("apart", Eq(h.next, tanh(W @ m + i)))).step.forward
    sums = [(len(stage.operand), stage.add) for stage in forward.stages if isinstance(stage, Sum)]
    assert sums == [(1, False), (1, True), (2, False)]  # of x, of the product, of both squares


def test_two_biases_that_are_sums_lie_side_by_side() -> None:
    gate = gates("gate")
    total = W_h @ x + U @ h + b_h + u
    cell = Cell("biased", Eq(gate, sigmoid(W_z @ x + U_z @ h + b_z + e)), Eq(h.next, tanh(total) * gate))
    slot = {v.name: s for v, s in plan(cell, arrays=True).step.forward.slots}
    assert slot["bias_gate"].home == slot["bias_h"].home and slot["bias_gate"] != slot["bias_h"]


def test_matrices_of_different_heights_are_stacked_where_that_hides_no_size() -> None:
    narrow = matrices("S", shape=(1, "hidden"))
    gate = gates("gate")
    cell = Cell("heights", Eq(gate, narrow @ h), Eq(h.next, tanh(U @ h + W @ x) * gate))
    assert [set(field.members) for field in plan(cell).fields] == [{"W"}, {"S", "U"}]


def test_vectors_of_different_sizes_are_stacked_where_that_hides_no_size() -> None:
    long, short = vectors("v_long", size="hidden"), vectors("v_short", size="memory")
    k = states("k", size="memory")
    hidden = Cell("hidden", Eq(h.next, long * h + inputs("m", size="hidden")), Eq(k.next, short * k))
    assert {"v_long", "v_short"} not in [set(field.members) for field in plan(hidden).fields]
    fixed = matrices("F", shape=("memory", "hidden"))
    told = Cell("told", Eq(h.next, long * h + W @ x), Eq(k.next, short * k + fixed @ h))
    assert {"v_long", "v_short"} in [set(field.members) for field in plan(told).fields]


# ---------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize(
    "cell, kind",
    [
        (CELLS["lstm"], "recurrent"),
        (SMALL["summed"], "recurrent"),
        (INDRNN, "elementwise"),
        (PEEPHOLE, "elementwise"),
        (MINGRU, "linear"),
        (SWAPPED, "linear"),
    ],
    ids=lambda it: getattr(it, "name", it),
)
def test_a_recurrence_is_of_the_class_of_what_waits_for_its_state(cell: Cell, kind: str) -> None:
    assert classify(Analysis(flatten(cell))) == classify(Analysis(hoist(flatten(cell)))) == kind


@pytest.mark.parametrize("cell", [INDRNN, PEEPHOLE, MINGRU], ids=lambda cell: cell.name)
def test_the_adjoint_of_an_elementwise_recurrence_is_linear(cell: Cell) -> None:
    graph = flatten(cell)
    assert classify(Analysis(adjoint(graph))) == "linear"
    derived = distinct_ends(alive(retape(hoist(graph), adjoint(hoist(graph)))))
    assert classify(Analysis(derived)) == "linear"


# ---------------------------------------------------------------------------------------------- counts


def products(schedule: Schedule) -> tuple[int, int, int]:
    """Matrix products before, in and after the loop."""
    levels = ((*schedule.before, *schedule.ahead), schedule.loop, schedule.after)
    before, loop, after = (sum(isinstance(s, (MatMul, OuterSum)) for s in stages) for stages in levels)
    return before, loop, after


# By hand. Forward: W @ x of all gates, then one for each operand in the loop (h; r * h in gru).
# Backward: one for each of these in the loop; after it d_x, d_W, and the gradient of U once for each operand.
COUNTS = {
    "rnn": ((1, 1, 0), (0, 1, 3)),
    "lstm": ((1, 1, 0), (0, 1, 3)),
    "gru": ((1, 2, 0), (0, 2, 4)),
    "gru_after": ((1, 1, 0), (0, 1, 4)),  # U_h meets d_v_n, W_h the gradient of the whole n
    "caru": ((1, 1, 0), (0, 1, 4)),  # W_n meets the gradient of a, U_n that of n
    "mgu": ((1, 2, 0), (0, 2, 4)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_cell_needs_as_many_products_as_counted_by_hand(planned: Plan, name: str) -> None:
    rule = planned.step
    assert (products(rule.forward), products(rule.backward)) == COUNTS[name]


# ---------------------------------------------------------------------------------------------- memory

EXTENT = {"input": 2, "hidden": 3}


def number(expr: sp.Expr) -> int:
    """An offset, for sizes that are all different."""
    return int(expr.subs({v: EXTENT.get(v.name, 7) for v in expr.free_symbols}))


@dataclass
class Machine:
    """Runs schedules over memory that holds, instead of numbers, which value of which step was written there.

    A token is `(value, t)`, for a state `(state, t)` with `t` counted from before the first step: the
    state after a step is the one before the next. An independent check: it knows of slots and kinds of
    buffers, and nothing of how they were chosen.
    """

    steps: int
    cells: dict[object, object] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    written: set[object] = field(default_factory=set)
    forward_states: dict[Value, tuple[str, int]] = field(default_factory=dict)

    def run(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.kinds |= {buffer.name: buffer.kind for buffer in schedule.buffers}
        self.backwards = schedule.graph.backwards
        self.alias: dict[Value, Value] = {}
        self.local: set[object] = set()
        self.before = set(self.cells)
        self.given()
        for stage in (*schedule.before, *schedule.ahead):
            self.stage(stage, range(self.steps))
        for t in reversed(range(self.steps)) if self.backwards else range(self.steps):
            for stage in schedule.loop:
                self.stage(stage, [t])
            for carry in schedule.graph.states:
                assert self.holds(
                    self.schedule.slot[carry.current], t + self.ahead, self.token(carry.next, t)
                )
        for stage in schedule.after:
            self.stage(stage, range(self.steps))
        self.kept()

    @property
    def ahead(self) -> int:
        """Where the state that a step leaves behind is looked for: as what the following step reads."""
        return -1 if self.backwards else 1

    def given(self) -> None:
        graph, slot = self.schedule.graph, self.schedule.slot
        for v in (*graph.inputs, *graph.parameters):
            if v in slot and not self.known(v):
                for t in range(self.steps):
                    self.write(slot[v], t, self.token(v, t))
        for carry in graph.states:
            first = self.steps - 1 if self.backwards else 0
            self.write(slot[carry.current], first, self.token(carry.current, first))

    def known(self, value: Value) -> bool:
        """Whether an earlier schedule left the value in memory, as a tape."""
        return all(place in self.before for place in self.places(self.schedule.slot[value], 0))

    def kept(self) -> None:
        """What the caller reads is there at the end."""
        graph = self.schedule.graph
        for v in graph.results:
            for t in range(self.steps):
                assert len(v.shape) == 2 or self.holds(self.schedule.slot[v], t, self.token(v, t)), v

    # ------------------------------------------------------------------------------------------ tokens

    def token(self, value: Value, t: int) -> object:
        value = self.alias.get(value, value)
        for carry in self.schedule.graph.states:
            if value == carry.current:
                return carry.name, t + 1 if self.backwards else t
            if value == carry.next:
                return carry.name, t if self.backwards else t + 1
        if self.backwards and (name := self.forward_states.get(value)):
            return name[0], t + name[1]
        return value.name, None if value.static else t

    def places(self, slot: Slot, t: int) -> list[object]:
        """The entries of memory of a slot at a step."""
        kind = self.kinds[slot.home.name] if isinstance(slot.home, InBuffer) else "static"
        when = t + slot.shift if kind in ("state", "time", "input") else None
        return [(slot.home, k, when) for k in range(number(slot.start), number(slot.stop))]

    def holds(self, slot: Slot, t: int, token: object) -> bool:
        return all(self.cells.get(place) == token for place in self.places(slot, t))

    def write(self, slot: Slot, t: int, token: object) -> None:
        self.cells |= dict.fromkeys(self.places(slot, t), token)

    # ------------------------------------------------------------------------------------------ stages

    def read(self, value: Value, times: Iterable[int]) -> None:
        for t in times:
            token = self.token(value, t)
            if value in self.schedule.slot:
                found = [self.cells.get(place) for place in self.places(self.schedule.slot[value], t)]
                assert set(found) == {token}, f"{value} of step {t} is read, but there lies {found}"
            else:
                assert token in self.local, f"{value} has no slot and is not local to its kernel"

    def make(self, value: Value, times: Iterable[int]) -> None:
        for t in times:
            if value in self.schedule.slot:
                self.write(self.schedule.slot[value], t, self.token(value, t))
            else:
                self.local.add(self.token(value, t))

    def apart(self, outs: Iterable[Value], reads: Iterable[Value], t: int) -> None:
        """A product or a sum does not write over what it still reads."""
        slot = self.schedule.slot
        written = {place for v in outs for place in self.places(slot[v], t)}
        assert written.isdisjoint(place for v in reads for place in self.places(slot[v], t))

    def beside(self, values: tuple[Value, ...]) -> None:
        slots = [self.schedule.slot[v] for v in values]
        for one, other in pairwise(slots):
            assert (one.home, one.stop, one.shift) == (other.home, other.start, other.shift)

    def stage(self, stage: Stage, times: Iterable[int]) -> None:
        times = list(times)
        match stage:
            case MatMul(out, operand, weights, transposed, add, _, along):
                at = operand[0].axes.index(along) if along else 0
                rows, width, high = (
                    number(sp.Add(*(weight.stop - weight.start for weight in weights))),
                    number(sp.Add(*(self.size(v, along and v.axes[at]) for v in operand))),
                    number(sp.Add(*(self.size(v, along and v.axes[at]) for v in out))),
                )
                assert rows == (width if transposed else high), f"{weights} do not fit {out}"
                self.beside(out)
                self.beside(operand)
                self.apart(out, operand, times[0])
                for v in (*operand, *(out if add else ())):
                    self.read(v, times)
                for v in out:
                    self.make(v, times)
            case Kernel(ops, _, static):
                self.local = set()
                for op in ops:
                    for v in op.reads:
                        self.read(v, times)
                    if isinstance(op.expr, Value) and not op.expr.static:
                        self.copy(op.out, op.expr)
                    assert not static or op.out.static
                    self.make(op.out, times)
                self.local = set()
            case Sum(out, operand, add):
                self.beside(operand)
                self.apart([out], operand, times[0])
                for v in (*operand, *([out] if add else [])):
                    self.read(v, times)
                self.make(out, times)
            case Shifted(out, operand):
                self.apart([out], [operand], times[0])
                self.read(operand, times)
                self.make(out, times)
            case Contraction(out, left, right):
                self.apart([out], [left, right], times[0])
                for v in (left, right):
                    self.read(v, times)
                self.make(out, times)
            case OuterSum(weight, left, right, add):
                self.beside(left)
                for v in (*left, *right):
                    self.read(v, times)
                target = {(member, str(weight.columns)) for member in weight.members}
                assert add == (not target.isdisjoint(self.written)), f"{weight.members} is not added up once"
                self.written |= target
            case ColumnSum(out, operand):
                self.beside(out)
                self.beside(operand)
                for v in operand:
                    self.read(v, times)
                for v in out:
                    self.make(v, times)

    def copy(self, out: Value, of: Value) -> None:
        """A copy of a state's next value is as good as that value."""
        if any(of == carry.next for carry in self.schedule.graph.states):
            self.alias[out] = of

    @staticmethod
    def size(value: Value, axis: str | int = "") -> sp.Expr:
        """Of all of it, or of one of its axes."""
        return Slot(InBuffer(""), sp.S.Zero, axis or value.size).stop


def check_memory(rule: Rule, steps: int) -> Machine:
    """Run both directions over one memory, so that the tape is read where the forward step left it."""
    machine = Machine(steps)
    machine.run(rule.forward)
    for carry in rule.forward.graph.states:
        machine.forward_states |= {carry.current: (carry.name, 0), carry.next: (carry.name, 1)}
    machine.written = set()
    machine.run(rule.backward)
    return machine


def runs(planned: Plan) -> Iterator[tuple[Rule, int]]:
    """The passes of a plan, each with a number of steps it is used for."""
    yield planned.step, 3
    yield planned.step, 1
    for rule in planned.rules[1:]:
        yield rule, 1


@every_cell
@pytest.mark.parametrize("arrays", [False, True], ids=["kernels", "arrays"])
def test_every_value_lies_where_it_is_read_as_long_as_it_is_read(name: str, arrays: bool) -> None:
    for rule, steps in runs(plan(EVERY[name], arrays)):
        check_memory(rule, steps)


@every_cell
def test_what_its_own_kernel_alone_reads_has_no_memory_of_its_own(planned: Plan) -> None:
    for rule in planned.rules:
        for schedule in (rule.forward, rule.backward):
            graph, local = schedule.graph, set()
            ends = {v for c in graph.states for v in (c.current, c.next)} | {*rule.tape}
            ends |= {*graph.results}
            for kernel in (stage for stage in schedule.loop if isinstance(stage, Kernel)):
                own = {op.out for op in kernel.ops}
                local |= own - ends - {v for op in graph.ops if op.out not in own for v in op.reads}
            shared = {slot for v, slot in schedule.slots if v not in local}
            assert all(schedule.slot[v] in shared for v in local if v in schedule.slot)


@every_cell
def test_every_trained_matrix_gets_its_gradient(planned: Plan, name: str) -> None:
    found = {member for member, _ in check_memory(planned.step, 1).written}
    graph = planned.step.forward.graph
    own = {p.name for p in graph.parameters}
    used = {op.matrix.name for op in graph.ops if isinstance(op, Product)} & own
    blocks = {b.name: owner for owner, bs in graph.blocks for b in bs}
    fixed = {member.name for a in planned.cell.arrays if not a.trainable for member in a.members}
    assert found == {blocks.get(p, p) for p in used} - fixed


def test_a_carried_gradient_that_is_itself_a_gradient_of_every_step_is_kept() -> None:
    check_memory(plan(SWAPPED).step, 3)


def test_a_product_does_not_overwrite_the_gradient_it_reads() -> None:
    fixed = matrices("F", shape=("hidden", "hidden"), trainable=False)
    check_memory(plan(Cell("fixed", Eq(n, relu(W @ x)), Eq(h.next, fixed @ h + n))).step, 3)


def test_the_memory_check_finds_a_value_that_is_overwritten_too_early() -> None:
    rule = plan(CELLS["gru"]).step
    slots = {v.name: (v, slot) for v, slot in rule.forward.slots}
    z, u = slots["z"], slots["U_h_hr"]
    crossed = tuple((v, z[1] if v == u[0] else slot) for v, slot in rule.forward.slots)
    with pytest.raises(AssertionError, match="z of step 0 is read, but there lies"):
        check_memory(replace(rule, forward=replace(rule.forward, slots=crossed)), 2)


# ---------------------------------------------------------------------------------------------- whole plans

PLANS: dict[str, str] = {}

PLANS["gru"] = """
cell      gru (recurrent)
params    W[z r h] (3H, I)   U[z r] (2H, H)   U_h (H, H)   b[z r h] (3H,)
tape      h (T+1, B, H)   gates[z r n] (T, B, 3H)   hr (T, B, H)
forward   before  gates = x @ W[z r h].T
                  x_z, x_r, x_n <- kernel(W_z_x, b_z, W_r_x, b_r, W_h_x, b_h)
          step    u = h @ U[z r].T
                  a_z, z, a_r, r, hr <- kernel(U_z_h, x_z, U_r_h, x_r, h)
                  U_h_hr = hr @ U_h.T
                  a_n, n, h_next <- kernel(U_h_hr, x_n, h, z)
backward  ahead   k_n, k_r, k_z, k_h <- kernel(n, z, h, r)
          step    d_h_next, d_n <- kernel(d_h_later, d_y, k_n)
                  d_hr = d_gates[d_n] @ U_h
                  d_r, d_z <- kernel(d_hr, k_r, d_h_next, k_z)
                  d_u_h = d_gates[d_z d_r] @ U[z r]
                  d_h <- kernel(d_h_next, d_hr, d_u_h, k_h, r)
          after   d_x = d_gates @ W[z r h]
                  d_W[z r h] = d_gates.T @ x
                  d_U[z r] = d_gates[d_z d_r].T @ h
                  d_U_h = d_gates[d_n].T @ hr
                  d_b = sum of d_gates over steps and rows
"""

PLANS["gru_after"] = """
cell      gru_after (recurrent)
params    W[z r h] (3H, I)   U[z r h] (3H, H)   b[z r h] (3H,)   c[z r h] (3H,)
tape      h (T+1, B, H)   gates[z r n] (T, B, 3H)   v_n (T, B, H)
forward   before  bias_z, bias_r, bias_n <- once(b_z, c_z, b_r, c_r, b_h)
                  gates = x @ W[z r h].T
                  x_z, x_r, x_n <- kernel(W_z_x, bias_z, W_r_x, bias_r, W_h_x, bias_n)
          step    u = h @ U[z r h].T
                  a_z, z, a_r, r, v_n, a_n, n, h_next <- kernel(U_z_h, x_z, U_r_h, x_r, U_h_h, c_h, x_n, h)
backward  ahead   not_z, k_n, k_v_n, k_r, k_z <- kernel(z, n, r, v_n, h)
          step    d_h_next, d_n, d_v_n, d_r, d_z <- kernel(d_h_later, d_y, k_n, k_v_n, k_r, k_z)
                  d_u_h = d_gates[d_v_n d_z d_r] @ U[U_h]U[z r]
                  d_h <- kernel(d_h_next, d_u_h, z)
          after   d_x = d_gates[d_z d_r d_n] @ W[z r h]
                  d_W[z r h] = d_gates[d_z d_r d_n].T @ x
                  d_U[z r] = d_gates[d_z d_r].T @ h
                  d_U[U_h] = d_gates[d_v_n].T @ h
                  d_b = sum of d_gates[d_z d_r d_n] over steps and rows
                  d_c = sum of d_gates[d_v_n] over steps and rows
                  d_bias_z_2, d_bias_r_2 <- once(d_bias_z, d_bias_r)
"""

PLANS["lstm"] = """
cell      lstm (recurrent)
params    W[i f o g] (4H, I)   U[i f o g] (4H, H)   b[i f o g] (4H,)
tape      h (T+1, B, H)   c (T+1, B, H)   gates[i f o g] (T, B, 4H)   tanh_c (T, B, H)
forward   before  gates = x @ W[i f o g].T
                  x_i, x_f, x_g, x_o <- kernel(W_i_x, b_i, W_f_x, b_f, W_g_x, b_g, W_o_x, b_o)
          step    u = h @ U[i f o g].T
                  a_i, i, a_f, f, a_g, g, a_o, o, c_next, tanh_c, h_next <- kernel(U_i_h, x_i, U_f_h, x_f, U_g_h, x_g, U_o_h, x_o, c)
backward  ahead   k_c, k_o, k_g, k_f, k_i <- kernel(o, tanh_c, g, i, c, f)
          step    d_h_next, d_c_next, d_o, d_g, d_f, d_i, d_c <- kernel(d_h_later, d_y, d_c_later, k_c, k_o, k_g, k_f, k_i, f)
                  d_h = d_gates @ U[i f o g]
          after   d_x = d_gates @ W[i f o g]
                  d_W[i f o g] = d_gates.T @ x
                  d_U[i f o g] = d_gates.T @ h
                  d_b = sum of d_gates over steps and rows
"""  # noqa: E501

PLANS["caru"] = """
cell      caru (recurrent)
params    W[n z] (2H, I)   U[n z] (2H, H)   b[n z] (2H,)   c[n z] (2H,)
tape      h (T+1, B, H)   gates[sigmoid_a z] (T, B, 2H)   n (T, B, H)
forward   before  bias_n, bias_z <- once(c_n, b_z, c_z)
                  gates = x @ W[n z].T
                  a, x_n, x_z, sigmoid_a <- kernel(W_n_x, b_n, bias_n, W_z_x, bias_z)
          step    u = h @ U[n z].T
                  a_n, n, a_z, z, l, h_next <- kernel(U_n_h, x_n, U_z_h, x_z, sigmoid_a, h)
backward  ahead   l, k_l, k_z, k_n, k_a, k_h <- kernel(sigmoid_a, z, h, n)
          step    d_h_next, d_l, d_z, d_n, d_a <- kernel(d_h_later, d_y, k_l, k_z, k_n, k_a)
                  d_u_h = d_gates[d_z d_n] @ U[U_z]U[U_n]
                  d_h <- kernel(d_h_next, d_u_h, k_h)
          after   d_x = d_gates[d_a d_z] @ W[n z]
                  d_W[n z] = d_gates[d_a d_z].T @ x
                  d_U[U_n] = d_gates[d_n].T @ h
                  d_U[U_z] = d_gates[d_z].T @ h
                  d_b = sum of d_gates[d_a d_z] over steps and rows
                  d_c = sum of d_gates[d_n] over steps and rows
                  d_bias_z_2 <- once(d_bias_z)
first tape      h (T+1, B, H)
first forward   before  W_n_x = x @ W[W_n].T
                        h_next <- kernel(W_n_x, b_n)
first backward  before  d_c_n, d_b_z, d_c_z <- once()
                        d_h <- kernel()
                step    d_h_next <- kernel(d_h_later, d_y)
                        d_h_2 <- kernel(d_h)
                after   d_x = d_h_next @ W[W_n]
                        d_W[W_n] = d_h_next.T @ x
                        d_b = sum of d_h_next over steps and rows
"""


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_reads_as_it_should(name: str) -> None:
    assert text(plan(EVERY[name], arrays=True)) == PLANS[name].strip()


def test_show_prints_the_plan() -> None:
    made = plan(CELLS["gru"], arrays=True)
    assert plan_text(made).startswith(PLANS["gru"].strip() + "\n\nparameters ")


# -------------------------------------------------------------------------------- phases and parts


def test_a_loop_is_a_round_for_each_product_that_waits_for_another() -> None:
    before = plan(CELLS["gru"]).step.forward
    assert [type(stage).__name__ for stage in before.loop] == ["MatMul", "Kernel", "MatMul", "Kernel"]
    after = phases(before)
    assert [len(phase.products) for phase in after] == [1, 1]
    assert [stage for phase in after for stage in (*phase.products, *phase.program)] == [*before.loop]


@every_cell
def test_a_phase_has_products_that_wait_for_nothing_in_it_and_a_program_behind_them(name: str) -> None:
    for rule in plan(EVERY[name]).rules:
        for schedule in (rule.forward, rule.backward):
            found = phases(schedule)
            assert [s for phase in found for s in (*phase.products, *phase.program)] == [*schedule.loop]
            for phase in found:
                made = {v for product in phase.products for v in product.writes}
                assert all(made.isdisjoint(product.reads) for product in phase.products)


def test_what_is_one_for_all_steps_runs_once() -> None:
    forward, backward = (getattr(plan(CELLS["lru"]).step, way) for way in ("forward", "backward"))
    assert {v.name for stage in parts(forward).first for v in stage.writes} >= {"lr", "li", "exp_gl"}
    assert {v.name for stage in parts(backward).last for v in stage.writes} >= {"d_nu", "d_th", "d_gl"}
    assert not parts(forward).at_once and not parts(backward).at_once


def test_what_reads_a_sum_over_all_steps_at_every_step_wants_them_at_once() -> None:
    step = plan(CELLS["ligru"]).step
    assert parts(step.forward).at_once and parts(step.backward).at_once


# ---------------------------------------------------------------------------------------------- loops


def leaky() -> Cell:
    """Its state waits for none but itself."""
    b, u = vectors("b u")
    return cell_of(Eq(h.next, tanh(W @ x + u * h + b)))


def rows_of(made: Plan) -> dict[str, list[str]]:
    """What stands in the text of a plan for both directions of the step, `when` and what."""
    rows: dict[str, list[str]] = {}
    for which, when, what in stage_rows(made.step):
        rows.setdefault(which, []).append(f"{when:8}{what}")
    return rows


def test_a_loop_of_units_that_wait_for_none_but_themselves_becomes_one_stage():
    before, after = plan(leaky()), loops(plan(leaky()))
    assert rows_of(before) == {
        "forward": ["before  W_x = x @ W.T", "step    a_h, h_next <- kernel(W_x, b, h, u)"],
        "backward": [
            "step    d_h_next, d_a_h, g_u, d_h <- kernel(d_h_later, d_y, h_next, h, u)",
            "after   d_x = d_a_h @ W",
            "        d_W = d_a_h.T @ x",
            "        d_b = sum of d_a_h over steps and rows",
            "        d_u = sum of g_u over steps and rows",
        ],
    }
    assert rows_of(after) == {
        "forward": ["before  W_x = x @ W.T", "after   h_next <- all steps(W_x, b, h, u)"],
        "backward": [
            "after   d_a_h, d_h, total_d_a_h, total_g_u <- all steps(d_h_later, d_y, h_next, h, u)",
            "        d_x = d_a_h @ W",
            "        d_W = d_a_h.T @ x",
            "        d_b = sum of totals[total_d_a_h] over rows",
            "        d_u = sum of totals[total_g_u] over rows",
        ],
    }
    assert {b.name for b in before.step.backward.buffers} - {b.name for b in after.step.backward.buffers} == {
        "g_u"
    }
    assert before.step.saved == after.step.saved


def test_a_loop_is_a_stage_for_each_size_of_its_values():
    d = states("d", size="input")
    for schedule in ways(loops(plan(cell_of(Eq(h.next, tanh(h + W @ x)), Eq(d.next, tanh(d + x)))))):
        stages = [stage for stage in schedule.stages if isinstance(stage, TimeLoop)]
        assert sorted(stage.size for stage in stages) == ["hidden", "input"] and not schedule.loop
        assert all(len(stage.carries) == 1 for stage in stages)


def test_a_loop_that_multiplies_is_left_as_it_is():
    made = plan(cell_of(Eq(h.next, tanh(W @ x + U @ h))))
    assert loops(made) == made


def test_a_state_that_is_known_before_the_loop_is_read_in_it():
    made = loops(plan(cell_of(Eq(h.next, tanh(h + c)), Eq(c.next, W @ x)))).step.forward
    (loop,) = (stage for stage in made.stages if isinstance(stage, TimeLoop))
    (given,) = (carry.next for carry in made.graph.states if carry.name == "c")
    assert given in loop.reads and given not in loop.writes


@pytest.mark.parametrize("name", CELLS)
def test_no_loop_is_left_of_an_elementwise_or_linear_cell_and_all_is_left_of_others(name):
    made = plan(CELLS[name])
    for schedule, was in zip(ways(loops(made)), ways(made), strict=True):
        stages = any(isinstance(stage, TimeLoop) for stage in schedule.stages)
        assert (stages, schedule.loop) == ((True, ()) if made.kind != "recurrent" else (False, was.loop))


def ways(made: Plan) -> tuple[Schedule, Schedule]:
    return made.step.forward, made.step.backward


# ---------------------------------------------------------------------------------------------- overwritten


def test_a_gradient_is_overwritten_where_all_its_rows_are_written_before_they_are_met() -> None:
    made = plan(Cell("twice", Eq(z, sigmoid(W_z @ x + b_z)), Eq(h.next, z * tanh(W @ x + U @ h + b))))
    schedule = made.step.backward
    fields = {field.name: field for field in made.fields}
    assert all(overwritten(schedule, field) for field in fields.values())
    (outer,) = (s for s in schedule.after if isinstance(s, OuterSum) and s.weight.field == "U")

    def with_stages(*stages: Stage) -> Schedule:
        return replace(schedule, after=tuple(s for s in schedule.after if s != outer) + stages)

    assert overwritten(with_stages(outer, replace(outer, add=True)), fields["U"])
    half = replace(outer, weight=replace(outer.weight, stop=outer.weight.stop / 2))
    blocks, columns = replace(outer, blocks="heads"), replace(outer.weight, columns=(sp.S.Zero, sp.S.One))
    for stages in (
        (),
        (replace(outer, add=True),),
        (replace(outer, add=True), outer),
        (half,),
        (blocks,),
        (replace(outer, weight=columns),),
    ):
        assert not overwritten(with_stages(*stages), fields["U"])


def test_numbers_to_which_rows_are_added_and_frozen_fields_are_not_overwritten() -> None:
    frozen = vectors("frozen", trainable=False)
    made = plan(Cell("rest", Eq(h.next, tanh(W @ x + s * h + frozen))))
    found = {field.members: overwritten(made.step.backward, field) for field in made.fields}
    assert found == {("W",): True, ("s",): False, ("frozen",): False}
