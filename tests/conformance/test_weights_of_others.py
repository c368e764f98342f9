"""Weights of PyTorch, Keras and ONNX in nets of `gategen.layers`: the libraries themselves judge."""

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from gategen.judge.host import imported
from gategen.layers import RNN

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = import_module("keras")  # now that it knows what to compute with

ROOT = Path(__file__).parents[2]
T, B, I, H = 7, 4, 5, 6  # noqa: E741
LENGTHS = (3, T, 1, 5)
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(autouse=True)
def generated(monkeypatch):
    """Modules of built-in cells can be imported, as they can where a user stands."""
    monkeypatch.syspath_prepend(ROOT)


def module(name):
    return imported(ROOT / "generated" / f"{name}_numpy.py")


def close(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[str(wanted.dtype)])


# ---------------------------------------------------------------------------------------------- PyTorch

LAYERS = {
    "GRU": (torch.nn.GRU, {}),
    "GRU without biases": (torch.nn.GRU, {"bias": False}),
    "LSTM": (torch.nn.LSTM, {}),
    "LSTM without biases": (torch.nn.LSTM, {"bias": False}),
    "projected LSTM": (torch.nn.LSTM, {"proj_size": 3}),
    "tanh": (torch.nn.RNN, {}),
    "relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
}


def trained(layer: Any, steps: int = 5) -> Any:
    """The layer after a few steps towards random outputs: no weight and no bias is as it was drawn."""
    torch.manual_seed(1)
    dtype = next(layer.parameters()).dtype
    x = torch.randn(T, B, I, dtype=dtype)
    wanted = torch.randn_like(layer(x)[0])
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        ((layer(x)[0] - wanted) ** 2).mean().backward()
        optimiser.step()
    return layer.eval()


def run_torch(layer: Any, x: np.ndarray, lengths: Any = None, initial: Any = None) -> list[np.ndarray]:
    """The outputs and the final states."""
    hx = None
    if initial is not None:
        hx = tuple(map(torch.tensor, initial))
        hx = hx if len(hx) > 1 else hx[0]
    with torch.no_grad():
        if lengths is None:
            y, final = layer(torch.tensor(x), hx)
        else:
            options = {"batch_first": layer.batch_first}
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                torch.tensor(x), torch.tensor(lengths), enforce_sorted=False, **options
            )
            y, final = layer(packed, hx)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, **options)
    return [a.numpy() for a in (y, *(final if isinstance(final, tuple) else (final,)))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_trained_layer_of_pytorch_gives_the_same_numbers_and_goes_back(name, bidirectional, dtype):
    kind, options = LAYERS[name]
    torch.manual_seed(0)
    layer = kind(I, H, num_layers=2, bidirectional=bidirectional, **options, dtype=getattr(torch, dtype))
    layer = trained(layer)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    for source in (layer, layer.state_dict()):
        if name == "relu" and source is not layer:
            net = RNN.from_torch(source, module("irnn"))  # arrays do not tell
        else:
            net = RNN.from_torch(source)
        for lengths in (None, LENGTHS):
            _, *final = run_torch(layer, x)
            start = [rng.standard_normal(state.shape).astype(dtype) for state in final]
            for initial in (None, start):
                wanted, *final = run_torch(layer, x, lengths, initial)
                y, our_final = net(x, initial, lengths)
                close(y, wanted)
                for found, state in zip(our_final, final, strict=True):
                    close(found, state)
    back = net.eval().to_torch()
    assert type(back) is kind and not back.training
    for found, array in zip(run_torch(back, x, LENGTHS), run_torch(layer, x, LENGTHS), strict=True):
        close(found, array)


def test_the_options_of_a_layer_come_along():
    layer = torch.nn.GRU(I, H, num_layers=3, batch_first=True, dropout=0.25)
    net = RNN.from_torch(layer)
    assert (net.num_layers, net.batch_first, net.dropout, net.training) == (3, True, 0.25, True)
    back = net.to_torch()
    assert (back.num_layers, back.batch_first, back.dropout, back.training) == (3, True, 0.25, True)
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype("float32")
    close(net.eval()(x)[0], run_torch(layer.eval(), x)[0])


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell", "RNNCell"])
def test_a_cell_of_pytorch_is_one_layer(name):
    torch.manual_seed(0)
    cell = getattr(torch.nn, name)(I, H)
    x = np.random.default_rng(0).standard_normal((B, I)).astype("float32")
    with torch.no_grad():
        wanted = cell(torch.tensor(x))
    net = RNN.from_torch(cell)
    close(net(x[None])[0][0], (wanted[0] if isinstance(wanted, tuple) else wanted).numpy())


def test_bfloat16_becomes_float32():
    layer = torch.nn.GRU(I, H, dtype=torch.bfloat16)
    net = RNN.from_torch(layer)
    assert net.parameters()["W_z_l0"].dtype == np.float32
    np.testing.assert_array_equal(net.parameters()["W_r_l0"], layer.weight_ih_l0.detach().float().numpy()[:H])


def test_the_gru_of_chung_and_that_of_pytorch_are_no_two_names_of_one():
    with pytest.raises(ValueError, match="gru is not of this kind"):
        RNN.from_torch(torch.nn.GRU(I, H), module("gru"))


# ---------------------------------------------------------------------------------------------- Keras

L = keras.layers
KERAS = {
    "GRU": lambda **options: L.GRU(H, **options),
    "GRU before": lambda **options: L.GRU(H, reset_after=False, **options),
    "GRU without biases": lambda **options: L.GRU(H, use_bias=False, **options),
    "LSTM": lambda **options: L.LSTM(H, **options),
    "tanh": lambda **options: L.SimpleRNN(H, **options),
    "relu": lambda **options: L.SimpleRNN(H, activation="relu", **options),
}
CELL = {
    "GRU": "gru_after",
    "GRU before": "gru_before",
    "GRU without biases": "gru_after",
    "LSTM": "lstm",
    "tanh": "rnn",
    "relu": "irnn",
}


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])
@pytest.mark.parametrize("name", KERAS)
def test_layers_of_keras_give_the_same_numbers_and_go_back(name, bidirectional):
    keras.utils.set_random_seed(0)
    options = {"return_sequences": True, "bias_initializer": "random_normal"}
    made = [KERAS[name](**options) for _ in range(2)]
    layers = [L.Bidirectional(layer) for layer in made] if bidirectional else made
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype("float32")
    wanted = keras.ops.convert_to_numpy(layers[1](layers[0](x)))
    for source in (layers, [layer.get_weights() for layer in layers]):
        shapes_tell = name != "GRU without biases" and name != "relu"
        net = RNN.from_keras(source, None if source is layers or shapes_tell else module(CELL[name]))
        assert (net.module.NAME, net.num_layers, net.batch_first) == (CELL[name], 2, True)
        close(net(x)[0], wanted)
    for layer, arrays in zip(layers, net.to_keras(), strict=True):
        layer.set_weights(arrays if "without" not in name else [a for a in arrays if a.shape != (2, 3 * H)])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layers[1](layers[0](x))), wanted)


def test_one_layer_of_keras_alone_and_its_arrays_alone():
    layer = L.LSTM(H)
    x = np.random.default_rng(0).standard_normal((B, T, I)).astype("float32")
    wanted = keras.ops.convert_to_numpy(layer(x))
    for source in (layer, layer.get_weights()):
        close(RNN.from_keras(source)(x)[0][:, -1], wanted)


def test_as_many_layers_are_read_as_the_page_says():
    assert len(LAYERS) * len(TOLERANCE) * 2 + len(KERAS) * 2 == 40


# ---------------------------------------------------------------------------------------------- ONNX

NODES = {
    "gru_before": ("GRU", 3, {}),
    "gru_after": ("GRU", 3, {"linear_before_reset": 1}),
    "lstm": ("LSTM", 4, {}),
    "lstm_peephole": ("LSTM", 4, {}),
    "lstm_cifg": ("LSTM", 4, {"input_forget": 1}),
    "rnn": ("RNN", 1, {}),
    "irnn": ("RNN", 1, {"activations": ["Relu"]}),
}


def model_of(name: str, bidirectional: bool, biases: bool = True) -> Any:
    """A model with one node, its weights as initializers."""
    operator, G, attributes = NODES[name]
    rng, D = np.random.default_rng(0), 2 if bidirectional else 1
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H)}
    shapes |= {"B": (D, 2 * G * H)} if biases else {}
    shapes |= {"P": (D, 3 * H)} if name in ("lstm_peephole", "lstm_cifg") else {}
    weights = [from_array((0.4 * rng.standard_normal(s)).astype("float32"), n) for n, s in shapes.items()]
    attributes = {**attributes, "hidden_size": H, "direction": "bidirectional" if D == 2 else "forward"}
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * D
    inputs = ["x", *(n if n in shapes else "" for n in ("W", "R", "B", "lengths", "h", "c", "P"))]
    inputs = inputs[: max(k for k, n in enumerate(inputs) if n) + 1]
    outputs = ["y", "final_h", "final_c"][: 3 if operator == "LSTM" else 2]
    node = make_node(operator, inputs, outputs, name="layer", **attributes)
    graph = make_graph(
        [node],
        "model",
        [make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", I])],
        [make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        weights,
    )
    return make_model(graph, opset_imports=[make_opsetid("", 14)], ir_version=8)


@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no_biases"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])
@pytest.mark.parametrize("name", NODES)
def test_a_node_gives_the_same_numbers_as_in_onnxruntime(tmp_path, name, bidirectional, biases):
    model = model_of(name, bidirectional, biases)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    x = np.random.default_rng(1).standard_normal((T, B, I)).astype("float32")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    y, *final = session.run(None, {"x": x})
    (node,) = model.graph.node
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for net in (RNN.from_onnx(path), RNN.from_onnx(model, "layer"), RNN.from_onnx(node, arrays=arrays)):
        assert (net.module.NAME, net.bidirectional) == (name, bidirectional)
        found, our_final = net(x)
        close(found, np.moveaxis(y, 1, 2).reshape(found.shape))
        for one, state in zip(our_final, final, strict=True):
            close(one, state)


def test_two_layers_that_pytorch_exports_are_found_by_their_names(tmp_path):
    layer = torch.nn.GRU(I, H, num_layers=2, bidirectional=True).eval()
    path = tmp_path / "gru.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (torch.randn(T, B, I),), str(path), dynamo=False, opset_version=17)
    names = [node.name for node in onnx.load(path).graph.node if node.op_type == "GRU"]
    assert len(names) == 2
    with pytest.raises(ValueError, match="the model has 2 nodes"):
        RNN.from_onnx(path)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype("float32")
    close(RNN.from_onnx(path, names)(x)[0], run_torch(layer, x)[0])


def test_wrong_models_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError):
        RNN.from_onnx(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"model\.onnx is no ONNX model"):
        RNN.from_onnx(path)
    model = model_of("rnn", False)
    with pytest.raises(ValueError, match="there is no node 'other' among"):
        RNN.from_onnx(model, "other")
    with pytest.raises(ValueError, match="nodes is empty"):
        RNN.from_onnx(model, [])
    model.graph.node[0].input.extend(["", "start"])
    model.graph.initializer.append(from_array(np.zeros((1, 2, H), "float32"), "start"))
    assert RNN.from_onnx(model).hidden_size == H
    model.graph.initializer.pop()
    model.graph.initializer.append(from_array(np.ones((1, 2, H), "float32"), "start"))
    with pytest.raises(ValueError, match="initial_h of layer is not 0"):
        RNN.from_onnx(model)
    model.graph.initializer.pop()
    del model.graph.initializer[0]
    with pytest.raises(ValueError, match="W of layer is computed"):
        RNN.from_onnx(model)
    del model.graph.node[0]
    with pytest.raises(ValueError, match="the model has no node GRU, LSTM or RNN"):
        RNN.from_onnx(model)
    with pytest.raises(TypeError, match="source is int"):
        RNN.from_onnx(3)
