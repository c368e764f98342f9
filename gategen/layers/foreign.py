"""Reading layers of PyTorch and Keras, and nodes of ONNX: which cell they are, their weights, their options.

What comes from PyTorch and Keras is told by what it offers, and neither is imported; `onnx` is, where a file
is read. How the arrays lie is in `weights.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from gategen.layers.arrange import kind
from gategen.layers.weights import (
    CELLS,
    ONNX,
    TORCH,
    Array,
    Known,
    keras_kind,
    keras_to_named,
    known,
    onnx_to_named,
    torch_kind,
    torch_to_named,
)


@dataclass(frozen=True)
class Found:
    """A net of another library: the module of its cell, the parameters by our names, and how it is called."""

    module: ModuleType
    cell: Known
    named: Mapping[str, Array]
    options: Mapping[str, Any] = field(default_factory=dict)  # of `RNN`: batch_first, dropout
    training: bool = True


# ---------------------------------------------------------------------------------------------- PyTorch


def of_torch(source: Any, module: ModuleType | None) -> Found:
    """An `nn.GRU`, `nn.LSTM`, `nn.RNN`, one of their `Cell`s, or a `state_dict` of one.

    Raises TypeError, and ValueError for one that the module is not the cell of.
    """
    layer = None if isinstance(source, Mapping) else source
    if layer is not None and not callable(getattr(layer, "state_dict", None)):
        raise TypeError(f"source is {kind(source)}, expected a layer of PyTorch or its state_dict")
    state = source if layer is None else layer.state_dict()
    form = torch_kind(state) if module is None else _cell_of(module).kind
    projected = any("weight_hr" in name for name in state)
    activation = getattr(layer, "nonlinearity", None) if form == "RNN" else None
    wanted = _Wanted(form, after=form == "GRU" or None, activation=activation, projected=projected)
    found, cell = _module(wanted, module)
    options = {
        "batch_first": bool(getattr(layer, "batch_first", False)),
        "dropout": float(getattr(layer, "dropout", 0.0)),
    }
    named = torch_to_named(state, cell)
    return Found(found, cell, named, options, bool(getattr(layer, "training", True)))


def made_torch(state: Mapping[str, Array], cell: Known, **options: Any) -> Any:
    """A layer of PyTorch with a `state_dict`; `options` are those of its constructor."""
    torch = import_module("torch")
    if cell.kind == "RNN":
        options["nonlinearity"] = cell.activation
    if cell.projection:
        options["proj_size"] = len(state["weight_hr_l0"])
    first = state["weight_ih_l0"]
    hidden, dtype = len(first) // len(TORCH.orders[cell.kind]), np.result_type(first.dtype, np.float32)
    layer = getattr(torch.nn, cell.kind)(first.shape[1], hidden, dtype=getattr(torch, str(dtype)), **options)
    layer.load_state_dict({name: torch.tensor(array.astype(dtype)) for name, array in state.items()})
    return layer


# ---------------------------------------------------------------------------------------------- Keras


def of_keras(source: Any, module: ModuleType | None) -> Found:
    """A layer `GRU`, `LSTM`, `SimpleRNN` or `Bidirectional` of one; several, one on the other; or arrays.

    Arrays are those of `get_weights`, a list, or one such list for every layer. Raises TypeError, and
    ValueError for a layer that the module is not the cell of, or that no cell here is as.
    """
    layers = source if isinstance(source, Sequence) else [source]
    if layers and all(hasattr(layer, "get_weights") for layer in layers):
        forms = [_keras_form(layer) for layer in layers]
        if other := next((form for form in forms if form != forms[0]), None):
            raise ValueError(f"layers of one net are alike, and these are {forms[0]} and {other}")
        arrays, wanted = [layer.get_weights() for layer in layers], forms[0]
    elif layers and all(hasattr(array, "shape") for array in layers):
        arrays, wanted = [layers], _of_shapes(layers)  # of one layer
    elif layers and all(isinstance(layer, Sequence) and layer for layer in layers):
        arrays, wanted = list(layers), _of_shapes(layers[0])
    else:
        raise TypeError(f"source is {kind(source)}, expected layers of Keras or what get_weights gives")
    found, cell = _module(wanted, module)
    return Found(found, cell, keras_to_named(arrays, cell), {"batch_first": True})


def _of_shapes(arrays: Sequence[Any]) -> _Wanted:
    """What the weights of a layer of Keras tell of it."""
    form = keras_kind(arrays)
    after = None
    if form == "GRU" and len(arrays) in (3, 6):
        after = len(arrays[2].shape) == 2
    return _Wanted(form, after=after)


_KERAS = {"GRU": "GRU", "LSTM": "LSTM", "SimpleRNN": "RNN"}


def _keras_form(layer: Any) -> _Wanted:
    """What a layer of Keras says of itself. Raises TypeError and ValueError."""
    if not hasattr(layer, "forward_layer"):
        return _keras_direction(layer, turned=False)
    if (mode := layer.get_config().get("merge_mode")) != "concat":
        raise ValueError(f"merge_mode of a {kind(layer)} is {mode!r}, expected 'concat'")
    forms = [_keras_direction(layer.forward_layer, False), _keras_direction(layer.backward_layer, True)]
    if forms[0] != forms[1]:
        raise ValueError(f"the directions of a layer are alike, and these are {forms[0]} and {forms[1]}")
    return forms[0]


def _keras_direction(layer: Any, turned: bool) -> _Wanted:
    """What one direction of a layer says of itself."""
    name, config = kind(layer), layer.get_config()
    if name not in _KERAS:
        raise TypeError(f"{name} is none of {', '.join(_KERAS)}, or Bidirectional of one")
    for option, taken in (("recurrent_activation", "sigmoid"), ("go_backwards", turned)):
        if config.get(option, taken) != taken:
            raise ValueError(f"{option} of a {name} is {config[option]!r}, expected {taken!r}")
    after = bool(config["reset_after"]) if "reset_after" in config else None
    return _Wanted(_KERAS[name], after=after, activation=str(config["activation"]))


# ---------------------------------------------------------------------------------------------- ONNX


def of_onnx(
    source: Any,
    nodes: str | Iterable[str] | None,
    arrays: Mapping[str, Any] | None,
    module: ModuleType | None,
) -> Found:
    """A model, the path of one, or a node GRU, LSTM or RNN whose `arrays` are given by ONNX's names.

    `nodes` are the names of those nodes of a model that are the layers, from the first; needed where there
    are several. Raises ModuleNotFoundError without the package onnx, OSError, TypeError and ValueError.
    """
    if hasattr(source, "op_type"):
        layers = [(source, dict(arrays or {}))]
    else:
        model = source if hasattr(source, "graph") else _onnx_file(source)
        layers = _onnx_layers(model.graph, nodes)
    forms = [_onnx_form(node, given) for node, given in layers]
    if other := next((form for form in forms if form != forms[0]), None):
        raise ValueError(f"layers of one net are alike, and these are {forms[0]} and {other}")
    wanted, batch_first = forms[0]
    found, cell = _module(wanted, module)
    named = onnx_to_named([{n: a for n, a in given.items() if n in "WRBP"} for _, given in layers], cell)
    return Found(found, cell, named, {"batch_first": batch_first})


def _onnx_file(source: Any) -> Any:
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source is {kind(source)}, expected the path of a model, a model, or a node")
    try:
        onnx = import_module("onnx")
    except ImportError as error:
        raise ModuleNotFoundError(
            "reading ONNX needs onnx: pip install 'gategen[onnx]'", name="onnx"
        ) from error
    with open(source, "rb") as file:  # an OSError that names the file
        file.read(1)
    try:
        return onnx.load(os.fspath(source))
    except Exception as error:  # bytes of any kind
        raise ValueError(f"{os.fspath(source)} is no ONNX model, or not whole") from error


_ONNX_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def _onnx_layers(graph: Any, names: str | Iterable[str] | None) -> list[tuple[Any, dict[str, Any]]]:
    """The nodes that are the layers, and their weights by ONNX's names for them. Raises ValueError."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return [(node, _onnx_weights(node, constants)) for node in _onnx_nodes(graph, names)]


def _onnx_nodes(graph: Any, names: str | Iterable[str] | None) -> list[Any]:
    there = [node for node in graph.node if node.op_type in ONNX.orders]
    by_name = {node.name: node for node in there}
    if names is None:
        if not there:
            raise ValueError("the model has no node GRU, LSTM or RNN")
        if len(there) > 1:
            raise ValueError(
                f"the model has {len(there)} nodes, {sorted(by_name)}: nodes= says which are layers"
            )
        return there
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in by_name:
            raise ValueError(f"there is no node {name!r} among {sorted(by_name)}")
    if not chosen:
        raise ValueError("nodes is empty")
    return [by_name[name] for name in chosen]


def _onnx_weights(node: Any, constants: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a node, which must be in the model; a start from another state than 0 must not be."""
    to_array = import_module("onnx.numpy_helper").to_array
    label = node.name or node.op_type
    given = {}
    for argument, name in zip(_ONNX_INPUTS, node.input, strict=False):
        if argument in "WRBP" and name:
            if name not in constants:
                raise ValueError(f"{argument} of {label} is computed, expected an initializer")
            given[argument] = to_array(constants[name])
        if argument.startswith("initial") and name in constants and np.any(to_array(constants[name])):
            raise ValueError(
                f"{argument} of {label} is not 0: leave it out, and give it to the net as initial"
            )
    return given


def _onnx_form(node: Any, given: Mapping[str, Any]) -> tuple[_Wanted, bool]:
    """What the attributes say of a node, and whether the batch comes first. Raises ValueError."""
    kind_ = node.op_type
    if kind_ not in ONNX.orders:
        raise TypeError(f"the node is a {kind_}, expected GRU, LSTM or RNN")
    held = {attribute.name: attribute for attribute in node.attribute}
    direction = held["direction"].s.decode() if "direction" in held else "forward"
    if direction == "reverse":
        raise ValueError("the node runs in reverse alone; a net runs forward, or both ways")
    if "clip" in held:
        raise ValueError("the node clips, and no cell here does")
    usual = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}[kind_]
    turns = 2 if direction == "bidirectional" else 1
    activations = (
        [s.decode() for s in held["activations"].strings] if "activations" in held else usual * turns
    )
    activation = "tanh"
    if kind_ == "RNN" and activations == ["Relu"] * turns:
        activation = "relu"
    elif activations != usual * turns:
        raise ValueError(f"the activations are {activations}, expected {usual * turns}")

    def flag(name: str) -> bool:
        return name in held and held[name].i != 0

    wanted = _Wanted(
        kind_,
        after=flag("linear_before_reset") if kind_ == "GRU" else None,
        activation=activation,
        peepholes="P" in given,
        coupled=flag("input_forget"),
    )
    return wanted, flag("layout")


# ---------------------------------------------------------------------------------------------- modules


@dataclass(frozen=True)
class _Wanted:
    """What is known of a cell; None where nothing tells."""

    kind: str
    after: bool | None = None  # of a GRU
    activation: str | None = None
    projected: bool = False
    peepholes: bool = False
    coupled: bool = False

    def __str__(self) -> str:
        words = [self.kind]
        if self.after is not None:
            words.append(f"reset {'after' if self.after else 'before'} the product")
        words += (
            [self.activation] if self.activation and (self.kind == "RNN" or self.activation != "tanh") else []
        )
        words += [name for name in ("projected", "peepholes", "coupled") if getattr(self, name)]
        return ", ".join(words)

    def fits(self, cell: Known) -> bool:
        """Whether the cell can be that; it may have peepholes and be given none."""
        return (
            cell.kind == self.kind
            and self.after in (None, cell.after)
            and self.activation in (None, cell.activation)
            and self.projected == bool(cell.projection)
            and self.coupled == cell.coupled
        )


def _module(wanted: _Wanted, module: ModuleType | None) -> tuple[ModuleType, Known]:
    """The module that was given, if it can be what is wanted, or that of the built-in cell which is."""
    if module is not None:
        cell = _cell_of(module)
        if not wanted.fits(cell):
            names = ", ".join(cell.name for cell in CELLS if wanted.fits(cell)) or "none here"
            raise ValueError(f"{module.NAME} is not of this kind ({wanted}); of that kind is {names}")
        return module, cell
    if wanted.kind == "GRU" and wanted.after is None:
        raise ValueError("nothing tells where this GRU resets: give module=, that of gru_before or gru_after")
    fitting = [cell for cell in CELLS if wanted.fits(cell)]
    if wanted.peepholes:
        fitting = [cell for cell in fitting if cell.peepholes]
    if not fitting:
        raise ValueError(f"no cell here is of this kind ({wanted})")
    cell = fitting[0]
    name = f"generated.{cell.name}_numpy"
    try:
        return import_module(name), cell
    except ModuleNotFoundError as error:
        if error.name not in ("generated", name):
            raise
    from gategen.compiled import compile

    return compile(cell.name), cell


def _cell_of(module: Any) -> Known:
    if not hasattr(module, "EQUATIONS"):
        raise TypeError(f"module is {kind(module)}, expected a module that gategen has generated")
    return known(module.EQUATIONS, module.NAME)
