"""How weights lie in other libraries: the tables, every way and back, and what is refused.

The libraries themselves judge in `tests/conformance/test_weights_of_others.py`; here none is needed.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import gategen
from gategen import Cell
from gategen.judge.host import imported, written
from gategen.layers import RNN, weights
from gategen.layers.weights import CELLS, KERAS, ONNX, TORCH
from gategen.spec.load import builtins

ROOT = Path(__file__).parents[1]
H, I, P = 4, 3, 2  # noqa: E741
TO = {"torch": weights.torch_to_named, "keras": weights.keras_to_named, "onnx": weights.onnx_to_named}
OF = {"torch": weights.named_to_torch, "keras": weights.named_to_keras, "onnx": weights.named_to_onnx}
LIBRARIES = {"torch": TORCH, "keras": KERAS, "onnx": ONNX}


def module(name):
    return imported(ROOT / "generated" / f"{name}_numpy.py")


def net_of(cell, **options):
    sizes = {"projection": P} if cell.projection else {}
    return RNN(module(cell.name), I, H, seed=0, dtype="float64", **sizes, **options)


def fits(cell, library):
    try:
        weights.refuse(cell, LIBRARIES[library])
    except ValueError:
        return False
    return True


PAIRS = [(cell.name, library) for cell in CELLS for library in LIBRARIES if fits(cell, library)]


def state(kind="GRU", bias=True, **changed):
    """A `state_dict` of a PyTorch layer, with other arrays in the place of some; None takes one away."""
    G, rng = len(TORCH.orders[kind]), np.random.default_rng(0)
    shapes = {"weight_ih_l0": (G * H, I), "weight_hh_l0": (G * H, H)}
    shapes |= {"bias_ih_l0": (G * H,), "bias_hh_l0": (G * H,)} if bias else {}
    found = {name: rng.standard_normal(shape) for name, shape in shapes.items()} | changed
    return {name: array for name, array in found.items() if array is not None}


# ---------------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_equations_in_the_table_are_those_of_the_module(cell):
    assert weights.known(module(cell.name).EQUATIONS) is cell
    assert set(cell.equations) == set(builtins()[cell.name].text())


def test_every_cell_is_known_to_some_library_and_no_two_are_the_same():
    assert {name for name, _ in PAIRS} == {cell.name for cell in CELLS}
    assert len({frozenset(cell.equations) for cell in CELLS}) == len(CELLS)
    assert not fits(weights.named_cell("gru_before"), "torch") and fits(weights.named_cell("gru"), "keras")


@pytest.mark.parametrize(("name", "library"), PAIRS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])
def test_weights_go_there_and_back(name, library, bidirectional):
    cell = weights.named_cell(name)
    named = net_of(cell, num_layers=2, bidirectional=bidirectional).state_dict()
    if library != "onnx":
        named = {key: 0 * array if key.startswith("p_") else array for key, array in named.items()}
    back = TO[library](OF[library](named, cell), cell)
    assert back.keys() == named.keys()
    for key, array in named.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)


def test_the_gates_of_pytorch_are_r_z_n_and_i_f_g_o():
    gru, lstm = state("GRU"), state("LSTM")
    named = weights.torch_to_named(gru, weights.named_cell("gru_after"))
    for k, gate in enumerate("rzh"):
        rows = slice(k * H, (k + 1) * H)
        for letter, name in {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "c": "bias_hh"}.items():
            np.testing.assert_array_equal(named[f"{letter}_{gate}_l0"], gru[f"{name}_l0"][rows])
    named = weights.torch_to_named(lstm, weights.named_cell("lstm"))
    for k, gate in enumerate("ifgo"):
        rows = slice(k * H, (k + 1) * H)
        joined = lstm["bias_ih_l0"][rows] + lstm["bias_hh_l0"][rows]
        np.testing.assert_array_equal(named[f"U_{gate}_l0"], lstm["weight_hh_l0"][rows])
        np.testing.assert_array_equal(named[f"b_{gate}_l0"], joined)


def test_the_update_gate_of_chung_is_one_minus_that_of_keras():
    rng = np.random.default_rng(0)
    kernel, recurrent, bias = (rng.standard_normal(shape) for shape in ((I, 3 * H), (H, 3 * H), 3 * H))
    arrays = [[kernel, recurrent, bias]]
    net = RNN.from_keras(arrays, module=module("gru"))
    np.testing.assert_array_equal(net.parameters()["W_z_l0"], -kernel[:, :H].T)
    x = rng.standard_normal((5, 2, I))
    other = RNN.from_keras(arrays, module=module("gru_before"))
    np.testing.assert_allclose(net(x)[0], other(x)[0], rtol=0, atol=1e-14)


def test_missing_biases_are_zero():
    net = RNN.from_torch(state(bias=False), module=module("gru_after"))
    assert not any(array.any() for name, array in net.parameters().items() if name[0] in "bc")
    assert net.parameters()["W_z_l0"].any()


def test_the_names_of_a_cell_of_pytorch_have_no_layer():
    given = state("LSTM")
    short = {name.removesuffix("_l0"): array for name, array in given.items()}
    one, other = (RNN.from_torch(arrays, module=module("lstm")) for arrays in (given, short))
    for name, array in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], array)


@pytest.mark.parametrize(
    ("dtype", "found"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")]
)
def test_the_dtype_is_that_of_the_weights_or_the_one_that_is_given(dtype, found):
    given = {name: array.astype(dtype) for name, array in state().items()}
    net = RNN.from_torch(given, module=module("gru_after"))
    assert {array.dtype for array in net.parameters().values()} == {np.dtype(found)}
    net = RNN.from_torch(given, module=module("gru_after"), dtype="float64")
    assert {array.dtype for array in net.parameters().values()} == {np.dtype("float64")}


def test_without_a_module_that_of_the_built_in_cell_is_imported(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    assert RNN.from_torch(state()).module.NAME == "gru_after"
    assert RNN.from_torch(state("LSTM")).module.NAME == "lstm"
    assert RNN.from_torch(state("RNN")).module.NAME == "rnn"
    projected = state("LSTM", weight_hh_l0=np.ones((4 * H, P)), weight_hr_l0=np.ones((P, H)))
    net = RNN.from_torch(projected)
    assert net.module.NAME == "lstm_sak" and net(np.ones((2, 1, I)))[0].shape == (2, 1, P)


# ---------------------------------------------------------------------------------------------- refused


REFUSED = {
    "no layer": ({}, "there is nothing, expected weight_ih_l0, weight_hh_l0"),
    "rows": (
        state(weight_hh_l0=np.ones((9, H))),
        "weight_hh_l0 has shape (9, 4), expected (12, 4) for a GRU of 4",
    ),
    "columns": (state(bias_hh_l0=np.ones(11)), "bias_hh_l0 has shape (11,), expected (12,) for a GRU of 4"),
    "missing": (state(weight_ih_l0=None), "there is no weight_ih_l0"),
    "another name": (state(weight_xx_l0=np.ones(3)), "there is weight_xx_l0, expected weight_ih_l0"),
    "one bias": (state(weight_ih_l2=np.ones((12, H)), weight_hh_l2=np.ones((12, H))), "ends in _l1"),
    "numbers": (state(bias_ih_l0=np.full(12, "a")), "bias_ih_l0 has dtype <U1, expected numbers"),
    "projection": (state(weight_hr_l0=np.ones((P, H))), "gru_after is not of this kind (GRU, reset after"),
    "one direction": (
        state() | {"weight_hh_l0_reverse": np.ones((12, H))},
        "there are ['weight_hh_l0_reverse'],",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_state_dict_is_refused_by_what_is_there_and_what_should_be(what):
    given, message = REFUSED[what]
    with pytest.raises((TypeError, ValueError)) as error:
        RNN.from_torch(given, module=module("gru_after"))
    assert message in str(error.value)


def test_shapes_of_no_kind_are_refused_with_those_of_all():
    with pytest.raises(ValueError) as error:
        RNN.from_torch(state(weight_hh_l0=np.ones((9, H))))
    assert (
        "weight_hh_l0 has shape (9, 4), expected (4, 4) for RNN or (12, 4) for GRU or (16, 4) for LSTM"
        in str(error.value)
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([], "source is list"),
        ([np.ones((I, 3 * H))], "a layer has 1 arrays, expected 2 or 3"),
        ([np.ones((I, 3 * H)), np.ones((H, 3 * H))], "nothing tells where this GRU resets"),
        ([np.ones((I, 3 * H)), np.ones((H, 5 * H))], "recurrent_kernel has shape (4, 20), expected (4, 4)"),
        (
            [np.ones((I, 3 * H)), np.ones((H, 3 * H)), np.ones(3 * H + 1)],
            "bias of layer 0 has shape (13,), expected (12,) for a GRU of 4, gru_before",
        ),
        (
            [[np.ones((I, H)), np.ones((H, H))], [np.ones((I, H)), np.ones((H, H))]],
            "kernel of layer 1 has shape (3, 4), expected (4, 4) for an RNN of 4",
        ),
        (7, "source is int"),
    ],
)  # fmt: skip
def test_wrong_weights_of_keras_are_refused(monkeypatch, arrays, message):
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises((TypeError, ValueError)) as error:
        RNN.from_keras(arrays)
    assert message in str(error.value)


def test_a_module_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"gru_before is not of this kind .* is gru_after"):
        RNN.from_torch(state(), module=module("gru_before"))
    with pytest.raises(
        ValueError, match="mgu1 is no cell whose weights other libraries have; those are gru_after"
    ):
        RNN.from_torch(state(), module=module("mgu1"))
    with pytest.raises(TypeError, match="module is str"):
        RNN.from_torch(state(), module="gru_after")
    with pytest.raises(TypeError, match="source is int, expected a layer of PyTorch"):
        RNN.from_torch(3)


def test_a_module_that_is_not_there_is_made(monkeypatch):
    empty = ModuleType("generated")
    empty.__path__ = []
    monkeypatch.setitem(sys.modules, "generated", empty)
    monkeypatch.delitem(sys.modules, "generated.gru_after_numpy", raising=False)
    assert RNN.from_torch(state()).module is gategen.compile("gru_after")


EQUATION = "h' = tanh(W_h @ x + U_h @ h + b_h)\n"


@pytest.mark.parametrize(
    "text",
    ["states: h = 0.5\n" + EQUATION, EQUATION + "first:\n    h' = W_h @ x + b_h\n"],
    ids=["another_start", "a_first_step"],
)
def test_a_cell_with_a_start_of_its_own_is_refused(tmp_path, text):
    cell = Cell.parse("mine", text)
    mine = imported(written(cell, "numpy", tmp_path))
    assert weights.known(mine.EQUATIONS).name == "rnn"
    with pytest.raises(ValueError, match="mine has a start of its own"):
        RNN.from_torch(state("RNN"), module=mine)
    with pytest.raises(ValueError, match="mine has a start of its own"):
        RNN(mine, I, H).to_keras()


def test_a_renamed_cell_is_known_by_its_equations(tmp_path):
    mine = imported(written(builtins()["lstm"].renamed("mine"), "numpy", tmp_path))
    assert RNN.from_torch(state("LSTM"), module=mine).module is mine


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gru", "PyTorch does not have gru, a GRU that resets before"),
        ("lstm_cifg", "PyTorch does not have lstm_cifg, an LSTM of which two gates are one"),
        ("lstm_peephole", "PyTorch has no peepholes, and those of lstm_peephole are not 0"),
        ("ligru_nobn", "ligru_nobn is no cell"),
    ],
)
def test_what_pytorch_does_not_have_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        RNN(module(name), I, H).to_torch()


def test_what_keras_does_not_have_is_refused():
    with pytest.raises(ValueError, match="Keras does not have lstm_sak, an LSTM with a projection"):
        RNN(module("lstm_sak"), I, H, projection=P).to_keras()


def test_a_layer_of_keras_that_is_otherwise_is_refused():
    class GRU:
        def __init__(self, **config):
            self.config = {"activation": "tanh", "reset_after": True, **config}

        def get_config(self):
            return self.config

        def get_weights(self):
            return [np.ones((I, 3 * H)), np.ones((H, 3 * H)), np.ones((2, 3 * H))]

    class Dense(GRU):
        pass

    after = module("gru_after")
    assert RNN.from_keras(GRU(), module=after).batch_first
    assert RNN.from_keras(GRU(use_bias=True), module=after).hidden_size == H
    both = SimpleNamespace(forward_layer=GRU(), backward_layer=GRU(go_backwards=True), get_config=dict)
    both.get_weights = lambda: [*GRU().get_weights(), *GRU().get_weights()]
    for layer, message in (
        (GRU(recurrent_activation="hard_sigmoid"), "recurrent_activation of a GRU is 'hard_sigmoid'"),
        (GRU(go_backwards=True), "go_backwards of a GRU is True, expected False"),
        (
            GRU(activation="relu"),
            "gru_after is not of this kind .GRU, reset after the product, relu.; of that",
        ),
        (GRU(reset_after=False), "is gru_before, gru"),
        (Dense(), "Dense is none of GRU, LSTM, SimpleRNN"),
        ([GRU(), GRU(reset_after=False)], "layers of one net are alike"),
        (both, "merge_mode of a SimpleNamespace is None, expected 'concat'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            RNN.from_keras(layer, module=after)
    both.get_config = lambda: {"merge_mode": "concat"}
    assert RNN.from_keras(both, module=after).bidirectional


def node(op_type="GRU", **attributes):
    """A node of ONNX, as far as it is read."""
    made = []
    for name, value in attributes.items():
        held = SimpleNamespace(name=name, s=b"", i=0, strings=[])
        field = {str: "s", int: "i", list: "strings"}[type(value)]
        coded = (
            [s.encode() for s in value] if field == "strings" else value.encode() if field == "s" else value
        )
        setattr(held, field, coded)
        made.append(held)
    return SimpleNamespace(op_type=op_type, name="n", input=[], attribute=made)


def test_a_node_of_onnx_that_is_otherwise_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    arrays = {"W": np.ones((1, 3 * H, I)), "R": np.ones((1, 3 * H, H))}
    assert RNN.from_onnx(node(), arrays=arrays).module.NAME == "gru_before"
    assert RNN.from_onnx(node(linear_before_reset=1, layout=1), arrays=arrays).module.NAME == "gru_after"
    for wrong, message in (
        (node(direction="reverse"), "runs in reverse alone"),
        (node(clip=1), "the node clips"),
        (
            node(activations=["Relu", "Tanh"]),
            "the activations are \\['Relu', 'Tanh'\\], expected \\['Sigmoid'",
        ),
        (node("MatMul"), "the node is a MatMul, expected GRU"),
        (node("LSTM"), "W of layer 0 has shape \\(1, 12, 3\\), expected \\(1, 16, 3\\) for an LSTM of 4"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            RNN.from_onnx(wrong, arrays=arrays)
    with pytest.raises(ValueError, match="layer 0 has \\[\\], expected"):
        RNN.from_onnx(node(), arrays={})
