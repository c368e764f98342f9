"""Matrices that are computed of parameters: what they are, and their derivatives, in graphs."""

import re
import shutil
from typing import Any

import numpy as np
import pytest
import sympy as sp

import gategen
from gategen import (
    Cell,
    Eq,
    SpecError,
    UnsupportedError,
    constants,
    expm,
    identity,
    inputs,
    inv,
    matrices,
    norm,
    row_norms,
    scalars,
    size,
    states,
    tanh,
    vectors,
)
from gategen.graph import Graph, evaluate, weights
from gategen.graph.adjoint import adjoint
from gategen.graph.tangent import tangent
from gategen.spec.text.writer import write
from tests.helpers import SIZES, TINY, assert_close

x, h = inputs("x"), states("h")
U, A, B, M = matrices("U A B M")
P, Q = matrices("P", ("hidden", "rank")), matrices("Q", ("rank", "hidden"))
W = matrices("W")
S = matrices("S", trainable=False)
g = scalars("g")
c = constants(c=0.25)

EXPRESSIONS = {
    "mask * U": (S * U, lambda v: v["S"] * v["U"]),
    "A - A.T": (A - A.T, lambda v: v["A"] - v["A"].T),
    "A.T + c*identity": (A.T + c * identity, lambda v: v["A"].T + 0.25 * np.eye(3)),
    "A + B/2": (A + B / 2, lambda v: v["A"] + v["B"] / 2),
    "g*U": (g * U, lambda v: v["g"] * v["U"]),
    "sizes": (
        (U / gategen.sqrt(size("hidden")) - size("input") * A) * size("hidden"),
        lambda v: (v["U"] / np.sqrt(3) - 5 * v["A"]) * 3,
    ),
    "P @ Q": (P @ Q, lambda v: v["P"] @ v["Q"]),
    "P @ (Q @ A).T.T": (P @ (Q @ A).T.T, lambda v: v["P"] @ v["Q"] @ v["A"]),
    "powers": (A**3 / (2 + g**2), lambda v: v["A"] ** 3 / (2 + v["g"] ** 2)),
    "norm": (g * U / norm(U - B), lambda v: v["g"] * v["U"] / np.sqrt(((v["U"] - v["B"]) ** 2).sum())),
    "rows": (
        (A + B) / row_norms(A),
        lambda v: (v["A"] + v["B"]) / np.sqrt((v["A"] ** 2).sum(axis=1, keepdims=True)),
    ),
    "inv": (inv(3 * identity + A), lambda v: np.linalg.inv(3 * np.eye(3) + v["A"])),
    "Cayley": (
        inv(identity + A - A.T) @ (identity - A + A.T),
        lambda v: np.linalg.solve(np.eye(3) + v["A"] - v["A"].T, np.eye(3) - v["A"] + v["A"].T),
    ),
    "expm": (expm(A - A.T), lambda v: series(v["A"] - v["A"].T)),
    "expm of inv": (
        expm(inv(4 * identity + A) @ B), lambda v: series(np.linalg.inv(4 * np.eye(3) + v["A"]) @ v["B"])
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize("name", EXPRESSIONS, ids=lambda name: re.sub(r"\W+", "_", name))


def series(matrix: Any) -> Any:
    """The exponential of a small matrix by its series."""
    total = term = np.eye(len(matrix))
    for k in range(1, 60):
        term = term @ matrix / k
        total = total + term
    return total


def cell(matrix: Any) -> Cell:
    return Cell("cell", Eq(h.next, tanh(W @ x + matrix @ h)))


def graph_of(name: str) -> Graph:
    found = weights(cell(EXPRESSIONS[name][0]))
    assert found is not None
    return found


def values_of(graph: Graph, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        v.name: rng.standard_normal([SIZES.get(size, size) for size in v.shape]) for v in graph.parameters
    }


def run(graph: Graph, given: Any) -> Any:
    return evaluate(graph, given, {}, sizes=SIZES, steps=0)


@EVERY
def test_a_computed_matrix_is_what_it_says(name: str) -> None:
    graph = graph_of(name)
    values = values_of(graph)
    assert_close(*run(graph, values).sums.values(), EXPRESSIONS[name][1](values), 1e-12)


@EVERY
def test_its_gradients_agree_with_complex_step(name: str) -> None:
    graph, back = graph_of(name), adjoint(graph_of(name))
    values = values_of(graph)
    weight = np.random.default_rng(1).standard_normal((3, 3))
    (seed,) = [v.name for v in back.parameters if v.role == "gradient"]
    found = run(back, {**run(graph, values).values, seed: weight}).sums

    def loss(moved: Any) -> Any:
        (result,) = run(graph, values | moved).sums.values()
        return (result * weight).sum()

    free = [v.name for v in graph.parameters if v not in graph.fixed]
    assert set(found) == set(free)
    for parameter in free:
        wanted = np.zeros(np.shape(values[parameter]))
        for index in np.ndindex(wanted.shape):
            step = np.zeros(wanted.shape, complex)
            step[index] = 1j * TINY
            wanted[index] = loss({parameter: values[parameter] + step}).imag / TINY
        assert_close(found[parameter], wanted, 1e-11, parameter)


@EVERY
@pytest.mark.parametrize("backwards", [False, True])
def test_its_tangents_agree_with_complex_step(name: str, backwards: bool) -> None:
    forward = graph_of(name)
    graph = adjoint(forward) if backwards else forward
    values = run(forward, values_of(forward)).values
    given = {**{v.name: np.ones((3, 3)) for v in graph.parameters if v.role == "gradient"}, **values}
    given = {v.name: given[v.name] for v in graph.parameters}
    by = values_of(graph, seed=2)
    push = tangent(graph)
    dots = push.parameters[len(graph.parameters) :]
    free = [v for v in graph.parameters if v not in graph.fixed]
    found = run(push, given | {d.name: by[v.name] for d, v in zip(dots, free, strict=True)}).sums
    moved = run(
        graph, {n: v + (n in {f.name for f in free}) * 1j * TINY * by[n] for n, v in given.items()}
    ).sums
    for result, value in moved.items():
        assert_close(found[f"dot_{result}"], np.imag(value) / TINY, 1e-11, result)


# -------------------------------------------------------------------------------- modules


def test_the_recurrence_of_the_cayley_cell_is_orthogonal_and_that_of_the_mask_is_the_plain_one() -> None:
    module = gategen.compile("cayley_rnn")
    (made,) = module.weights(module.init(2, 6, seed=0, dtype="float64"))
    assert_close(made @ made.T, np.eye(6), 1e-14)
    module = gategen.compile("weight_drop_lstm")
    params = module.init(2, 6, seed=0)
    np.testing.assert_array_equal(module.weights(params)[0], params.U)
    assert module.FIXED == ("M_i", "M_f", "M_g", "M_o")


def test_a_fixed_mask_has_no_gradient_and_where_it_is_0_the_weight_has_none() -> None:
    module = gategen.compile("weight_drop_lstm")
    params = module.init(2, 3, seed=0, dtype="float64")
    mask = np.ones(params.M.shape)
    mask[::2, 1] = 0
    params = params._replace(M=mask)
    y, _, tape = module.forward(params, np.random.default_rng(1).standard_normal((4, 2, 2)))
    found = module.backward(params, tape, np.ones(y.shape)).params
    assert not found.M.any()
    np.testing.assert_array_equal(found.U != 0, mask != 0)


@pytest.mark.parametrize("size", [0.01, 1, 30])
def test_the_exponential_is_that_of_the_eigenvalues(size: float) -> None:
    skew = np.random.default_rng(2).standard_normal((7, 7))
    skew = size * (skew - skew.T)
    module = gategen.compile(cell(expm(A)))
    values, vectors = np.linalg.eig(skew)
    wanted = (vectors * np.exp(values)) @ np.linalg.inv(vectors)
    assert_close(module.expm(skew), wanted.real, 1e-12)
    assert_close(module.expm(skew.astype(np.float32)), wanted.real, 2e-5 * max(1, size))
    assert module.expm(skew.astype(np.float32)).dtype == np.float32


def test_a_root_of_a_number_leaves_the_dtype_as_it_is() -> None:
    module = gategen.compile(cell(sp.sqrt(2) * A / sp.sqrt(3)))
    params = module.init(2, 3, seed=0)
    (made,) = module.weights(params)
    assert made.dtype == np.float32
    assert_close(made, params.A * np.sqrt(2 / 3), 1e-6)
    module = gategen.compile(cell(A / gategen.sqrt(size("hidden"))))
    (made,) = module.weights(module.init(2, 3, seed=0))
    assert made.dtype == np.float32


def test_what_has_no_inverse_is_an_error() -> None:
    module = gategen.compile(cell(inv(A)))
    params = module.pack({"W": np.ones((2, 1)), "A": np.ones((2, 2))})
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        module.forward(params, np.ones((1, 1, 1)))


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_c_inverts_with_pivots_and_knows_the_exponential(dtype: str) -> None:
    made = Cell("both", Eq(h.next, inv(A) @ h + expm(B) @ h + W @ x))
    numpy, c_module = (gategen.compile(made, backend) for backend in ("numpy", "c"))
    rng = np.random.default_rng(3)
    for n in (1, 5, 40):
        given = {"W": rng.standard_normal((n, 2)), "B": rng.standard_normal((n, n))}
        given["A"] = rng.permutation(np.eye(n))[:, ::-1] * 2  # zeros on the diagonal
        named = {key: value.astype(dtype) for key, value in given.items()}
        inputs = 0.1 * rng.standard_normal((2, 3, 2)).astype(dtype)
        results = []
        for module in (numpy, c_module):
            params = module.pack(named)
            y, _, tape = module.forward(params, inputs)
            grads = module.backward(params, tape, np.ones_like(y))
            results.append([y, grads.x, *module.unpack(grads.params).values()])
            results[-1] += [module.step(params, inputs[0], module.States(y[0]))[0]]
        for a, b in zip(*results, strict=True):
            assert_close(b, a, 1e-11 if dtype == "float64" else 1e-3)


# -------------------------------------------------------------------------------- what is refused


def test_a_matrix_times_a_vector_is_refused_as_before() -> None:
    with pytest.raises(SpecError, match="U is a matrix and stands without @"):
        Cell("cell", Eq(h.next, tanh(W @ x + U * h)))


def test_the_text_form_has_one_identity() -> None:
    own = vectors("identity")
    with pytest.raises(UnsupportedError, match="has a name identity"):
        write(Cell("cell", Eq(h.next, tanh(W @ x + inv(identity + A) @ h + own))))
    text = write(Cell("cell", Eq(h.next, tanh(W @ x + inv(identity + A) @ h))))
    assert "inv(identity + A) @ h" in text
