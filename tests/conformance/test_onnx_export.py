"""Nets of `gategen.layers` as ONNX models: checked by onnx, run in onnxruntime beside the NumPy modules."""

import os
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import sympy as sp
from onnx.reference import ReferenceEvaluator
from random_cells import rolled

from gategen import Cell, cli, load
from gategen.errors import GategenError
from gategen.graph import Value, numeric
from gategen.judge.host import imported, written
from gategen.judge.problem import init_arguments
from gategen.layers import RNN
from gategen.layers.weights import CELLS, ONNX, named_cell, refuse
from gategen.onnx.expressions import Expressions
from gategen.onnx.model import OPSETS
from gategen.onnx.nodes import Nodes
from gategen.spec.elementwise import elementwise
from gategen.spec.functions import TABLE
from gategen.spec.load import builtins

ROOT = Path(__file__).parents[2]
STEMS = (
    "inputs",
    "starts",
    "names",
    "rows",
    "functions",
    "numbers",
    "products",
    "contents",
    "kinds",
    "drawn",
    "sizes",
    "words",
    "matrices",
    "memories",
    "computed",
    "axes",
    "weighted",
    "nodes",
    "convolutions",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    OWN = {cell.name: cell for stem in STEMS for cell in load(ROOT / f"tests/specs/{stem}.py")}
    OWN |= {
        cell.name: cell for path in sorted((ROOT / "examples/papers").glob("*.gate")) for cell in load(path)
    }
EVERY = builtins() | OWN
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}  # of the largest value where that is above 1
FURTHER = (2, 5, 3, 4, 6)

onnxruntime.set_default_logger_severity(4)


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    """The NumPy module of a cell: a built-in one as it is committed, others generated once."""
    folder = tmp_path_factory.mktemp("modules")

    @cache
    def found(name: str) -> Any:
        if name in OWN:
            return imported(written(OWN[name], "numpy", folder))
        return imported(ROOT / "generated" / f"{name}_numpy.py")

    return found


def net_of(cell: Cell, module: Any, dtype: str = "float32", **options: Any) -> RNN:
    """A net with numbers everywhere, also in biases, fixed parameters and statistics."""
    further = [size for size in cell.sizes if size not in ("input", "hidden")]
    sizes = {"input": 3, "hidden": 4, **dict(zip(further, FURTHER, strict=False))}
    first = cell.inputs[0].size
    first = first[-1] if isinstance(first, tuple) else first
    sizes["input"] = first if isinstance(first, int) else sizes[first]
    sizes = cell.fitting(sizes)
    arguments = {**init_arguments(cell, module, sizes), "input_size": sizes["input"]}
    net = RNN(module, **arguments, dtype=dtype, seed=0, **options).eval()
    rng = np.random.default_rng(1)
    state = {name: array + rng.uniform(0, 0.2, array.shape) for name, array in net.state_dict().items()}
    net.load_state_dict(state)
    return net


class Model:
    """What a net wrote, checked and loaded."""

    def __init__(self, net: RNN, folder: Path, cell: Cell | None = None, **options: Any) -> None:
        path = folder / "model.onnx"
        net.to_onnx(path, cell=cell, **options)
        self.size = path.stat().st_size
        self.proto = onnx.load(path)
        onnx.checker.check_model(self.proto, full_check=True)
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        optional = {tensor.name for tensor in self.proto.graph.initializer}
        self.names = [i.name for i in self.proto.graph.input]
        self.needed = [name for name in self.names if name not in optional]
        self.states = len(net.module.STATES)

    def __call__(self, x: Any, inputs: dict[str, Any], initial: Any = None, lengths: Any = None) -> list[Any]:
        """Outputs and final states; inputs are told by their places."""
        given = {self.names[0]: x, **dict(zip(self.names[2 + self.states :], inputs.values(), strict=True))}
        if lengths is not None:
            given[self.names[1]] = np.asarray(lengths, np.int64)
        if initial is not None:
            given |= dict(zip(self.names[2:], initial, strict=False))
        return self.session.run(None, given)


class Infinite(AssertionError):
    """The module itself gives what is not finite."""


# From its own start it takes the logarithm of 1e-11, and float32 is off by 0.03 from float64, here and there.
STEEP = {"libru"}


def agree(
    net: RNN, model: Model, steps: int, batch: int, constant: tuple[str, ...] = (), seed: int = 0
) -> None:
    """With lengths and without, from given states and from the cell's own start."""
    rng = np.random.default_rng(seed)
    dtype = next((array.dtype for array in net.state_dict().values()), np.dtype("float32"))

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    sides = (batch, steps) if net.batch_first else (steps, batch)
    x, *others = (
        drawn(*((batch,) if name in constant else sides), *net._features(size, net.input_size))
        for name, size in net.module.INPUTS.items()
    )
    inputs = dict(zip(list(net.module.INPUTS)[1:], others, strict=True))
    ends = rng.integers(0, steps + 1, batch)
    ends[: batch - 1] = [0, steps, 1, *ends[3:]][: batch - 1]
    for lengths in (None, ends):
        final = net(x, lengths=lengths, **inputs)[1]
        start = [rng.uniform(0.2, 0.8, state.shape).astype(dtype) for state in final]
        for initial in (start,) if net.module.NAME in STEEP else (None, start):
            y, final = net(x, initial, lengths, **inputs)
            found = model(x, inputs, initial, lengths)
            wanted = [*(y if isinstance(y, tuple) else (y,)), *final]
            for name, one, other in zip(model.proto.graph.output, found, wanted, strict=True):
                assert one.shape == other.shape and one.dtype == other.dtype, name.name
                if not np.isfinite(other).all():
                    raise Infinite(name.name)
                error = np.abs(one - other).max() / max(1, np.abs(other).max())
                assert error <= TOLERANCE[str(dtype)], f"{name.name} is off by {error}"
                if lengths is not None and name.name.startswith("y"):
                    one = np.moveaxis(one, 0, 1) if net.batch_first else one
                    assert all(not one[end:, b].any() for b, end in enumerate(lengths))


def stacks(name: str, module: Any) -> bool:
    """Whether a second layer of the cell fits on both directions of the first."""
    try:
        net_of(EVERY[name], module, num_layers=2, bidirectional=True)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------------- every cell


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", EVERY)
def test_every_cell_gives_in_onnxruntime_what_the_numpy_module_gives(module_of, tmp_path, name, dtype):
    cell = EVERY[name]
    if dtype == "float64" and (not cell.parameters or {"gelu(", "erf("} & {*re.findall(r"\w+\(", str(cell))}):
        pytest.skip("onnxruntime has Erf in float32 alone; without parameters a model is in float32")
    net = net_of(cell, module_of(name), dtype)
    model = Model(net, tmp_path, cell)
    for steps, batch in ((5, 4), (9, 2), (1, 1)):
        agree(net, model, steps, batch)


def test_cells_of_vectors_of_matrices_and_of_blocks_are_among_them():
    assert len(OWN) > 100 and len(EVERY) > 175
    assert sum(bool(cell.orders) for cell in EVERY.values()) > 20
    assert sum(bool(cell.shares) for cell in EVERY.values()) >= 4


def test_layers_in_both_directions_give_what_those_of_numpy_give(module_of, tmp_path):
    names = [name for name in EVERY if stacks(name, module_of(name))]
    assert len(names) > 100 and {"caru", "lstm_sak", "ligru", "trained", "several", "normed"} <= {*names}
    for k, name in enumerate(names):
        options = {"batch_first": k % 2 == 1}
        net = net_of(EVERY[name], module_of(name), num_layers=2, bidirectional=True, **options)
        model = Model(net, tmp_path, EVERY[name])
        agree(net, model, 6, 5)
        scans = [node for node in model.proto.graph.node if node.op_type == "Scan"]
        assert len(scans) == 4, name


@pytest.mark.filterwarnings("ignore")
def test_random_cells_give_what_their_numpy_modules_give(tmp_path):
    """Of `tests/random_cells.py`; left out are those whose values are not finite, or that take gelu."""
    agreed = 0
    for k in range(60):
        cell = rolled(11, k).cell()
        if "gelu(" in str(cell) or "erf(" in str(cell) or cell.orders or cell.shares:
            continue
        net = net_of(cell, imported(written(cell, "numpy", tmp_path)), "float64")
        model = Model(net, tmp_path, cell)
        with np.errstate(all="ignore"), suppress(Infinite):
            agree(net, model, 3, 3)
            agreed += 1
    assert agreed >= 30


@pytest.mark.parametrize("name", ["masked", "noisy", "elapsed", "resized", "decayed"])
def test_further_inputs_may_be_constant_in_time(module_of, tmp_path, name):
    cell = EVERY[name]
    constant = tuple(symbol.name for symbol in cell.inputs[1:][:1])
    for batch_first in (False, True):
        net = net_of(cell, module_of(name), bidirectional=True, batch_first=batch_first)
        model = Model(net, tmp_path, cell, constant=constant)
        agree(net, model, 6, 5, constant)
        (dims,) = [i.type.tensor_type.shape.dim for i in model.proto.graph.input if i.name == constant[0]]
        assert len(dims) == 2


def test_what_is_read_from_a_model(module_of, tmp_path):
    """Names, shapes, and equations in the words of the spec; nothing of T or B."""
    net = net_of(EVERY["lstm"], module_of("lstm"), num_layers=2, bidirectional=True)
    graph = Model(net, tmp_path).proto.graph

    def shapes(values: Any) -> dict[str, list[Any]]:
        dims = {v.name: v.type.tensor_type.shape.dim for v in values}
        return {name: [dim.dim_param or dim.dim_value for dim in found] for name, found in dims.items()}

    states = {"initial_h": [4, "B", 4], "initial_c": [4, "B", 4]}
    assert shapes(graph.input) == {"x": ["T", "B", 3], "lengths": ["B"], **states}
    assert shapes(graph.output) == {"y": ["T", "B", 8], "final_h": [4, "B", 4], "final_c": [4, "B", 4]}
    assert "h' = o * tanh(c')" in graph.doc_string
    assert {*net.state_dict()} <= {tensor.name for tensor in graph.initializer}
    (scan,) = [node for node in graph.node if node.op_type == "Scan" and "c_last_l1_reverse" in node.output]
    (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    assert {"MatMul", "Tanh", "Sigmoid"} <= {node.op_type for node in body.node}
    assert {"i_l1_reverse", "f_l1_reverse"} <= {name for node in body.node for name in node.output}


def test_names_that_the_cell_takes_for_its_inputs_get_numbers(module_of, tmp_path):
    cell = EVERY["passed_by_name"]
    graph = Model(net_of(cell, module_of(cell.name)), tmp_path, cell).proto.graph
    further = [symbol.name for symbol in cell.inputs[1:]]
    assert "y" in further
    assert [one.name for one in graph.input] == ["x", "lengths", "initial_h", *further]
    assert [one.name for one in graph.output] == ["y_2", "final_h"]


def test_products_of_x_stand_before_the_loop(module_of, tmp_path):
    graph = Model(net_of(EVERY["gru"], module_of("gru")), tmp_path).proto.graph
    outside = [node.op_type for node in graph.node].count("MatMul")
    (scan,) = [node for node in graph.node if node.op_type == "Scan"]
    (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    assert (outside, [node.op_type for node in body.node].count("MatMul")) == (3, 3)


def test_a_model_is_as_large_as_its_parameters_and_little_more(module_of, tmp_path):
    """It holds no step of a sequence, and each parameter once."""
    module = module_of("gru")
    for hidden in (8, 64, 256):
        net = RNN(module, 16, hidden, seed=0)
        numbers = sum(array.nbytes for array in net.state_dict().values())
        assert numbers < Model(net, tmp_path).size < numbers + 6000


@pytest.mark.parametrize("name", ["gru", "caru", "lstm_sak", "ln_lstm", "slstm", "trained", "several"])
def test_the_reference_implementation_of_onnx_gives_the_same(module_of, tmp_path, name):
    """It has no `Scan` that runs backwards."""
    net = net_of(EVERY[name], module_of(name), num_layers=2 if name not in ("several",) else 1)
    model = Model(net, tmp_path, EVERY[name])
    rng, evaluator = np.random.default_rng(0), ReferenceEvaluator(model.proto)
    x = rng.standard_normal((5, 3, net.input_size)).astype("float32")
    for lengths in (None, np.array([2, 5, 0])):
        y, final = net(x, lengths=lengths)
        wanted = [*(y if isinstance(y, tuple) else (y,)), *final]
        found = evaluator.run(None, {"x": x} | ({} if lengths is None else {"lengths": lengths}))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_the_same_net_gives_the_same_bytes(module_of, tmp_path):
    program = """
import sys
from gategen.layers import RNN
from generated import caru_numpy, ln_lstm_numpy
for module in (caru_numpy, ln_lstm_numpy):
    RNN(module, 3, 4, bidirectional=True, seed=0).to_onnx(sys.argv[1] + module.NAME)
"""
    written_: list[bytes] = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program, f"{tmp_path}/{seed}"], check=True, env=env)
        written_.append(b"".join((tmp_path / f"{seed}{name}").read_bytes() for name in ("caru", "ln_lstm")))
    assert written_[0] == written_[1]


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_of_the_table_runs(module_of, tmp_path, opset):
    for name in ("gru", "caru", "ln_lstm", "slstm", "several", "winner", "cumulative"):
        net = net_of(EVERY[name], module_of(name), bidirectional=True)
        model = Model(net, tmp_path, EVERY[name], opset=opset)
        assert [one.version for one in model.proto.opset_import] == [opset]
        agree(net, model, 4, 3)
    net = net_of(EVERY["gru_after"], module_of("gru_after"))
    agree(net, Model(net, tmp_path, native=True, opset=opset), 4, 3)


# ---------------------------------------------------------------------------------------------- the operators


def native(name: str) -> bool:
    try:
        refuse(named_cell(name), ONNX)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])
@pytest.mark.parametrize("name", [cell.name for cell in CELLS if native(cell.name)])
def test_cells_of_onnx_run_as_its_operators(module_of, tmp_path, name, bidirectional):
    for batch_first in (False, True):
        net = net_of(
            EVERY[name], module_of(name), num_layers=2, bidirectional=bidirectional, batch_first=batch_first
        )
        model = Model(net, tmp_path, native=True)
        kinds = [node.op_type for node in model.proto.graph.node]
        assert kinds.count(named_cell(name).kind) == 2 and "Scan" not in kinds
        for steps, batch in ((5, 4), (9, 2), (1, 1)):
            agree(net, model, steps, batch)
        nodes = [node.name for node in model.proto.graph.node if node.op_type == named_cell(name).kind]
        again = RNN.from_onnx(tmp_path / "model.onnx", nodes, module_of(name))
        for key, array in net.state_dict().items():
            np.testing.assert_allclose(again.state_dict()[key], array, rtol=0, atol=1e-7, err_msg=key)


def test_a_cell_that_is_no_operator_is_refused(module_of, tmp_path):
    with pytest.raises(ValueError, match="mgu1 is no cell whose weights other libraries have"):
        net_of(EVERY["mgu1"], module_of("mgu1")).to_onnx(tmp_path / "model.onnx", native=True)
    with pytest.raises(ValueError, match="ONNX does not have lstm_sak"):
        net_of(EVERY["lstm_sak"], module_of("lstm_sak")).to_onnx(tmp_path / "model.onnx", native=True)


# ---------------------------------------------------------------------------------------------- functions


REAL = [-30.0, -3.0, -1.0, -0.5, -1e-4, 0.0, 1e-7, 1e-4, 0.3, 1.0, 2.5, 20.0]
POSITIVE = [1e-30, 1e-7, 1e-3, 0.4, 1.0, 2.5, 30.0, 1e6]
X, Y = Value("x", ("hidden",)), Value("y", ("hidden",))


def applied(row: Any) -> sp.Expr:
    """A function of as many values as it takes."""
    if row.name == "where":
        return row.apply(X < Y, X, Y)
    return row.apply(*(X, Y)[: 2 if "b)" in row.text or row.name == "surrogate" else 1])


def computed(expr: sp.Expr, x: Any, y: Any) -> Any:
    """What onnxruntime makes of an expression of x and y."""
    nodes, info = Nodes(x.dtype), onnx.helper.make_tensor_value_info
    result = nodes("Identity", Expressions(nodes, {X: "x", Y: "y"}, {}, exact=True)(expr))
    graph = onnx.helper.make_graph(
        nodes.nodes,
        "function",
        [info(name, nodes.type, ["n"]) for name in "xy"],
        [info(result, nodes.type, ["n"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in nodes.constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "y": y})[0]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("row", [row for row in TABLE if row.evaluate], ids=lambda row: row.name)
def test_every_function_is_exact_to_some_units_in_the_last_place(row, dtype):
    if row.name == "erf" and dtype == "float64":
        pytest.skip("onnxruntime has Erf in float32 alone")
    x = np.array(POSITIVE if row.name in ("log", "log1p", "sqrt") else REAL, dtype)
    y = x[::-1] + (x[::-1] == 0)
    wanted = np.real(numeric(applied(row), {"x": x.astype(float), "y": y.astype(float)}))
    near_zero = 1e-12 if row.name in ("sin", "cos", "mod") else 0
    found = computed(applied(row), x, y)
    np.testing.assert_allclose(found, wanted, rtol=32 * np.finfo(dtype).eps, atol=near_zero)


def test_a_function_that_onnx_has_no_operator_for_is_what_its_class_says():
    bent = elementwise("bent", "v / sqrt(1 + v**2).", lambda v: v / sp.sqrt(1 + v**2), lambda y, v: 0)
    x = np.array(REAL)
    np.testing.assert_allclose(computed(3 - bent(X), x, x), 3 - x / np.sqrt(1 + x * x), rtol=1e-15)


# ---------------------------------------------------------------------------------------------- at the edges


def test_a_batch_of_none_runs(module_of, tmp_path):
    for name in ("gru", "lstm_sak", "caru"):
        net = net_of(EVERY[name], module_of(name), bidirectional=True)
        agree_shapes(net, Model(net, tmp_path, EVERY[name]), 3, 0)


def test_onnxruntime_refuses_a_loop_of_no_step(module_of, tmp_path):
    """As the page says; its GRU runs."""
    net = net_of(EVERY["gru_after"], module_of("gru_after"))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="Scan"):
        agree_shapes(net, Model(net, tmp_path), 0, 2)
    agree_shapes(net, Model(net, tmp_path, native=True), 0, 2)


def agree_shapes(net: RNN, model: Model, steps: int, batch: int) -> None:
    x = np.zeros((steps, batch, net.input_size), np.float32)
    y, final = net(x)
    assert [a.shape for a in model(x, {})] == [a.shape for a in (y, *final)]


def test_lengths_above_the_number_of_steps_are_that_number(module_of, tmp_path):
    for name, native_ in (("gru_after", True), ("gru_after", False), ("caru", False)):
        net = net_of(EVERY[name], module_of(name), bidirectional=True)
        model = Model(net, tmp_path, native=native_)
        x = np.random.default_rng(0).standard_normal((4, 2, net.input_size)).astype("float32")
        for found, wanted in zip(model(x, {}, None, [9, 2]), model(x, {}, None, [4, 2]), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["gru", "caru", "trained", "opened_from_the_start", "gru_after"])
def test_a_model_may_do_without_lengths_and_initial_states(module_of, tmp_path, name):
    rng = np.random.default_rng(0)
    for native_ in (False, True)[: 2 if name == "gru_after" else 1]:
        for lengths, initial in ((False, False), (True, False), (False, True)):
            net = net_of(EVERY[name], module_of(name), bidirectional=True)
            model = Model(net, tmp_path, EVERY[name], lengths=lengths, initial=initial, native=native_)
            optional = [one for one in model.names if one not in model.needed]
            wanted = ["lengths"] * lengths + [f"initial_{s}" for s in net.module.STATES] * initial
            assert optional == wanted
            given = {
                one.name: rng.standard_normal((5, 3, one.type.tensor_type.shape.dim[2].dim_value))
                for one in model.proto.graph.input
                if one.name in model.needed
            }
            given = {key: array.astype("float32") for key, array in given.items()}
            ends = np.array([5, 0, 2]) if lengths else None
            inputs = {key: array for key, array in given.items() if key != "x"}
            start, starts = None, {}
            if initial:
                start = [rng.standard_normal(s.shape).astype("float32") for s in net(given["x"], **inputs)[1]]
                starts = dict(zip(wanted, start, strict=True))
            y, final = net(given["x"], start, ends, **inputs)
            found = model.session.run(None, given | starts | ({"lengths": ends} if lengths else {}))
            for one, other in zip(found, [*(y if isinstance(y, tuple) else (y,)), *final], strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "caru", "ln_lstm", "lstm_sak", "gru_after"])
def test_what_stands_behind_the_end_of_a_sequence_is_not_looked_at(module_of, tmp_path, name):
    net = net_of(EVERY[name], module_of(name), num_layers=2, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((6, 3, net.input_size)).astype("float32")
    lengths = np.array([2, 6, 0])
    for native_ in (False, True)[: 2 if name == "gru_after" else 1]:
        model = Model(net, tmp_path, native=native_)
        clean = model(x, {}, None, lengths)
        dirty = np.where(np.arange(6)[:, None, None] < lengths[:, None], x, np.float32("nan"))
        for one, other in zip(model(dirty, {}, None, lengths), clean, strict=True):
            np.testing.assert_array_equal(one, other)


def test_one_initial_state_alone_may_be_given(module_of, tmp_path):
    """The other one is as the cell has it."""
    net = net_of(EVERY["lstm"], module_of("lstm"))
    model = Model(net, tmp_path)
    rng = np.random.default_rng(0)
    x, c = (rng.standard_normal(shape).astype("float32") for shape in ((4, 2, 3), (1, 2, 4)))
    y, final = net(x, {"h": np.zeros_like(c), "c": c})
    for found, wanted in zip(model.session.run(None, {"x": x, "initial_c": c}), (y, *final), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_nothing_is_lost_where_a_model_cannot_be_written(module_of, tmp_path):
    net = net_of(EVERY["gru"], module_of("gru"))
    path = tmp_path / "net.onnx"
    net.to_onnx(path)
    first = path.read_bytes()
    net.parameters()["W_z_l0"][...] = 0
    net.to_onnx(path)
    assert first != path.read_bytes()

    spec = tmp_path / "spec.py"
    spec.write_text("from gategen import Cell  # a file of mine")
    for wrong, message in (
        (spec, "was not written by gategen: only force overwrites it"),
        (tmp_path / "none" / "net.onnx", "cannot write .*: No such file or directory"),
        (tmp_path, "cannot write .*: Is a directory"),
        (f"{tmp_path}/a\0b", "cannot write .*null"),
        ("/dev/null", "cannot write /dev/null: this is a pipe or a device"),
    ):
        with pytest.raises(GategenError, match=message):
            net.to_onnx(wrong)
    with pytest.raises(TypeError):
        net.to_onnx(3)
    for options, message in (
        ({"opset": 12}, "the opset is 12, expected 13 to 27"),
        ({"constant": ["v"]}, "gru has no further input 'v'; further inputs: none"),
        ({"cell": "lstm"}, "the module gru is of another cell than lstm"),
    ):
        with pytest.raises(GategenError, match=message):
            net.to_onnx(tmp_path / "other.onnx", **options)
    assert spec.read_text().endswith("a file of mine")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["net.onnx", "spec.py"]
    with pytest.raises(GategenError, match="cannot write /dev/null: this is a pipe or a device"):
        net.to_onnx("/dev/null", force=True)
    net.to_onnx(spec, force=True)
    assert spec.read_bytes() == path.read_bytes()


def test_the_command_writes_what_the_net_writes(module_of, tmp_path, monkeypatch, capsys):
    net = net_of(EVERY["caru"], module_of("caru"), num_layers=2, bidirectional=True)
    net.save(tmp_path / "net.npz")
    net.to_onnx(tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gategen", "export", "caru", "--weights", "net.npz"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code and capsys.readouterr().out == "wrote caru.onnx\n"
    assert (tmp_path / "caru.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
