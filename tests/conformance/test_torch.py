"""The generated NumPy modules against PyTorch: its own GRU, LSTM and RNN, and autograd for every cell."""

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import with_stated
from reference import REFERENCES, outputs_of, run, torch_functions

from gategen.judge.host import imported, written
from gategen.spec.load import builtins

CELLS = builtins()
TORCH = torch_functions()
T, B, I, H = 6, 5, 4, 3  # noqa: E741
LENGTHS = (3, 0, T, 1, T)
POSITIVE = (3, 2, T, 1, T)  # PyTorch knows no empty sequence

with_initial = pytest.mark.parametrize("given", [True, False], ids=["given_start", "own_start"])

# Which gates a layer of PyTorch stacks, in which order, and the names of both biases here.
LAYERS = {
    "gru_after": (torch.nn.GRU, "rzh", "b", "c"),
    "lstm": (torch.nn.LSTM, "ifgo", "b", None),
    "rnn": (torch.nn.RNN, "h", "b", None),
}


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    return cache(lambda name: imported(written(CELLS[name], "numpy", folder)))


def draws(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Every parameter, every input, the initial states, and the gradients of what comes out."""
    rng = np.random.default_rng(seed)
    reference = REFERENCES[name]
    made = {key: 0.5 * rng.standard_normal(shape) for key, shape in reference.shapes(I, H).items()}
    widths = reference.widths(I, H)
    made |= {s: rng.standard_normal((T, B, *widths[s])) for s in ("x", *reference.inputs)}
    made |= {f"d_output.{s}": rng.standard_normal((T, B, *widths[s])) for s in reference.outputs}
    for s in reference.states:
        made[f"initial.{s}"] = rng.uniform(0.2, 0.8, (B, *widths[s]))
        made[f"d_final.{s}"] = rng.standard_normal((B, *widths[s]))
    return made


def run_module(
    module: ModuleType, name: str, arrays: Mapping[str, np.ndarray], given: bool, **options: Any
) -> dict[str, np.ndarray]:
    """The outputs, the final states and the gradients of everything."""
    reference = REFERENCES[name]
    params = module.pack(with_stated(CELLS[name], {key: arrays[key] for key in reference.params}))
    initial = module.States(**{s: arrays[f"initial.{s}"] for s in reference.states}) if given else None
    options |= {s: arrays[s] for s in reference.inputs}
    y, final, tape = module.forward(params, arrays["x"], initial=initial, **options)
    d_final = module.States(**{s: arrays[f"d_final.{s}"] for s in reference.states})
    d_y = tuple(arrays[f"d_output.{s}"] for s in reference.outputs)
    grads = module.backward(params, tape, d_y if len(d_y) > 1 else d_y[0], d_final)
    found = {f"output.{s}": out for s, out in zip(reference.outputs, outputs_of(y), strict=True)}
    found |= {f"d_{s}": d for s, d in zip(("x", *reference.inputs), grads[1:-1], strict=True)}
    found |= {f"d_{key}": value for key, value in module.unpack(grads.params).items()}
    for s in reference.states:
        found[s] = getattr(final, s)
        if given:
            found[f"d_initial.{s}"] = getattr(grads.initial, s)
    return found


def leaves(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {key: torch.tensor(value, requires_grad=not key.startswith("d_")) for key, value in arrays.items()}


def pull(y: Any, final: Mapping[str, Any], name: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs and final states by name, once their weighted sum was differentiated."""
    outputs = dict(zip(REFERENCES[name].outputs, outputs_of(y), strict=True))
    loss = sum((out * tensors[f"d_output.{s}"]).sum() for s, out in outputs.items())
    (loss + sum((final[s] * tensors[f"d_final.{s}"]).sum() for s in final)).backward()
    return {f"output.{s}": out for s, out in outputs.items()} | dict(final)


def assert_same(found: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> None:
    """Values to 1e-12 of the largest entry, gradients to 1e-11."""
    assert set(wanted) <= set(found)
    for key, tensor in wanted.items():
        value = np.zeros_like(found[key]) if tensor is None else tensor.detach().numpy()
        assert found[key].shape == value.shape, key
        tolerance = 1e-11 if key.startswith("d_") else 1e-12
        error = np.abs(found[key] - value).max(initial=0)
        assert error <= tolerance * max(np.abs(value).max(initial=0), 1e-3), f"{key} is off by {error}"


# -------------------------------------------------------------------------------- PyTorch's own layers


def stacked(letter: str, gates: str, tensors: Mapping[str, Any]) -> Any:
    return torch.cat([tensors[f"{letter}_{gate}"] for gate in gates])


def as_layer(name: str, tensors: Mapping[str, Any]) -> Any:
    """PyTorch's layer as a function of these tensors, which thus get gradients under our names."""
    kind, gates, b, c = LAYERS[name]
    bias = stacked(b, gates, tensors)
    weights = {
        "weight_ih_l0": stacked("W", gates, tensors),
        "weight_hh_l0": stacked("U", gates, tensors),
        "bias_ih_l0": bias,
        "bias_hh_l0": stacked(c, gates, tensors) if c else torch.zeros_like(bias),
    }
    layer = kind(I, H).double()
    return lambda *inputs: torch.func.functional_call(layer, weights, inputs)


def run_layer(
    name: str, arrays: Mapping[str, np.ndarray], given: bool, lengths: tuple[int, ...] | None
) -> dict[str, Any]:
    tensors = leaves(arrays)
    states = list(REFERENCES[name].states)
    start = tuple(tensors[f"initial.{s}"][None] for s in states)
    inputs = [tensors["x"]]
    if lengths is not None:
        pack = torch.nn.utils.rnn.pack_padded_sequence
        inputs = [pack(tensors["x"], torch.tensor(lengths), enforce_sorted=False)]
    if given:
        inputs.append(start if len(start) > 1 else start[0])
    y, last = as_layer(name, tensors)(*inputs)
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    final = dict(zip(states, (part[0] for part in (last if len(states) > 1 else (last,))), strict=True))
    return pull(y, final, name, tensors) | gradients(name, tensors, given)


def gradients(name: str, tensors: Mapping[str, Any], given: bool) -> dict[str, Any]:
    keys = ["x", *REFERENCES[name].inputs, *REFERENCES[name].params]
    keys += [f"initial.{s}" for s in REFERENCES[name].states if given]
    return {f"d_{key}": tensors[key].grad for key in keys}


@pytest.mark.parametrize("name", LAYERS)
@with_initial
@pytest.mark.parametrize("lengths", [None, POSITIVE], ids=["full", "packed"])
@pytest.mark.parametrize("seed", range(3))
def test_a_layer_of_torch_gives_the_same_values_and_gradients(module_of, name, given, lengths, seed):
    arrays = draws(name, seed)
    found = run_module(module_of(name), name, arrays, given, lengths=lengths and np.array(lengths))
    assert_same(found, run_layer(name, arrays, given, lengths))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_torch_is_as_close_in_float32(module_of, name):
    arrays = {key: value.astype("float32") for key, value in draws(name).items()}
    found = run_module(module_of(name), name, arrays, True)
    exact = run_layer(name, {key: value.astype("float64") for key, value in arrays.items()}, True, None)
    for key, tensor in exact.items():
        np.testing.assert_allclose(found[key], tensor.detach().numpy(), rtol=2e-5, atol=2e-5, err_msg=key)


# -------------------------------------------------------------------------------- autograd for every cell


def run_autograd(name: str, arrays: Mapping[str, np.ndarray], given: bool, **options: Any) -> dict[str, Any]:
    """The transcription of the cell, differentiated by PyTorch."""
    reference, tensors = REFERENCES[name], leaves(arrays)
    initial = {s: tensors[f"initial.{s}"] for s in reference.states} if given else None
    params = {key: tensors[key] for key in reference.params}
    inputs = {s: tensors[s] for s in reference.inputs}
    y, final = run(TORCH, reference, params, tensors["x"], initial, inputs=inputs, **options)
    found = pull(y, final, name, tensors) | gradients(name, tensors, given)
    return found | {f"d_{key}": None for key in reference.fixed}


@pytest.mark.parametrize("name", REFERENCES)
@with_initial
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_autograd_gives_the_same_values_and_gradients(module_of, name, given, lengths):
    arrays = draws(name)
    if name == "libru" and not given:  # the logarithm of states near 0 amplifies every rounding
        arrays |= {key: arrays[key] / 4 for key in REFERENCES[name].params}
    lengths = lengths and np.array(lengths)
    found = run_module(module_of(name), name, arrays, given, lengths=lengths)
    assert_same(found, run_autograd(name, arrays, given, lengths=lengths))


@pytest.mark.parametrize("name", [name for name, reference in REFERENCES.items() if reference.normalized])
@with_initial
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_batch_statistics_are_autograds_in_both_modes(module_of, name, given, lengths, training):
    arrays, module, reference = draws(name), module_of(name), REFERENCES[name]
    rng = np.random.default_rng(1)
    buffers = module.Buffers(*(rng.uniform(0.5, 1.5, H) for _ in module.Buffers._fields))
    keys = [f"{kind}_{k}" for k in reference.normalized for kind in ("mu", "v")]
    theirs = {key: torch.tensor(value) for key, value in zip(keys, buffers, strict=True)}
    options = {"lengths": lengths and np.array(lengths), "training": training}
    found = run_module(module, name, arrays, given, buffers=buffers, **options)
    assert_same(found, run_autograd(name, arrays, given, buffers=theirs, **options))
    for ours, key in zip(buffers, keys, strict=True):
        np.testing.assert_allclose(ours, theirs[key], rtol=1e-12, err_msg=key)
