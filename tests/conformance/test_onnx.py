"""ONNX's RNN, GRU and LSTM as nets of `gategen.layers`, through `onnx_adapter.py`.

Judges are the test cases that come with the package `onnx`, and onnxruntime on random nodes.
"""

import importlib
import warnings
import zlib
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx_adapter import ACTIVATIONS, DEFAULTS, GATES, Structure, run

from gategen.judge.host import imported, written

CASES = 18  # of the package onnx
NODES = 2000  # random ones
TOLERANCE = 5e-6  # onnxruntime computes in float32

# For these, onnxruntime has other default values of alpha and beta than ONNX, or ONNX has none.
LACKING = {"Affine", "ScaledTanh", "ThresholdedRelu"}

# Others let the values of a long sequence explode, and then onnxruntime's Softplus gives inf.
BOUNDED = {"HardSigmoid", "ScaledTanh", "Sigmoid", "Softsign", "Tanh"}

OPERATORS = list(GATES)
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]

onnxruntime.set_default_logger_severity(4)


@pytest.fixture(scope="session", params=["numpy", "c"])
def module_of(tmp_path_factory, request):
    """The module of a cell, generated once, of NumPy and of C."""
    folder = tmp_path_factory.mktemp("onnx_cells")
    return cache(lambda structure: imported(written(structure.cell(), request.param, folder)))


# -------------------------------------------------------------------------------- the cases of onnx


def cases() -> list[Any]:
    """ONNX's own cases of the three operators; some draw their numbers when they are collected."""
    np.random.seed(0)
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in OPERATORS:
            importlib.import_module(f"{node.__name__}.{operator.lower()}")
    return [case for case in node._NodeTestCases if case.model.graph.node[0].op_type in OPERATORS]


CASE = {case.name: case for case in cases()}


def test_onnx_has_as_many_cases_as_readme_says():
    assert len(CASE) == CASES


@pytest.mark.parametrize("name", CASE)
def test_a_case_of_onnx_agrees(module_of, name):
    model = CASE[name].model
    (node,) = model.graph.node
    ((values, wanted),) = CASE[name].data_sets
    place = {argument: INPUTS[k] for k, argument in enumerate(node.input)}
    given = {place[i.name]: value for i, value in zip(model.graph.input, values, strict=True)}
    found = run(node, given, module_of)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


# -------------------------------------------------------------------------------- onnxruntime


def structures() -> list[Structure]:
    """Every option of every operator with every other; every activation in every place."""
    found = []
    for operator, defaults in DEFAULTS.items():
        names = list(ACTIVATIONS)
        turns = [
            tuple(names[(k + 4 * place) % len(names)] for place in range(len(defaults))) for k in range(11)
        ]
        switches = {"RNN": ["clipped"], "GRU": ["clipped", "linear_before_reset"]}.get(
            operator, ["clipped", "input_forget", "peepholes"]
        )
        for k in range(2 ** len(switches)):
            flags = {switch: bool(k >> at & 1) for at, switch in enumerate(switches)}
            found += [Structure(operator, activations, **flags) for activations in (tuple(defaults), *turns)]
    return list(dict.fromkeys(found))


STRUCTURES = structures()
SHARES = {
    structure.name: (structure, NODES // len(STRUCTURES) + (k < NODES % len(STRUCTURES)))
    for k, structure in enumerate(STRUCTURES)
}


def random_node(structure: Structure, rng: np.random.Generator) -> tuple[NodeProto, dict[str, Any]]:
    """A node of this structure, of any size, direction and choice of inputs; and its inputs."""
    operator = structure.operator
    G, places = len(GATES[operator]), len(DEFAULTS[operator])
    steps = 7 if BOUNDED.issuperset(structure.activations) else 3
    T, N, I, H = (int(rng.integers(1, most + 1)) for most in (steps, 4, 5, 8))  # noqa: E741
    direction = ("forward", "reverse", "bidirectional")[rng.integers(3)]
    D = 2 if direction == "bidirectional" else 1

    def chosen() -> bool:
        return bool(rng.random() < 0.7)

    def drawn(*shape: int) -> np.ndarray:
        return (0.4 * rng.standard_normal(shape)).astype(np.float32)

    given: dict[str, Any] = {"X": drawn(T, N, I), "W": drawn(D, G * H, I), "R": drawn(D, G * H, H)}
    given |= {"B": drawn(D, 2 * G * H)} if chosen() else {}
    given |= {"sequence_lens": rng.integers(1, T + 1, N).astype(np.int32)} if chosen() else {}
    for state in structure.states:
        given |= {f"initial_{state}": drawn(D, N, H)} if chosen() else {}
    given |= {"P": drawn(D, 3 * H)} if structure.peepholes else {}

    attributes: dict[str, Any] = {"hidden_size": H, "direction": direction}
    activations = list(structure.activations)
    if D == 2:  # sometimes the second direction has other ones
        activations += DEFAULTS[operator] if rng.random() < 0.2 else activations
    if activations != DEFAULTS[operator] * D or chosen():
        attributes["activations"] = activations
        needed = chosen() or not LACKING.isdisjoint(activations)
        for kind, count in (("alpha", 1), ("beta", 2)):
            takers = [name for name in activations if len(ACTIVATIONS[name][1]) >= count]
            values = [float(np.float32(rng.uniform(0.1, 1))) for _ in takers]
            attributes |= {f"activation_{kind}": values} if values and needed else {}
    attributes |= {"clip": float(np.float32(rng.uniform(0.2, 1.5)))} if structure.clipped else {}
    attributes |= {"linear_before_reset": 1} if structure.linear_before_reset else {}
    attributes |= {"input_forget": 1} if structure.input_forget else {}
    assert len(activations) == places * D

    inputs = [name if name in given else "" for name in INPUTS]
    if operator != "LSTM":
        inputs = inputs[:6]
    outputs = ["Y", "Y_h", "Y_c"][: 1 + len(structure.states)]
    return make_node(operator, inputs, outputs, **attributes), given


def model_of(node: NodeProto, given: dict[str, Any]) -> ModelProto:
    kinds = {"sequence_lens": TensorProto.INT32}
    graph = make_graph(
        [node],
        "node",
        [make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), a.shape) for n, a in given.items()],
        [make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 14)], ir_version=8)


def run_onnxruntime(node: NodeProto, given: dict[str, Any]) -> list[Any]:
    model = model_of(node, given).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, given)


def worst(found: list[Any], wanted: list[Any]) -> float:
    """The largest difference, where values are above 1 relative to the largest."""
    assert [a.shape for a in found] == [a.shape for a in wanted]
    assert all(np.isfinite(a).all() for a in (*found, *wanted))
    pairs = zip(found, wanted, strict=True)
    return max(np.abs(a - b).max(initial=0) / max(1, np.abs(b).max(initial=0)) for a, b in pairs)


def test_the_shares_of_all_structures_are_two_thousand_nodes():
    assert sum(count for _, count in SHARES.values()) == NODES


@pytest.mark.parametrize("name", SHARES)
def test_random_nodes_agree_with_onnxruntime(module_of, name):
    structure, count = SHARES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    errors = []
    for _ in range(count):
        node, given = random_node(structure, rng)
        errors.append(worst(run(node, given, module_of), run_onnxruntime(node, given)))
    assert len(errors) == count
    assert max(errors) <= TOLERANCE


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_sequence_of_length_zero_keeps_its_state_where_onnxruntime_gives_zeros(module_of, operator):
    structure = Structure(operator, tuple(DEFAULTS[operator]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        node, given = random_node(structure, rng)
        lengths = given["sequence_lens"] = rng.integers(0, len(given["X"]) + 1, given["X"].shape[1], np.int32)
        if "sequence_lens" not in node.input:
            continue
        ours, theirs = run(node, given, module_of), run_onnxruntime(node, given)
        ended, running = lengths == 0, lengths > 0
        assert not ours[0][:, :, ended].any()
        for found, wanted, state in zip(ours[1:], theirs[1:], structure.states, strict=True):
            assert worst([found[:, running]], [wanted[:, running]]) <= TOLERANCE
            assert not wanted[:, ended].any()
            start = given.get(f"initial_{state}", np.zeros_like(found))
            np.testing.assert_array_equal(found[:, ended], start[:, ended])
