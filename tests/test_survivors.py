"""What deliberate bugs (`mutants.py`) showed to be untested: a bug that lived got a test here."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sympy as sp
from helpers import assert_close
from test_numpy_modules import CELLS as SPECS
from test_numpy_modules import LENGTHS, Point, forward, gradients, input_keys, named, random_point

from gategen import Cell, Eq, emulator, gates, inputs, matrices, sigmoid, states, tanh, vectors
from gategen import verify as verified
from gategen.backends.cupy import CudaPrinter
from gategen.backends.numpy import interpolated
from gategen.build import generate
from gategen.emulator import cupy as cp
from gategen.graph import Pointwise, Value
from gategen.judge.host import imported, written
from gategen.plan import MatMul, OuterSum, Plan, plan
from gategen.spec.language import where

x = inputs("x")
h, c, g = states("h c g")
W, U, V, W_z, U_z, U_r, V_r, V_n, W_n = matrices("W U V W_z U_z U_r V_r V_n W_n")
S = matrices("S", shape=(1, "hidden"))
z, r, n, s, y = gates("z r n s y")
b = vectors("b")

CROSSED = Cell(
    "crossed",
    Eq(h.next, tanh(W @ x + U @ g)),
    Eq(c.next, tanh(V @ h.next) + h * c),
    Eq(g.next, g * b + c),
)
TRIANGLE = Cell(
    "triangle",
    Eq(z, sigmoid(W_z @ x + U_z @ h)),
    Eq(r, sigmoid(U_r @ h + V_r @ c)),
    Eq(n, tanh(V_n @ c + W_n @ x)),
    Eq(h.next, z * h + (1 - z) * n),
    Eq(c.next, r * c + n),
)
BROADCAST = Cell(
    "broadcast",
    Eq(r, sigmoid(W @ x + U @ h)),
    Eq(s, sigmoid(S @ h)),
    Eq(h.next, r * h + s * tanh(r + b)),
)
READ_TWICE = Cell(
    "read_twice",
    Eq(r, sigmoid(W @ x)),
    Eq(z, sigmoid(U @ h)),
    Eq(y, r + z),
    Eq(n, y * (1 - y)),
    Eq(h.next, tanh(V @ n) / 2 + n * h),
)
DIVIDED_BY = Cell(
    "divided_by",
    Eq(r, sigmoid(W @ x)),
    Eq(z, sigmoid(U @ h)),
    Eq(y, r + z),
    Eq(n, r * z / y),
    Eq(h.next, n * b + h / 2),
)
UNFED = Cell("unfed", Eq(h.next, tanh(W @ x)), Eq(c.next, tanh(V @ h.next) + h * c))


def test_a_gradient_is_not_replaced_before_the_one_it_replaces_was_read() -> None:
    """d_h waits for nothing here, and what reads the d_h of the step before waits for a product."""
    (result,) = verified([CROSSED], ["numpy"])
    assert result.ok, result


def test_gates_that_no_order_puts_beside_each_other_get_products_of_their_own() -> None:
    """x, h and c drive two of three gates each, so one of the three pairs does not lie side by side."""
    (result,) = verified([TRIANGLE], ["numpy"])
    assert result.ok, result


def test_a_kernel_waits_for_one_of_another_size() -> None:
    """h_next is of the size of r, but reads s, which is of size 1 and comes after r."""
    (result,) = verified([BROADCAST], ["numpy"])
    assert result.ok, result


@pytest.mark.parametrize("cell", [READ_TWICE, DIVIDED_BY], ids=lambda cell: cell.name)
def test_a_result_may_lie_where_an_operand_was(cell: Cell) -> None:
    """y is not saved, so n may have its memory, and is computed from it."""
    (result,) = verified([cell], ["numpy"])
    assert result.ok, result


def test_a_matrix_may_meet_a_parameter() -> None:
    """The same for every row, and so it is made one row for each: a product is of rows."""
    (result,) = verified([Cell("constant", Eq(h.next, tanh(W @ x + U @ b) * h))], ["numpy"])
    assert result.ok, result


def test_a_state_that_waits_for_no_state_may_be_read_by_another() -> None:
    """d_h_next = d_h_later + V.T @ d_a_c is in no carried gradient, but reads one."""
    (result,) = verified([UNFED], ["numpy"])
    assert result.ok, result


# -------------------------------------------------------------------------------- CUDA of matrices used twice

CELLS = ("stacked", "twice", "tied", "chained")
ONCE_WRONG = ("narrow", "reduced", "opened", "opened_from_the_start")


def plan_of(name: str) -> Plan:
    return plan(SPECS[name])


def test_some_products_add_to_what_is_there() -> None:
    """Or else the test below would not test what it is for."""
    steps = [stage for name in CELLS for stage in plan_of(name).step.backward.stages]
    assert any(isinstance(stage, MatMul) and stage.add for stage in steps)
    assert any(isinstance(stage, OuterSum) and stage.add for stage in steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("survivors")


def on_device(point: Point, module: ModuleType) -> dict[str, Any]:
    """What `forward` and `backward` of a CuPy module return, by name."""

    def put(array: Any) -> Any:
        return cp.asarray(np.ascontiguousarray(array))

    params = module.pack({a.name: put(point.values[a.name]) for a in point.cell.arrays})
    others = [put(point.values[s.name]) for s in point.cell.inputs[1:]]
    further = dict(zip(input_keys(point)[1:], others, strict=True))
    initial = module.States(*map(put, point.states)) if point.initial else None
    y, final, tape = module.forward(params, put(point.x), initial=initial, lengths=point.lengths, **further)
    d_y, d_final = tuple(map(put, point.d_y)), module.States(*map(put, point.d_final))
    grads = module.backward(params, tape, d_y if len(d_y) > 1 else d_y[0], d_final)
    found = {f"y {k}": part for k, part in enumerate(y if isinstance(y, tuple) else (y,))}
    found |= {f"final {k}": part for k, part in enumerate(final)}
    given = Point(point.cell, module, point.values, point.d_y, point.d_final)
    return {key: cp.asnumpy(part) for key, part in (found | named(given, grads)).items()}


@pytest.mark.skipif(emulator.compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("name", [*CELLS, *ONCE_WRONG])
def test_the_cuda_of_cells_that_use_a_matrix_twice_agrees_with_numpy(name: str, folder: Path) -> None:
    cell = SPECS[name]
    plain = imported(written(cell, "numpy", folder))
    for file, text in generate(cell, "cupy").items():
        (folder / file).write_text(text, encoding="utf-8")
    cuda = emulator.load(folder / f"{name}_cupy.py")
    for initial, lengths in ((True, None), (False, LENGTHS)):
        point = random_point(name, plain, initial=initial, lengths=lengths)
        y, final, _ = forward(point)
        wanted = {f"y {k}": part for k, part in enumerate(y)}
        wanted |= {f"final {k}": part for k, part in enumerate(final)} | gradients(point)
        found = on_device(point, cuda)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_close(found[key], value, 1e-11, key)


def test_an_interpolation_is_a_step_from_one_end_towards_the_other() -> None:
    """One product less than `(1 - z)*a + z*b`, in whichever order the two stand."""
    k, p, q, out = (Value(name, ("hidden",)) for name in ("k", "p", "q", "out"))
    for total in ((1 - k) * p + k * q, k * q + (1 - k) * p):
        terms = sp.Add.make_args(interpolated(Pointwise(out, total)).expr)
        assert {str(term) for term in terms} == {"p", "k*(-p + q)"}
    for other in ((1 - k) * p + k * q + out, (1 + k) * p + k * q, (1 - k) * p + q, k * q):
        assert interpolated(Pointwise(out, other)).expr == other


A, B = (Value(name, ("hidden",)) for name in ("a", "b"))
CHOICE = where(A > B, A, B)


@pytest.mark.parametrize(
    ("expr", "cuda"),
    [
        (CHOICE, "a > b ? a : b"),
        (CHOICE + A, "a + (a > b ? a : b)"),
        (2 * CHOICE, "2 * (a > b ? a : b)"),
        (where(A > 0, A + B, -A), "a > 0 ? a + b : -a"),
        (where(A > B, CHOICE, A), "a > b ? (a > b ? a : b) : a"),
        (sp.sqrt(A), "sqrt(a)"),
        (A**2 + A**3, "square(a) + cube(a)"),
        (A**4, "pow(a, real(4.0))"),
        (A ** sp.Rational(3, 2), "pow(a, real(1.5))"),
        (A / 3, "real(0.3333333333333333) * a"),
        (10**5 * A, "100000 * a"),
        (10**6 * A, "real(1000000.0) * a"),
    ],
    ids=str,
)
def test_an_expression_is_written_in_cuda_as_it_should(expr: sp.Expr, cuda: str) -> None:
    assert CudaPrinter({"a": 0, "b": 1}, {}, {})(expr) == cuda


def test_one_value_serves_all_neighbours_in_one_call():
    text = generate(SPECS["ln_gru"], "numpy")["ln_gru_numpy.py"]
    assert text.count("gates -= centre_z\n") == 1 and text.count("-= centre_z\n") == 1
