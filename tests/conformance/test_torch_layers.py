"""`gategen.layers.RNN` against PyTorch's layers: its own test samples, and packed sequences.

The cells are declared in `torch_adapter.py` and generated here. Every output and every gradient is compared.
"""

import sys
import unittest
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch_adapter import Structure, named, net_of

from gategen.judge.host import imported, written

SAMPLES = 87  # of the release of PyTorch that CI installs
KINDS = ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell")


@pytest.fixture(scope="session", params=["numpy", "c"])
def module_of(tmp_path_factory, request):
    """The module of a cell, generated once, of NumPy and of C."""
    folder = tmp_path_factory.mktemp("torch_cells")
    return cache(lambda structure: imported(written(structure.cell(), request.param, folder)))


def module_db() -> list[Any]:
    """What PyTorch tests its modules with. Its `common_utils` wants the base class of a package of tests."""
    if "expecttest" not in sys.modules:
        try:
            import expecttest  # noqa: F401
        except ImportError:
            sys.modules["expecttest"] = stand_in = ModuleType("expecttest")
            stand_in.TestCase = unittest.TestCase
    from torch.testing._internal.common_modules import module_db

    return [info for info in module_db if info.module_cls.__name__ in KINDS]


def samples() -> list[Any]:
    """(class, constructor arguments, forward arguments) of every sample."""
    torch.manual_seed(0)
    options = {"device": "cpu", "dtype": torch.double, "requires_grad": True, "training": True}
    return [
        pytest.param(
            info.module_cls,
            sample.constructor_input,
            sample.forward_input,
            id=f"{info.module_cls.__name__}-{k}",
        )
        for info in module_db()
        for k, sample in enumerate(info.module_inputs_func(info, **options))
    ]


ALL = samples()


def test_pytorch_has_as_many_samples_as_readme_says():
    assert len(ALL) == SAMPLES


@pytest.mark.parametrize(("layer_class", "constructor", "given"), ALL)
def test_a_sample_of_pytorchs_own_tests_agrees(module_of, layer_class, constructor, given):
    torch.manual_seed(1)
    layer = layer_class(*constructor.args, **constructor.kwargs, dtype=torch.double)
    assert not given.kwargs
    x, *hx = given.args
    agree(layer, module_of, x, hx[0] if hx else None)


def layers_with_lengths() -> list[Any]:
    return [
        pytest.param(
            layer_class, {"batch_first": batch_first, **more}, id=f"{layer_class.__name__}-{batch_first}-{k}"
        )
        for layer_class, *options in (
            (torch.nn.RNN, {"nonlinearity": "relu"}, {"bias": False}),
            (torch.nn.GRU, {}, {"bias": False}),
            (torch.nn.LSTM, {}, {"proj_size": 2}, {"proj_size": 3, "bias": False}),
        )
        for k, more in enumerate(options)
        for batch_first in (False, True)
    ]


@pytest.mark.parametrize("given", [True, False], ids=["given_start", "own_start"])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both_ways", "forward"])
@pytest.mark.parametrize(("layer_class", "options"), layers_with_lengths())
def test_packed_sequences_agree_through_three_layers(module_of, layer_class, options, bidirectional, given):
    torch.manual_seed(2)
    layer = layer_class(5, 4, num_layers=3, bidirectional=bidirectional, **options, dtype=torch.double)
    T, lengths = 7, (3, 7, 1, 7, 2)
    x = torch.randn(T, len(lengths), 5, dtype=torch.double)
    x = (x.swapaxes(0, 1) if layer.batch_first else x).detach().requires_grad_()
    hx = None
    if given:
        widths = [layer.proj_size or 4, 4] if layer_class is torch.nn.LSTM else [4]
        count = 3 * (2 if bidirectional else 1)
        hx = [torch.randn(count, len(lengths), w, dtype=torch.double, requires_grad=True) for w in widths]
        hx = tuple(hx) if len(hx) > 1 else hx[0]
    agree(layer, module_of, x, hx, lengths)


# -------------------------------------------------------------------------------- comparing


def agree(layer: torch.nn.Module, module_of: Any, x: Any, hx: Any, lengths: Any = None) -> None:
    """Values to 1e-12 of the largest entry, gradients to 1e-11; everything that there is."""
    one_step = type(layer).__name__.endswith("Cell")
    start = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
    for tensor in (x, *start):
        tensor.grad = None  # samples are shared by the backends, and gradients would add up
    y, final = run_torch(layer, x, hx, lengths, one_step)
    d_y, *d_final = (torch.randn_like(tensor) for tensor in (y, *final))
    sum((d * value).sum() for d, value in zip((d_y, *d_final), (y, *final), strict=True)).backward()

    net = net_of(layer, module_of)
    lead = (lambda a: a[None]) if one_step else (lambda a: a)  # of steps, or of layers
    arrays = lambda tensors: [lead(tensor.detach().numpy()) for tensor in tensors]  # noqa: E731
    (x_array,) = arrays([x])
    our_y, our_final = net(x_array, arrays(start) or None, lengths)
    grads = net.backward(arrays([d_y])[0], arrays(d_final))

    close("y", our_y, *arrays([y]))
    for name, found, wanted in zip(net.module.STATES, our_final, arrays(final), strict=True):
        close(name, found, wanted)
    close("d_x", grads.x, *arrays([x.grad]))
    for name, found, tensor in zip(net.module.STATES, grads.initial, start, strict=False):
        close(f"d_{name}", found, *arrays([tensor.grad]))
    wanted = dict(named(layer, lambda parameter: parameter.grad.numpy()))
    assert wanted.keys() == grads.params.keys()
    for name, gradient in wanted.items():
        close(f"d_{name}", grads.params[name], gradient)


def run_torch(
    layer: torch.nn.Module, x: Any, hx: Any, lengths: Any, one_step: bool
) -> tuple[Any, tuple[Any, ...]]:
    """The outputs and the final states."""
    if one_step:
        final = layer(x, hx)
        final = final if isinstance(final, tuple) else (final,)
        return final[0] * 1, final
    if lengths is None:
        y, final = layer(x, hx)
    else:
        options = {"batch_first": layer.batch_first}
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), enforce_sorted=False, **options
        )
        y, final = layer(packed, hx)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, **options)
    return y, final if isinstance(final, tuple) else (final,)


def close(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape, name
    error = np.abs(found - wanted).max(initial=0)
    tolerance = 1e-11 if name.startswith("d_") else 1e-12
    assert error <= tolerance * max(np.abs(wanted).max(initial=0), 1e-3), f"{name} is off by {error}"


def test_the_equations_of_every_structure_differ():
    """A net that ignored an option of the layer would agree with the layer that lacks it."""
    kinds = [Structure(kind, bias) for kind in ("RNN", "GRU", "LSTM") for bias in (True, False)]
    kinds += [Structure("RNN", True, "relu"), Structure("LSTM", True, projected=True)]
    assert len({tuple(structure.cell().text()) for structure in kinds}) == len(kinds)
