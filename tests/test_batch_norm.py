"""Batch normalisation: statistics of the batch, running statistics, buffers."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_close
from points import (
    BUILTIN,
    LENGTHS,
    NORMED,
    SIZES,
    B,
    T,
    as_reference,
    assert_forward_is_right,
    assert_gradients_are_right,
    assert_same,
    by_hand,
    forward,
    normed_cell,
    random_point,
    with_lengths,
)
from reference import REFERENCES


@pytest.mark.parametrize("name", [name for name in NORMED if name in BUILTIN])
def test_running_statistics_follow_the_reference(module_of, name):
    module, reference = module_of(name), REFERENCES[name]
    buffers = module.init_buffers(SIZES["hidden"], dtype="float64")
    wanted = reference.initial_buffers(SIZES["hidden"])
    for seed, lengths in enumerate((None, LENGTHS, np.array(LENGTHS))):
        point = random_point(name, module, seed=seed, lengths=lengths)
        y, *_ = forward(point, buffers=buffers)
        (y_reference,), _ = by_hand(point, wanted)
        assert_close(y[0], y_reference, 1e-12)
    for key, found in as_reference(reference, buffers._asdict()).items():
        assert_close(found, wanted[key], 1e-12, key)


@normed_cell
@with_lengths
def test_evaluation_uses_the_running_statistics_and_leaves_them(module_of, name, lengths):
    point = random_point(name, module_of(name), training=False, lengths=lengths)
    assert_forward_is_right(point)
    assert_gradients_are_right(point, entries=True)
    buffers = point.module.Buffers(*(a.copy() for a in point.buffers.values()))
    forward(point, buffers=buffers)
    assert_same(buffers, point.buffers.values())


@normed_cell
def test_a_batch_that_is_over_leaves_the_running_statistics(module_of, name):
    point = random_point(name, module_of(name), lengths=(0,) * B)
    buffers = point.module.Buffers(*(a.copy() for a in point.buffers.values()))
    forward(point, buffers=buffers)
    assert_same(buffers, point.buffers.values())


@normed_cell
def test_buffers_are_needed_in_evaluation_alone(module_of, name):
    point = random_point(name, module_of(name), buffers=None)
    assert_forward_is_right(point)
    assert_gradients_are_right(point)
    with pytest.raises(ValueError, match="buffers"):
        forward(replace(point, training=False))


@normed_cell
def test_wrong_buffers_are_refused(module_of, name):
    point = random_point(name, module_of(name))
    module = point.module
    wide = module.Buffers(*(np.ones(4) for _ in point.buffers))
    for training in (True, False):
        with pytest.raises(ValueError, match=r"buffers\.\w+ has shape \(4,\), expected \(\d,\)"):
            forward(point, buffers=wide, training=training)
        with pytest.raises(TypeError, match="buffers is dict"):
            forward(point, buffers=dict(point.buffers), training=training)
        single = module.Buffers(*(a.astype("float32") for a in point.buffers.values()))
        with pytest.raises(TypeError, match=r"buffers\.\w+ has dtype float32, expected float64"):
            forward(point, buffers=single, training=training)


@normed_cell
def test_statistics_are_those_of_the_steps_that_count(module_of, name):
    """Sequences cut to lengths are the same as all their steps as a batch of one step."""
    module = module_of(name)
    point = random_point(name, module, lengths=LENGTHS)
    counted = np.arange(T)[:, None] < np.array(LENGTHS)
    flat = {s.name: point.values[s.name][counted][None] for s in point.cell.inputs}
    rows = int(counted.sum())
    flat |= {
        f"initial.{s.name}": np.ones((rows, d.shape[-1]))
        for s, d in zip(point.cell.states, point.d_final, strict=True)
    }
    one, other = (module.Buffers(*(a.copy() for a in point.buffers.values())) for _ in range(2))
    forward(point, buffers=one)
    forward(replace(point, values=point.values | flat, lengths=None), buffers=other)
    for found, wanted in zip(one, other, strict=True):
        assert_close(found, wanted, 1e-12)
