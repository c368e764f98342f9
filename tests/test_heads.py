"""`Cell.with_heads`: a number for the size `heads`, or blocks for weights of the shape (hidden, hidden)."""

import inspect

import numpy as np
import pytest
from points import CELLS, SPECS

import gategen
from gategen import SpecError
from gategen.build import generate
from gategen.layers import RNN
from gategen.show import show
from gategen.spec.cell import Cell
from gategen.spec.load import load

T, B, I, H = 5, 3, 4, 12  # noqa: E741


def run(module, named, x, weights):
    """The outputs, and the gradients of their weighted sum by name."""
    params = module.pack(named)
    y, _, tape = module.forward(params, x)
    grads = module.backward(params, tape, weights)
    return y, module.unpack(grads.params), grads.x


def drawn(module, rng, sizes):
    named = module.unpack(module.init(**sizes, seed=0, dtype="float64"))
    return {name: 0.5 * rng.standard_normal(array.shape) for name, array in named.items()}


def dense(blocks, count):
    """The whole matrix whose blocks on the diagonal these are, (H, H) of (H, H/count)."""
    rows, columns = blocks.shape
    whole = np.zeros((rows, columns * count))
    for k, part in enumerate(np.split(blocks, count)):
        whole[k * rows // count : (k + 1) * rows // count, k * columns : (k + 1) * columns] = part
    return whole


def on_the_diagonal(whole, count):
    return np.concatenate([np.split(part, count, axis=1)[k] for k, part in enumerate(np.split(whole, count))])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", ["lstm", "gru_after", "rhn", "weight_drop_lstm", "antisymmetric", "sru"])
def test_heads_are_the_blocks_of_a_whole_matrix_that_is_0_elsewhere(name, count):
    cell = CELLS[name].with_heads(count)
    cut = [a.name for a in cell.arrays if a.shape == ("hidden", f"hidden/{count}")]
    assert cut == [a.name for a in CELLS[name].arrays if a.shape == ("hidden", "hidden")] != []
    rng = np.random.default_rng(1)
    module, whole = gategen.compile(cell), gategen.compile(CELLS[name])
    own = {"input_size": I} if CELLS[name].has_input_size else {}
    named = drawn(module, rng, {**own, "hidden_size": H})
    x = rng.standard_normal((T, B, I if own else H))
    weights = rng.standard_normal((T, B, H))
    y, grads, d_x = run(module, named, x, weights)
    other = {key: dense(array, count) if key in cut else array for key, array in named.items()}
    wanted, d_other, d_wanted = run(whole, other, x, weights)
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(d_x, d_wanted, rtol=1e-11, atol=1e-12)
    for key, grad in grads.items():
        one = on_the_diagonal(d_other[key], count) if key in cut else d_other[key]
        np.testing.assert_allclose(grad, one, rtol=1e-11, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name, written", [("slstm", "slstm_heads"), ("rglru", "griffin")])
def test_a_cell_with_heads_is_the_one_that_is_written_with_them(name, written):
    cell, other = CELLS[name].with_heads(4), CELLS[written].with_heads(4)
    assert gategen.diff(cell, other).same
    assert [a.shape for a in cell.arrays] == [a.shape for a in other.arrays]
    rng = np.random.default_rng(2)
    module, again = gategen.compile(cell), gategen.compile(CELLS[written])
    own = {"input_size": I} if cell.has_input_size else {}
    named = drawn(module, rng, {**own, "hidden_size": H})
    names = dict(zip((a.name for a in cell.arrays), (a.name for a in CELLS[written].arrays), strict=True))
    x, weights = rng.standard_normal((T, B, I if own else H)), rng.standard_normal((T, B, H))
    y, grads, d_x = run(module, named, x, weights)
    wanted, d_other, d_wanted = run(again, {names[key]: array for key, array in named.items()}, x, weights)
    assert np.array_equal(y, wanted) and np.array_equal(d_x, d_wanted)
    assert all(np.array_equal(grad, d_other[names[key]]) for key, grad in grads.items())


@pytest.mark.parametrize("name", ["many_heads", "per_head", "every_head", "in_blocks", "gates_of_blocks"])
def test_a_number_stands_for_the_size_heads_everywhere(name):
    cell = CELLS[name].with_heads(2)
    assert "heads" in CELLS[name].sizes and "heads" not in cell.sizes
    assert not any("heads" in str(size) for size in (*cell.gate_sizes.values(), *cell.shapes.values()))
    module, other = gategen.compile(cell), gategen.compile(CELLS[name])
    sizes = {"input_size": 4, "hidden_size": 6, "values": 3, "keys": 5}
    given = {size: sizes[size] for size in inspect.signature(module.init).parameters if size in sizes}
    params = module.init(**given, seed=3, dtype="float64")
    wanted = other.init(**given, heads=2, seed=3, dtype="float64")
    assert [a.shape for a in params] == [a.shape for a in wanted]
    x = np.random.default_rng(4).standard_normal((T, B, 4))
    for one, two in zip(module.forward(params, x)[1], other.forward(wanted, x)[1], strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("count", [None, 2])
def test_vectors_of_hidden_have_a_part_for_every_head_as_those_of_heads_times_values_do(count):
    cell, other = CELLS["shared_heads"], CELLS["many_heads"]
    cell, other = (cell, other) if count is None else (cell.with_heads(count), other.with_heads(count))
    heads = {"heads": 2} if count is None else {}
    module, wanted = gategen.compile(cell), gategen.compile(other)
    assert "hidden" in cell.sizes and "values" not in cell.sizes
    params = module.init(4, 6, **heads, keys=5, seed=3, dtype="float64")
    arguments = inspect.signature(wanted.init).parameters
    sizes = {"input_size": 4, "hidden_size": 6, "values": 3, "keys": 5, **heads}
    same = wanted.init(**{name: sizes[name] for name in arguments if name in sizes}, seed=3, dtype="float64")
    assert [a.shape for a in params] == [a.shape for a in same]
    x = np.random.default_rng(4).standard_normal((T, B, 4))
    (y, final, tape), (y_same, final_same, tape_same) = (
        m.forward(p, x) for m, p in ((module, params), (wanted, same))
    )
    assert all(map(np.array_equal, (*y, *final), (*y_same, *final_same)))
    grads, grads_same = module.backward(params, tape, y), wanted.backward(same, tape_same, y_same)
    assert all(map(np.array_equal, (*grads.params, grads.x), (*grads_same.params, grads_same.x)))


def test_sizes_in_shares_are_said_as_they_were_written():
    cell = CELLS["shared_heads"]
    module = gategen.compile(cell)
    assert module.STATES["C"] == ("heads", "hidden/heads", "keys")
    assert [*module.OUTPUTS.values()] == ["hidden", "heads*keys", ("heads", "hidden/heads", "keys")]
    text = show(cell, "equations", "text")
    assert "C[heads, hidden/heads, keys]" in text and "R_v[hidden, input]" in text
    assert "heads*hidden" not in f"{text} {show(cell, 'equations', 'json')} {module.__doc__}"
    net = RNN(cell, 4, 6, heads=3, keys=2, num_layers=2, bidirectional=True, seed=0)
    assert net(np.zeros((2, 1, 4), "f"))[0][0].shape == (2, 1, 12)
    with pytest.raises(ValueError, match="hidden_size is 7, which heads = 3 does not divide"):
        RNN(cell, 4, 7, heads=3, keys=2)


@pytest.mark.parametrize("name", ["shared_heads", "norms_of_shares", "numbered_shares", "inputs_of_shares"])
def test_every_backend_writes_cells_with_shares(name):
    for backend in ("numpy", "cupy", "c", "numpy_jvp", "cupy_jvp"):
        assert all("heads*hidden" not in text for text in generate(CELLS[name], backend).values())


def test_init_draws_for_the_number_and_other_arrays_are_refused():
    module = gategen.compile(CELLS["slstm_heads"].with_heads(4))
    named = module.unpack(module.init(3, 8, seed=0))
    assert named["R_i"].shape == (8, 2)
    with pytest.raises(ValueError, match="hidden_size is 9, which 4 does not divide"):
        module.init(3, 9)
    with pytest.raises(ValueError, match=r"params.R has shape \(32, 4\), expected \(32, 2\)"):
        module.pack({name: np.zeros((8, 4), "f") if name[0] == "R" else a for name, a in named.items()})


@pytest.mark.parametrize(
    "name", ["lstm", "slstm_heads", "weight_drop_lstm", "many_heads", "per_head", "rglru"]
)
def test_what_is_shown_reads_as_the_same_cell(name):
    cell = CELLS[name].with_heads(2)
    text = show(cell, "equations", "text")
    again = Cell.parse(name, text)
    assert show(again, "equations", "text") == text and "heads" not in text.split('"""')[-1]
    assert [(a.name, a.shape) for a in again.arrays] == [(a.name, a.shape) for a in cell.arrays]
    assert again.gate_sizes == cell.gate_sizes


def test_other_weights_states_and_what_they_begin_with_stay():
    cell = CELLS["ln_lstm"].with_heads(2)
    before = {a.name: a for a in CELLS["ln_lstm"].arrays}
    assert {a.name for a in cell.arrays if a != before[a.name]} == {"R"}
    assert (cell.name, cell.title, cell.where, cell.states) == (
        *(getattr(CELLS["ln_lstm"], field) for field in ("name", "title", "where", "states")),
    )
    assert CELLS["of_three_heads"].states[1].initial.size == 3


@pytest.mark.parametrize("count", [1, 0, -2, 2.0, True, "4"])
def test_heads_are_a_whole_number_of_two_or_more(count):
    with pytest.raises(SpecError, match="heads is a whole number, 2 or more, not"):
        CELLS["lstm"].with_heads(count)


def test_a_spec_file_that_gives_its_cell_heads_warns_of_nothing(recwarn):
    load(SPECS / "heads.py")
    assert not recwarn.list


def test_other_libraries_have_whole_weights():
    net = RNN(CELLS["lstm"].with_heads(2), 3, 8, seed=0)
    assert net(np.zeros((2, 1, 3), "f"))[0].shape == (2, 1, 8)
    with pytest.raises(ValueError, match="lstm has weights in blocks, U_i with 4 columns, not 8"):
        net.to_keras()
