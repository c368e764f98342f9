"""`forward(..., parallel=True)`: the states of all steps at once, against the loop, for every such cell."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close
from points import BUILTIN, CELLS, forward, named, point_of, random_point
from random_cells import rolled

from gategen import Cell
from gategen.graph import LOOP, flatten
from gategen.judge.verify import imported, written
from gategen.plan import plan
from gategen.plan.analysis import Analysis
from gategen.plan.classify import classify
from gategen.plan.ends import alive, distinct_ends
from gategen.plan.hoist import hoist
from gategen.plan.newton import arithmetic, is_linear, slopes_of
from gategen.plan.pipeline import derive

GENERATED = Path(__file__).parent.parent / "generated"
SEED, DRAWN = 77, 80  # random cells, of which about one in seven has it
STEPS = 9
LENGTHS = (3, 0, STEPS, 1, STEPS)


def kind(cell):
    """The class of a cell, and whether a state waits for a state, and for nothing but arithmetic."""
    made = Analysis(distinct_ends(alive(hoist(flatten(cell), arrays=True))))
    waiting = [carry for carry in made.graph.states if made.level.get(carry.next) == LOOP]
    return classify(made), bool(waiting) and arithmetic(made, waiting)


KINDS = {name: kind(cell) for name, cell in CELLS.items()}
PARALLEL = [name for name, (found, waits) in KINDS.items() if found != "recurrent" and waits]
LINEAR = [name for name in PARALLEL if KINDS[name][0] == "linear"]

OURS = {
    "matrix": """
        states: C[hidden, keys], h
        matrices: W_k[keys, input], W_v[hidden, input], W_f[hidden, input]
        C' = tanh(sigmoid(W_f @ x + b_f) * C + outer(W_v @ x, W_k @ x)) + h
        h' = tanh(W_h @ x + p_h * h)
    """,
    "linear_matrix": """
        states: C[hidden, keys]
        matrices: W_k[keys, input], W_v[hidden, input], W_f[hidden, input]
        C' = sigmoid(W_f @ x) * C + outer(W_v @ x, W_k @ x)
    """,
    "side_by_side": """
        states: v[heads*keys], s[heads]
        matrices: W_v[heads*keys, input], W_s[heads, input]
        s' = tanh(W_s @ x + 0.5 * s)
        v' = s * v + sigmoid(s' * v) + W_v @ x
    """,
    "number": """
        states: s[1], h
        g = sigmoid(W_g @ x + p_g * h + s)
        s' = 0.5 * s + mean(x)
        h' = g * h + (1 - g) * tanh(W_h @ x) * s
    """,
    "still": """
        states: h
        h' = W_h @ x + stop_gradient(0.3 * h**2)
    """,
    "spiking": """
        states: v
        s = surrogate(step(v - 0.3), sigmoid(4 * v))
        v' = 0.9 * v * (1 - s) + W_v @ x
        output: s, v'
    """,
    "jumping": """
        states: h, c
        h' = where(h > 0.2, 0.5 * h, h + 0.3) + W_h @ x
        c' = mod(0.9 * c, 0.75) + abs(W_c @ x)
    """,
    "normed": """
        states: h
        z = sigmoid(batch_norm(W_z @ x, g_z, b_z) + p_h * h)
        h' = z * h + (1 - z) * tanh(W_h @ x)
        y = layer_norm(h')
        output: y
    """,
    "called_alike": """
        states: n, T, steps, done
        count = sigmoid(W_n @ x + p_n * n)
        n' = count * n + (1 - count) * tanh(T)
        T' = 0.5 * T + W_T @ x
        steps' = tanh(done + 0.5 * steps)
        done' = tanh(0.5 * steps + W_s @ x)
    """,
    "steep": """
        states: h
        h' = 3.9 * h * (1 - h) + 0.001 * tanh(W_h @ x)
    """,
    "exploding": """
        states: h
        h' = h**2 + W_h @ x
    """,
}
OURS = {name: Cell.parse(name, text) for name, text in OURS.items()}
DIVERGING = ("steep", "exploding")


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    return {name: imported(written(cell, "numpy", folder)) for name, cell in OURS.items()}


def has_back(module):
    return "parallel" in inspect.signature(module.backward).parameters


def assert_like_the_loop(point, tolerance=1e-10):
    """Outputs, final states, all that the tape holds, and gradients; how many iterations it took."""
    y, final, tape = forward(point, True)
    found_y, found_final, found = forward(point, True, parallel=True)
    assert tape.iterations == 0
    for a, b in zip((*found_y, *found_final), (*y, *final), strict=True):
        assert_close(a, b, tolerance)
    for name, a, b in zip(tape._fields, found, tape, strict=True):
        if isinstance(b, np.ndarray) and name != "finished":
            assert_close(a, b, tolerance, name)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    d_final = point.module.States(*point.d_final)
    grads, wanted = (
        named(point, point.module.backward(point.params, t, d_y, d_final)) for t in (found, tape)
    )
    for name, gradient in wanted.items():
        assert_close(grads[name], gradient, 10 * tolerance, name)
    assert_back_like_the_loop(point, tape, d_y, d_final)
    return found.iterations


def assert_back_like_the_loop(point, tape, d_y, d_final, tolerance=1e-12):
    """Gradients with the steps back of many stretches at once; twice, since the tape is not consumed."""
    wanted = named(point, point.module.backward(point.params, tape, d_y, d_final))
    for _ in range(2 * has_back(point.module)):
        grads = named(point, point.module.backward(point.params, tape, d_y, d_final, parallel=True))
        for name, gradient in wanted.items():
            assert_close(grads[name], gradient, tolerance, name)


# ---------------------------------------------------------------------------------------------- which cells


@pytest.mark.parametrize("name", CELLS)
def test_cells_have_it_whose_states_wait_for_states_by_arithmetic_alone(module_of, name):
    has = "parallel" in inspect.signature(module_of(name).forward).parameters
    assert has == (name in PARALLEL)
    assert has == ("iterations" in module_of(name).Tape._fields)
    assert has == has_back(module_of(name))


def test_the_text_of_other_cells_says_nothing_of_it():
    for name in set(BUILTIN) - set(PARALLEL):
        assert "parallel" not in (GENERATED / f"{name}_numpy.py").read_text("utf-8").split("def init(")[1]


def test_the_catalogue_has_both_classes():
    assert {"brc", "indrnn", "sru", "indygru", "paragru", "paralstm"} <= {*PARALLEL} - {*LINEAR}
    assert {"mingru", "minlstm", "lru", "gilr", "rglru", "griffin", "t_rnn"} <= {*LINEAR}


# ---------------------------------------------------------------------------------------------- its values


@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("initial", [True, False], ids=["given_start", "own_start"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_it_gives_what_the_loop_gives(module_of, name, initial, lengths):
    point = random_point(name, module_of(name), steps=STEPS, lengths=lengths, initial=initial)
    assert assert_like_the_loop(point) == 1 or name not in LINEAR


@pytest.mark.parametrize("name", [name for name in OURS if name not in DIVERGING])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_matrices_numbers_and_cut_gradients_too(ours, name, lengths):
    point = point_of(OURS[name], ours[name], steps=STEPS, lengths=lengths, scale=0.3)
    assert assert_like_the_loop(point) > 0


def test_a_gradient_that_is_a_sum_over_units_waits_in_the_loop(ours):
    """That of a state which others of another size wait for."""
    without = [name for name, module in ours.items() if not has_back(module)]
    assert without == ["matrix", "side_by_side", "number"]
    assert plan(OURS["matrix"], arrays=True).newton_back is None


@pytest.mark.parametrize("name", [name for name in PARALLEL if name in BUILTIN])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_a_thousand_steps_take_at_most_six_iterations(module_of, name, dtype, tolerance):
    """Standard-normal inputs, the parameters of `init`. brc takes 5, the others 2 or 3, linear ones 1."""
    module, H = module_of(name), 16
    params = module.init(H, H, seed=1, dtype=dtype, **({"heads": 2} if "heads" in module.SIZES else {}))
    x = np.random.default_rng(0).standard_normal((1024, 2, H)).astype(dtype)
    y, _, tape = module.forward(params, x)
    found_y, _, found = module.forward(params, x, parallel=True)
    assert 1 <= found.iterations <= (1 if name in LINEAR else 6)
    states = zip(found[1 : 1 + len(module.STATES)], tape[1 : 1 + len(module.STATES)], strict=True)
    for a, b in ((found_y, y), *states):
        assert_close(a, b, tolerance)
    d_y = np.ones_like(y)
    grads, wanted = (module.unpack(module.backward(params, t, d_y).params) for t in (found, tape))
    for key, gradient in wanted.items():
        assert_close(grads[key], gradient, 10 * tolerance, key)
    at_once = module.backward(params, tape, d_y, parallel=True)
    exact = 1e-12 if dtype == "float64" else 1e-5
    for key, gradient in module.unpack(at_once.params).items():
        assert_close(gradient, wanted[key], exact, key)


@pytest.mark.parametrize("name", ["brc", "paralstm", "lru", "griffin"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 37])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_any_number_of_steps_and_rows(module_of, name, steps, batch):
    point = random_point(name, module_of(name), steps=steps, batch=batch, initial=False)
    iterations = assert_like_the_loop(point)
    assert (iterations > 0) == (batch > 0 and steps > 4) or steps in (4, 5)


@pytest.mark.parametrize("name", ["sru", "mingru"])
def test_without_a_tape_and_into_an_earlier_one(module_of, name):
    point = random_point(name, module_of(name), steps=300, lengths=(300, 7, 0, 129, 300))
    (y,), final, _ = forward(point, True)
    (found,), found_final, tape = forward(point, False, parallel=True)
    assert tape is None
    assert_close(found, y, 1e-10)
    assert_close(np.array(found_final), np.array(final), 1e-10)
    _, _, tape = forward(point, True)
    (found,), _, again = forward(point, tape, parallel=True)
    assert_close(found, y, 1e-10)
    assert again.iterations > 0 and np.shares_memory(again[1], tape[1])


def test_an_input_in_any_order_of_memory(module_of):
    point = random_point("sru", module_of("sru"), steps=STEPS)
    turned = np.asfortranarray(point.x)
    (y,), _, _ = forward(point, True, parallel=True)
    found = point.module.forward(point.params, turned, initial=point.states, parallel=True)[0]
    np.testing.assert_array_equal(found, y)


@pytest.mark.filterwarnings("ignore")
def test_random_cells_too(tmp_path):
    drawn = (rolled(SEED, k).cell() for k in range(DRAWN))
    found = [cell for cell in drawn if kind(cell)[0] != "recurrent" and kind(cell)[1]]
    assert len(found) > DRAWN // 10
    for cell in found:
        module = imported(written(cell, "numpy", tmp_path))
        for lengths, initial in ((None, True), (LENGTHS, False)):
            point = point_of(cell, module, steps=STEPS, lengths=lengths, initial=initial, scale=0.3)
            (y, final, _), (found_y, found_final, tape) = (
                forward(point, True, parallel=p) for p in (False, True)
            )
            for a, b in zip((*found_y, *found_final), (*y, *final), strict=True):
                np.testing.assert_allclose(
                    a, b, rtol=1e-9, atol=1e-9, err_msg=f"{cell.name}, {tape.iterations}"
                )


# ---------------------------------------------------------------------------------------------- falling back


@pytest.mark.parametrize("name", DIVERGING)
def test_where_it_does_not_converge_the_loop_runs(ours, name):
    point = point_of(OURS[name], ours[name], steps=200, lengths=(200, 7, 0, 129, 200))
    y, final, _ = forward(point, True)
    found, found_final, tape = forward(point, True, parallel=True)
    assert tape.iterations == 0
    for a, b in zip((*found, *found_final), (*y, *final), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_not_finite_is_left_to_the_loop(module_of):
    point = random_point("mingru", module_of("mingru"), steps=37)
    point.x[20, 1, 0] = np.nan
    (y,), _, _ = forward(point, True)
    (found,), _, tape = forward(point, True, parallel=True)
    assert tape.iterations == 0
    np.testing.assert_array_equal(found, y)


def test_complex_numbers_take_the_loop(module_of):
    """A complex step is exact in the imaginary part too, for which an iteration has no tolerance."""
    point = random_point("sru", module_of("sru"), steps=37)
    x = point.x + 1e-30j
    y, _, _ = point.module.forward(point.params, x)
    found, _, tape = point.module.forward(point.params, x, parallel=True)
    assert tape.iterations == 0
    np.testing.assert_array_equal(found, y)


@pytest.mark.filterwarnings("ignore")
def test_gradients_that_are_not_finite_are_left_to_the_loop(ours):
    """Also where derivatives grow beyond all numbers, and meet a gradient of 0."""
    point = point_of(OURS["exploding"], ours["exploding"], steps=200)
    module = ours["exploding"]
    y, _, tape = module.forward(point.params, 1e3 * point.x)
    d_y = np.zeros_like(y)
    for gradient in (d_y, np.where(np.arange(200)[:, None, None] == 3, np.nan, d_y)):
        wanted = named(point, module.backward(point.params, tape, gradient))
        found = named(point, module.backward(point.params, tape, gradient, parallel=True))
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, name)


# ---------------------------------------------------------------------------------------------- the plan


def test_a_step_is_linear_where_it_is_affine_in_the_states():
    """As it is computed: a condition or a jump is not, and `stop_gradient` speaks of gradients."""
    assert plan(BUILTIN["lru"], arrays=True).newton.linear
    assert not plan(BUILTIN["sru"], arrays=True).newton.linear
    assert not plan(OURS["still"], arrays=True).newton.linear
    assert not plan(OURS["jumping"], arrays=True).newton.linear
    assert plan(OURS["jumping"]).kind == "elementwise"
    assert plan(BUILTIN["gru"], arrays=True).newton is None
    assert plan(BUILTIN["lru"]).newton is None, "only for backends of whole arrays"


def test_a_product_with_a_matrix_of_every_row_stays_in_the_loop_and_is_no_arithmetic():
    declared = (
        "inputs: X[nodes, input]\nstates: S[nodes, hidden]\nmatrices: W[input, hidden], P[nodes, nodes]\n"
    )
    for new in ("0.5 * S + P @ (X @ W)", 'S * softmax(X @ W, over="nodes")'):
        made = plan(Cell.parse("along", f"{declared}S' = {new}"), arrays=True)
        assert made.kind == "linear" and made.newton is None


def test_what_an_iteration_carries():
    """The states, and their derivatives by those at the beginning of a stretch that are not 0."""
    made = plan(BUILTIN["paralstm"], arrays=True).newton
    assert [c.name for c in made.carried] == ["h", "c", "h_by_h", "h_by_c", "c_by_h", "c_by_c"]
    made = plan(CELLS["highway"], arrays=True).newton
    assert made.entries == (("h", "h"), ("h", "c"), ("c", "c"))
    made = plan(CELLS["delayed"], arrays=True).newton
    assert ([c.name for c in made.states], [c.name for c in made.settled]) == (["c"], ["h"])


@pytest.mark.parametrize("name", [name for name in PARALLEL if name in BUILTIN])
def test_the_derivatives_of_the_backward_step_are_found_the_same_way(name):
    """It is a recurrence too, linear in the gradients that it carries, with the derivatives turned around."""
    forward_step = Analysis(distinct_ends(alive(hoist(flatten(BUILTIN[name]), arrays=True))))
    step = Analysis(distinct_ends(alive(derive(forward_step))))
    assert is_linear(step, step.graph.states)
    there = slopes_of(forward_step, forward_step.graph.states)
    back = slopes_of(step, step.graph.states)
    assert {(f"d_{b}", f"d_{a}") for a, b in there.entries} == {*back.entries}
    carried = {carry.current for carry in step.graph.states}
    assert carried.isdisjoint(v for op in back.ops for v in op.reads)
