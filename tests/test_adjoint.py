"""The derived backward step against complex step, entry by entry: every cell and every kind of equation."""

import numpy as np
import pytest
import sympy as sp
from helpers import (
    CELLS,
    SIZES,
    Case,
    along,
    assert_close,
    assert_gradients_are_right,
    cell_of,
    directions,
    forward_derivative,
    gradients,
    loss,
    random_case,
)

from gategen import (
    Cell,
    Eq,
    abs,
    batch_norm,
    clip,
    concat,
    constants,
    cos,
    cumsum,
    elu,
    equal,
    exp,
    gates,
    gelu,
    hard_sigmoid,
    inputs,
    layer_norm,
    leaky_relu,
    log,
    log1p,
    logsumexp,
    matrices,
    max_,
    maximum,
    mean,
    minimum,
    mod,
    relu,
    scalars,
    sigmoid,
    sign,
    silu,
    sin,
    size,
    softmax,
    softplus,
    softsign,
    sqrt,
    square,
    states,
    step,
    stop_gradient,
    sum_,
    surrogate,
    tanh,
    var,
    vectors,
    where,
)
from gategen.graph import Pointwise, Reduce, Value, evaluate, flatten, start, text
from gategen.graph.adjoint import _Adjoint, adjoint, partial

LENGTHS = (3, 0, 4, 1, 4)
LARGE = {
    "input": 17,
    "hidden": 23,
    "rank": 11,
    "memory": 13,
    "projection": 9,
    "keys": 7,
    "slots": 8,
    "width": 10,
    "nodes": 12,
    "positions": 14,
}

every_cell = pytest.mark.parametrize("name", CELLS)

x = inputs("x")
h = states("h")
W, W_z, U, U_z = matrices("W W_z U U_z")
W_y = matrices("W_y", shape=("hidden", "memory"))
P = matrices("P", shape=("hidden", "rank"))
Q = matrices("Q", shape=("rank", "input"))
S = matrices("S", shape=(1, "hidden"))
A = matrices("A")
b, p = vectors("b p")
alpha, beta = scalars("alpha beta")
z, n, y = gates("z n y")

a = W @ x + U @ h


def next_h(expr, *more, **keywords) -> Cell:
    return cell_of(Eq(h.next, expr), *more, **keywords)


def with_other_inputs() -> Cell:
    mask, noise, time = inputs("mask", size=1), inputs("noise", size="memory"), inputs("time", size=2)
    V, M = matrices("V M")
    return next_h(mask * tanh(a + V @ noise) + (1 - mask) * h + M @ time)


def with_memory() -> Cell:
    m = states("m", size="memory")
    V, M, R = matrices("V M R")
    return cell_of(
        Eq(h.next, tanh(W @ x + V @ m.next)),
        Eq(m.next, tanh(M @ h + R @ m) * sigmoid(R @ m)),
        Eq(y, M @ h.next * m),
        output=(y, h.next, m.next),
    )


def with_a_state_nobody_reads() -> Cell:
    c = states("c")
    return cell_of(Eq(h.next, tanh(a)), Eq(c.next, h), output=c.next)


def with_names_of_generated_code() -> Cell:
    t, i = inputs("t i")
    T, H = states("T H", size="hidden")
    B, np_ = matrices("B np")
    out, tape = vectors("out tape")
    grad = gates("grad")
    return cell_of(
        Eq(grad, tanh(B @ (t + i) + out + np_ @ T)),
        Eq(T.next, grad * H + tape),
        Eq(H.next, T.next * T),
    )


def with_names_of_sizes() -> Cell:
    hidden, sequence = states("hidden"), inputs("input")
    return cell_of(Eq(hidden.next, tanh(W @ sequence + layer_norm(U @ hidden))))


def with_names_of_derivatives() -> Cell:
    d_h, h_next, d_y = states("d_h"), vectors("h_next"), gates("d_y")
    return cell_of(Eq(d_y, tanh(W @ x + U @ d_h + h_next)), Eq(d_h.next, d_y * d_h))


def with_fixed_parameters() -> Cell:
    F, count = matrices("F", trainable=False), scalars("count", trainable=False)
    return next_h(tanh(W @ x + F @ h + vectors("v", trainable=False)) * count)


joint = layer_norm((W @ x, U @ h), (b, p), (None, p))
positive = sigmoid(a) + 0.1

KINDS = {
    "a_weight_of_two_products": lambda: next_h(tanh(W @ x + U @ h + U @ (z * h)), Eq(z, sigmoid(U @ h))),
    "a_weight_and_its_transpose": lambda: next_h(h + 0.1 * tanh(U @ h - U.T @ h - alpha * h + W @ x)),
    "a_chain_of_products": lambda: next_h(tanh(P @ (Q @ x) + U @ h)),
    "a_chain_of_a_matrix_and_its_transpose": lambda: next_h(tanh(P @ (P.T @ h) + a)),
    "stacked_vectors": lambda: next_h(tanh(A @ concat(z * h, x, alpha)), Eq(z, sigmoid(a))),
    "a_scalar": lambda: next_h(alpha * tanh(a) + beta * h),
    "a_value_of_size_1": lambda: next_h(z * tanh(a) + S.T @ z, Eq(z, sigmoid(S @ h))),
    "a_sum_of_size_1_values": lambda: next_h(h * (z + alpha) + S.T @ (z * alpha) + W @ x, Eq(z, S @ h)),
    "static_expressions": lambda: next_h(sigmoid(alpha) * tanh(a) + exp(b * alpha) * h + tanh(alpha)),
    "a_static_gate": lambda: next_h(z * tanh(a) + (1 - z) * h, Eq(z, sigmoid(b + alpha))),
    "a_static_gate_as_output": lambda: next_h(z * tanh(a), Eq(z, sigmoid(b)), output=(h.next, z)),
    "a_product_of_a_parameter": lambda: next_h(tanh(a + U_z @ b + U_z @ tanh(b))),
    "a_reduction_of_a_parameter": lambda: next_h(tanh(a) * mean(b) + sum_(b, alpha) + var(b)),
    "a_reduction_of_size_1": lambda: next_h(tanh(a) * mean(alpha) + sum_(S @ h)),
    "a_constant_gate": lambda: next_h(z * tanh(a) + (1 - z) * h, Eq(z, 0.25)),
    "stop_gradient": lambda: next_h(stop_gradient(h) * tanh(a) + stop_gradient(a * b)),
    "surrogate": lambda: next_h(z * tanh(a) + h, Eq(z, surrogate(step(a), sigmoid(4 * a)) * surrogate(1, h))),
    "an_input_without_gradient": lambda: next_h(tanh(U @ h) * stop_gradient(W @ x)),
    "joint_reductions": lambda: next_h(tanh(a) * mean(h, x) + sum_(x, h, alpha) * var(h, x, square(x))),
    "layer_norm": lambda: next_h(tanh(layer_norm(a, b, p))),
    "joint_layer_norm": lambda: next_h(sigmoid(joint[0]) * tanh(joint[1])),
    "batch_norm": lambda: next_h(tanh(batch_norm(W @ x, b, p) + U @ h) * batch_norm(z), Eq(z, tanh(W_z @ x))),
    "the_next_value": with_memory,
    "a_state_nobody_reads": with_a_state_nobody_reads,
    "the_identity": lambda: next_h(h, Eq(y, W @ x * h), output=y),
    "a_copied_gate": lambda: next_h(z, Eq(z, tanh(a))),
    "where": lambda: next_h(where(h > 0.5, tanh(a), where(W @ x <= 0, z * h, square(h))), Eq(z, sigmoid(a))),
    "where_equal": lambda: next_h(where(equal(sign(W @ x), 1), tanh(a), h)),
    "maximum_minimum_clip": lambda: next_h(maximum(tanh(a), h / 2) + minimum(a, b) + clip(a, -0.4, alpha)),
    "mod": lambda: next_h(mod(3 * a, 0.7) + mod(h, 1.3 + square(alpha)) * tanh(a)),
    "relu_and_abs": lambda: next_h(relu(a) - abs(U_z @ h) + sign(a) * h + leaky_relu(a) * elu(a)),
    "smooth_activations": lambda: next_h(softplus(a) * silu(h) + softsign(a) + gelu(a) + gelu(h, "tanh")),
    "hard_sigmoid": lambda: next_h(hard_sigmoid(2 * a) * tanh(a)),
    "logarithms_and_waves": lambda: next_h(log(positive) + log1p(square(a)) + sin(a) * cos(h)),
    "sympys_own_words": lambda: next_h(
        sp.Max(a, 0, h) - sp.Min(a, h) + sp.Piecewise((h, a > 0), (a, h > 0.5), (1, True)) * sp.Heaviside(a)
    ),
    "square_roots": lambda: next_h(sqrt(positive) * h + tanh(a) / sqrt(h**2 + 1)),
    "real_powers": lambda: next_h(
        positive**1.5 + positive**-0.7 + positive ** sp.Rational(1, 3) * h**3 + h**2.0
    ),
    "integer_powers": lambda: next_h(tanh(a) ** 3 / (1 + h**2) ** 2 + positive**-1),
    "constants": lambda: next_h(constants(gamma=0.3) * tanh(a) + h ** constants(power=2)),
    "several_outputs": lambda: next_h(tanh(a), Eq(y, tanh(W_y.T @ h.next)), output=(y, h.next)),
    "an_output_of_size_1": lambda: next_h(tanh(a), Eq(y, S @ h.next), output=y),
    "softmax": lambda: next_h(softmax(a) * tanh(h) + softmax(b) * logsumexp(a, b)),
    "joint_softmax": lambda: next_h(z * tanh(a) + S.T @ y, *map(Eq, (z, y), softmax(a, S @ h))),
    "the_largest": lambda: next_h(tanh(a - max_(a)) + max_(relu(h), a) * max_(b) + max_(h, h)),
    "cumsum": lambda: next_h(cumsum(a) * tanh(cumsum(b) + cumsum(h * tanh(a))) + cumsum(S @ h)),
    "sizes": lambda: next_h(tanh(a) / sqrt(size("hidden")) + h * size("input") / (1 + size("hidden")) ** 2),
    "a_bound": lambda: next_h(tanh(a - stop_gradient(max_(a, h)))),
    "other_inputs": with_other_inputs,
    "names_of_generated_code": with_names_of_generated_code,
    "names_of_sizes": with_names_of_sizes,
    "names_of_derivatives": with_names_of_derivatives,
    "fixed_parameters": with_fixed_parameters,
}


# -------------------------------------------------------------------------------- every cell


@every_cell
def test_every_gradient_of_every_cell_is_that_of_complex_step(name: str) -> None:
    assert_gradients_are_right(random_case(flatten(CELLS[name])))


@every_cell
def test_gradients_respect_the_length_of_each_sequence(name: str) -> None:
    assert_gradients_are_right_along_directions(random_case(flatten(CELLS[name]), seed=1, lengths=LENGTHS))


@every_cell
def test_gradients_of_saturated_cells_are_right(name: str) -> None:
    case = random_case(flatten(CELLS[name]), seed=2)
    large = {v.name: 5 * case.values[v.name] for v in case.graph.parameters if v not in case.graph.fixed}
    # exp(-exp(d)) of rwkv6 turns the rounding of a large d into an error that is exp(d) as large
    assert_gradients_are_right_along_directions(case.moved(large), 1e-8 if name == "rwkv6" else 1e-10)


@every_cell
def test_backward_is_the_transpose_of_forward_at_larger_sizes(name: str) -> None:
    lengths = (12, 5, 0, 12, 1, 7)
    case = random_case(flatten(CELLS[name]), seed=3, steps=12, lengths=lengths, scale=0.2, sizes=LARGE)
    assert_transposed(case)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.first])
def test_gradients_of_first_steps_are_right(name: str) -> None:
    graph = flatten(CELLS[name], first=True)
    assert_gradients_are_right(random_case(graph, steps=1))
    assert_gradients_are_right(random_case(graph, steps=1, lengths=(1, 0, 1)))


def assert_gradients_are_right_along_directions(case: Case, tolerance: float = 1e-10) -> None:
    """One random direction for each array: any wrong entry shows."""
    found = gradients(case)
    for name, by in directions(case).items():
        wanted = along(loss, case, {name: by})
        scale = max(np.abs(found[name]).max() * np.abs(by).max(), 1e-3)
        assert np.isfinite(found[name]).all()
        assert np.abs((found[name] * by).sum() - wanted) <= tolerance * scale, name


def assert_transposed(case: Case) -> None:
    """<w, J v> = <J' w, v>, J v by the tangent and J' w by the adjoint."""
    by = directions(case)
    done = forward_derivative(case, by)
    pushed = sum((case.weights[f"d_{k}"] * done.outputs[f"dot_{k}"]).sum() for k, _ in case.graph.outputs)
    pushed += sum(
        (case.weights[f"final_d_{c.name}"] * done.final[f"dot_{c.name}"]).sum() for c in case.graph.states
    )
    parts = [(gradient * by[name]).sum() for name, gradient in gradients(case).items()]
    assert np.abs(pushed - sum(parts)) <= 1e-12 * max(np.abs(parts).sum(), 1)


# -------------------------------------------------------------------------------- every kind of equation


@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_of_every_kind_of_equation_is_that_of_complex_step(kind: str) -> None:
    assert_gradients_are_right(random_case(flatten(KINDS[kind]()), seed=4))


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_of_every_kind_of_equation_are_transposed(kind: str) -> None:
    assert_transposed(random_case(flatten(KINDS[kind]()), seed=5, lengths=LENGTHS))


def test_fixed_parameters_get_no_gradient() -> None:
    graph = flatten(with_fixed_parameters())
    assert {v.name for v in graph.fixed} == {"F", "count", "v"}
    assert {name for name, _ in adjoint(graph).sums} == {"W"}


def test_a_trained_initial_state_gets_the_gradient_of_the_first_state() -> None:
    s, c = states("s", initial=tanh(p) * alpha), states("c", initial=2)
    cell = cell_of(Eq(s.next, tanh(W @ x + U @ s + c)), Eq(c.next, c * s.next))
    begin, step = start(cell), flatten(cell)
    assert begin is not None
    case = random_case(step)

    def started(case: Case) -> Case:
        given = {v.name: case.values[v.name] for v in begin.parameters}
        first = evaluate(begin, given, {}, sizes=SIZES, steps=1).outputs
        rows = {name: np.broadcast_to(first[name][0], (2, SIZES["hidden"])) for name in ("s", "c")}
        return case.moved({name: rows[name] - case.values[name] for name in rows})

    case = started(case)
    reached = gradients(case)
    back = adjoint(begin)
    given = {v.name: case.values[v.name] for v in begin.parameters}
    given |= evaluate(begin, given, {}, sizes=SIZES, steps=1).values
    given |= {v.name: reached[name][None] for v, (name, _) in zip(back.inputs, begin.outputs, strict=False)}
    given = {k: np.broadcast_to(v, (1, 2, *v.shape[2:])) if v.ndim == 3 else v for k, v in given.items()}
    found = evaluate(back, given, {}, sizes=SIZES, steps=1).sums
    assert set(found) == {"p", "alpha"}
    for name, gradient in found.items():
        wanted = np.zeros(gradient.shape)
        for index in np.ndindex(gradient.shape):
            by = np.zeros(gradient.shape, complex)
            by[index] = 1e-30j
            wanted[index] = loss(started(case.moved({name: by}))).imag / 1e-30
        assert_close(gradient, wanted, 1e-10, name)


def test_powers_have_their_derivative_at_zero_too() -> None:
    power = constants(power=1.5)
    case = random_case(flatten(next_h(h**2.0 + h**power + W @ x)), steps=1)
    at_zero = case.moved({"h": -case.values["h"]})
    np.testing.assert_array_equal(gradients(at_zero)["h"], np.zeros((2, SIZES["hidden"])))


def test_the_derivative_of_a_root_is_a_power_of_the_root() -> None:
    a, root = Value("a", ("hidden",)), Value("root", ("hidden",))
    assert partial(Pointwise(root, sp.sqrt(a)), a) == 1 / (2 * root)
    assert partial(Pointwise(root, 1 / sp.sqrt(a)), a) == -(root**3) / 2


def test_nothing_is_summed_over_one_entry() -> None:
    narrow = matrices("S", shape=(1, "hidden"))
    scaled, gate = gates("scaled gate")
    cell = cell_of(
        Eq(gate, sigmoid(narrow @ h)), Eq(scaled, gate / 2), Eq(h.next, tanh(W @ x) * scaled + gate * h)
    )
    sums = [op for op in adjoint(flatten(cell)).ops if isinstance(op, Reduce)]
    assert [v.size for op in sums for v in op.operands] == ["hidden", "hidden"]


def test_terms_of_what_was_broadcast_are_added_up_before_they_are_summed() -> None:
    derived = text(adjoint(flatten(CELLS["lru"])))
    assert derived.count("= sum over steps of g_") == 4  # of exp_gl, li, lr and D
    assert "g_lr             = d_hi_next * hi + d_hr_next * hr\n" in derived


def test_an_empty_run_has_gradients_of_zero() -> None:
    for steps, lengths in ((0, None), (3, (0, 0))):
        case = random_case(flatten(CELLS["lstm"]), steps=steps, lengths=lengths)
        found = gradients(case)
        for state in ("h", "c"):
            np.testing.assert_array_equal(found.pop(state), case.weights[f"final_d_{state}"])
        for name, gradient in found.items():
            assert gradient.shape == case.values[name].shape
            assert not gradient.any()


def test_a_tape_can_be_pulled_back_twice() -> None:
    case = random_case(flatten(CELLS["gru"]))
    first, again = gradients(case), gradients(case)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_gradients_are_linear_in_what_is_pulled_back() -> None:
    case = random_case(flatten(CELLS["sligru"]))
    twice = Case(case.graph, case.values, {k: 2 * w for k, w in case.weights.items()})
    one, two = gradients(case), gradients(twice)
    for name in one:
        assert_close(two[name], 2 * one[name], 1e-14, name)


# -------------------------------------------------------------------------------- what a person would write

GRU_LINES = """
d_h_next   = d_h_later + d_y
d_n        = d_h_next * z
d_a_n      = d_n * (1 - n**2)
d_b_h      = sum over steps of d_a_n
d_W_h      = sum over steps of outer(d_a_n, x)
U_hT_d_a_n = U_h.T @ d_a_n
d_U_h      = sum over steps of outer(d_a_n, hr)
d_r        = U_hT_d_a_n * h
d_a_r      = d_r * (1 - r) * r
d_z        = d_h_next * (n - h)
d_a_z      = d_z * (1 - z) * z
U_zT_d_a_z = U_z.T @ d_a_z
d_h        = U_hT_d_a_n * r + U_rT_d_a_r + U_zT_d_a_z + d_h_next * (1 - z)
d_x        = W_hT_d_a_n + W_rT_d_a_r + W_zT_d_a_z
""".strip().splitlines()


def test_the_adjoint_of_the_gru_is_what_a_person_would_write() -> None:
    lines = text(adjoint(flatten(CELLS["gru"]))).splitlines()
    assert lines[0] == "graph   gru_adjoint   (runs from the last step to the first)"
    assert lines[1] == "inputs  d_y x h z r hr n"
    assert lines[3] == "states  d_h_later -> d_h"
    for line in GRU_LINES:
        assert f"  {line}" in lines


@pytest.mark.parametrize(
    "name", [name for name in CELLS if name.startswith(("gru", "lstm", "caru", "mgu", "rnn"))]
)
def test_a_backward_step_is_arithmetic_of_saved_values(name: str) -> None:
    allowed = (sp.Add, sp.Mul, sp.Symbol, sp.Integer, sp.Rational)
    for op in adjoint(flatten(CELLS[name])).ops:
        if isinstance(op, Pointwise):
            for node in sp.preorder_traversal(op.expr):
                power = isinstance(node, sp.Pow) and node.exp == 2
                assert power or isinstance(node, allowed), f"{op.out} evaluates {node}"


def test_a_backward_step_reads_no_more_than_it_needs() -> None:
    back = adjoint(flatten(CELLS["lstm"]))
    assert [v.name for v in back.inputs] == ["d_y", "x", "h", "c", "i", "f", "g", "o", "tanh_c"]
    assert [v.name for v in back.parameters] == ["U_i", "W_i", "U_f", "W_f", "U_g", "W_g", "U_o", "W_o"]


def test_the_adjoint_runs_the_other_way_and_the_adjoint_of_it_forwards_again() -> None:
    graph = flatten(CELLS["gru"])
    assert not graph.backwards
    assert adjoint(graph).backwards
    assert not adjoint(adjoint(graph)).backwards


# -------------------------------------------------------------------------------- the tests themselves


def a_sign(op, by):
    return -partial(op, by) if op.out.name == "n" else partial(op, by)


def a_factor(op, by):
    return sp.S.One if op.out.name == "r" else partial(op, by)


def a_term(op, by):
    return sp.S.Zero if op.out.name == "hr" and by.name == "h" else partial(op, by)


@pytest.mark.parametrize("mutant", [a_sign, a_factor, a_term])
def test_a_wrong_partial_derivative_is_noticed(mutant, monkeypatch) -> None:
    monkeypatch.setattr("gategen.graph.adjoint.partial", mutant)
    assert_noticed()


def test_a_forgotten_transpose_is_noticed(monkeypatch) -> None:
    product = _Adjoint.product

    def mutant(self, matrix, operand, transposed, *rest):
        transposed = transposed and matrix.shape[0] != matrix.shape[1]
        return product(self, matrix, operand, transposed, *rest)

    monkeypatch.setattr(_Adjoint, "product", mutant)
    assert_noticed()


def test_an_outer_product_the_wrong_way_round_is_noticed(monkeypatch) -> None:
    outer = _Adjoint.outer

    def mutant(self, matrix, gradient, operand, transposed, *rest):
        turned = transposed != (matrix.shape[0] == matrix.shape[1])
        return outer(self, matrix, gradient, operand, turned, *rest)

    monkeypatch.setattr(_Adjoint, "outer", mutant)
    assert_noticed()


def assert_noticed() -> None:
    case = random_case(flatten(CELLS["gru"]))
    with pytest.raises(AssertionError):
        assert_gradients_are_right(case)
    with pytest.raises(AssertionError):
        assert_transposed(case)
