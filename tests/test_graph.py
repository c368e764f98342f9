"""Graphs: what `flatten` names, what `check` refuses, when values are known, and what `evaluate` computes."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sympy as sp
from helpers import BATCH, CELLS, SIZES, STEPS, Case, assert_close, cell_of, random_case, run, with_stated
from reference import REFERENCES, Reference, numpy_functions, outputs_of
from reference import run as run_reference

from gategen import (
    Eq,
    concat,
    constants,
    gates,
    inputs,
    layer_norm,
    matrices,
    mean,
    scalars,
    sigmoid,
    states,
    sum_,
    tanh,
    vectors,
    where,
)
from gategen.graph import (
    AFTER,
    BEFORE,
    LOOP,
    BatchSum,
    Builder,
    Carry,
    Graph,
    Length,
    Outer,
    Pointwise,
    Product,
    Reduce,
    Value,
    check,
    evaluate,
    flatten,
    fresh,
    levels,
    start,
    text,
    weights,
    with_computed,
)
from gategen.graph.adjoint import adjoint
from gategen.graph.tangent import tangent
from gategen.spec.language import batch_norm
from gategen.spec.names import extent_of

LENGTHS = (3, 0, 4, 1, 4)

every_cell = pytest.mark.parametrize("name", CELLS)

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")
alpha = scalars("alpha")
z, y = gates("z y")


# -------------------------------------------------------------------------------- flatten

GRU_TEXT = """
graph   gru
inputs  x
params  U_z W_z b_z U_r W_r b_r U_h W_h b_h
states  h -> h_next
  U_z_h  = U_z @ h
  W_z_x  = W_z @ x
  a_z    = U_z_h + W_z_x + b_z
  z      = sigmoid(a_z)
  U_r_h  = U_r @ h
  W_r_x  = W_r @ x
  a_r    = U_r_h + W_r_x + b_r
  r      = sigmoid(a_r)
  hr     = r * h
  U_h_hr = U_h @ hr
  W_h_x  = W_h @ x
  a_n    = U_h_hr + W_h_x + b_h
  n      = tanh(a_n)
  h_next = (1 - z) * h + z * n
output  y: h_next
""".strip()


def test_the_graph_of_the_gru_is_the_equations_with_a_name_for_everything() -> None:
    assert text(flatten(CELLS["gru"])) == GRU_TEXT


@pytest.mark.parametrize("name", [name for name in CELLS if name not in ("ligru", "sligru")])
def test_every_product_activation_and_reduction_has_a_name(name: str) -> None:
    for op in flatten(CELLS[name]).ops:
        if isinstance(op, Pointwise):
            functions = op.expr.atoms(sp.Function)
            assert functions <= {op.expr}, f"{op.out} nests {functions}"
            plain = [f for f in functions if not isinstance(f, where)]  # whose branches may be arithmetic
            assert all(arg.is_Symbol or arg.is_number for f in plain for arg in f.args)


@every_cell
def test_every_graph_and_its_derivatives_are_well_formed(name: str) -> None:
    for first in (False, True) if CELLS[name].first else (False,):
        graph = flatten(CELLS[name], first)
        for derived in (graph, adjoint(graph), tangent(graph)):
            assert check(derived) is derived


def test_a_sum_with_a_product_has_a_name_where_it_is_a_factor() -> None:
    """Its gradient then is that of the product, in one place; other factors stand where they are."""
    lines = text(flatten(CELLS["gru_after"])).splitlines()
    assert "  v_n    = U_h_h + c_h" in lines and "  a_n    = W_h_x + b_h + r * v_n" in lines
    assert "  h_next = (1 - z) * n + z * h" in lines


@every_cell
def test_flattening_twice_gives_the_same_graph(name: str) -> None:
    assert flatten(CELLS[name]) == flatten(CELLS[name])
    assert text(adjoint(flatten(CELLS[name]))) == text(adjoint(flatten(CELLS[name])))


def test_what_is_computed_twice_is_named_once() -> None:
    cell = cell_of(Eq(z, sigmoid(W @ x)), Eq(h.next, sigmoid(W @ x) * h + tanh(U @ h) * tanh(U @ h)))
    ops = flatten(cell).ops
    assert sum(isinstance(op, Product) for op in ops) == 2
    for function in (sp.tanh, sigmoid):
        assert sum(isinstance(op, Pointwise) and op.expr.has(function) for op in ops) == 1


def test_a_broadcast_definition_is_not_reused_where_the_size_matters() -> None:
    cell = cell_of(Eq(h.next, sigmoid(alpha)), Eq(y, sum_(sigmoid(alpha)) + W @ x * h), output=y)
    case = random_case(flatten(cell))
    by_hand = case.values["x"] @ case.values["W"].T
    held = np.concatenate([case.values["h"][None], run(case).values["h_next"][:-1]])
    wanted = 1 / (1 + np.exp(-case.values["alpha"])) + by_hand * held
    assert_close(run(case).outputs["y"], wanted, 1e-14)


def test_stacked_vectors_become_one_block_of_columns_each() -> None:
    A = matrices("A")
    graph = flatten(cell_of(Eq(h.next, tanh(A @ concat(h, x)))))
    ((name, blocks),) = graph.blocks
    assert name == "A"
    assert [v.shape for v in blocks] == [("hidden", "hidden"), ("hidden", "input")]


def test_invented_names_step_aside() -> None:
    h_next, a_z = vectors("h_next"), vectors("a_z")
    graph = flatten(cell_of(Eq(z, sigmoid(W @ x + a_z)), Eq(h.next, z * h + h_next)))
    names = [v.name for v in graph.values]
    assert len(set(names)) == len(names)
    assert {"h_next", "h_next_2", "a_z", "a_z_2"} <= set(names)


def test_constants_are_numbers_in_the_graph() -> None:
    gamma = constants(gamma=0.25)
    graph = flatten(cell_of(Eq(h.next, gamma * h + (W @ x) ** constants(power=2))))
    assert "0.25 * h" in text(graph)
    assert "W_x**2" in text(graph)


def test_names_that_begin_like_those_of_batch_norm_are_kept_apart() -> None:
    count, training = scalars("count", trainable=False), scalars("training", trainable=False)
    valid = inputs("valid", size=1)
    cell = cell_of(Eq(h.next, batch_norm(W @ x, b) * count * valid + batch_norm(W @ x) * training * h))
    graph = flatten(cell)
    assert {"count", "count_2", "training", "training_2"} <= {v.name for v in graph.parameters}
    assert {"valid", "valid_2"} <= {v.name for v in graph.inputs}


def test_the_first_step_is_a_graph_of_its_own_over_the_same_parameters() -> None:
    graph, first = flatten(CELLS["caru"]), flatten(CELLS["caru"], first=True)
    assert first.parameters == graph.parameters
    assert first.name == "caru_first"
    assert [str(op.out) for op in first.ops] == ["W_n_x", "h_next"]


def test_a_plain_number_needs_no_graph_to_start_from() -> None:
    assert start(CELLS["libru_log"]) is None
    s = states("s", initial=tanh(b))
    graph = start(cell_of(Eq(s.next, W @ x + s)))
    assert graph is not None
    assert [v.name for v in graph.parameters] == ["b"]
    assert [name for name, _ in graph.outputs] == ["s"]


def test_a_fresh_name_is_the_first_that_is_free() -> None:
    assert fresh("a", []) == "a"
    assert fresh("a", ["a", "a_2"]) == "a_3"
    assert fresh("a", {"a": 1}) == "a_2"
    assert fresh("a", (name for name in ("a", "a_2"))) == "a_3"


# -------------------------------------------------------------------------------- check

H, I = ("hidden",), ("input",)  # noqa: E741 (as in the shapes of the documentation)
v, v_next, u = Value("v", H), Value("v_next", H), Value("u", I)
M = Value("M", ("hidden", "input"), True)
good = Graph(
    "good",
    inputs=(u,),
    parameters=(M,),
    states=(Carry("v", v, v_next),),
    ops=(Product(Value("M_u", H), M, u), Pointwise(v_next, Value("M_u", H) + v)),
    outputs=(("y", v_next),),
)
M_u = good.ops[0].out
one = Value("one", (1,))
static = Value("static", H, True)

MALFORMED = {
    "u is given twice": replace(good, parameters=(M, Value("u", H, True))),
    "v_next reads M_u before it is defined": replace(good, ops=good.ops[::-1]),
    "M_u is defined twice": replace(good, ops=(good.ops[0], *good.ops)),
    "v is defined twice": replace(good, ops=(Pointwise(Value("v", H), v * 2), *good.ops)),
    "v_next is promised but never defined": replace(good, ops=good.ops[:1]),
    "q is promised but never defined": replace(good, outputs=(("y", Value("q", H)),)),
    "s is promised but never defined": replace(good, sums=(("M", Value("s", H, True)),)),
    "v changes its shape": replace(good, states=(Carry("v", v, u),)),
    "v is static": replace(
        good, ops=(*good.ops, Pointwise(static, sp.Integer(0))), states=(Carry("v", v, static),)
    ),
    "a sum depends on the step": replace(good, sums=(("M", M_u),)),
    "an output does not depend on the step": replace(good, outputs=(("y", M),)),
    "w mixes sizes": replace(good, ops=(*good.ops, Pointwise(Value("w", H), v + u))),
    "w is static but reads a row": replace(good, ops=(*good.ops, Pointwise(Value("w", H, True), v))),
    "w still holds a name of the spec": replace(good, ops=(*good.ops, Pointwise(Value("w", H), v + b))),
    "w: shapes do not meet": replace(good, ops=(*good.ops, Product(Value("w", H), M, v))),
    "w: a product is per row": replace(good, ops=(*good.ops, Product(Value("w", H, True), M, u))),
    "w: a reduction has size 1": replace(good, ops=(*good.ops, Reduce(Value("w", H), (v,)))),
    "w: wrong outer product": replace(
        good, ops=(*good.ops, Outer(Value("w", ("hidden", "hidden"), True), v, u))
    ),
    "w: wrong sum": replace(good, ops=(*good.ops, BatchSum(Value("w", I, True), v))),
}


def test_a_well_formed_graph_passes() -> None:
    more = (
        Reduce(one, (v,)),
        Outer(Value("d_M", M.shape, True), v, u),
        BatchSum(Value("d_b", H, True), v),
        Product(Value("M_v", I), M, v, True),
        Pointwise(Value("w", H), v * one),
    )
    assert check(replace(good, ops=(*good.ops, *more)))


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_graph_is_refused(message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(MALFORMED[message])
    assert message in str(caught.value)


# -------------------------------------------------------------------------------- levels


def level_of(graph: Graph) -> dict[str, str]:
    return {value.name: level for value, level in levels(graph).items()}


def test_what_reads_no_state_is_known_before_the_loop() -> None:
    level = level_of(flatten(CELLS["gru"]))
    assert {name for name, at in level.items() if at == BEFORE} == {"W_z_x", "W_r_x", "W_h_x"}
    assert AFTER not in level.values()


def test_the_gradients_of_weights_and_inputs_wait_until_after_the_loop() -> None:
    level = level_of(adjoint(flatten(CELLS["gru"])))
    after = {name for name, at in level.items() if at == AFTER}
    assert {"d_W_z", "d_U_h", "d_b_r", "W_zT_d_a_z", "d_x"} <= after
    assert after.isdisjoint({"U_zT_d_a_z", "d_a_z", "d_h_next", "d_h"})


def test_batch_normalisation_is_done_before_the_loop_and_its_gradient_after() -> None:
    graph = flatten(CELLS["ligru"])
    assert level_of(graph)["normed_z"] == BEFORE
    level = level_of(adjoint(graph))
    assert level["d_sum_z"] == level["d_W_z_x"] == AFTER
    assert level["d_a_z"] == LOOP


def test_what_only_parameters_decide_is_known_before_the_loop() -> None:
    level = level_of(flatten(CELLS["gru_type3"]))
    assert level["z"] == level["r"] == BEFORE


# -------------------------------------------------------------------------------- evaluate

F = numpy_functions()


def reference_of(name: str) -> tuple[Reference, Case]:
    cell, case = CELLS[name], random_case(flatten(CELLS[name]), lengths=LENGTHS)
    if computed := weights(cell):
        own = random_case(computed, seed=1).values
        values = {**case.values, **own, **with_computed(cell, {**case.values, **own}, case.sizes)}
        case = replace(case, values=values)
    reference, values = REFERENCES[name], {**case.values, "x": case.values[cell.inputs[0].name]}
    told = with_stated(cell, {name: values[name] for name in reference.params if name in values})
    return reference, replace(case, values={**values, **told})


def widths(size: Any, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Of a vector, or of a matrix of every row."""
    return tuple(extent_of(axis, sizes) for axis in (size if isinstance(size, tuple) else (size,)))


def named(case: Case) -> dict[str, np.ndarray]:
    """Parameters under the spec's own names: stacked columns in one matrix, stacked rows in one array."""
    given = {value.name: case.values[value.name] for value in case.graph.parameters}
    for name, blocks in case.graph.blocks:
        given[name] = np.concatenate([given.pop(block.name) for block in blocks], axis=1)
    cell = CELLS[case.graph.name]
    given |= {p.name: case.values[p.name] for p in cell.parameters if p.name in case.values}
    given = {
        name: array for name, array in given.items() if name not in {c.symbol.name for c in cell.computed}
    }
    for a in cell.arrays:
        if a.stacked:
            given[a.name] = np.concatenate([given.pop(p.name) for p in a.members])
    return given


@every_cell
def test_a_run_is_that_of_the_equations_by_hand(name: str) -> None:
    reference, case = reference_of(name)
    initial = {state: case.values[state] for state in reference.states}
    inputs = {key: case.values[key] for key in reference.inputs}
    want_y, want_final = run_reference(
        F, reference, named(case), case.values["x"], initial, LENGTHS, inputs=inputs
    )
    found = run(case)
    for y, want in zip(found.outputs.values(), outputs_of(want_y), strict=True):
        assert_close(y, want, 1e-12)
    for state, want in want_final.items():
        assert_close(found.final[state], want, 1e-12, state)


@pytest.mark.parametrize("name", [name for name in CELLS if not REFERENCES[name].normalized])
def test_a_run_from_no_given_state_takes_the_first_step_by_its_own_rule(name: str) -> None:
    reference, case = reference_of(name)
    cell, lengths = CELLS[name], np.array(LENGTHS)
    inputs = {key: case.values[key] for key in reference.inputs}
    want_y, want_final = run_reference(
        F, reference, named(case), case.values["x"], None, LENGTHS, inputs=inputs
    )
    begin = reference.starts(F, named(case), len(LENGTHS), case.values["x"])

    def part(graph: Graph, steps: slice, values: dict, left: np.ndarray) -> Case:
        sequences = {key: case.values[key][steps] for key in (cell.inputs[0].name, *reference.inputs)}
        return replace(case, graph=graph, values={**case.values, **values, **sequences}, lengths=left)

    one = run(part(flatten(cell, first=bool(cell.first)), slice(0, 1), begin, np.minimum(lengths, 1)))
    rest = run(part(case.graph, slice(1, None), dict(one.final), np.maximum(lengths - 1, 0)))
    for (output, _), want in zip(case.graph.outputs, outputs_of(want_y), strict=True):
        assert_close(np.concatenate([one.outputs[output], rest.outputs[output]]), want, 1e-12)
    for state, want in want_final.items():
        assert_close(rest.final[state], want, 1e-12, state)


@pytest.mark.parametrize("name", ["ligru", "sligru"])
def test_running_statistics_follow_the_batch_or_stand_for_it(name: str) -> None:
    reference, case = reference_of(name)
    initial = {"h": case.values["h"]}
    ours = [statistic.value.name for statistic in case.graph.statistics]
    theirs = [("mu_" if n.startswith("mean") else "v_") + ("z" if "_z" in n else "h") for n in ours]
    running = {their: case.values[our] for our, their in zip(ours, theirs, strict=True)}
    buffers = dict(running)
    run_reference(F, reference, named(case), case.values["x"], initial, LENGTHS, buffers)
    found = run(case)
    for our, their in zip(ours, theirs, strict=True):
        assert_close(found.sums[our], buffers[their], 1e-12, our)

    using = replace(case, values={**case.values, "training": np.float64(0)})
    want, _ = run_reference(
        F, reference, named(case), case.values["x"], initial, LENGTHS, running, training=False
    )
    assert_close(run(using).outputs["y"], want, 1e-12)


@every_cell
def test_a_finished_row_keeps_its_state_and_puts_out_zero(name: str) -> None:
    case = random_case(flatten(CELLS[name]), lengths=LENGTHS)
    found = run(case)
    for row, length in enumerate(LENGTHS):
        assert not any(y[length:, row].any() for y in found.outputs.values())
    for carry in case.graph.states:
        np.testing.assert_array_equal(found.final[carry.name][1], case.values[carry.name][1])


@every_cell
def test_an_empty_run_keeps_the_states_and_has_arrays_of_the_right_shape(name: str) -> None:
    case = random_case(flatten(CELLS[name]), steps=0)
    found = run(case)
    for output, value in case.graph.outputs:
        assert found.outputs[output].shape == (0, BATCH, *widths(value.shape, case.sizes))
    for carry in case.graph.states:
        np.testing.assert_array_equal(found.final[carry.name], case.values[carry.name])


def test_a_run_changes_nothing_that_it_is_given() -> None:
    case = random_case(flatten(CELLS["lstm"]), lengths=LENGTHS)
    before = {name: value.copy() for name, value in case.values.items()}
    run(case)
    for name, value in before.items():
        np.testing.assert_array_equal(case.values[name], value)


def test_names_of_sizes_may_be_names_of_values() -> None:
    hidden, sequence = states("hidden"), inputs("input")
    cell = cell_of(Eq(hidden.next, tanh(W @ sequence + layer_norm(U @ hidden) + mean(hidden))))
    assert run(random_case(flatten(cell))).outputs["y"].shape == (STEPS, BATCH, SIZES["hidden"])
    assert Length("hidden") != Value("hidden", H)


def test_a_backward_graph_runs_from_the_last_step_to_the_first() -> None:
    t, count = Value("t", (1,)), Value("count", (1,))
    count_next = Value("count_next", (1,))
    steps = Graph(
        "steps",
        (t,),
        (),
        (Carry("count", count, count_next),),
        (Pointwise(count_next, 10 * count + t),),
        (("y", count_next),),
        backwards=True,
    )
    given = {"t": np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}
    done = evaluate(steps, given, {"count": np.zeros((1, 1))}, sizes={}, steps=3)
    assert done.final["count"] == 321
    np.testing.assert_array_equal(done.outputs["y"].ravel(), [321, 32, 3])


# -------------------------------------------------------------------------------- what a value is


def test_a_value_survives_pickling_with_its_role_and_what_it_is_of() -> None:
    graph = flatten(cell_of(Eq(z, sigmoid(W @ x + U @ h + b)), Eq(h.next, z * h)))
    values = [*graph.values, *adjoint(graph).values]
    for value, again in zip(values, pickle.loads(pickle.dumps(values)), strict=True):
        assert again == value and hash(again) == hash(value)
        assert (again.role, again.of) == (value.role, value.of)
    assert {v.role for v in values} == {"", "next", "argument", "gradient", "term", "carried"}


def test_a_role_is_part_of_what_a_value_is_and_a_copy_keeps_it() -> None:
    """SymPy keeps expressions by equality: one of another cell would bring its own roles along."""
    v = Value("v", ("hidden",))
    gradient = Value("d_v", ("hidden",), role="gradient", of=v)
    plain = Value("d_v", ("hidden",))
    assert gradient != plain and gradient == Value("d_v", ("hidden",), role="gradient", of=v)
    assert gradient != Value("d_v", ("hidden",), role="gradient", of=Value("v", ("hidden",), role="next"))
    assert [node.role for node in (2 * plain + v * gradient).atoms(Value) if node.name == "d_v"] != ["", ""]
    copy = Builder(["d_v"]).copy(gradient)
    assert (copy.name, copy.role, copy.of) == ("d_v_2", "gradient", v)


def test_gradients_know_what_they_are_of_whatever_names_are_taken() -> None:
    """Here gates have the names that gradients, arguments and next states would have."""
    odd = {name: gates(name) for name in ("d_h", "a_n", "h_next")}
    cell = cell_of(
        Eq(odd["d_h"], tanh(W @ x)),
        Eq(odd["a_n"], sigmoid(U @ h) * odd["d_h"]),
        Eq(odd["h_next"], odd["a_n"] * h + b),
        Eq(h.next, tanh(odd["h_next"]) - odd["d_h"]),
    )
    graph = flatten(cell)
    back = adjoint(graph)
    assert {v.name: v.role for v in graph.values if v.name in odd} == dict.fromkeys(odd, "")
    (carry,) = back.states
    assert (carry.current.role, carry.current.of) == ("carried", graph.states[0].current)
    assert (carry.next.role, carry.next.of) == ("gradient", graph.states[0].current)
    of = [op.out.of for op in back.ops if op.out.role == "gradient"]
    assert len(set(of)) == len(of) and {v for v in graph.values if v.name in odd} <= {*of}


def test_the_mask_and_the_statistics_of_batch_norms_are_records() -> None:
    mean_h = gates("mean_h")  # the name that the running mean would have
    graph = flatten(
        cell_of(Eq(mean_h, batch_norm(W @ x)), Eq(h.next, tanh(batch_norm(mean_h * b) + h)), output=h.next)
    )
    assert graph.mask and {graph.mask.valid, graph.mask.count, graph.mask.training} <= {*graph.fixed}
    assert [s.kind for s in graph.statistics] == ["mean", "var"] * 2
    assert {s.value for s in graph.statistics} <= {*graph.fixed}
    assert {s.update for s in graph.statistics} <= {*graph.results} and not graph.sums
    back = adjoint(graph)
    assert back.mask == graph.mask and not back.statistics
    assert tangent(graph).statistics == graph.statistics
