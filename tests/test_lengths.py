"""Sequences of different lengths in one batch: what lies behind an end is neither read nor written."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_close
from points import (
    CELLS,
    LENGTHS,
    NORMED,
    B,
    T,
    assert_same,
    every_cell,
    forward,
    gradients,
    random_point,
    with_initial,
)

from gategen import Cell, Eq, exp, inputs, matrices, states, vectors
from gategen.judge.verify import imported, written


@every_cell
@with_initial
def test_what_lies_behind_a_length_is_never_read_and_zero(module_of, name, initial):
    clean = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    over = np.arange(T)[:, None] >= np.array(LENGTHS)
    dirty = {s.name: clean.values[s.name].copy() for s in clean.cell.inputs}
    for array in dirty.values():
        array[over] = np.nan
    garbage = tuple(np.where(over.reshape(*over.shape, *(1,) * (d.ndim - 2)), np.nan, d) for d in clean.d_y)
    point = replace(clean, values=clean.values | dirty, d_y=garbage)
    (y, final, _), (clean_y, clean_final, _) = forward(point), forward(clean)
    assert_same((*y, *final), (*clean_y, *clean_final))
    for out in y:
        assert not out[over].any()
    found, wanted = gradients(point), gradients(clean)
    for key in wanted:
        np.testing.assert_array_equal(found[key], wanted[key], key)
    for s in point.cell.inputs:
        assert not found[s.name][over].any()


@pytest.mark.parametrize("name", [name for name in CELLS if name not in NORMED])
@with_initial
def test_the_final_state_is_that_of_the_sequence_alone(module_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    y, final, _ = forward(point)
    for b, length in enumerate(LENGTHS):
        alone = {s.name: point.values[s.name][:length, b : b + 1] for s in point.cell.inputs}
        alone |= {key: v[b : b + 1] for key, v in point.values.items() if key.startswith("initial.")}
        y_b, final_b, _ = forward(replace(point, values=point.values | alone, lengths=None))
        for found, wanted in zip(y, y_b, strict=True):
            assert_close(found[:length, b : b + 1], wanted, 1e-13)
        for found, wanted in zip(final, final_b, strict=True):
            assert_close(found[b : b + 1], wanted, 1e-13)


@every_cell
def test_full_lengths_are_no_lengths(module_of, name):
    point = random_point(name, module_of(name), initial=False)
    full = replace(point, lengths=np.full(B, T, np.uint8))
    assert_same((*forward(point)[0], *forward(point)[1]), (*forward(full)[0], *forward(full)[1]))
    found, wanted = gradients(full), gradients(point)
    for key in wanted:
        assert_close(found[key], wanted[key], 1e-14, key)


def test_lengths_may_be_a_list(module_of):
    point = random_point("gru", module_of("gru"))
    wanted = forward(replace(point, lengths=np.array(LENGTHS)))
    found = forward(replace(point, lengths=list(LENGTHS)))
    assert_same((*found[0], *found[1]), (*wanted[0], *wanted[1]))


def test_what_overflows_behind_a_length_is_in_no_gradient(tmp_path):
    x, h, W, u = inputs("x"), states("h"), matrices("W"), vectors("u")
    cell = Cell("overflow", Eq(h.next, W @ x + u * exp(-h)))
    module = imported(written(cell, "numpy", tmp_path))
    steps = np.zeros((3, 2, 1), "float32")
    steps[1, 1] = 1  # brings the sequence that ends there to -100, of which the exponential overflows
    params = module.pack({"W": np.full((4, 1), -100, "float32"), "u": np.ones(4, "float32")})
    y, final, tape = module.forward(params, steps, lengths=[3, 2])
    assert np.isfinite(final.h).all() and (final.h[1] < -90).all()
    grads = module.backward(params, tape, np.ones_like(y))
    assert all(np.isfinite(g).all() for g in (*grads.params, grads.x, *grads.initial))
