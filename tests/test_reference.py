"""The references against the printed golden values and what the papers say of them, by NumPy alone."""

import numpy as np
import pytest
from golden import COUNTS, GOLDEN, D, E, golden_case
from reference import REFERENCES, Reference, numpy_functions, run

F = numpy_functions()
T, B = 5, 4
LENGTHS = (3, 0, 5, 1)

every_cell = pytest.mark.parametrize("name", REFERENCES)


def random_case(reference: Reference, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters and an input x (T, B, D), all random and nonzero."""
    rng = np.random.default_rng(seed)
    params = {name: 0.5 * rng.standard_normal(shape) for name, shape in reference.shapes(D, E).items()}
    return params, rng.standard_normal((T, B, D))


def random_initial(reference: Reference, seed: int = 1) -> dict[str, np.ndarray]:
    """States (B, E) between 0.1 and 0.9, so that they may be probabilities too."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 0.9, (B, E)) for name in reference.states}


def random_buffers(reference: Reference, seed: int = 2) -> dict[str, np.ndarray]:
    """Running statistics, each (E,)."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 1.5, E) for name in reference.initial_buffers(E)}


def complex_step(name: str) -> tuple[np.ndarray, np.ndarray]:
    """dL/dx (T, 1, D) and dL/dp (all parameters, flat) of a golden case, one entry at a time."""
    case = golden_case(name)
    arrays = {"x": case.x} | case.params

    def derivative(varied: str, k: int) -> float:
        moved = {key: value.astype(complex) for key, value in arrays.items()}
        moved[varied].flat[k] += 1e-30j
        y, _ = run(F, case.reference, {key: moved[key] for key in case.params}, moved["x"])
        return float(y.sum().imag / 1e-30)

    d = {key: np.array([derivative(key, k) for k in range(value.size)]) for key, value in arrays.items()}
    return d.pop("x").reshape(case.x.shape), np.concatenate(list(d.values()))


def test_every_cell_has_a_golden_row_and_a_count() -> None:
    assert list(REFERENCES) == list(GOLDEN) == list(COUNTS)
    assert len(REFERENCES) == 22


@every_cell
def test_forward_values_are_the_golden_ones(name: str) -> None:
    case = golden_case(name)
    y, _ = run(F, case.reference, case.params, case.x)
    np.testing.assert_allclose(y[-1, 0], case.golden.last, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(y.sum(), case.golden.loss, rtol=0, atol=0.51e-6)


@every_cell
def test_complex_step_gradients_are_the_golden_ones(name: str) -> None:
    golden = golden_case(name).golden
    d_x, d_params = complex_step(name)
    np.testing.assert_allclose(d_x[0, 0], golden.d_x0, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(d_params.sum(), golden.d_params_sum, rtol=0, atol=0.51e-5)
    np.testing.assert_allclose((d_params**2).sum(), golden.d_params_square, rtol=0, atol=0.51e-5)


@every_cell
def test_parameters_are_as_many_as_the_catalogue_says(name: str) -> None:
    for d, e in ((1, 100), (28, 100), (2, 3)):
        assert sum(map(np.prod, REFERENCES[name].shapes(d, e).values())) == COUNTS[name](d, e)


@pytest.mark.parametrize(
    ("name", "d", "e", "published"),
    [
        ("gru", 1, 100, 30600),
        ("gru_type1", 28, 100, 33100),
        ("gru_type2", 128, 128, 65664),
        ("gru_type3", 28, 100, 13100),
        ("mgu", 28, 100, 25800),
        ("gru_after", 10, 20, 1920),
        ("caru", 100, 256, 183296),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, d: int, e: int, published: int) -> None:
    assert COUNTS[name](d, e) == published


@every_cell
def test_a_padded_sequence_behaves_as_if_it_were_alone(name: str) -> None:
    reference = REFERENCES[name]
    params, x = random_case(reference)
    initial, buffers = random_initial(reference), random_buffers(reference)
    y, final = run(F, reference, params, x, initial, LENGTHS, buffers, training=False)
    for b, length in enumerate(LENGTHS):
        alone = {key: value[b : b + 1] for key, value in initial.items()}
        y_b, final_b = run(
            F, reference, params, x[:length, b : b + 1], alone, buffers=buffers, training=False
        )
        np.testing.assert_allclose(y[:length, b], y_b[:, 0], rtol=1e-13, atol=1e-15)
        assert not y[length:, b].any()
        for state in final:
            np.testing.assert_allclose(final[state][b], final_b[state][0], rtol=1e-13, atol=1e-15)


@every_cell
def test_padding_takes_no_part_in_training_either(name: str) -> None:
    reference = REFERENCES[name]
    params, x = random_case(reference)
    y, final = run(F, reference, params, x, lengths=LENGTHS)
    x[~(np.arange(T)[:, None] < np.array(LENGTHS))] = 10.0
    y_padded, final_padded = run(F, reference, params, x, lengths=LENGTHS)
    np.testing.assert_array_equal(y_padded, y)
    for state in final:
        np.testing.assert_array_equal(final_padded[state], final[state])


@every_cell
def test_an_empty_sequence_ends_where_it_starts(name: str) -> None:
    reference = REFERENCES[name]
    params, x = random_case(reference)
    y, final = run(F, reference, params, x[:0])
    assert y.shape == (0, B, E)
    for state, value in reference.states.items():
        np.testing.assert_array_equal(final[state], np.full((B, E), value))


@pytest.mark.parametrize(("name", "activation"), [("caru", lambda v: v), ("caru_code", np.tanh)])
def test_the_first_rule_holds_only_without_an_initial_state(name, activation) -> None:
    reference = REFERENCES[name]
    params, x = random_case(reference)
    y, _ = run(F, reference, params, x[:1])
    np.testing.assert_allclose(y[0], activation(x[0] @ params["W_n"].T + params["b_n"]), rtol=1e-13)
    zero = {"h": np.zeros((B, E))}
    y_given, _ = run(F, reference, params, x[:1], initial=zero)
    np.testing.assert_array_equal(y_given[0], reference.step(F, params, x[0], zero)["h"])
    assert np.abs(y_given - y).min() > 1e-6


def test_libru_log_is_the_logarithm_of_libru_without_eps() -> None:
    params, x = random_case(REFERENCES["libru"])
    p = random_initial(REFERENCES["libru"])
    y, _ = run(F, REFERENCES["libru"], {**params, "eps": 0.0}, x, p)
    y_log, _ = run(F, REFERENCES["libru_log"], params, x, {"h": np.log(p["h"])})
    np.testing.assert_allclose(np.exp(y_log), y, rtol=1e-13)


def test_ligru_in_evaluation_folds_into_ligru_nobn() -> None:
    ligru = REFERENCES["ligru"]
    params, x = random_case(ligru)
    buffers = random_buffers(ligru)
    folded = {key: value for key, value in params.items() if not key.startswith("g_")}
    for k in ("z", "h"):
        scale = params[f"g_{k}"] / np.sqrt(buffers[f"v_{k}"] + 1e-5)
        folded[f"W_{k}"] = scale[:, None] * params[f"W_{k}"]
        folded[f"b_{k}"] = params[f"b_{k}"] - scale * buffers[f"mu_{k}"]
    y, _ = run(F, ligru, params, x, buffers=buffers, training=False)
    y_folded, _ = run(F, REFERENCES["ligru_nobn"], folded, x)
    np.testing.assert_allclose(y, y_folded, rtol=1e-12, atol=1e-14)


def test_gru_concat_is_gru_with_stacked_columns() -> None:
    params, x = random_case(REFERENCES["gru"])
    stacked = {f"A_{k}": np.concatenate([params[f"U_{k}"], params[f"W_{k}"]], axis=1) for k in "zrh"}
    stacked |= {f"b_{k}": params[f"b_{k}"] for k in "zrh"}
    y, _ = run(F, REFERENCES["gru"], params, x)
    y_stacked, _ = run(F, REFERENCES["gru_concat"], stacked, x)
    np.testing.assert_allclose(y_stacked, y, rtol=1e-12, atol=1e-14)


def test_negating_the_update_gate_swaps_the_two_conventions() -> None:
    params, x = random_case(REFERENCES["gru"])
    negated = {key: -value if key.endswith("_z") else value for key, value in params.items()}
    y, _ = run(F, REFERENCES["gru"], params, x)
    y_before, _ = run(F, REFERENCES["gru_before"], negated, x)
    np.testing.assert_allclose(y_before, y, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "libru_log"])  # log(0) by its nature
def test_saturated_gates_stay_finite(name: str) -> None:
    reference = REFERENCES[name]
    params, x = random_case(reference)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, _ = run(F, reference, {key: 20 * value for key, value in params.items()}, 10 * np.tanh(x))
    assert np.isfinite(y).all()
