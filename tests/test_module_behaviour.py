"""What is given is not written; layout of memory, threads, huge numbers and NaN do no harm."""

import itertools
import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import assert_close
from points import (
    BUILTIN,
    CELLS,
    LENGTHS,
    NORMED,
    Array,
    assert_same,
    every_cell,
    forward,
    gradients,
    named,
    random_point,
    with_initial,
)


@every_cell
@with_initial
def test_nothing_that_is_given_is_written(module_of, name, initial):
    point = random_point(name, module_of(name), lengths=LENGTHS, initial=initial)
    module, params, states = point.module, point.params, point.states
    d_final = module.States(*point.d_final)
    arrays = [*params, *states, *point.values.values(), *point.d_y, *d_final, point.lengths]
    before = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    options = {"initial": states} if initial else {}
    if name in NORMED:
        options["buffers"] = module.Buffers(**point.buffers)
    _, _, tape = module.forward(params, point.x, lengths=point.lengths, **point.further, **options)
    kept = [a for a in tape if isinstance(a, np.ndarray) and a.flags.writeable]
    for array in kept:
        array.flags.writeable = False
    module.backward(params, tape, point.d_y if len(point.d_y) > 1 else point.d_y[0], d_final)
    assert_same(arrays, before)


@every_cell
def test_any_layout_of_memory_is_taken(module_of, name):
    point = random_point(name, module_of(name), lengths=LENGTHS)
    module = point.module
    wanted_y, wanted_final, tape = forward(point, True)
    wanted = gradients(point)
    params = module.Params(*(np.array(field, order="F") for field in point.params))

    def scattered(a: Array) -> Array:
        """The same numbers, none beside another."""
        wide = np.full([2 * n + 1 for n in a.shape], np.nan)
        view = wide[tuple(slice(1, None, 2) for _ in a.shape)]
        view[...] = a
        return view

    def turned(a: Array) -> Array:
        return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)

    for change in (np.asfortranarray, scattered, turned):
        options = {key: change(a) for key, a in point.further.items()}
        if name in NORMED:
            options["buffers"] = module.Buffers(**{key: scattered(a) for key, a in point.buffers.items()})
        initial = module.States(*map(change, point.states))
        y, final, tape = module.forward(
            params, change(point.x), initial=initial, lengths=point.lengths, **options
        )
        outputs = y if isinstance(y, tuple) else (y,)
        for a, b in zip((*outputs, *final), (*wanted_y, *wanted_final), strict=True):
            assert_close(a, b, 1e-13)
        d_y = tuple(map(change, point.d_y))
        d_final = module.States(*map(change, point.d_final))
        found = named(point, module.backward(params, tape, d_y if len(d_y) > 1 else d_y[0], d_final))
        for key in wanted:
            assert_close(found[key], wanted[key], 1e-12, key)


@every_cell
def test_the_same_inputs_give_the_same_bits(module_of, name):
    point = random_point(name, module_of(name), steps=9, batch=11, sizes={"input": 10, "hidden": 13})
    one, other = forward(point), forward(point)
    assert_same((*one[0], *one[1]), (*other[0], *other[1]))
    assert_same(gradients(point).values(), gradients(point).values())


@pytest.mark.parametrize("name", ["gru", "caru", "lstm", "sligru", "layered"])
def test_threads_do_not_disturb_each_other(module_of, name):
    module = module_of(name)
    points = [random_point(name, module, seed=s, steps=20, batch=8) for s in range(4)]
    wanted = [gradients(point) for point in points]
    found: list[Any] = [None] * len(points)

    def work(k: int) -> None:
        for _ in range(5):
            found[k] = gradients(points[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(points))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, wanted, strict=True):
        assert_same(one.values(), other.values())


@pytest.mark.parametrize("name", ["gru", "lstm", "sru", "rhn"])
def test_a_long_run_is_what_its_halves_are(module_of, name):
    """Of which products of all steps are taken some steps at a time."""
    module, rng = module_of(name), np.random.default_rng(0)
    params = module.init(64, 64, seed=1)
    x = rng.standard_normal((700, 16, 64)).astype("float32")
    y, final, _ = module.forward(params, x)
    early, middle, _ = module.forward(params, x[:350])
    late, last, _ = module.forward(params, x[350:], initial=middle)
    assert_close(np.concatenate((early, late)), y, 1e-5)
    for found, wanted in zip(last, final, strict=True):
        assert_close(found, wanted, 1e-5)


@every_cell
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_inputs_raise_no_warning(module_of, name, size, dtype):
    point = random_point(name, module_of(name))
    huge = {s.name: size * np.abs(point.values[s.name]) for s in point.cell.inputs}
    point = replace(point, values=point.values | huge).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _, _ = forward(point)
        found = gradients(point)
    if name in BOUNDED:
        assert all(np.isfinite(a).all() for a in (*y, *found.values()))


# Not those with a logarithm of what vanishes, a quotient of two gates that do, a root of 1 - exp(0), or the
# inverse of two gates that vanish.
UNBOUNDED = ("minlstm", "rglru", "griffin", "matrix_lstm")
BOUNDED = [name for name in BUILTIN if not name.startswith("libru") and name not in UNBOUNDED]


@pytest.mark.parametrize("name", [name for name in CELLS if name not in NORMED])  # statistics spread it
def test_a_nan_stays_in_its_row(module_of, name):
    point = random_point(name, module_of(name))
    x = point.x.copy()
    x[1, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, _, _ = forward(replace(point, values=point.values | {point.cell.inputs[0].name: x}))
    clean, _, _ = forward(point)
    for found, wanted in zip(y, clean, strict=True):
        assert_close(np.delete(found, 2, axis=1), np.delete(wanted, 2, axis=1), 1e-14)
        np.testing.assert_array_equal(found[:1], wanted[:1])


@every_cell
def test_outputs_and_gradients_share_no_memory_with_anything(module_of, name):
    point = random_point(name, module_of(name))
    y, final, tape = forward(point, True)
    d_y = point.d_y if len(point.d_y) > 1 else point.d_y[0]
    grads = point.module.backward(point.params, tape, d_y, point.module.States(*point.d_final))
    made = [*y, *final, *named(point, grads).values()]
    held = [
        a for a in (*point.values.values(), *point.d_y, *point.d_final, *tape) if isinstance(a, np.ndarray)
    ]
    for a in made:
        assert not any(np.shares_memory(a, b) for b in held)
    for a, b in itertools.combinations((*y, *final), 2):
        assert not np.shares_memory(a, b)
