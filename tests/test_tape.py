"""The tape between `forward` and `backward`, and steps without one."""

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from points import (
    LENGTHS,
    NORMED,
    T,
    assert_same,
    built_in_cell,
    every_cell,
    forward,
    gradients,
    named,
    random_point,
    with_initial,
)


@every_cell
@with_initial
def test_the_tape_is_not_consumed(module_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    module, params = point.module, point.params
    _, _, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    d_final = module.States(*point.d_final)
    first = named(point, module.backward(params, tape, d_y, d_final))
    module.backward(params, tape, None, module.States(*(d + 1 for d in d_final)))
    again = named(point, module.backward(params, tape, d_y, d_final))
    assert_same(again.values(), first.values())


@every_cell
@with_initial
def test_a_tape_can_be_used_again(module_of, name, initial):
    module = module_of(name)
    earlier, point = (random_point(name, module, seed=s, initial=initial, lengths=LENGTHS) for s in (3, 4))
    earlier = replace(earlier, lengths=None)
    _, _, tape = forward(earlier, True)
    y, final, reused = forward(point, tape)
    wanted_y, wanted_final, _ = forward(point, True)
    assert_same((*y, *final), (*wanted_y, *wanted_final))
    kept = [a for a in tape if isinstance(a, np.ndarray)]
    assert any(np.shares_memory(a, b) for a in kept for b in reused if isinstance(b, np.ndarray))
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    grads = module.backward(point.params, reused, d_y, module.States(*point.d_final))
    assert_same(named(point, grads).values(), gradients(point).values())
    assert_same((*y, *final), (*wanted_y, *wanted_final))  # and the outputs are not in the tape's memory
    forward(earlier, reused)
    assert_same((*y, *final), (*wanted_y, *wanted_final))


@built_in_cell
def test_a_tape_of_other_shapes_is_refused(module_of, name):
    module = module_of(name)
    _, _, tape = forward(random_point(name, module), True)
    with pytest.raises(ValueError, match=r"tape\.\w+ .*expected"):
        forward(random_point(name, module, steps=T + 1), tape)
    with pytest.raises(ValueError, match=r"tape\.\w+ .*expected"):
        forward(random_point(name, module).astype("float32"), tape)


@built_in_cell
def test_a_tape_in_another_order_is_refused(module_of, name):
    point = random_point(name, module_of(name))
    _, _, tape = forward(point, True)
    state = point.cell.states[0].name
    field = next(f for f in tape._fields if re.fullmatch(rf"{state}(_2|_)?", f))
    turned = tape._replace(**{field: np.asfortranarray(getattr(tape, field))})
    with pytest.raises(ValueError, match="C order"):
        forward(point, turned)


@every_cell
def test_without_a_tape_nothing_is_kept_and_nothing_changes(module_of, name):
    point = random_point(name, module_of(name), initial=False)
    without, taped = forward(point, False), forward(point, True)
    assert without[2] is None and isinstance(taped[2], point.module.Tape)
    assert not taped[2].given and forward(replace(point, initial=True), True)[2].given
    assert_same((*without[0], *without[1]), (*taped[0], *taped[1]))


@every_cell
@with_initial
@pytest.mark.parametrize("lengths", [None, (3, 0, 7, 1, 5)], ids=["full", "lengths"])
@pytest.mark.parametrize("constant", [False, True], ids=["in_time", "constant"])
def test_a_run_without_a_tape_may_be_done_in_parts(module_of, name, initial, lengths, constant):
    point = random_point(
        name, module_of(name), initial=initial, lengths=lengths, steps=7, constant=constant, training=False
    )
    if constant and not point.further:
        return
    options = [point.module.Buffers(**point.buffers)] if name in NORMED else []
    wanted_y, wanted_final, _ = forward(point)
    room = tuple(map(np.empty_like, wanted_y))
    arguments = [point.states if initial else None, lengths, 3, room if len(room) > 1 else room[0]]
    y, final, tape = point.module.in_parts(
        point.params, point.x, *arguments, *point.further.values(), *options
    )
    assert tape is None
    for found, wanted in zip(
        (*(y if len(wanted_y) > 1 else (y,)), *final), (*wanted_y, *wanted_final), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["lstm", "gru_after", "ligru"])
def test_a_long_run_without_a_tape_takes_no_more_memory_than_a_short_one(module_of, name):
    def peak(steps: int) -> int:
        point = random_point(
            name, module_of(name), steps=steps, batch=64, sizes={"input": 4, "hidden": 64}, training=False
        )
        tracemalloc.start()
        (y,), _, _ = forward(point)
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found - y.nbytes

    assert peak(640) < 1.1 * peak(129)


@every_cell
@with_initial
def test_a_loop_of_steps_is_forward(module_of, name, initial):
    point = random_point(name, module_of(name), initial=initial, training=False)
    y, final, _ = forward(point)
    state = point.states if initial else None
    options = {}
    if name in NORMED:
        options["buffers"] = point.module.Buffers(**point.buffers)
    for t in range(T):
        further = {key: value[t] for key, value in point.further.items()}
        y_t, state = point.module.step(point.params, point.x[t], state, **further, **options)
        for found, wanted in zip(y_t if isinstance(y_t, tuple) else (y_t,), y, strict=True):
            np.testing.assert_allclose(found, wanted[t], rtol=1e-14, atol=1e-15)
    assert isinstance(state, point.module.States)
    for found, wanted in zip(state, final, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14, atol=1e-15)


@every_cell
@with_initial
def test_gradients_do_not_depend_on_how_many_steps_are_computed_ahead(module_of, monkeypatch, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    if not hasattr(point.module, "chunks"):  # nothing is computed ahead
        return
    whole = gradients(point)
    monkeypatch.setattr(
        point.module, "chunks", lambda T, _: (slice(max(0, stop - 2), stop) for stop in range(T, 0, -2))
    )
    found = gradients(point)
    assert found.keys() == whole.keys()
    assert_same(found.values(), whole.values())


@pytest.mark.parametrize("name", ["gru", "caru"])
@pytest.mark.parametrize("steps", [4, 2**18])
def test_no_tape_may_be_said_as_none(module_of, name, steps):
    module = module_of(name)
    params, x = module.init(1, 1, seed=0), np.ones((steps, 1, 1), "float32")
    found, wanted = (module.forward(params, x, tape=tape) for tape in (None, False))
    assert found[2] is None and np.array_equal(found[0], wanted[0])
