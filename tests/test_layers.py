"""`gategen.layers.RNN` on generated modules of both backends: every sequence alone, derivatives from outside,
what is saved, and what is refused. PyTorch and ONNX judge it in `tests/conformance`.
"""

from __future__ import annotations

import copy
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gategen import Cell, Eq, emulator, inputs, load, matrices, states, tanh
from gategen.emulator import cupy as cp
from gategen.judge.host import imported, written
from gategen.layers import RNN

ROOT = Path(__file__).parents[1]
SPECS = Path(__file__).parent / "specs"
EXTRA = {
    cell.name: cell for stem in ("inputs", "sizes", "starts", "names") for cell in load(SPECS / f"{stem}.py")
}

MEMORY_OF_X = """
inputs: x
states: h, S[hidden, input]
matrices: U
h' = tanh(S @ x + U @ h)
S' = S + outer(h, x)
"""

T, I, H = 5, 3, 4  # noqa: E741
LENGTHS = (3, T, 0, 1)
B = len(LENGTHS)

Array = Any


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    """The NumPy module of a cell: a built-in one as it is committed, one of `tests/specs` generated once."""
    folder = tmp_path_factory.mktemp("layers")

    @cache
    def found(name: str) -> ModuleType:
        if name in EXTRA:
            return imported(written(EXTRA[name], "numpy", folder))
        return imported(ROOT / "generated" / f"{name}_numpy.py")

    return found


@cache
def cuda_module(name: str) -> ModuleType:
    return emulator.load(ROOT / "generated" / f"{name}_cupy.py")


class Run:
    """Random arrays for a net: what it reads, and the weights of a loss of all it gives."""

    def __init__(
        self, net: RNN, *, lengths: Any = LENGTHS, start: bool = True, seed: int = 0, batch: int = B
    ):
        rng = np.random.default_rng(seed)
        self.lengths = None if lengths is None else np.array(lengths)
        cells = net.num_layers * (2 if net.bidirectional else 1)
        y, final = net(np.zeros((0, batch, net.input_size)), **further(net, rng, 0, batch))
        outputs = y if isinstance(y, tuple) else (y,)
        self.x = rng.standard_normal((T, batch, net.input_size))
        self.inputs = further(net, rng, T, batch)
        self.initial = None
        if start:
            self.initial = {s: rng.uniform(0.2, 0.8, v.shape) for s, v in final._asdict().items()}
        self.d_y = tuple(rng.standard_normal((T, *output.shape[1:])) for output in outputs)
        self.d_final = {s: rng.standard_normal(v.shape) for s, v in final._asdict().items()}
        assert all(len(v) == cells for v in final)

    def forward(self, net: RNN, **other: Array) -> tuple[tuple[Array, ...], Any]:
        given = {"x": self.x, "initial": self.initial, **self.inputs, **other}
        y, final = net(given.pop("x"), given.pop("initial"), self.lengths, **given)
        return (y if isinstance(y, tuple) else (y,)), final

    def backward(self, net: RNN) -> Any:
        return net.backward(self.d_y if len(self.d_y) > 1 else self.d_y[0], self.d_final)

    def loss(self, net: RNN, **other: Array) -> Any:
        y, final = self.forward(net, **other)
        total = sum((d * output).sum() for d, output in zip(self.d_y, y, strict=True))
        return total + sum((self.d_final[s] * v).sum() for s, v in final._asdict().items())


def further(net: RNN, rng: np.random.Generator, steps: int, batch: int) -> dict[str, Array]:
    """The inputs beside x; every other one is constant in time."""
    sizes = {"input": net.input_size, "hidden": net.hidden_size, "memory": 6}
    wanted = list(net.module.INPUTS.items())[1:]
    return {
        name: rng.standard_normal((*([steps] if k % 2 == 0 else []), batch, sizes.get(size, size)))
        for k, (name, size) in enumerate(wanted)
    }


def net_of(module: ModuleType, *layers: Any, seed: int = 0, dtype: str = "float64", **options: Any) -> RNN:
    return RNN(module, I, H, *layers, seed=seed, dtype=dtype, **options)


def assert_close(found: Array, wanted: Array, tolerance: float, what: str = "") -> None:
    assert found.shape == wanted.shape, what
    error = np.abs(found - wanted).max(initial=0)
    assert error <= tolerance * max(np.abs(wanted).max(initial=0), 1e-3), f"{what} is off by {error}"


# -------------------------------------------------------------------------------- every sequence alone


@pytest.mark.parametrize("name", ["gru", "lstm", "caru", "several", "noisy", "opened_from_the_start"])
@pytest.mark.parametrize("start", [True, False], ids=["given_start", "own_start"])
def test_a_padded_sequence_behaves_as_if_it_were_alone(module_of, name, start):
    sizes = (
        {"memory": 6}
        if name in ("noisy", "opened_from_the_start")
        else {"rank": 6}
        if name == "several"
        else {}
    )
    net = net_of(module_of(name), 2, True, **sizes)
    run = Run(net, start=start)
    y, final = run.forward(net)
    grads = run.backward(net)
    total = {key: np.zeros_like(value) for key, value in net.parameters().items()}
    for b, length in enumerate(LENGTHS):
        x = run.x[:length, b]  # one sequence, with no axis for the batch
        initial = run.initial and {s: v[:, b] for s, v in run.initial.items()}
        inputs = {k: v[:length, b] if v.ndim == 3 else v[b] for k, v in run.inputs.items()}
        alone, last = net(x, initial, **inputs)
        alone = alone if isinstance(alone, tuple) else (alone,)
        for whole, part in zip(y, alone, strict=True):
            assert_close(whole[:length, b], part, 1e-13)
            assert not whole[length:, b].any()
        for s, state in last._asdict().items():
            assert_close(getattr(final, s)[:, b], state, 1e-13, s)
        d_y = tuple(d[:length, b] for d in run.d_y)
        one = net.backward(d_y if len(d_y) > 1 else d_y[0], {s: d[:, b] for s, d in run.d_final.items()})
        assert_close(grads.x[:length, b], one.x, 1e-12)
        assert not grads.x[length:, b].any()
        for s, state in one.initial._asdict().items():
            assert_close(getattr(grads.initial, s)[:, b], state, 1e-12, s)
        for key, value in one.inputs.items():
            padded = grads.inputs[key]
            assert_close(padded[:length, b] if padded.ndim == 3 else padded[b], value, 1e-12, key)
        for key, value in one.params.items():
            total[key] += value
    for key, value in grads.params.items():
        assert_close(value, total[key], 1e-12, key)


def test_one_layer_is_the_module_to_the_bit(module_of):
    module = module_of("lstm")
    net = net_of(module)
    run = Run(net)
    y, final = run.forward(net)
    params = module.pack({key.removesuffix("_l0"): value for key, value in net.parameters().items()})
    initial = module.States(*(v[0] for v in run.initial.values()))
    wanted, last, tape = module.forward(params, run.x, initial=initial, lengths=run.lengths)
    np.testing.assert_array_equal(y[0], wanted)
    for found, state in zip(final, last, strict=True):
        np.testing.assert_array_equal(found[0], state)
    d_final = module.States(*(v[0] for v in run.d_final.values()))
    grads, found = module.backward(params, tape, run.d_y[0], d_final), run.backward(net)
    np.testing.assert_array_equal(found.x, grads.x)
    for key, value in module.unpack(grads.params).items():
        np.testing.assert_array_equal(found.params[f"{key}_l0"], value)


def test_layers_and_directions_are_those_a_person_would_write(module_of):
    module = module_of("gru")
    net = net_of(module, 2, True)
    parameters = net.parameters()
    x = np.random.default_rng(0).standard_normal((T, B, I))
    y, final = net(x)
    wanted = []
    for layer in range(2):
        sides = []
        for suffix, turn in ((f"_l{layer}", 1), (f"_l{layer}_reverse", -1)):
            named = {k.removesuffix(suffix): v for k, v in parameters.items() if k.endswith(suffix)}
            out, last, _ = module.forward(module.pack(named), x[::turn])
            sides.append(out[::turn])
            wanted.append(last.h)
        x = np.concatenate(sides, axis=2)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(final.h, np.stack(wanted))


def test_batch_first_turns_sequences_and_nothing_else(module_of):
    net = net_of(module_of("decayed"), 2, True)
    turned = net_of(module_of("decayed"), 2, True, batch_first=True)
    run = Run(net)
    (y, z), final = run.forward(net)
    grads = run.backward(net)
    swap = lambda a: a.swapaxes(0, 1)  # noqa: E731
    (y_2, z_2), final_2 = turned(swap(run.x), run.initial, LENGTHS, m=swap(run.inputs["m"]))
    found = turned.backward(tuple(map(swap, run.d_y)), run.d_final)
    for one, other in ((y_2, y), (z_2, z), (found.x, grads.x), (found.inputs["m"], grads.inputs["m"])):
        np.testing.assert_array_equal(swap(one), other)
    np.testing.assert_array_equal(final_2.h, final.h)
    np.testing.assert_array_equal(found.initial.h, grads.initial.h)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("name", ["lstm", "caru", "ligru"])
def test_nothing_gives_nothing(module_of, name, steps, batch):
    net = net_of(module_of(name), 2, True)
    for lengths in (None, np.zeros(batch, int)):
        y, final = net(np.zeros((steps, batch, I)), None, lengths)
        assert y.shape == (steps, batch, 2 * H) and final[0].shape == (4, batch, H)
        grads = net.backward(y, final)
        assert grads.x.shape == (steps, batch, I) and grads.initial[0].shape == (4, batch, H)
        assert all(
            not np.isnan(d).any() and d.shape == net.parameters()[k].shape for k, d in grads.params.items()
        )


def test_a_sequence_of_length_zero_keeps_its_state(module_of):
    net = net_of(module_of("lstm"), 2, True)
    run = Run(net, lengths=(0,) * B)
    y, final = run.forward(net)
    grads = run.backward(net)
    assert not y[0].any() and not grads.x.any() and not any(d.any() for d in grads.params.values())
    for s, state in run.initial.items():
        np.testing.assert_array_equal(getattr(final, s), state)
        np.testing.assert_array_equal(getattr(grads.initial, s), run.d_final[s])


# -------------------------------------------------------------------------------- derivatives


CASES = [
    ("gru", {}),
    ("lstm", {}),
    ("caru", {}),
    ("ligru", {}),
    ("projected", {"projection": 2}),
    ("noisy", {"memory": 6}),
    ("several", {"rank": 6}),
    ("trained_by_an_expression", {}),
]


@pytest.mark.parametrize(("name", "sizes"), CASES, ids=[name for name, _ in CASES])
@pytest.mark.parametrize("start", [True, False], ids=["given_start", "own_start"])
def test_every_gradient_of_two_layers_both_ways_with_dropout_is_right(module_of, name, sizes, start):
    def made() -> RNN:
        """A net that has not run yet, so that its dropout is that of the first run."""
        return net_of(module_of(name), 2, True, dropout=0.4, **sizes)

    run = Run(made(), start=start)
    net = made()
    run.forward(net)
    grads = run.backward(net)
    rng = np.random.default_rng(1)

    def along(wanted: Any, gradient: Array, what: str) -> None:
        assert abs((gradient * direction).sum() - wanted) <= 1e-7 * max(abs(wanted), 1), what

    tiny = 1e-30
    direction = rng.standard_normal(run.x.shape)
    along(run.loss(made(), x=run.x + 1j * tiny * direction).imag / tiny, grads.x, "x")
    for s, value in (run.initial or {}).items():
        direction = rng.standard_normal(value.shape)
        moved = run.initial | {s: value + 1j * tiny * direction}
        along(run.loss(made(), initial=moved).imag / tiny, getattr(grads.initial, s), s)
    for key, value in run.inputs.items():
        direction = rng.standard_normal(value.shape)
        along(run.loss(made(), **{key: value + 1j * tiny * direction}).imag / tiny, grads.inputs[key], key)
    step = 1e-6
    for key, value in net.parameters().items():
        direction = rng.standard_normal(value.shape)
        losses = []
        for sign in (1, -1):
            moved = made()
            moved.parameters()[key][...] += sign * step * direction
            losses.append(run.loss(moved))
        along((losses[0] - losses[1]) / (2 * step), grads.params[key], key)


def test_backward_may_be_asked_again_and_parts_may_be_missing(module_of):
    net = net_of(module_of("several"), 2, True, rank=6)
    run = Run(net)
    run.forward(net)
    whole = run.backward(net)
    none = net.backward(None)
    parts = [net.backward(None, run.d_final)]
    for k, d in enumerate(run.d_y):
        parts.append(net.backward([d if j == k else None for j in range(len(run.d_y))]))
    again = run.backward(net)
    np.testing.assert_array_equal(again.x, whole.x)
    assert_close(sum(part.x for part in parts), whole.x, 1e-12)
    for key, value in whole.params.items():
        np.testing.assert_array_equal(again.params[key], value)
        assert_close(sum(part.params[key] for part in parts), value, 1e-12, key)
        assert not none.params[key].any()


def test_gradient_descent_on_the_parameters_lowers_the_loss(module_of):
    net = net_of(module_of("gru"), 2, True, dtype="float32")
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype("float32")
    losses = []
    for _ in range(30):
        y, _ = net(x)
        losses.append(float(((y - 0.5) ** 2).mean()))
        grads = net.backward((y - 0.5) / y.size * 2)
        for key, parameter in net.parameters().items():
            parameter -= grads.params[key]
    assert losses[-1] < 0.5 * losses[0]


# -------------------------------------------------------------------------------- dropout, statistics


@pytest.mark.slow
def test_dropout_keeps_the_mean_and_is_of_the_seed(module_of):
    module = module_of("rnn")
    x = np.random.default_rng(0).standard_normal((50, 40, I))

    def seen(p: float, seed: int = 0) -> tuple[Array, Array, RNN]:
        """What the second layer makes of the first: the identity, so that y shows what reached it."""
        net = RNN(module, I, 200, 2, dropout=p, dtype="float64", seed=seed)
        below = RNN(module, I, 200, dtype="float64")
        state = net.state_dict()
        below.load_state_dict({key: value for key, value in state.items() if key.endswith("_l0")})
        eye = {"W_h_l1": np.eye(200) * 1e-6, "U_h_l1": np.zeros((200, 200)), "b_h_l1": np.zeros(200)}
        net.load_state_dict(state | eye)
        return net(x)[0] / 1e-6, below(x)[0], net

    found, below, net = seen(0.3)
    kept = found != 0
    assert abs(kept.mean() - 0.7) < 0.005
    np.testing.assert_allclose(found[kept], below[kept] / 0.7, rtol=1e-9)
    assert not np.array_equal(kept, (net(x)[0]) != 0), "the next run draws again"
    np.testing.assert_array_equal(seen(0.3)[0], found)
    assert not np.array_equal(seen(0.3, seed=1)[0] != 0, kept)
    net.eval()
    np.testing.assert_allclose(net(x)[0] / 1e-6, below, rtol=1e-9)
    net.train()
    assert not net(x)[0].all()
    assert not seen(1.0)[0].any()
    assert seen(0.0)[0].all()


def test_a_cell_without_parameters_has_dropout(tmp_path):
    x, h = inputs("x", size="hidden"), states("h")
    module = imported(written(Cell("leak", Eq(h.next, 0.5 * h + x)), "numpy", tmp_path))
    net = RNN(module, H, H, 2, dropout=0.5, seed=0)
    x = np.random.default_rng(0).standard_normal((T, B, H)).astype("float32")
    y, _ = net(x)
    kept = module.forward(module.Params(), x)[0] * 2
    steps = y - 0.5 * np.concatenate([np.zeros_like(y[:1]), y[:-1]])  # what reached the second layer
    assert y.dtype == np.float32
    assert 0.2 < np.mean(np.abs(steps) > 1e-6) < 0.8
    np.testing.assert_allclose(steps[np.abs(steps) > 1e-6], kept[np.abs(steps) > 1e-6], rtol=1e-4)
    assert net.parameters() == net.backward(np.ones_like(y)).params == {}


def test_dropout_of_one_layer_is_warned_of(module_of):
    with pytest.warns(UserWarning, match="dropout acts between layers, and num_layers is 1"):
        net = net_of(module_of("gru"), dropout=0.5)
    x = np.ones((T, B, I))
    np.testing.assert_array_equal(net(x)[0], net.eval()(x)[0])


def test_running_statistics_are_learnt_in_training_and_used_in_evaluation(module_of):
    net = net_of(module_of("ligru"), 2, True)
    x = np.random.default_rng(0).standard_normal((T, B, I)) + 3
    before = net.state_dict()
    statistics = [key for key in before if key not in net.parameters()]
    assert sorted(statistics)[:3] == ["mean_n_l0", "mean_n_l0_reverse", "mean_n_l1"]
    trained, _ = net(x)
    after = net.state_dict()
    assert all(not np.array_equal(before[key], after[key]) for key in statistics)
    net.eval()
    first, _ = net(x)
    second, _ = net(x)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, trained)
    assert all(np.array_equal(after[key], value) for key, value in net.state_dict().items())


# -------------------------------------------------------------------------------- what is kept


def test_parameters_have_the_cells_names_with_layer_and_direction(module_of):
    module = module_of("mgu")
    net = net_of(module, 2, True)
    names = list(module.unpack(module.init(I, H)))
    suffixes = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert list(net.parameters()) == list(net.state_dict()) == [n + s for s in suffixes for n in names]
    assert net.parameters()["W_f_l0"].shape == (H, I) and net.parameters()["W_f_l1"].shape == (H, 2 * H)
    run = Run(net)
    run.forward(net)
    assert list(run.backward(net).params) == list(net.parameters())


def test_the_seed_decides_all_parameters_and_no_two_cells_have_the_same(module_of):
    net, same, other = (net_of(module_of("gru"), 3, True, seed=seed) for seed in (1, 1, 2))
    for key, value in net.parameters().items():
        np.testing.assert_array_equal(same.parameters()[key], value)
        assert not np.array_equal(other.parameters()[key], value)
    biases = [tuple(value) for key, value in net.parameters().items() if key.startswith("b_z")]
    assert len(biases) == len(set(biases)) == 6


@pytest.mark.parametrize("name", ["ligru", "narrow"])
def test_what_is_saved_comes_back(module_of, name, tmp_path):
    net, other = (net_of(module_of(name), 2, True, seed=seed) for seed in (0, 1))
    run = Run(net)
    run.forward(net)
    net.save(tmp_path / "net.weights")
    assert [path.name for path in tmp_path.iterdir()] == ["net.weights"]
    other.load(tmp_path / "net.weights")
    assert net.state_dict().keys() == other.state_dict().keys()
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value)
    np.testing.assert_array_equal(run.forward(other.eval())[0], run.forward(net.eval())[0])


def test_a_state_dict_is_a_copy_and_parameters_are_not(module_of):
    net = net_of(module_of("gru"))
    state, parameters = net.state_dict(), net.parameters()
    parameters["W_z_l0"] += 1
    assert np.array_equal(net.parameters()["W_z_l0"], state["W_z_l0"] + 1)
    net.load_state_dict(state)
    assert np.array_equal(parameters["W_z_l0"], state["W_z_l0"])


@pytest.mark.parametrize("kind", ["text", "empty", "npy", "pickle", "cut", "zip"])
def test_a_file_that_save_did_not_write_is_named(module_of, tmp_path, kind):
    net = net_of(module_of("gru"))
    before, path = net.state_dict(), tmp_path / "net.npz"
    net.save(path)
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    contents = {
        "text": b"W_z: 1, 2, 3",
        "empty": b"",
        "npy": (tmp_path / "array.npy").read_bytes(),
        "pickle": pickle.dumps(before),
        "cut": whole[: len(whole) // 2],
        "zip": whole[:2000] + bytes(500) + whole[2500:],
    }
    path.write_bytes(contents[kind])
    with pytest.raises(ValueError, match=r"net\.npz is no file that save wrote, or not whole"):
        net.load(path)
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    with pytest.raises(FileNotFoundError, match=r"'.*missing/net\.npz'$"):
        net.save(tmp_path / "missing" / "net.npz")


def test_the_file_of_another_cell_is_refused_by_name(module_of, tmp_path):
    net_of(module_of("gru_before")).save(path := tmp_path / "net.npz")
    net = net_of(module_of("gru"))
    before = net.state_dict()
    said = r"net\.npz: these are parameters of the cell gru_before, and this net is of gru, whose equations"
    with pytest.raises(ValueError, match=rf"{said} differ: h' = .* there, h' = .* here\. .*other_cell=True"):
        net.load(path)
    with np.load(path) as archive, pytest.raises(ValueError, match="cell gru_before"):
        net.load_state_dict(archive)
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    net.load(path, other_cell=True)
    for key, array in net_of(module_of("gru_before")).state_dict().items():
        np.testing.assert_array_equal(net.state_dict()[key], array)


def test_the_file_of_a_renamed_cell_is_taken_when_one_says_so(module_of, tmp_path):
    (cell,) = load("gru")
    renamed = Cell.parse("renamed", "states: h\n" + "\n".join(cell.text()))
    other = net_of(imported(written(renamed, "numpy", tmp_path)))
    net = net_of(module_of("gru"), seed=3)
    net.save(tmp_path / "net.npz")
    with pytest.raises(ValueError, match="with the same equations, but another name, other constants"):
        other.load(tmp_path / "net.npz")
    other.load(tmp_path / "net.npz", other_cell=True)
    np.testing.assert_array_equal(other.parameters()["W_z_l0"], net.parameters()["W_z_l0"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_layers": 2}, "num_layers was 1, and is 2 in this net"),
        ({"bidirectional": True}, "bidirectional was False, and is True in this net"),
        ({"hidden_size": 6}, r"sizes was \{'input': 3, 'hidden': 4\}, and is \{'input': 3, 'hidden': 6\}"),
    ],
)
def test_the_file_of_a_net_of_other_sizes_says_which(module_of, tmp_path, options, words):
    RNN(module_of("gru"), 3, 4).save(tmp_path / "net.npz")
    with pytest.raises(ValueError, match=words):
        RNN(module_of("gru"), **{"input_size": 3, "hidden_size": 4, **options}).load(tmp_path / "net.npz")


def test_a_file_without_a_record_is_read_as_earlier_versions_wrote_it(module_of, tmp_path):
    net, other = (net_of(module_of("gru"), seed=seed) for seed in (0, 1))
    np.savez(tmp_path / "old.npz", **net.state_dict())
    other.load(tmp_path / "old.npz")
    np.testing.assert_array_equal(other.parameters()["U_h_l0"], net.parameters()["U_h_l0"])
    with pytest.raises(ValueError, match=r"old\.npz: state lacks"):
        net_of(module_of("lstm")).load(tmp_path / "old.npz")


def test_every_damaged_file_is_a_value_error(module_of, tmp_path):
    net = RNN(module_of("rnn"), 1, 1, dtype="float64")
    net.save(path := tmp_path / "net.npz")
    whole, before, refused = path.read_bytes(), net.state_dict(), 0
    at = [*range(0, 200), *range(len(whole) - 500, len(whole))]  # the first array, and the list of all
    for place, bit in [(k, bit) for k in at for bit in (1, 128)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            net.load(path)  # a date may change
        except ValueError:
            refused += 1
        for key, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[key])
    assert refused > 500


def test_save_keeps_what_it_finds(module_of, tmp_path):
    net = net_of(module_of("gru"))
    target, link, pipe = tmp_path / "net.npz", tmp_path / "link.npz", tmp_path / "pipe"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to("net.npz")
    net.save(link)
    assert link.is_symlink() and link.resolve() == target
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    net.load(target)
    os.mkfifo(pipe)
    for use in (net.save, net.load):
        with pytest.raises(OSError, match=r"This is no regular file: '.*/pipe'"):
            use(pipe)
    with pytest.raises(IsADirectoryError):
        net.save(tmp_path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "hanging").symlink_to("new.npz")
    net.save(tmp_path / "hanging")
    assert (tmp_path / "new.npz").is_file() and (tmp_path / "hanging").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hanging", "link.npz", "net.npz", "new.npz", "pipe"]


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), "V4"), np.zeros((4, 4), "M8[s]"), np.zeros((4, 4), [("a", "f4")])]
)
def test_a_state_of_no_numbers_changes_nothing(module_of, wrong):
    net = net_of(module_of("rnn"))
    before = net.state_dict()
    with pytest.raises(TypeError, match=r"state\['U_h_l0'\] has dtype .*, expected float64"):
        net.load_state_dict({**{key: a * 0 for key, a in before.items()}, "U_h_l0": wrong})
    for given in (None, [], list(before.items())):
        with pytest.raises(TypeError, match=r"state is \w+, expected a mapping"):
            net.load_state_dict(given)
    with pytest.raises(ValueError, match=r"state has \['3', 'b'\]"):
        net.load_state_dict({**before, 3: 1, "b": 2})
    for key, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_a_net_can_be_copied_and_pickled(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    module = import_module("generated.ligru_numpy")
    net = net_of(module, 2, True, dropout=0.4)
    run = Run(net)
    run.forward(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.module is module and repr(other) == repr(net)
        again = run.backward(other)
        np.testing.assert_array_equal(again.x, run.backward(net).x)
        other.parameters()["W_z_l0"][...] = 0
        assert net.parameters()["W_z_l0"].all()
        kept = copy.deepcopy(net)
        other.load_state_dict(net.state_dict())
        assert_close(run.forward(other)[0][0], run.forward(kept)[0][0], 0, "with the same dropout")


def test_a_failed_save_leaves_the_file_as_it_was(module_of, tmp_path, monkeypatch):
    net = net_of(module_of("gru"))
    net.save(tmp_path / "net.npz")
    before = (tmp_path / "net.npz").read_bytes()

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        net.save(tmp_path / "net.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]
    assert (tmp_path / "net.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda s: s.pop("W_z_l0") is None, ValueError, r"state lacks \['W_z_l0'\]"),
        (lambda s: s.update(W=1), ValueError, r"state has \['W'\], expected \['U_h_l0', "),
        (
            lambda s: s.update(b_z_l0=np.ones(3)),
            ValueError,
            r"state\['b_z_l0'\] has shape \(3,\), expected \(4,\)",
        ),
        (
            lambda s: s.update(b_z_l0=np.ones(H, complex)),
            TypeError,
            r"'b_z_l0'\] has dtype complex128, expected",
        ),
        (lambda s: s.update(b_z_l0=["a"] * H), TypeError, r"'b_z_l0'\] has dtype <U1"),
    ],
)
def test_a_wrong_state_is_refused_whole(module_of, change, error, words):
    net = net_of(module_of("gru"))
    before, wrong = net.state_dict(), {key: value + 1 for key, value in net.state_dict().items()}
    change(wrong)
    with pytest.raises(error, match=words):
        net.load_state_dict(wrong)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


# -------------------------------------------------------------------------------- the other backend


def device(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: device(part) for key, part in value.items()}
    return cp.asarray(np.ascontiguousarray(value))


@pytest.mark.parametrize("name", ["lstm", "ligru", "caru"])
@pytest.mark.parametrize("start", [True, False], ids=["given_start", "own_start"])
def test_a_net_of_cupy_is_the_net_of_numpy(module_of, name, start):
    options = {"dropout": 0.3, "batch_first": True}
    host, there = (net_of(module, 2, True, **options) for module in (module_of(name), cuda_module(name)))
    run = Run(net_of(module_of(name), 2, True), start=start)
    x, d_y = (a.swapaxes(0, 1) for a in (run.x, run.d_y[0]))
    y, final = host(x, run.initial, LENGTHS)
    grads = host.backward(d_y, run.d_final)
    y_2, final_2 = there(device(x), run.initial and device(run.initial), cp.asarray(np.array(LENGTHS)))
    found = there.backward(device(d_y), device(run.d_final))
    assert isinstance(y_2, cp.ndarray) and isinstance(found.x, cp.ndarray)
    assert_close(y_2.get(), y, 1e-12)
    assert_close(found.x.get(), grads.x, 1e-11)
    for s in final._fields:
        assert_close(getattr(final_2, s).get(), getattr(final, s), 1e-12, s)
        assert_close(getattr(found.initial, s).get(), getattr(grads.initial, s), 1e-11, s)
    for key, value in grads.params.items():
        assert_close(found.params[key].get(), value, 1e-11, key)
    for key, value in host.state_dict().items():
        assert_close(there.state_dict()[key], value, 1e-12, key)


def test_weights_go_from_one_backend_to_the_other_and_into_sixteen_bits(module_of, tmp_path):
    host = net_of(module_of("gru"), 2, dtype="float32")
    there, narrow = (net_of(cuda_module("gru"), 2, seed=1, dtype=dtype) for dtype in ("float32", "bfloat16"))
    host.save(tmp_path / "host.npz")
    for net in (there, narrow):
        net.load(tmp_path / "host.npz")
    for key, value in host.state_dict().items():
        np.testing.assert_array_equal(there.state_dict()[key], value)
        np.testing.assert_allclose(narrow.state_dict()[key].astype("float32"), value, rtol=2**-8)
    narrow.save(tmp_path / "narrow.npz")
    again = net_of(cuda_module("gru"), 2, seed=2, dtype="bfloat16")
    again.load(tmp_path / "narrow.npz")
    for key, value in narrow.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key], value)
    host.load_state_dict(there.parameters())


def test_cupy_refuses_arrays_of_the_host():
    net = net_of(cuda_module("gru"), dtype="float32")
    x = np.zeros((T, B, I), "float32")
    with pytest.raises(TypeError, match=r"x is ndarray, expected a cupy.ndarray"):
        net(x)
    y, _ = net(cp.asarray(x))
    with pytest.raises(TypeError, match=r"d_y is ndarray, expected a cupy.ndarray"):
        net.backward(y.get())


# -------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (lambda m: RNN(m("gru"), 0, 4), ValueError, "input_size is 0, expected a positive integer"),
        (lambda m: RNN(m("gru"), 3, 4.0), ValueError, "hidden_size is 4.0, expected a positive integer"),
        (lambda m: RNN(m("gru"), 3, 4, True), ValueError, "num_layers is True"),
        (
            lambda m: RNN(m("gru"), 3, 4, 2, dropout=1.5),
            ValueError,
            "dropout is 1.5, expected a number from 0 to 1",
        ),
        (
            lambda m: RNN(m("gru"), 3, 4, dtype="int32"),
            TypeError,
            "dtype is int32, expected float32 or float64",
        ),
        (
            lambda m: RNN(m("gru"), 3, 4, memory=2),
            TypeError,
            r"gru takes no further sizes, but \['memory'\] were",
        ),
        (
            lambda m: RNN(m("noisy"), 3, 4),
            TypeError,
            r"noisy takes the further sizes \['memory'\], but \[\] were",
        ),
        (lambda m: RNN(m("noisy"), 3, 4, memory=0), ValueError, "memory is 0, expected a positive integer"),
        (
            lambda m: RNN(3, 3, 4),
            TypeError,
            "a cell is a Cell, the name of a built-in one, or the path of a file, not int",
        ),
        (
            lambda m: RNN(np, 3, 4),
            TypeError,
            "module is module, expected a module that gategen has generated",
        ),
        (
            lambda m: RNN(m("colliding"), 3, 4, 2, B=2),
            ValueError,
            "size of x, which must then be the same in all layers; it is 3 in layer 0 and 4 in layer 1",
        ),
        (
            lambda m: RNN(MEMORY_OF_X, 3, 4, 2),
            ValueError,
            "size of x, which must then be the same in all layers; it is 3 in layer 0 and 4 in layer 1",
        ),
    ],
)
def test_a_net_that_cannot_be_is_refused_when_it_is_made(module_of, made, error, words):
    with pytest.raises(error, match=words):
        made(module_of)


@pytest.fixture
def stiff(tmp_path):
    """A cell whose x must have the hidden size, and one whose x has three features."""
    h, U = states("h"), matrices("U")
    made = {}
    for name, size in (("wide", "hidden"), ("three", 3)):
        x = inputs("x", size=size)
        made[name] = Cell(name, Eq(h.next, tanh(matrices("W") @ x + U @ h)))
    return {name: imported(written(cell, "numpy", tmp_path)) for name, cell in made.items()}


def test_layers_that_do_not_fit_on_each_other_are_refused(stiff):
    RNN(stiff["wide"], 4, 4, 3)
    RNN(stiff["three"], 3, 3, 2)
    with pytest.raises(
        ValueError, match="x of wide has the size 'hidden', here 4, but in layer 0 it is given input_size, 3"
    ):
        RNN(stiff["wide"], 3, 4)
    with pytest.raises(ValueError, match="here 4, but in layer 1 it is given the outputs of layer 0, 8"):
        RNN(stiff["wide"], 4, 4, 2, bidirectional=True)
    with pytest.raises(
        ValueError, match="x of three has the size 3, here 3, but in layer 1 it is given the outputs of"
    ):
        RNN(stiff["three"], 3, 4, 2)


X = np.zeros((T, B, I))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda n: n(X[0, 0]), ValueError, r"x has shape \(3,\), expected \(T, B, 3\) or \(T, 3\)"),
        (lambda n: n(X[..., :2]), ValueError, r"x has shape \(5, 4, 2\), expected \(T, B, 3\)"),
        (lambda n: n(X.astype("float32")), TypeError, "x has dtype float32, but params.W has float64"),
        (
            lambda n: n(X, np.zeros((4, B, H))),
            TypeError,
            r"initial is ndarray, expected the states \['h', 'c'\]",
        ),
        (lambda n: n(X, {"h": 0}), ValueError, r"initial has the states \['h'\], expected \['h', 'c'\]"),
        (lambda n: n(X, (np.zeros((4, B, H)),)), ValueError, r"initial has 1 states, expected 2"),
        (
            lambda n: n(X, (np.zeros((4, B, H)), np.zeros((2, B, H)))),
            ValueError,
            r"initial.c has shape \(2, 4, 4\), expected \(4, 4, 4\)",
        ),
        (lambda n: n(X, None, (1, 2)), ValueError, r"lengths has shape \(2,\), expected \(4,\)"),
        (lambda n: n(X, None, (1, 2, 3, 6)), ValueError, "lengths are from 1 to 6, expected from 0 to 5"),
        (lambda n: n(X, None, (1.0, 2, 3, 4)), TypeError, "lengths has dtype float64, expected integers"),
        (lambda n: n(X[:, 0], None, [3]), ValueError, "lengths are for batches, but x is one sequence"),
        (lambda n: n(X, m=X), TypeError, r"lstm takes the inputs \['x'\], but \['x', 'm'\] were given"),
        (lambda n: n.backward(X), RuntimeError, "backward follows a run"),
        (lambda n: n(X, tape=False) and n.backward(X), RuntimeError, "backward follows a run"),
        (lambda n: n(X) and n.backward(X), ValueError, r"d_y has shape \(5, 4, 3\), expected \(5, 4, 8\)"),
        (lambda n: n(X) and n.backward(np.zeros((T, B, 2 * H), "f4")), TypeError, "d_y has dtype float32"),
        (
            lambda n: n(X) and n.backward(None, {"h": X, "c": X}),
            ValueError,
            r"d_final.h has shape \(5, 4, 3\), expected \(4, 4, 4\)",
        ),
    ],
)
def test_a_wrong_argument_is_named(module_of, call, error, words):
    with pytest.raises(error, match=words):
        call(net_of(module_of("lstm"), 2, True))


def test_a_wrong_further_input_or_gradient_is_named_as_the_user_laid_it_out(module_of):
    net = net_of(module_of("decayed"), batch_first=True)
    x, m = np.zeros((B, T, I)), np.zeros((B, T, 1))
    with pytest.raises(ValueError, match=r"m has shape \(5, 4, 1\), expected \(4, 5, 1\) or \(4, 1\)"):
        net(x, m=m.swapaxes(0, 1))
    with pytest.raises(TypeError, match=r"decayed takes the inputs \['x', 'm'\], but \['x'\] were given"):
        net(x)
    (y, _), _ = net(x, m=m)
    with pytest.raises(ValueError, match="d_y is ndarray, expected 2 arrays, one for every output"):
        net.backward(y)
    with pytest.raises(ValueError, match=r"d_y\[1\] has shape \(5, 4, 4\), expected \(4, 5, 4\)"):
        net.backward([None, y.swapaxes(0, 1)])


def test_further_inputs_may_have_any_name(module_of, tmp_path):
    net = net_of(module_of("passed_by_name"), 1, True)
    run = Run(net)
    run.forward(net)
    assert list(run.backward(net).inputs) == ["d", "k", "y", "T", "H", "B", "out", "np_", "count", "index"]
    x, self, h = inputs("x"), inputs("self", size=1), states("h")
    cell = Cell("odd", Eq(h.next, tanh(matrices("W") @ x + self * h)))
    net = net_of(imported(written(cell, "numpy", tmp_path)))
    run = Run(net)
    run.forward(net)
    assert list(run.backward(net).inputs) == ["self"]


def test_a_net_says_what_it_is(module_of):
    assert repr(net_of(module_of("gru"))) == "RNN(gru, 3, 4)"
    net = net_of(module_of("noisy"), 2, True, True, 0.5, memory=6)
    words = "num_layers=2, bidirectional=True, batch_first=True, dropout=0.5, memory=6"
    assert repr(net) == f"RNN(noisy, 3, 4, {words})"


# -------------------------------------------------------------------------------- beside others


def test_two_threads_with_one_module_get_the_bits_of_one(module_of):
    def work(seed: int) -> list[Array]:
        net = net_of(module_of("ligru"), 2, True, seed=seed, dropout=0.2)
        run = Run(net, seed=seed)
        found = []
        for _ in range(15):
            y, final = run.forward(net)
            grads = run.backward(net)
            found += [*y, *final, grads.x, *grads.params.values(), *net.state_dict().values()]
        return found

    wanted = [work(seed) for seed in (0, 1)]
    found: list[Any] = [None, None]
    barrier = threading.Barrier(2)

    def run(seed: int) -> None:
        barrier.wait()
        found[seed] = work(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


ALONE = """
import importlib.abc, importlib.util, sys

PARTS = "arrange", "files", "foreign", "rnn", "weights"
ALLOWED = {"gategen", "gategen.layers", *("gategen.layers." + part for part in PARTS)}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        others = {"sympy", "jinja2", "click", "rich", "cupy", "torch", "keras", "onnx"}
        if top in others or (top == "gategen" and name not in ALLOWED):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from gategen import layers
spec = importlib.util.spec_from_file_location("gru_numpy", sys.argv[1])
gru = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gru)
import numpy as np
net = layers.RNN(gru, 3, 4, num_layers=2, bidirectional=True, dropout=0.5)
y, final = net(np.ones((5, 2, 3), np.float32), lengths=[5, 2])
net.backward(y, final)
layers.RNN.from_keras(net.to_keras(), gru)
"""


def test_layers_need_neither_sympy_nor_jinja_nor_anything_else_of_gategen():
    file = ROOT / "generated" / "gru_numpy.py"
    done = subprocess.run([sys.executable, "-c", ALONE, str(file)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["bidirectional", "batch_first"])
def test_what_is_true_or_false_is_nothing_else(module_of, name):
    for value in ("no", 1, None):
        with pytest.raises(TypeError, match=f"{name} is {value!r}, expected True or False"):
            RNN(module_of("gru"), 3, 4, **{name: value})
    net = RNN(module_of("gru"), 3, 4)
    with pytest.raises(TypeError, match="tape is 'x', expected True or False"):
        net(np.zeros((2, 1, 3), "float32"), tape="x")


def test_a_net_refuses_a_masked_array(module_of):
    net = RNN(module_of("gru"), 3, 4)
    x = np.ma.masked_array(np.zeros((2, 1, 3), "float32"), mask=True)
    with pytest.raises(TypeError, match="x is a masked array, whose mask would be lost"):
        net(x)


def test_another_array_in_the_place_of_a_parameter_is_refused(module_of):
    net = RNN(module_of("gru"), 3, 4, seed=0)
    with pytest.raises(TypeError, match=r"write into its own: parameters\['W_z_l0'\]\[...\] = array"):
        net.parameters()["W_z_l0"] = np.ones((4, 3), "float32")
    with pytest.raises(TypeError, match="does not become the net's"):
        net.parameters().update(W_z_l0=np.ones((4, 3), "float32"))
    before = copy.deepcopy(net.parameters())
    net.parameters()["W_z_l0"] -= 1  # in place, and then the same array under its name
    net.parameters()["W_r_l0"][...] = 0
    assert np.array_equal(net.parameters()["W_z_l0"], before["W_z_l0"] - 1)
    assert not net.parameters()["W_r_l0"].any()
    trained = net.parameters()
    trained |= {"V": np.ones(3)}  # what else is trained with it
    before["W_z_l0"] = trained["V"]  # a copy is a plain dictionary


def test_the_seed_of_a_net_may_be_a_generator(module_of):
    nets = [
        RNN(module_of("gru"), 3, 4, num_layers=2, dropout=0.5, seed=seed)
        for seed in (7, np.random.default_rng(7), np.random.SeedSequence(7))
    ]
    x = np.ones((5, 2, 3), "float32")
    for net in nets[1:]:
        for name, array in nets[0].parameters().items():
            assert np.array_equal(array, net.parameters()[name])
    runs = [net(x)[0] for net in nets]
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])


# -------------------------------------------------------------------------------- matrices as inputs

NODES = """
inputs: X[nodes, input], E[nodes, 2]
states: H[nodes, hidden]
fixed matrices: P[nodes, nodes]
matrices: W[input, hidden], U[hidden, hidden], V[2, hidden]
H' = tanh(P @ (X @ W) + H @ U + E @ V)
"""


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("constant", [False, True], ids=["in_time", "constant"])
def test_layers_read_matrices(batch_first, constant):
    rng = np.random.default_rng(0)
    options = {"nodes": 5, "P": rng.random((5, 5)), "dtype": "float64", "seed": 0}
    net = RNN(NODES, 3, 4, num_layers=2, bidirectional=True, batch_first=batch_first, **options)
    lead = (2, 6) if batch_first else (6, 2)
    x = rng.standard_normal((*lead, 5, 3))
    E = rng.standard_normal((2, 5, 2) if constant else (*lead, 5, 2))
    y, final = net(x, lengths=[6, 4], E=E)
    assert (y.shape, final.H.shape) == ((*lead, 5, 8), (4, 2, 5, 4))
    d_y, moves = rng.standard_normal(y.shape), (rng.standard_normal(x.shape), rng.standard_normal(E.shape))
    grads = net.backward(d_y)
    ends = [
        (net(x + e * moves[0], lengths=[6, 4], E=E + e * moves[1], tape=False)[0] * d_y).sum()
        for e in (1e-6, -1e-6)
    ]
    wanted = (ends[0] - ends[1]) / 2e-6
    assert abs((grads.x * moves[0]).sum() + (grads.inputs["E"] * moves[1]).sum() - wanted) < 1e-6
    first = x[0] if batch_first else x[:, 0]
    alone, _ = net(first, E=E[0] if constant or batch_first else E[:, 0])
    assert_close(alone, y[0] if batch_first else y[:, 0], 1e-13)


def test_layers_that_read_matrices_say_what_does_not_fit():
    net = RNN(NODES, 3, 4, nodes=5, P=np.eye(5))
    with pytest.raises(ValueError, match=r"x has shape \(6, 2, 3\), expected \(T, B, 5, 3\) or \(T, 5, 3\)"):
        net(np.zeros((6, 2, 3), np.float32), E=np.zeros((2, 5, 2), np.float32))
    text = NODES.replace("tanh(", "tanh(1 + ") + "y = sum_(H', over=nodes)\noutput: y\n"
    with pytest.raises(ValueError, match="the first output of cell is a vector, but a layer reads a matrix"):
        RNN(text, 3, 4, num_layers=2, nodes=5, P=np.eye(5))
