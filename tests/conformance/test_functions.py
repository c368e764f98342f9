"""Every function that gategen exports, with its default arguments, against PyTorch in float64.

The function stands in a cell and goes the whole way through `flatten`, `adjoint` and `evaluate`.
"""

import numpy as np
import pytest
import torch
from helpers import BATCH, STEPS, Case, gradients, run
from torch.nn import functional as F

import gategen
from gategen import Cell, Eq, gates, inputs, matrices, states, vectors
from gategen.graph import Value, flatten, numeric
from gategen.spec import language as lang

x, q = inputs("x q", size="hidden")
h = states("h")
g, b = vectors("g b")
y = gates("y")

EVERYWHERE = [-900.0, -60.0, -20.5, -5.0, -1.3, -0.4, -0.01, 0.02, 0.3, 0.9, 1.7, 2.9, 5.0, 20.5, 60.0, 900.0]
NEAR = [-11.0, -3.4, -2.1, -1.6, -0.9, -0.4, -0.05, -1e-3, 1e-3, 0.03, 0.45, 0.8, 1.2, 2.2, 3.3, 12.0]
POSITIVE = [1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.1, 1.5, 2.0, 3.0, 10.0, 1e3, 1e6]
OTHER = np.linspace(
    -2.05, 1.95, 16
)  # what a function of two values takes for the second; never equal to the first

ONE = {
    "sigmoid": (lang.sigmoid, torch.sigmoid, EVERYWHERE),
    "tanh": (lang.tanh, torch.tanh, EVERYWHERE),
    "relu": (lang.relu, F.relu, EVERYWHERE),
    "leaky_relu": (lang.leaky_relu, F.leaky_relu, EVERYWHERE),
    "elu": (lang.elu, F.elu, EVERYWHERE),
    "silu": (lang.silu, F.silu, EVERYWHERE),
    "gelu": (lang.gelu, F.gelu, EVERYWHERE),
    "gelu by tanh": (lambda v: lang.gelu(v, "tanh"), lambda v: F.gelu(v, approximate="tanh"), EVERYWHERE),
    "softplus": (lang.softplus, lambda v: -F.logsigmoid(-v), EVERYWHERE),  # F.softplus turns linear at 20
    "log_sigmoid": (lang.log_sigmoid, F.logsigmoid, EVERYWHERE),
    "softsign": (lang.softsign, F.softsign, EVERYWHERE),
    "hard_sigmoid": (
        lang.hard_sigmoid,
        lambda v: F.relu6(v + 3) / 6,
        EVERYWHERE,
    ),  # F.hardsigmoid has a float32 slope
    "hard_tanh": (lang.hard_tanh, F.hardtanh, EVERYWHERE),
    "exp": (lang.exp, torch.exp, NEAR),
    "log": (lang.log, torch.log, POSITIVE),
    "log1p": (lang.log1p, torch.log1p, POSITIVE),
    "sqrt": (lang.sqrt, torch.sqrt, POSITIVE),
    "abs": (lang.abs, torch.abs, EVERYWHERE),
    "sign": (lang.sign, torch.sign, EVERYWHERE),
    "sin": (lang.sin, torch.sin, NEAR),
    "cos": (lang.cos, torch.cos, NEAR),
    "square": (lang.square, torch.square, NEAR),
    "step": (lang.step, lambda v: (v > 0) + 0 * v, EVERYWHERE),
    "softmax": (lambda v: v * lang.softmax(v), lambda v: v * torch.softmax(v, -1), EVERYWHERE),
    "cumsum": (lambda v: v * lang.cumsum(v), lambda v: v * torch.cumsum(v, -1), NEAR),
    "stop_gradient": (lambda v: v * lang.stop_gradient(v), lambda v: v * v.detach(), NEAR),
}
TWO = {
    "maximum": (lang.maximum, torch.maximum),
    "minimum": (lang.minimum, torch.minimum),
    "where": (lambda v, w: lang.where(v > w, v * w, w), lambda v, w: torch.where(v > w, v * w, w)),
    "equal": (
        lambda v, w: lang.where(lang.equal(lang.sign(v), lang.sign(w)), v * w, w),
        lambda v, w: torch.where(torch.sign(v) == torch.sign(w), v * w, w),
    ),
    "surrogate": (
        lambda v, w: lang.surrogate(lang.step(v), lang.sin(w) * v),
        lambda v, w: torch.sin(w) * v + ((v > 0) + 0 * v - torch.sin(w) * v).detach(),
    ),
    "clip": (lambda v, w: lang.clip(v, -0.95, 0.5) * w, lambda v, w: torch.clamp(v, -0.95, 0.5) * w),
    "mod": (
        lambda v, w: lang.mod(v, 1 + w * w),
        lambda v, w: v - (1 + w * w) * torch.floor(v / (1 + w * w)).detach(),
    ),
}
REDUCTIONS = {
    "sum_": (lang.sum_, lambda *v: torch.cat(v, -1).sum(-1, keepdim=True)),
    "mean": (lang.mean, lambda *v: torch.cat(v, -1).mean(-1, keepdim=True)),
    "max_": (lang.max_, lambda *v: torch.cat(v, -1).amax(-1, keepdim=True)),
    "max_ of equal ones": (
        lambda *v: lang.max_(*map(lang.relu, v), 2 * lang.step(v[0])),
        lambda *v: torch.cat([*map(torch.relu, v), 2 * (v[0] > 0) + 0 * v[0]], -1).amax(-1, keepdim=True),
    ),
    "logsumexp": (lang.logsumexp, lambda *v: torch.logsumexp(torch.cat(v, -1), -1, keepdim=True)),
    "softmax of several": (
        lambda *v: lang.softmax(v[0], *v)[1],
        lambda *v: torch.softmax(torch.cat([v[0], *v], -1), -1)[..., 5:10],
    ),
    "var": (lang.var, lambda *v: torch.cat(v, -1).var(-1, keepdim=True, unbiased=False)),
}
ELSEWHERE = {"layer_norm", "batch_norm", "concat"}
DECLARATIONS = {"Eq", "inputs", "states", "gates", "matrices", "vectors", "scalars", "constants", "size", "t"}
CONTENTS = {"identity", "lower", "strict_lower", "rotation", "shift", "blocks"}  # tested in test_contents
MATRICES = {"outer", "inv", "expm", "norm", "row_norms"}  # tested by cells that have them
MOVED = {"shifted", "conv"}  # tested in test_convolutions


def test_every_exported_function_is_here() -> None:
    functions = {name for name in gategen.__all__ if hasattr(lang, name)} - {"SpecError"}
    called = {name.split()[0] for name in (*ONE, *TWO, *REDUCTIONS)}
    assert functions == called | ELSEWHERE | DECLARATIONS | CONTENTS | MATRICES | MOVED


def case_of(cell: Cell, values: dict, hidden: int) -> Case:
    """The cell on these values, with random weights of its outputs."""
    graph = flatten(cell)
    steps, batch = values["x"].shape[:2]
    rng = np.random.default_rng(0)
    weights = {
        f"d_{name}": rng.standard_normal((steps, batch, _size(v, hidden))) for name, v in graph.outputs
    }
    weights["final_d_h"] = np.zeros((batch, hidden))
    values = {"h": np.zeros((batch, hidden)), **values}
    return Case(graph, values, weights, None, {"hidden": hidden, "input": hidden})


def _size(value, hidden: int) -> int:
    return hidden if value.size == "hidden" else value.size


def assert_equals_torch(cell: Cell, of_torch, values: dict) -> None:
    """The output and the gradients by all of `values`, to 1e-12."""
    case = case_of(cell, values, next(iter(values.values())).shape[-1])
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    want = of_torch(**tensors)
    (want * torch.tensor(case.weights["d_y"])).sum().backward()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found, slopes = run(case).outputs["y"], gradients(case)
    np.testing.assert_allclose(found, want.detach().numpy(), rtol=1e-12, atol=1e-12)
    for name, tensor in tensors.items():
        wanted = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(slopes[name], wanted, rtol=1e-12, atol=1e-12, err_msg=name)


def cell_of(expr) -> Cell:
    return Cell("cell", Eq(y, expr), Eq(h.next, h + 0.5 * x), output=y)


@pytest.mark.parametrize("name", ONE)
def test_a_function_and_its_gradient_equal_those_of_torch(name: str) -> None:
    ours, theirs, points = ONE[name]
    values = {"x": np.array(points).reshape(2, 2, -1)}
    assert_equals_torch(cell_of(ours(x)), lambda x: theirs(x), values)


def test_hard_sigmoid_and_softplus_are_those_of_torch() -> None:
    points = np.array(EVERYWHERE)
    found = [
        numeric(function(Value("v", ())), {"v": points}) for function in (lang.hard_sigmoid, lang.softplus)
    ]
    np.testing.assert_allclose(found[0], F.hardsigmoid(torch.tensor(points)), rtol=1e-12)
    np.testing.assert_allclose(found[1], F.softplus(torch.tensor(points)), rtol=1e-8)


@pytest.mark.parametrize("name", TWO)
def test_a_function_of_two_values_and_its_gradients_equal_those_of_torch(name: str) -> None:
    ours, theirs = TWO[name]
    values = {"x": np.array(NEAR).reshape(2, 2, -1), "q": OTHER.reshape(2, 2, -1)}
    assert_equals_torch(cell_of(ours(x, q)), lambda x, q: theirs(x, q), values)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_and_its_gradients_equal_those_of_torch(name: str) -> None:
    ours, theirs = REDUCTIONS[name]
    values = {"x": random(STEPS, BATCH, 5), "q": 3 + random(STEPS, BATCH, 5)}
    assert_equals_torch(cell_of(ours(x) * q), lambda x, q: theirs(x) * q, values)
    assert_equals_torch(cell_of(ours(x, q)), lambda x, q: theirs(x, q), values)


def test_layer_norm_and_its_gradients_equal_those_of_torch() -> None:
    values = {"x": random(STEPS, BATCH, 5), "g": random(5), "b": 1 + random(5)}
    assert_equals_torch(
        cell_of(lang.layer_norm(x, g, b)), lambda x, g, b: F.layer_norm(x, (5,), g, b), values
    )


def test_a_stacked_product_and_its_gradients_equal_those_of_torch() -> None:
    A = matrices("A", shape=("hidden", ("hidden", "hidden")))
    values = {"x": random(STEPS, BATCH, 5), "q": 1 + random(STEPS, BATCH, 5)}
    values |= {"A_0": random(5, 5), "A_1": 1 + random(5, 5)}
    assert_equals_torch(
        cell_of(A @ lang.concat(x, q)),
        lambda x, q, A_0, A_1: torch.cat([x, q], -1) @ torch.cat([A_0, A_1], 1).T,
        values,
    )


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_its_gradients_and_its_statistics_equal_those_of_torch(training: bool) -> None:
    cell = cell_of(lang.batch_norm(x, g, b))
    values = {"x": 2 + random(STEPS, BATCH, 5), "g": random(5), "b": 1 + random(5)}
    statistics = {"mean_y": random(5), "var_y": 0.5 + random(5) ** 2}
    norm = torch.nn.BatchNorm1d(5, dtype=torch.float64).train(training)
    norm.running_mean, norm.running_var = (torch.tensor(value) for value in statistics.values())
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    del norm.weight, norm.bias
    norm.weight, norm.bias = tensors["g"], tensors["b"]
    want = norm(tensors["x"].reshape(-1, 5)).reshape(STEPS, BATCH, 5)

    given = values | statistics | {"count": np.float64(STEPS * BATCH), "training": np.float64(training)}
    case = case_of(cell, given | {"valid": np.ones((STEPS, BATCH, 1))}, 5)
    (want * torch.tensor(case.weights["d_y"])).sum().backward()
    found = run(case)
    np.testing.assert_allclose(found.outputs["y"], want.detach(), rtol=1e-12, atol=1e-12)
    slopes = gradients(case)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(slopes[name], tensor.grad, rtol=1e-11, atol=1e-12, err_msg=name)
    if training:
        np.testing.assert_allclose(found.sums["mean_y"], norm.running_mean, rtol=1e-12)
        np.testing.assert_allclose(found.sums["var_y"], norm.running_var, rtol=1e-12)
