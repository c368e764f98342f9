"""The references against PyTorch: autograd on the same equations, and PyTorch's own layers."""

import numpy as np
import pytest
import torch
from golden import D, E, Q, golden_case
from reference import REFERENCES, Reference, numpy_functions, outputs_of, run, torch_functions

NUMPY, TORCH = numpy_functions(), torch_functions()
T, B = 5, 4
LENGTHS = (3, 0, 5, 1)

every_cell = pytest.mark.parametrize("name", REFERENCES)


def random_arrays(reference: Reference, seed: int = 0) -> dict[str, np.ndarray]:
    """Every parameter, `x` and the further inputs (T, B, size), every initial state `initial.h` (B, size)."""
    rng, widths = np.random.default_rng(seed), reference.widths(D, E, Q)
    shapes = reference.shapes(D, E, Q).items()
    arrays = {name: np.asarray(0.5 * rng.standard_normal(shape)) for name, shape in shapes}
    arrays |= {name: rng.standard_normal((T, B, *widths[name])) for name in ("x", *reference.inputs)}
    return arrays | {
        f"initial.{name}": rng.uniform(0.1, 0.9, (B, *widths[name])) for name in reference.states
    }


def loss(F, reference, arrays, weights, *, given, **options):
    """A random linear function of all outputs and final states."""
    initial = {name: arrays[f"initial.{name}"] for name in reference.states} if given else None
    params = {name: arrays[name] for name in reference.params}
    inputs = {name: arrays[name] for name in reference.inputs}
    y, final = run(F, reference, params, arrays["x"], initial, inputs=inputs, **options)
    total = sum((weights[f"final.{name}"] * value).sum() for name, value in final.items())
    pairs = zip(reference.outputs, outputs_of(y), strict=True)
    return total + sum((weights[f"y.{name}"] * value).sum() for name, value in pairs)


def leaves(arrays: dict[str, np.ndarray]) -> dict:
    """The same arrays as float64 tensors that collect gradients."""
    return {name: torch.tensor(value, requires_grad=True) for name, value in arrays.items()}


@every_cell
def test_autograd_gives_the_golden_gradients(name: str) -> None:
    case = golden_case(name)
    params, x = leaves(case.params), torch.tensor(case.x, requires_grad=True)
    inputs = {key: torch.tensor(value) for key, value in case.inputs.items()}
    y = outputs_of(run(TORCH, case.reference, params, x, inputs=inputs)[0])[0]
    d_x, *d_params = torch.autograd.grad(
        y.sum(), [x, *(p for key, p in params.items() if key not in case.reference.fixed)]
    )
    golden = case.golden
    np.testing.assert_allclose(y.detach()[-1, 0].ravel(), golden.last, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(y.detach().sum(), golden.loss, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(d_x[0, 0].ravel(), golden.d_x0, rtol=0, atol=0.51e-6)
    np.testing.assert_allclose(sum(d.sum() for d in d_params), golden.d_params_sum, rtol=0, atol=0.51e-5)
    square = sum(d.square().sum() for d in d_params)
    np.testing.assert_allclose(square, golden.d_params_square, rtol=0, atol=0.51e-5)


@every_cell
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("given", [False, True], ids=["own start", "given start"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_autograd_and_complex_step_agree_on_everything(name, lengths, given, training) -> None:
    reference = REFERENCES[name]
    arrays = random_arrays(reference)
    rng = np.random.default_rng(1)
    widths = reference.widths(D, E, Q)
    weights = {f"y.{name}": rng.standard_normal((T, B, *widths[name])) for name in reference.outputs}
    weights |= {f"final.{name}": rng.standard_normal((B, *widths[name])) for name in reference.states}
    buffers = {key: rng.uniform(0.5, 1.5, E) for key in reference.initial_buffers(E)}
    options = {"given": given, "lengths": lengths, "training": training}

    tensors = leaves(arrays)
    to_torch = {key: torch.tensor(value) for key, value in weights.items()}
    torch_buffers = {key: torch.tensor(value) for key, value in buffers.items()}
    value = loss(TORCH, reference, tensors, to_torch, buffers=torch_buffers, **options)
    value.backward()
    numpy_buffers = dict(buffers)
    numpy_value = loss(NUMPY, reference, arrays, weights, buffers=numpy_buffers, **options)
    np.testing.assert_allclose(value.item(), numpy_value, rtol=1e-12)
    for key in buffers:
        np.testing.assert_allclose(torch_buffers[key], numpy_buffers[key], rtol=1e-12)

    for key, array in arrays.items():
        direction = rng.standard_normal(array.shape)
        moved = {**arrays, key: array + 1e-30j * direction, "x": arrays["x"].astype(complex)}
        if key == "x":
            moved["x"] = array + 1e-30j * direction
        slope = loss(NUMPY, reference, moved, weights, buffers=dict(buffers), **options).imag / 1e-30
        gradient = np.zeros_like(array) if tensors[key].grad is None else tensors[key].grad.numpy()
        np.testing.assert_allclose(
            slope, (gradient * direction).sum(), rtol=1e-10, atol=1e-11, err_msg=f"{name}: {key}"
        )


def test_gru_after_is_torchs_gru() -> None:
    arrays = random_arrays(REFERENCES["gru_after"])
    check_against_torch(torch.nn.GRU(D, E), "gru_after", arrays, gates="rzh", input_bias="b", state_bias="c")


def test_lstm_is_torchs_lstm() -> None:
    check_against_torch(torch.nn.LSTM(D, E), "lstm", random_arrays(REFERENCES["lstm"]), gates="ifgo")


def test_rnn_is_torchs_rnn() -> None:
    check_against_torch(torch.nn.RNN(D, E), "rnn", random_arrays(REFERENCES["rnn"]), gates="h")


def check_against_torch(layer, name, arrays, *, gates, input_bias="b", state_bias=None) -> None:
    """Outputs and final states of one of PyTorch's layers, which stacks its gates in the order given."""
    reference = REFERENCES[name]
    tensors = {key: torch.tensor(value) for key, value in arrays.items()}

    def stacked(letter):
        return torch.cat([tensors[f"{letter}_{gate}"] for gate in gates])

    layer = layer.double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(stacked("W"))
        layer.weight_hh_l0.copy_(stacked("U"))
        layer.bias_ih_l0.copy_(stacked(input_bias))
        layer.bias_hh_l0.copy_(stacked(state_bias) if state_bias else torch.zeros(len(gates) * E))
        initial = {state: tensors[f"initial.{state}"] for state in reference.states}
        start = tuple(value[None] for value in initial.values())
        y, final = run(TORCH, reference, {k: tensors[k] for k in reference.params}, tensors["x"], initial)
        y_torch, final_torch = layer(tensors["x"], start if len(start) > 1 else start[0])
    torch.testing.assert_close(y, y_torch, rtol=1e-12, atol=1e-13)
    finals = final_torch if isinstance(final_torch, tuple) else (final_torch,)
    for ours, theirs in zip(final.values(), finals, strict=True):
        torch.testing.assert_close(ours, theirs[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("training", [True, False])
def test_batch_statistics_are_those_of_torchs_batch_norm(training: bool) -> None:
    reference = REFERENCES["ligru"]
    rng = np.random.default_rng(3)
    p = {name: torch.tensor(rng.standard_normal(shape)) for name, shape in reference.shapes(D, E).items()}
    norms = {k: torch.nn.BatchNorm1d(E, momentum=0.05).double().train(training) for k in "zh"}
    buffers = {key: torch.tensor(value) for key, value in reference.initial_buffers(E).items()}

    def normalized(k, x):
        q = norms[k]((x @ p[f"W_{k}"].T).reshape(T * B, E)).detach().reshape(T, B, E)
        return p[f"g_{k}"] * q + p[f"b_{k}"]

    for _ in range(2):  # so that the running statistics have a history
        x = torch.tensor(rng.standard_normal((T, B, D)))
        y, _ = run(TORCH, reference, p, x, buffers=buffers, training=training)
        first = (1 - torch.sigmoid(normalized("z", x)[0])) * torch.relu(normalized("h", x)[0])
        torch.testing.assert_close(y[0], first, rtol=1e-11, atol=1e-12)
    for k, norm in norms.items():
        torch.testing.assert_close(buffers[f"mu_{k}"], norm.running_mean, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(buffers[f"v_{k}"], norm.running_var, rtol=1e-12, atol=1e-13)
