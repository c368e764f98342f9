"""Parameters and what else a module says of itself: `init`, `pack`, `unpack`, sizes, signatures."""

import inspect

import numpy as np
import pytest
from points import (
    CELLS,
    SIZES,
    B,
    T,
    assert_same,
    every_cell,
    forward,
    init_contents,
    init_keywords,
    parts,
    random_point,
    sizes_of,
)

from gategen import Cell, Eq, inputs, matrices, states, tanh, vectors
from gategen.judge.verify import imported, written
from gategen.spec.language import extent_of


@every_cell
def test_unpack_gives_views_under_the_names_of_the_spec(module_of, name):
    point = random_point(name, module_of(name))
    module, params = point.module, point.params
    views = module.unpack(params)
    assert set(views) == {a.name for a in point.cell.arrays}
    for key, view in views.items():
        np.testing.assert_array_equal(view, point.values[key])
        assert any(np.shares_memory(view, field) for field in params), key
    assert_same(module.pack(views), params)
    _, _, tape = forward(point, True)
    grads = module.backward(params, tape, None).params
    for key, view in module.unpack(grads).items():
        assert view.shape == point.values[key].shape
        assert any(np.shares_memory(view, field) for field in grads), key


@pytest.mark.parametrize("name", ["leaky", "narrow", "reservoir"])
def test_a_scalar_may_have_one_entry(module_of, name):
    point = random_point(name, module_of(name))
    given = {a.name: point.values[a.name] for a in point.cell.arrays}
    wider = {key: value[None] if value.shape == () else value for key, value in given.items()}
    assert_same(point.module.pack(wider), point.params)


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_init_is_uniform_and_seeded(module_of, name, dtype):
    module, cell = module_of(name), CELLS[name]
    further = dict(zip((s for s in cell.sizes if s not in SIZES), (20, 50, 70), strict=False))
    asked = init_contents(cell, module, {"input": 20, "hidden": 40, **further})
    keywords = init_keywords(cell, module, further) | asked
    params = module.init(20, 40, seed=7, dtype=dtype, **keywords)
    assert_same(params, module.init(20, 40, seed=7, dtype=np.dtype(dtype), **keywords))
    assert all(isinstance(field, np.ndarray) and field.dtype == dtype for field in params)
    stated = {a.name for a in cell.arrays if a.contents or not a.trainable}
    named = [a.ravel() for key, a in module.unpack(params).items() if key not in stated]
    drawn = np.concatenate([np.empty(0), *named])
    assert not drawn.size or np.abs(drawn).max() <= np.float32(40**-0.5)
    assert np.unique(drawn).size >= 0.99 * drawn.size
    other = module.init(20, 40, seed=8, dtype=dtype, **keywords)
    others = [a.ravel() for key, a in module.unpack(other).items() if key not in stated]
    assert not drawn.size or not np.array_equal(drawn, np.concatenate(others))
    if drawn.size > 500:
        assert np.abs(drawn).max() > 0.95 * 40**-0.5 and abs(drawn.mean()) < 0.1 * 40**-0.5
    sizes = {"input": 20, "hidden": 40, **further}
    shapes = [tuple(extent_of(axis, sizes) for axis in parts(s.size)) for s in cell.inputs]
    given = {
        key: np.zeros((B, *shape), dtype)
        for key, shape in zip(module.Grads._fields[2:-1], shapes[1:], strict=True)
    }
    y, *_ = module.forward(params, np.zeros((T, B, *shapes[0]), dtype), **given)
    assert (y[0] if isinstance(y, tuple) else y).dtype == dtype


@every_cell
def test_init_asks_for_sizes_by_their_names_and_they_may_be_one(module_of, name):
    cell, module = CELLS[name], module_of(name)
    further = [s for s in cell.sizes if s not in SIZES]
    sizes = cell.fitting(dict.fromkeys(cell.sizes, 1))
    keywords = init_keywords(cell, module, sizes)
    code = module.init.__code__
    contents = init_contents(cell, module, sizes)
    taken = {*code.co_names, *code.co_varnames, *code.co_cellvars} - {*keywords, *contents}
    wishes = [f"{s}_" if s in taken else s for s in further]
    others = [{*further} - {s} for s in further]
    assert list(keywords) == [f"{w}_2" if w in o else w for w, o in zip(wishes, others, strict=True)]
    params = module.init(sizes["input"], sizes["hidden"], **keywords, **contents)
    assert all(set(array.shape) <= set(range(1, 10)) for array in params)
    for wrong in (0, -1, 1.0):
        with pytest.raises(ValueError, match=rf"input_size is {wrong}, expected a positive integer"):
            module.init(wrong, 1, **keywords, **contents)
        with pytest.raises(ValueError, match=rf"hidden_size is {wrong}, expected a positive integer"):
            module.init(1, wrong, **keywords, **contents)
        for key in keywords:
            with pytest.raises(ValueError, match=rf"{key} is {wrong}, expected a positive integer"):
                module.init(1, 1, **keywords | contents | {key: wrong})
    for dtype, said in ((int, "int64"), (None, "None")):
        with pytest.raises(TypeError, match=f"dtype is {said}"):
            module.init(1, 1, dtype=dtype, **keywords, **contents)


def test_init_without_a_seed_differs_every_time(module_of):
    one, other = (module_of("gru").init(3, 4) for _ in range(2))
    assert not np.array_equal(one[0], other[0])


def test_every_fact_of_a_cell_is_in_its_checksum(tmp_path):
    W, b, c = matrices("W"), vectors("b"), states("c")

    def checksum(**options):
        x, h = inputs("x", size=options.pop("size", "input")), states("h", initial=options.pop("initial", 0))
        fixed = options.pop("fixed", b)
        output = h.next if options.pop("other", False) else c.next
        cell = Cell("one", Eq(h.next, tanh(W @ x + fixed) * h), Eq(c.next, h), output=output)
        return imported(written(cell, "numpy", tmp_path)).SPEC_SHA256

    c = states("c")
    options = (
        {},
        {"initial": 1},
        {"size": "memory"},
        {"other": True},
        {"fixed": vectors("b", trainable=False)},
    )
    found = [checksum(**given) for given in (*options, {})]
    assert len(set(found)) == len(options) and found[0] == found[-1]


@every_cell
def test_a_module_says_what_it_is(module_of, name):
    module, cell = module_of(name), CELLS[name]
    assert cell.name == module.NAME
    assert tuple(cell.text()) == module.EQUATIONS
    assert tuple(cell.sizes) == module.SIZES
    assert len(module.SPEC_SHA256) == 64
    assert module.States._fields == tuple(s.name for s in cell.states)
    assert module.Grads._fields[0] == "params" and module.Grads._fields[-1] == "initial"
    assert module.Grads._fields[1] == "x"


@every_cell
def test_what_is_optional_is_given_by_name(module_of, name):
    module = module_of(name)
    for function, by_place in (
        (module.init, ["input_size", "hidden_size"]),
        (module.forward, ["params", "x"]),
        (module.backward, ["params", "tape", "d_y", "d_final"]),
        (module.step, ["params", "x_t", "state"]),
    ):
        kinds = {key: p.kind for key, p in inspect.signature(function).parameters.items()}
        assert [key for key, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY] == by_place
        assert all(kinds[key] is inspect.Parameter.POSITIONAL_OR_KEYWORD for key in by_place)


@every_cell
def test_a_module_says_how_wide_everything_is(module_of, name):
    module, point = module_of(name), random_point(name, module_of(name))
    y, final, tape = module.forward(point.params, point.x, initial=point.states, tape=True, **point.further)
    grads = module.backward(point.params, tape, None)
    sizes = sizes_of(point)
    for said, arrays in (
        (module.INPUTS, grads[1:-1]),
        (module.STATES, final),
        (module.OUTPUTS, y if isinstance(y, tuple) else (y,)),
    ):
        for size, array in zip(said.values(), arrays, strict=True):
            wanted = tuple(extent_of(part, sizes) for part in (size if isinstance(size, tuple) else (size,)))
            assert array.shape[-len(wanted) :] == wanted
    assert tuple(module.INPUTS) == module.Grads._fields[1:-1]
    assert tuple(module.STATES) == module.States._fields
    assert list(module.OUTPUTS) == [str(symbol) for symbol in CELLS[name].outputs]
