"""What `backward` of every NumPy module gives, judged by the complex step of the module itself."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_close
from points import (
    CELLS,
    LENGTHS,
    SIZES,
    B,
    T,
    assert_forward_is_right,
    assert_gradients_are_right,
    every_cell,
    expected,
    forward,
    gradients,
    named,
    random_point,
    with_initial,
    with_lengths,
)

from gategen.spec.language import State


@every_cell
def test_every_entry_of_every_gradient_is_right(module_of, name):
    assert_gradients_are_right(random_point(name, module_of(name), lengths=LENGTHS), entries=True)


@every_cell
@with_lengths
@with_initial
def test_gradients_are_right_from_every_start(module_of, name, initial, lengths):
    point = random_point(name, module_of(name), initial=initial, lengths=lengths, seed=1)
    assert_gradients_are_right(point)


@every_cell
def test_gradients_are_right_where_gates_saturate(module_of, name):
    assert_gradients_are_right(random_point(name, module_of(name), scale=3.0, seed=2), 1e-9)


@every_cell
@pytest.mark.parametrize(
    ("steps", "batch", "sizes"),
    [
        (1, B, SIZES),
        (T, 1, SIZES),
        (1, 1, {"input": 1, "hidden": 1}),
        (T, B, {"input": 1, "hidden": 3}),
        (T, B, {"input": 2, "hidden": 1}),
        (13, 7, {"input": 11, "hidden": 17}),
    ],
)
def test_every_size_is_right(module_of, name, steps, batch, sizes):
    for initial in (True, False):
        if name == "libru" and steps > T and not initial:
            continue  # the logarithm of states near 0 loses digits, whoever computes it
        point = random_point(name, module_of(name), steps=steps, batch=batch, sizes=sizes, initial=initial)
        assert_forward_is_right(point)
        assert_gradients_are_right(point)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("memory", range(1, 9))
def test_one_feature_beside_others_is_right_at_every_stride(module_of, dtype, memory):
    """np.negative gives wrong numbers in place on a column whose rows lie 16 or 64 bytes apart."""
    sizes = {"input": 2, "hidden": 1, "memory": memory}
    point = random_point("rows_not_trained", module_of("rows_not_trained"), sizes=sizes)
    y, _, _ = forward(point.astype(dtype))
    assert_close(y[0], expected(point)[0][0], 1e-5 if dtype == "float32" else 1e-12)


@every_cell
@with_initial
@pytest.mark.parametrize(("steps", "batch"), [(0, B), (T, 0), (0, 0)])
def test_nothing_gives_nothing(module_of, name, initial, steps, batch):
    for lengths in (None, np.zeros(batch, int)):
        point = random_point(
            name, module_of(name), steps=steps, batch=batch, lengths=lengths, initial=initial
        )
        assert_forward_is_right(point)
        found = gradients(point)
        for key in point.free:
            assert found[key].shape == point.values[key].shape
            if not key.startswith("initial.") and initial:
                assert not found[key].any()
        if initial:
            for s, d in zip(point.cell.states, point.d_final, strict=True):
                np.testing.assert_array_equal(found[f"initial.{s.name}"], d)


@every_cell
def test_gradients_of_the_outputs_or_of_the_final_states_may_be_missing(module_of, name):
    point = random_point(name, module_of(name), lengths=LENGTHS)
    module, params = point.module, point.params
    _, _, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    both = named(point, module.backward(params, tape, d_y, module.States(*point.d_final)))
    one = named(point, module.backward(params, tape, d_y))
    other = named(point, module.backward(params, tape, None, module.States(*point.d_final)))
    none = named(point, module.backward(params, tape, None))
    for key, wanted in both.items():
        assert_close(one[key] + other[key], wanted, 1e-12, key)
        assert not none[key].any()


@pytest.mark.parametrize("name", ["several", "decayed", "echo", "opened_from_the_start"])
def test_the_gradient_of_one_of_several_outputs_may_be_missing(module_of, name):
    point = random_point(name, module_of(name))
    _, _, tape = forward(point, True)
    for k, d in enumerate(point.d_y):
        some = [None] * len(point.d_y)
        some[k] = d
        alone = replace(
            point,
            d_y=tuple(d * (j == k) for j, d in enumerate(point.d_y)),
            d_final=tuple(0 * d for d in point.d_final),
        )
        found, wanted = named(point, point.module.backward(point.params, tape, some)), gradients(alone)
        for key in wanted:
            assert_close(found[key], wanted[key], 1e-12, key)


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.first])
def test_states_that_the_first_step_does_not_read_have_no_gradient_at_their_own_start(module_of, name):
    point = random_point(name, module_of(name), initial=False)
    read = {s.name for eq in point.cell.first for s in eq.rhs.atoms(State)}
    found = gradients(point)
    for s in point.cell.states:
        assert s.name in read or not found[f"initial.{s.name}"].any(), s
