"""What users do to modules of PyTorch, and `gategen.torch` must bear: moved, shared, reset, misnamed."""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gategen.torch import RNN, RNNCell

T, B, I, H = 5, 2, 3, 4  # noqa: E741
DOUBLE = torch.float64
STATED = """
states: h
vectors: b_f = 0.1
matrices: E = identity
fixed scalars: s = 0.3
h' = tanh(W_h @ x + E @ h + b_f) * s
"""
NAMESAKE = """
name: gru_after
r  = sigmoid(W_r @ x + U_r @ h + b_r + c_r)
z  = sigmoid(W_z @ x + U_z @ h + b_z + c_z)
h' = z * tanh(W_h @ x + U_h @ (r * h) + b_h + c_h)
"""


def sequences() -> torch.Tensor:
    return torch.randn(T, B, I, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


# -------------------------------------------------------------------------------- memory


def test_parameters_that_processes_share_stay_shared():
    model = torch.nn.Sequential(RNN("gru", I, H, dtype=DOUBLE))
    before = model[0](sequences())[0]
    model.share_memory()
    assert all(parameter.is_shared() for parameter in model.parameters())
    stored = io.BytesIO()
    ForkingPickler(stored, pickle.HIGHEST_PROTOCOL).dump(model)  # as a process that is spawned gets it
    other = pickle.loads(stored.getvalue())
    assert torch.equal(other[0](sequences())[0], before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.5)
    assert all((parameter == 0.5).all() for parameter in model.parameters())


def test_a_layer_with_a_parametrization_can_be_copied_after_a_run():
    layer = RNN("gru", I, H, dtype=DOUBLE)
    layer(sequences())
    parametrizations.weight_norm(layer, "W_z_l0")
    layer(sequences())
    other = copy.deepcopy(layer)
    assert torch.equal(other(sequences())[0], layer(sequences())[0])
    with torch.no_grad():
        other.parametrizations.W_z_l0.original0.mul_(2)
    assert not torch.equal(other(sequences())[0], layer(sequences())[0])


def test_a_layer_that_was_moved_keeps_nothing_of_its_old_memory():
    layer = RNN("gru", I, H, dtype=DOUBLE)
    layer(sequences())
    assert any(layer._arrays.values())
    layer.to("meta")
    assert not any(layer._arrays.values())


READ = """
import sys, torch
layer = torch.load(sys.argv[1], weights_only=False)
x = torch.ones(2, 1, 3, requires_grad=True)
(d_x,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
print(torch.autograd.grad(d_x.square().sum(), x)[0].tolist())
"""


def test_a_layer_of_an_own_cell_is_read_by_a_process_that_never_saw_the_cell(tmp_path):
    layer = RNN("states: h\nh' = tanh(W_h @ x + U_h @ h) * 1.25", 3, 4)
    torch.save(layer, tmp_path / "layer.pt")
    x = torch.ones(2, 1, 3, requires_grad=True)
    (d_x,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
    (wanted,) = torch.autograd.grad(d_x.square().sum(), x)
    environment = {**os.environ, "GATEGEN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", READ, str(tmp_path / "layer.pt")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.tensor(json.loads(done.stdout)), wanted)


# -------------------------------------------------------------------------------- the device meta


def test_layers_are_made_on_the_device_of_the_context_and_filled_later():
    layer = RNN("lstm", I, H, 2, bias=False, dtype=DOUBLE)
    with torch.device("meta"):
        other = RNN("lstm", I, H, 2, bias=False, dtype=DOUBLE)
    assert {tensor.device.type for tensor in (*other.parameters(), *other.buffers())} == {"meta"}
    other.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(other(sequences())[0], layer(sequences())[0])


def test_missing_biases_are_0_also_after_to_empty():
    layer = RNN("gru", I, H, bias=False, dtype=DOUBLE)
    other = RNN("gru", I, H, bias=False, dtype=DOUBLE, device="meta").to_empty(device="cpu")
    for buffer in other.buffers():
        buffer.fill_(5)  # anything may be there
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(sequences())[0], layer(sequences())[0])


def test_on_the_device_meta_a_layer_tells_its_shapes():
    layer = RNN("lstm", I, H, 2, bidirectional=True, device="meta")
    y, (h, c) = layer(torch.empty(T, B, I, device="meta", requires_grad=True), None, [T, 2])
    assert y.shape == (T, B, 2 * H) and h.shape == c.shape == (4, B, H) and y.device.type == "meta"
    y.sum().backward()
    assert layer.weight_ih_l0.grad.shape == (4 * H, I)


# -------------------------------------------------------------------------------- what a cell states


def test_reset_parameters_brings_back_what_the_cell_states():
    layer = RNN(STATED, I, H, dtype=DOUBLE)
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor.detach().fill_(7)
    layer.reset_parameters()
    assert (layer.b_f_l0 == 0.1).all() and torch.equal(layer.E_l0, torch.eye(H, dtype=DOUBLE))
    assert layer.s_l0 == 0.3 and (layer.W_h_l0.abs() <= H**-0.5).all()

    layer = RNN("ligru", I, H, dtype=DOUBLE)
    layer(sequences())
    assert layer.var_z_l0[0] != 1
    layer.reset_parameters()
    assert (layer.var_z_l0 == 1).all() and (layer.mean_z_l0 == 0).all()


@pytest.mark.parametrize("layer_class", [RNN, RNNCell])
def test_what_a_cell_states_is_as_precise_as_the_layer(layer_class):
    stated = dict(layer_class(STATED, I, H, dtype=DOUBLE).state_dict())
    assert [value.unique().item() for name, value in stated.items() if name[0] in "bs"] == [0.1, 0.3]


def test_fixed_contents_go_to_a_net_and_back():
    text = "states: h\nfixed matrices: E[hidden, hidden]\nh' = tanh(W_h @ x + E @ h)"
    layer = RNN(text, I, H, E=torch.eye(H).mul(0.5), dtype=DOUBLE)
    again = RNN.from_net(layer.to_net())
    assert torch.equal(again(sequences())[0], layer(sequences())[0])


def test_a_layer_with_a_parametrization_becomes_one_of_pytorch():
    layer = RNN("gru_after", I, H, bias=False, dtype=DOUBLE)
    parametrizations.weight_norm(layer, "weight_hh_l0")
    torch.testing.assert_close(layer.to_torch()(sequences())[0], layer(sequences())[0])


def test_a_cell_of_pytorch_is_no_layer():
    with pytest.raises(ValueError, match="RNN is of layers, not of cells"):
        RNN.from_torch(torch.nn.GRUCell(I, H))


# -------------------------------------------------------------------------------- names


def test_a_matrix_is_no_bias_whatever_it_is_called():
    layer = RNN(
        "states: h\nmatrices: b_x, c\nvectors: b_h\nh' = tanh(b_x @ x + c @ h + b_h)", I, H, bias=False
    )
    assert [name for name, _ in layer.named_parameters()] == ["b_x_l0", "c_l0"]


def test_a_cell_named_as_one_of_pytorchs_with_other_equations_keeps_its_own_names():
    layer = RNN(NAMESAKE, I, H, dtype=DOUBLE)
    assert {name for name, _ in layer.named_parameters()} >= {"W_r_l0", "c_h_l0"}
    assert layer(sequences())[0].shape == (T, B, H)


@pytest.mark.parametrize(
    ("layer_class", "text", "sizes", "message"),
    [(RNNCell, "states: h\nmatrices: forward\nh' = forward @ x", {}, "an attribute 'forward'"),
     (RNNCell, "states: h\nvectors: bias\nh' = W_h @ x + bias", {}, "an attribute 'bias'"),
     (RNN, "inputs: x, hx\nstates: h\nh' = W_h @ x + V_h @ hx", {}, "the input 'hx' of cell"),
     (RNN, "states: h, m[seed]\nh' = W_h @ x + V_h @ m\nm' = W_m @ x", {"seed": 5}, "the size 'seed'")],
)  # fmt: skip
def test_names_that_layers_need_themselves_are_refused(layer_class, text, sizes, message):
    with pytest.raises(ValueError, match=message):
        layer_class(text, I, H, **sizes)


# -------------------------------------------------------------------------------- what is given


@pytest.mark.parametrize("hx", [(None, None), {"h": 1}, torch.zeros(1, B, H).numpy()], ids=str)
def test_states_that_are_no_tensors_are_refused_by_their_type(hx: Any):
    with pytest.raises(TypeError, match=r"hx has .*, expected tensors"):
        RNN("lstm", I, H)(torch.zeros(T, B, I), hx)


def test_lengths_of_no_sequence_are_an_empty_list():
    y, h = RNN("gru", I, H)(torch.zeros(T, 0, I), None, [])
    assert y.shape == (T, 0, H) and h.shape == (1, 0, H)


def test_a_sequence_may_have_other_signs_than_its_memory():
    x = torch.randn(T, B, I, dtype=torch.complex128).conj().imag
    layer = RNN("gru", I, H, dtype=DOUBLE)
    assert x.is_neg() and torch.equal(layer(x)[0], layer(x.resolve_neg())[0])


FURTHER = "inputs: x, u[2]\nstates: h\nh' = tanh(W_h @ x + U_h @ h + V_h @ u)"


@pytest.mark.parametrize("value", [None, 1.0, [[1.0]]], ids=str)
def test_further_inputs_that_are_no_tensors_are_refused_by_their_type(value: Any):
    x = torch.zeros(T, B, I)
    for layer, given in ((RNN(FURTHER, I, H), x), (RNN(FURTHER, I, H), pack_padded_sequence(x, [5, 3])),
                         (RNNCell(FURTHER, I, H), x[0])):  # fmt: skip
        with pytest.raises(TypeError, match=r"u is of type .*, expected a tensor"):
            layer(given, u=value)


def test_a_further_input_may_be_packed_in_another_order_and_not_with_other_lengths():
    layer, x, u = RNN(FURTHER, I, H, dtype=DOUBLE), sequences(), torch.randn(T, B, 2, dtype=DOUBLE)
    swapped = torch.tensor([1, 0])
    packed = pack_padded_sequence(u.flip(1), [T, T])
    packed = PackedSequence(packed.data, packed.batch_sizes, swapped, swapped)  # holds u as well
    y, _ = pad_packed_sequence(layer(pack_padded_sequence(x, [T, T]), u=packed)[0])
    assert torch.equal(y, layer(x, u=u)[0])
    for lengths in ([5, 2], [3, 5]):
        with pytest.raises(ValueError, match=r"u is packed with the lengths .*, input with \[5, 3\]"):
            layer(pack_padded_sequence(x, [5, 3]), u=pack_padded_sequence(u, lengths, enforce_sorted=False))


def test_a_cell_without_parameters_runs():
    layer = RNN("inputs: x[hidden]\nstates: h\nh' = 0.5 * h + 0.1 * x", I, I, 2)
    x = torch.ones(2, B, I, requires_grad=True)
    layer(x)[0].sum().backward()
    assert not list(layer.parameters()) and torch.allclose(x.grad[1], torch.tensor(0.01))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_all_weights_are_those_of_pytorch(options):
    found = [[[part.shape for part in one] for one in layer.all_weights]
             for layer in (RNN("lstm", I, H, **options), torch.nn.LSTM(I, H, **options))]  # fmt: skip
    assert found[0] == found[1]


# -------------------------------------------------------------------------------- derivatives


def test_derivatives_by_what_is_fixed_are_refused_and_not_0():
    layer, E = RNN(STATED.replace("matrices", "fixed matrices"), I, H, dtype=DOUBLE), torch.eye(H).double()

    def run(E: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"E_l0": E}, (sequences(),))[0].sum()

    for derivative in (torch.func.grad(run), lambda E: torch.func.jvp(run, (E,), (E,)),
                       lambda E: run(E.clone().requires_grad_())):  # fmt: skip
        with pytest.raises(RuntimeError, match="E_l0 requires a gradient, but E is fixed"):
            derivative(E)
    layer.requires_grad_()
    assert run(E).requires_grad


@pytest.mark.parametrize(("cell", "theirs"), [("gru_after", torch.nn.GRU), ("lstm", torch.nn.LSTM)])
def test_gradients_come_in_batches(cell, theirs):
    layer, other = RNN(cell, I, H, dtype=DOUBLE), theirs(I, H, dtype=DOUBLE)
    layer.load_state_dict(other.state_dict())
    x, vectors = sequences().requires_grad_(), torch.randn(3, T, B, H, dtype=DOUBLE)
    found = []
    for one in (layer, other):
        y, leaves = one(x)[0], [x, *one.parameters()]
        batch = torch.autograd.grad(y, leaves, vectors, is_grads_batched=True, create_graph=True)
        again = torch.autograd.grad(sum(part.square().sum() for part in batch), leaves, retain_graph=True)
        each = torch.func.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(vectors)  # noqa: B023
        rows = torch.autograd.functional.jacobian(lambda z: one(z)[0], x, vectorize=True)  # noqa: B023
        curves = torch.autograd.functional.hessian(lambda z: one(z)[0].sum(), x, vectorize=True)  # noqa: B023
        found.append([*batch, *again, each, rows, curves])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_gradcheck_may_ask_for_batches():
    layer = RNN("mgu", I, 2, dtype=DOUBLE)
    x = sequences()[:2].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x), x, check_batched_grad=True)


def test_vmap_over_nothing_gives_nothing_of_the_right_shape():
    layer = RNN("gru", I, H)
    y, h = torch.func.vmap(layer, in_dims=2)(torch.zeros(T, B, 0, I))
    assert y.shape == (0, T, B, H) and h.shape == (0, 1, B, H)


def test_functionalize_takes_a_layer():
    layer = RNN("gru", I, H, dtype=DOUBLE)
    y, _ = torch.func.functionalize(layer)(sequences())
    assert torch.equal(y, layer(sequences())[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("graded", [True, False], ids=["graded", "no_grad"])
def test_a_trace_reads_the_parameters_and_has_gradients(graded):
    layer = RNN("lstm", I, H, 2, bidirectional=True, dtype=DOUBLE)
    with torch.set_grad_enabled(graded):
        trace = torch.jit.trace(layer, sequences())
    stored = io.BytesIO()
    torch.jit.save(trace, stored)
    stored.seek(0)
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    assert not torch.equal(torch.jit.load(stored)(sequences())[0], layer(sequences())[0])
    for x in (sequences(), torch.randn(T + 1, B + 1, I, dtype=DOUBLE)):
        leaves = [x.requires_grad_(), *layer.parameters()]
        runs = [one(x)[0] for one in (trace, layer)]
        gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in runs]
        for ours, wanted in zip((runs[0], *gradients[0]), (runs[1], *gradients[1]), strict=True):
            torch.testing.assert_close(ours, wanted)
