"""The references against the printed golden values and what the papers say of them, by NumPy alone."""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import pytest
from golden import COUNTS, GOLDEN, D, E, Q, golden_case
from reference import REFERENCES, Reference, numpy_functions, outputs_of, run

F = numpy_functions()
T, B = 5, 4
LENGTHS = (3, 0, 5, 1)

every_cell = pytest.mark.parametrize("name", REFERENCES)


@dataclass(frozen=True)
class Setting:
    """What a cell is run on, all random and nonzero."""

    reference: Reference
    params: dict[str, np.ndarray]
    x: np.ndarray  # (T, B, d)
    inputs: dict[str, np.ndarray]  # the further ones, (T, B, size)
    initial: dict[str, np.ndarray]  # (B, size), between 0.1 and 0.9, so that states may be probabilities too
    widths: dict[str, tuple[int, ...]]

    def run(self, **options: Any) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
        """The outputs and the final states; fields of this setting may be replaced."""
        given = {"params": self.params, "x": self.x, "inputs": self.inputs, **options}
        y, final = run(F, self.reference, **given)
        return outputs_of(y), final


def random_setting(reference: Reference, seed: int = 0) -> Setting:
    rng = np.random.default_rng(seed)
    widths = reference.widths(D, E, Q)
    params = {name: 0.5 * rng.standard_normal(shape) for name, shape in reference.shapes(D, E, Q).items()}
    x = rng.standard_normal((T, B, *widths["x"]))
    inputs = {name: rng.uniform(0.1, 0.9, (T, B, *widths[name])) for name in reference.inputs}
    initial = {name: rng.uniform(0.1, 0.9, (B, *widths[name])) for name in reference.states}
    return Setting(reference, params, x, inputs, initial, widths)


def random_case(reference: Reference, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters and an input x (T, B, D) of a cell that has no further inputs."""
    setting = random_setting(reference, seed)
    return setting.params, setting.x


def random_initial(reference: Reference) -> dict[str, np.ndarray]:
    return random_setting(reference, seed=1).initial


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
        params = {key: moved[key] for key in case.params}
        y, _ = run(F, case.reference, params, moved["x"], inputs=case.inputs)
        return float(outputs_of(y)[0].sum().imag / 1e-30)

    moving = {key: value for key, value in arrays.items() if key not in case.reference.fixed}
    d = {key: np.array([derivative(key, k) for k in range(value.size)]) for key, value in moving.items()}
    return d.pop("x").reshape(case.x.shape), np.concatenate(list(d.values()))


def test_every_cell_has_a_golden_row_and_a_count() -> None:
    assert sorted(REFERENCES) == sorted(GOLDEN) == sorted(COUNTS)
    assert len(REFERENCES) == 79


@every_cell
def test_forward_values_are_the_golden_ones(name: str) -> None:
    case = golden_case(name)
    y = outputs_of(run(F, case.reference, case.params, case.x, inputs=case.inputs)[0])[0]
    np.testing.assert_allclose(y[-1, 0].ravel(), case.golden.last, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(y.sum(), case.golden.loss, rtol=0, atol=0.51e-6)


@every_cell
def test_complex_step_gradients_are_the_golden_ones(name: str) -> None:
    golden = golden_case(name).golden
    d_x, d_params = complex_step(name)
    np.testing.assert_allclose(d_x[0, 0].ravel(), golden.d_x0, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(d_params.sum(), golden.d_params_sum, rtol=0, atol=0.51e-5)
    np.testing.assert_allclose((d_params**2).sum(), golden.d_params_square, rtol=0, atol=0.51e-5)


@every_cell
def test_parameters_are_as_many_as_the_catalogue_says(name: str) -> None:
    reference = REFERENCES[name]
    for sizes in ((1, 100, 7), (28, 100, 1), (2, 3, 4)):
        trained = sum(int(np.prod(shape)) for shape in reference.shapes(*sizes).values())
        lengths, count = reference.lengths(*sizes), COUNTS[name]
        assert trained == count(*(lengths[axis] for axis in signature(count).parameters))


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
    assert COUNTS[name](d, e, 0) == published


@every_cell
def test_a_padded_sequence_behaves_as_if_it_were_alone(name: str) -> None:
    setting = random_setting(REFERENCES[name])
    options = {"buffers": random_buffers(REFERENCES[name]), "training": False}
    y, final = setting.run(initial=setting.initial, lengths=LENGTHS, **options)
    for b, length in enumerate(LENGTHS):
        one = slice(b, b + 1)
        alone = {
            "x": setting.x[:length, one],
            "inputs": {key: value[:length, one] for key, value in setting.inputs.items()},
            "initial": {key: value[one] for key, value in setting.initial.items()},
        }
        y_b, final_b = setting.run(**alone, **options)
        for whole, part in zip(y, y_b, strict=True):
            np.testing.assert_allclose(whole[:length, b], part[:, 0], rtol=1e-13, atol=1e-15)
            assert not whole[length:, b].any()
        for state in final:
            np.testing.assert_allclose(final[state][b], final_b[state][0], rtol=1e-13, atol=1e-15)


@every_cell
def test_padding_takes_no_part_in_training_either(name: str) -> None:
    setting = random_setting(REFERENCES[name])
    y, final = setting.run(lengths=LENGTHS)
    padding = ~(np.arange(T)[:, None] < np.array(LENGTHS))
    for array in (setting.x, *setting.inputs.values()):
        array[padding] = 10.0
    y_padded, final_padded = setting.run(lengths=LENGTHS)
    for clean, padded in zip(y, y_padded, strict=True):
        np.testing.assert_array_equal(padded, clean)
    for state in final:
        np.testing.assert_array_equal(final_padded[state], final[state])


@every_cell
def test_an_empty_sequence_ends_where_it_starts(name: str) -> None:
    reference = REFERENCES[name]
    setting = random_setting(reference)
    y, final = setting.run(x=setting.x[:0])
    for key, empty in zip(reference.outputs, y, strict=True):
        assert empty.shape == (0, B, *setting.widths[key])
    for state, value in reference.starts(F, setting.params, B, setting.x).items():
        np.testing.assert_array_equal(final[state], value)


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
    setting = random_setting(REFERENCES[name])
    large = {key: 20 * value for key, value in setting.params.items()}
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, final = setting.run(params=large, x=10 * np.tanh(setting.x))
    assert all(np.isfinite(value).all() for value in (*y, *final.values()))
