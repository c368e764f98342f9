"""What `forward` of every NumPy module gives.

Built-in cells are judged by the transcription in `reference.py`, the others by `graph.evaluate`.
"""

from dataclasses import replace

import numpy as np
import pytest
from golden import golden_case
from helpers import CELLS, assert_close, with_stated
from points import (
    EXTRA,
    SIZES,
    SPECS,
    B,
    T,
    assert_forward_is_right,
    assert_gradients_are_right,
    built_in_cell,
    every_cell,
    expected,
    forward,
    gradients,
    random_point,
    with_initial,
    with_lengths,
)
from reference import outputs_of

from gategen import cli
from gategen.judge.verify import imported


@every_cell
@with_lengths
@with_initial
def test_forward_is_what_the_equations_say(module_of, name, initial, lengths):
    assert_forward_is_right(random_point(name, module_of(name), initial=initial, lengths=lengths))


@every_cell
@with_lengths
@pytest.mark.parametrize("sizes", [SIZES, {"input": 2, "hidden": 1}], ids=["", "one_unit"])
def test_float32_is_float64_to_its_precision(module_of, name, lengths, sizes):
    if name == "layered" and sizes["hidden"] == 1:
        return  # layer normalisation of one unit is 0, but for its rounding, which it amplifies
    point = random_point(name, module_of(name), lengths=lengths, sizes=sizes)
    y, final, _ = forward(point.astype("float32"))
    wanted_y, wanted_final = expected(point)
    for found, wanted in zip((*y, *final), (*wanted_y, *wanted_final), strict=True):
        assert found.dtype == np.float32
        assert_close(found, wanted, 2e-5)
    exact = gradients(point)
    for key, gradient in gradients(point.astype("float32")).items():
        assert gradient.dtype == np.float32, key
        largest = max(np.abs(array).max(initial=0) for array in exact.values())
        scale = max(np.abs(exact[key]).max(initial=0), 1e-3)
        assert_close(gradient, exact[key], max(1e-4, 1e-6 * largest / scale), key)


def test_libru_log_is_finite_in_single_precision_far_below_zero(module_of):
    module = module_of("libru_log")
    params = module.init(SIZES["input"], SIZES["hidden"], seed=0)
    low = module.States(np.full((B, SIZES["hidden"]), -120, "float32"))
    y, _, tape = module.forward(params, np.zeros((T, B, SIZES["input"]), "float32"), initial=low)
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in module.backward(params, tape, np.ones_like(y)).params)


@built_in_cell
def test_the_golden_values_come_out(module_of, name):
    case, module = golden_case(name), module_of(name)
    params = module.pack(with_stated(CELLS[name], case.params))
    given, _, tape = module.forward(params, case.x, **case.inputs)
    y, *others = outputs_of(given)
    seeds = (np.ones_like(y), *(None for _ in others))
    grads = module.backward(params, tape, seeds if others else seeds[0])
    golden, d_params = case.golden, module.unpack(grads.params).values()
    np.testing.assert_allclose(y[-1, 0].ravel(), golden.last, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(y.sum(), golden.loss, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(grads[1][0, 0].ravel(), golden.d_x0, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(sum(d.sum() for d in d_params), golden.d_params_sum, rtol=0, atol=0.51e-5)
    np.testing.assert_allclose(
        sum((d * d).sum() for d in d_params), golden.d_params_square, rtol=0, atol=0.51e-5
    )


@pytest.mark.parametrize("name", ["noisy", "decayed", "normed", "masked", "opened_from_the_start"])
@with_lengths
def test_an_input_may_be_constant_in_time(module_of, name, lengths):
    point = random_point(name, module_of(name), lengths=lengths, constant=True, initial=False)
    assert_forward_is_right(point)
    assert_gradients_are_right(point)


def test_set_changes_a_constant(tmp_path):
    command = ["build", str(SPECS / "numbers.py"), "--backend", "numpy", "--out", str(tmp_path)]
    assert cli.commands.main([*command, "--set", "beta=3"], standalone_mode=False) in (None, 0)
    cell, module = EXTRA["leaky"].with_constants(beta=3), imported(tmp_path / "leaky_numpy.py")
    point = replace(random_point("leaky", module, initial=False), cell=cell)
    assert_forward_is_right(point)
    assert_gradients_are_right(point)
