"""Weights times matrices of every row: what they mean, how they are written, and when they run."""

import numpy as np
from helpers import random_case, run

from gategen import Cell, Eq, diff, gates, inputs, matrices, outer, states, tanh
from gategen.graph import Outer, flatten, text
from gategen.graph.adjoint import adjoint
from gategen.plan import MatMul, OuterSum, plan
from gategen.show import show
from gategen.spec.text.writer import write

HEAD = "states: S[hidden, keys]\nmatrices: A[hidden, input], B[keys, input]\n"
END = "\nS' = S + outer(A @ x, B @ x)\noutput: "
SIZES = {"input": 2, "hidden": 3, "keys": 4, "rank": 5}


def parsed(lines, declared, output):
    return Cell.parse("cell", f"{HEAD}matrices: {declared}\n{lines}{END}{output}")


def test_weights_multiply_from_both_sides():
    cell = parsed(
        "P = W @ S\nQ = tanh(S) @ V\nR = W.T @ P + S @ U.T", "W[rank, hidden], V[keys, rank], U", "P, Q, R"
    )
    case = random_case(flatten(cell), steps=1, sizes=SIZES)
    given, found = case.values, run(case).outputs
    s, w, v, u = (given[name] for name in ("S", "W", "V", "U"))
    np.testing.assert_allclose(found["y_P"][0], w @ s, rtol=1e-12)
    np.testing.assert_allclose(found["y_Q"][0], np.tanh(s) @ v, rtol=1e-12)
    np.testing.assert_allclose(found["y_R"][0], w.T @ w @ s + s @ u.T, rtol=1e-12)


def test_the_gradient_of_a_weight_is_one_product_for_all_steps():
    cell = parsed("G = tanh(W @ S + S @ V)", "W[hidden, hidden], V[keys, keys]", "G")
    step = plan(cell, arrays=True).step
    after = [stage for stage in step.backward.after if isinstance(stage, OuterSum) and stage.along]
    assert {stage.along for stage in after} == {("hidden", "hidden"), ("keys", "keys")}
    loop = [stage for stage in step.forward.loop if isinstance(stage, MatMul)]
    assert sorted(str(stage.along) for stage in loop) == ["hidden", "keys"]
    assert sum(isinstance(op, Outer) and bool(op.along) for op in adjoint(flatten(cell)).ops) == 2


def test_products_of_weights_are_read_and_written_alike():
    cell = parsed("G = tanh((W @ S) @ V.T + S @ V)", "W[hidden, hidden], V[keys, keys]", "G")
    assert "G = tanh((W @ S) @ V.T + S @ V)" in cell.text()
    assert Cell.parse("cell", write(cell)).text() == cell.text()
    assert r"\tanh\left(\left(W S\right) V^{\top} + S V\right)" in show(cell, "equations", "latex")
    assert r"S V + \left(W S\right) V^{\top}" in show(cell, "graph", "latex")
    assert r"\sum_{t, b} S^{\top} \delta a_{G}" in show(cell, "adjoint", "latex")
    listed = text(flatten(cell))
    assert "W @ S, over=hidden" in listed and "V.T @ S, over=keys" in listed
    ops = [op for op in show(cell, "graph", "json")[0]["ops"] if op["op"] == "product"]
    assert {op["along"] for op in ops} == {None, "hidden", "keys"}


def test_diff_knows_products_of_weights():
    declared = "W[hidden, hidden], V[keys, keys]"
    one = parsed("G = 3 * ((W @ S) @ V)", declared, "G")
    assert diff(one, parsed("G = (W @ S) @ V + 2 * ((W @ S) @ V)", declared, "G")).verdict == "same"
    assert not diff(one, parsed("G = 3 * ((W @ S) @ V.T)", declared, "G")).same
    assert not diff(one, parsed("G = 3 * (W @ S)", declared, "G")).same


def test_sizes_of_weights_follow_from_use():
    x, S = inputs("x"), states("S", size=("hidden", "keys"))
    W, V = matrices("W V")
    A, B = matrices("A", shape=("hidden", "input")), matrices("B", shape=("keys", "input"))
    G = gates("G")
    cell = Cell("cell", Eq(G, tanh(W @ S + S @ V)), Eq(S.next, G + outer(A @ x, B @ x)))
    assert (cell.shapes["W"], cell.shapes["V"]) == (("hidden", "hidden"), ("keys", "keys"))
