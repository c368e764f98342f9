"""Words of whole vectors: how they are written, their values far out and where entries are equal."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_case, run
from sympy.utilities.iterables import iterable

from gategen import Cell, Eq, SpecError, diff, inputs, matrices, size, sqrt, states, t, tanh
from gategen.graph import evaluate, flatten, text
from gategen.graph.adjoint import adjoint
from gategen.judge.host import host_of, written
from gategen.plan import plan
from gategen.show import show
from gategen.spec.text.writer import write


def parsed(equations):
    return Cell.parse("cell", equations)


def on(backend, cell, tmp_path):
    """The module of a cell, and its host."""
    host = host_of(backend, emulated=True)
    return host.load(written(cell, backend, tmp_path)), host


every_backend = pytest.mark.parametrize("backend", ["numpy", "cupy", "c"])


def gradient(cell, v, d_y):
    """The gradient of the input of a cell whose input is `v`, (B, n), by the slow interpreter."""
    graph = flatten(cell)
    v, states = v[None], {c.name: np.zeros((len(v), v.shape[1])) for c in graph.states}
    sizes = {"hidden": v.shape[-1]}
    done = evaluate(graph, {"v": v}, states, sizes=sizes, steps=1)
    back = adjoint(graph)
    given, ends = {**done.values, "d_y": d_y[None]}, {c.name: 0 * states["h"] for c in back.states}
    return evaluate(back, given, ends, sizes=sizes, steps=1).outputs["v"][0]


# -------------------------------------------------------------------------------- softmax, logsumexp, max_

FAR = np.array([[[3, 1, -2]], [[90, 0, 1]], [[1000, -1000, 999]], [[-1000, -1001, -2000]]], np.float32)


@every_backend
def test_a_softmax_and_its_gradient_are_finite_in_float32(backend, tmp_path):
    cell = parsed("inputs: v[hidden]\ny = softmax(v)\ns = logsumexp(v)\nh' = 0 * h + y\noutput: y, s")
    module, host = on(backend, cell, tmp_path)
    params = module.init(hidden_size=3)
    (y, s), _, tape = module.forward(params, host.put(FAR))
    d_y, d_s = np.ones_like(FAR) * [1, 2, 4], np.ones((4, 1, 1))
    grads = module.backward(params, tape, (host.put(d_y.astype("f4")), host.put(d_s.astype("f4"))))
    v = FAR.astype(np.float64)
    exps = np.exp(v - v.max(-1, keepdims=True))
    wanted = exps / exps.sum(-1, keepdims=True)
    np.testing.assert_allclose(host.get(y), wanted, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(host.get(s), np.log(exps.sum(-1, keepdims=True)) + v.max(-1, keepdims=True))
    slope = wanted * (d_y - (d_y * wanted).sum(-1, keepdims=True)) + d_s * wanted
    np.testing.assert_allclose(host.get(grads.x), slope, rtol=1e-5, atol=1e-6)


def test_a_joint_softmax_is_that_of_the_concatenation():
    cell = parsed(
        "h' = W_h @ x\np, q = softmax(h, x)\ns = logsumexp(h, x)\ny = max_(h, x)\noutput: p, q, s, y"
    )
    case = random_case(flatten(cell), steps=1)
    found = run(case).outputs
    both = np.concatenate([case.values["h"], case.values["x"][0]], axis=-1)
    exps = np.exp(both)
    total = exps.sum(-1, keepdims=True)
    wanted = {"p": exps[:, :3] / total, "q": exps[:, 3:] / total, "s": np.log(total)}
    for name, value in (wanted | {"y": both.max(-1, keepdims=True)}).items():
        np.testing.assert_allclose(found[f"y_{name}"][0], value, rtol=1e-14)


def test_the_largest_entries_share_the_gradient():
    cell = parsed("inputs: v[hidden]\ny = max_(v)\nh' = h + v\noutput: y")
    v = np.array([[1, 3, 2, 3], [0, 0, 0, 0], [-1, -2, -3, -0.5]])
    found = gradient(cell, v, np.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_array_equal(found, [[0, 0.5, 0, 0.5], [0.5] * 4, [0, 0, 0, 3]])


@every_backend
def test_the_largest_of_what_is_not_a_number_is_none(backend, tmp_path):
    cell = parsed("inputs: v[hidden]\ny = max_(v)\nh' = h + v\noutput: y")
    module, host = on(backend, cell, tmp_path)
    v = np.zeros((1, 3, 70), np.float32)
    v[0, 0, 3], v[0, 1, 69] = np.nan, np.nan
    y, _, _ = module.forward(module.init(hidden_size=70), host.put(v))
    np.testing.assert_array_equal(host.get(y)[0, :, 0], [np.nan, np.nan, 0])


@every_backend
def test_the_largest_of_many_is_found_wherever_it_is(backend, tmp_path):
    cell = parsed("inputs: v[hidden], w[hidden]\ny = max_(v, w, 0.5)\nh' = h + v\noutput: y")
    module, host = on(backend, cell, tmp_path)
    n = 300
    v = np.where(np.eye(n, dtype=bool), 2, -1).astype(np.float32)[None]
    params, w = module.init(hidden_size=n), np.full_like(v, 0.25)
    for first, second in ((v, w), (w, v)):
        y, _, tape = module.forward(params, host.put(first), w=host.put(second))
        assert (host.get(y) == 2).all()
        grads = module.backward(params, tape, host.put(np.ones((1, n, 1), np.float32)))
        got = {1: host.get(grads.x), -1: host.get(grads.w)}[1 if first is v else -1]
        np.testing.assert_array_equal(got[0], np.eye(n))


def test_what_is_asked_for_equality_is_saved():
    """Computed again it may differ in its last bit, and nothing would be the largest."""
    summed = parsed("a = W_a @ x + U_a @ h\nh' = tanh(a) * max_(a) + h")
    multiplied = parsed("a = z * h\nz = sigmoid(W_z @ x)\nh' = max_(a) + z * h")
    for cell in (summed, multiplied):
        assert "a" in [value.name for value in plan(cell).step.tape]


# -------------------------------------------------------------------------------- cumsum


@every_backend
@pytest.mark.parametrize("n", [1, 5, 127, 130, 300])
def test_a_running_sum_and_its_gradient(backend, n, tmp_path):
    cell = parsed("inputs: v[hidden]\ny = cumsum(v)\nh' = h + v\noutput: y")
    module, host = on(backend, cell, tmp_path)
    rng = np.random.default_rng(0)
    v, d_y = rng.standard_normal((2, 3, 2, n)).astype(np.float32)
    params = module.init(hidden_size=n)
    y, _, tape = module.forward(params, host.put(v))
    np.testing.assert_allclose(host.get(y), np.cumsum(v, -1, dtype=np.float64), atol=1e-4)
    found = host.get(module.backward(params, tape, host.put(d_y)).x)
    np.testing.assert_allclose(found, np.cumsum(d_y[..., ::-1], -1, dtype=np.float64)[..., ::-1], atol=1e-4)


def test_a_running_sum_is_a_product_with_ones():
    text = "states: h\n{}a = tanh(W_a @ x)\nh' = a * h + {}\n"
    one = parsed(text.format("", "cumsum(a * h)"))
    other = parsed(text.format("fixed matrices: S = lower\n", "S @ (a * h)"))
    case = random_case(flatten(one))
    values = {**case.values, "S": np.tri(3)}
    found, wanted = (
        run(case),
        evaluate(
            flatten(other),
            {name: values[name] for name in ("W_a", "x", "S")},
            {"h": values["h"]},
            sizes=case.sizes,
            steps=case.steps,
        ),
    )
    np.testing.assert_allclose(found.outputs["y"], wanted.outputs["y"], rtol=1e-14)
    assert diff(one, parsed(text.format("", "cumsum(h * a)"))).verdict == "same"
    assert diff(one, parsed(text.format("", "2 * cumsum(h * a / 2)"))).verdict == "same"
    assert not diff(one, parsed(text.format("", "cumsum(h)"))).same


def test_every_stage_says_from_where_is_summed_up():
    cell = parsed("h' = cumsum(h) + W_h @ x")
    assert "= cumsum(h)" in show(cell, "graph", "text") and ", from the last)" in show(
        cell, "adjoint", "text"
    )
    assert ", from the last)" in show(cell, "plan", "text")
    assert r"\sum_{j \leq i} \left(h\right)_{j}" in show(cell, "graph", "latex")
    (op,) = (op for op in show(cell, "graph", "json")[0]["ops"] if op["op"] == "cumsum")
    assert (op["operand"], op["backwards"]) == ("h", False)


# -------------------------------------------------------------------------------- sizes


def test_a_size_that_is_no_other_name_is_a_number():
    cell = parsed(
        "states: h, m[keys] = 1 / keys\nmatrices: R[keys, input]\n"
        "h' = (h + W_h @ x) / sqrt(hidden)\nm' = R @ x"
    )
    x, h, m = inputs("x"), states("h"), states("m", size="keys", initial=1 / size("keys"))
    W_h, R = matrices("W_h"), matrices("R", shape=("keys", "input"))
    other = Cell("cell", Eq(h.next, (h + W_h @ x) / sqrt(size("hidden"))), Eq(m.next, R @ x))
    assert diff(cell, other).verdict == "same" and cell.text() == other.text()
    assert parsed(write(other)).text() == cell.text()
    assert r"\sqrt{\mathrm{hidden}}" in show(cell, "equations", "latex")


def test_a_name_of_the_cell_is_no_size():
    cell = parsed("states: h[memory]\nvectors: memory[memory]\nh' = tanh(W_h @ x) * memory")
    assert [type(p).__name__ for p in cell.parameters] == ["Matrix", "Vector"]
    assert not diff(cell, parsed("states: h[memory]\nh' = tanh(W_h @ x) * memory")).same


def test_other_sizes_are_other_numbers():
    text = "states: h, m[keys]\nh' = h / {} + W_h @ x\nm' = m + V_m @ x\noutput: h', m'"
    assert not diff(parsed(text.format("hidden")), parsed(text.format("keys"))).same


# -------------------------------------------------------------------------------- earlier steps


def test_earlier_values_are_states_that_hand_on():
    cell = parsed("h' = tanh(W_h @ x + V_h @ x[t-2]) + h[t-1] - h[t - 3]")
    assert cell.text() == (
        "h' = h + tanh(W_h @ x + V_h @ x_2) - h_3",
        "h_2' = h",
        "h_3' = h_2",
        "x_1' = x",
        "x_2' = x_1",
    )
    assert [(s.name, s.size) for s in cell.states[1:]] == [
        ("h_2", "hidden"),
        ("h_3", "hidden"),
        ("x_1", "input"),
        ("x_2", "input"),
    ]
    assert all(s.initial == 0 for s in cell.states)
    assert parsed(write(cell)).text() == cell.text()
    x, h = inputs("x"), states("h")
    W_h, V_h = matrices("W_h V_h")
    other = Cell("cell", Eq(h.next, tanh(W_h @ x + V_h @ x[t - 2]) + h[t - 1] - h[t - 3]))
    assert other.text() == cell.text() and other.outputs == (h.next,)


def test_earlier_values_are_what_was():
    cell = parsed("inputs: x[hidden]\ny = x[t-2] + 10 * h[t-2]\nh' = x + h / 2\noutput: y")
    case = random_case(flatten(cell))
    zeros = {s.name: 0 * case.values[s.name] for s in cell.states}
    done = run(replace(case, values={**case.values, **zeros}))
    v, h = case.values["x"], [zeros["h"]]
    for step in v:
        h.append(step + h[-1] / 2)
    before = [0 * h[0], *h]
    for k in range(len(v)):
        wanted = (v[k - 2] if k > 1 else 0) + 10 * before[k]
        np.testing.assert_allclose(done.outputs["y"][k], wanted, rtol=1e-14)


def test_a_state_for_an_earlier_value_gives_way_to_names():
    cell = parsed("x_1 = tanh(W_h @ x)\nh' = x_1 + W_x @ x[t-1]")
    assert {s.name for s in cell.states} == {"h", "x_1_"}


def test_a_step_may_be_a_name_of_the_cell():
    cell = parsed("inputs: x, t[1]\nh' = t * tanh(W_h @ x[t-1] + W_t @ t[t-1])")
    assert [s.name for s in cell.states] == ["h", "t_1", "x_1"]


def test_names_with_earlier_values_are_still_single_symbols():
    x = inputs("x")
    assert not iterable(x) and np.asarray(x).shape == () and np.float64(2) * x == 2.0 * x
    with pytest.raises(TypeError):
        list(x)


# -------------------------------------------------------------------------------- as they are written


def test_words_of_vectors_are_read_and_written_alike():
    cell = parsed("p, q = softmax(W_p @ h, x)\nh' = p * max_(h, x) + U_h @ q + logsumexp(h) * softmax(h)")
    again = parsed(write(cell))
    assert (
        again.text()
        == cell.text()
        == (
            "p = softmax(W_p @ h, x)[0]",
            "q = softmax(W_p @ h, x)[1]",
            "h' = U_h @ q + logsumexp(h) * softmax(h) + p * max_(h, x)",
        )
    )
    assert diff(cell, again).verdict == "same"
    latex = show(cell, "equations", "latex")
    assert r"\operatorname{softmax}\left(W_{p} h, x\right)_{0}" in latex
    assert r"\operatorname{max}\left(h, x\right)" in latex


def test_a_softmax_is_its_formula_to_diff():
    one = parsed("p = softmax(W_p @ x)\nh' = p * h")
    other = parsed("a = W_p @ x\ne = exp(a - stop_gradient(max_(a)))\nh' = h * e / sum_(e)")
    assert diff(one, other).verdict == "same"
    assert not diff(one, parsed("p = softmax(W_p @ x)\nh' = p * p * h")).same


def test_a_graph_says_what_is_reduced_how():
    cell = parsed("m = max_(h)\nh' = m * tanh(W_h @ x) + softmax(h)")
    listed = text(flatten(cell))
    assert "= max(h)" in listed and "= stop_gradient(max(h))" in listed
    assert r"\max_{i} \left(h\right)" in show(cell, "graph", "latex")
    ops = [op for op in show(cell, "graph", "json")[0]["ops"] if op["op"] == "reduce"]
    assert [op["how"] for op in ops] == ["max", "bound", "sum"]


@pytest.mark.parametrize("word", ["max_", "logsumexp", "softmax"])
def test_a_word_of_vectors_takes_one_or_more(word):
    with pytest.raises(SpecError, match=rf"{word}\(a, ...\) takes one value or more, by place"):
        parsed(f"h' = {word}() + W_h @ x")


# -------------------------------------------------------------------------------- along one axis

MATRIX = "states: S[hidden, keys]\nmatrices: A[hidden, input], B[keys, input]\n"


def test_a_softmax_along_an_axis_adds_up_to_one_there_and_is_finite():
    cell = parsed(MATRIX + "P = softmax(S, over=keys)\nS' = S + outer(A @ x, B @ x)\noutput: P")
    case = random_case(flatten(cell), steps=1)
    far = replace(case, values={**case.values, "S": 1e3 * case.values["S"]})
    for one in (case, far):
        (found,) = run(one).outputs.values()
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-14)
        s = one.values["S"]
        exps = np.exp(s - s.max(-1, keepdims=True))
        np.testing.assert_allclose(found[0], exps / exps.sum(-1, keepdims=True), rtol=1e-14)


def test_words_along_an_axis_are_those_of_numpy():
    words = {"max_": np.max, "var": np.var, "mean": np.mean, "sum_": np.sum}
    lines = [f"{word.strip('_')} = {word}(S, over=hidden)" for word in words]
    lines += ["run = cumsum(S, over=hidden)", "norm = layer_norm(S, over=hidden)"]
    names = ", ".join(line.split(" = ")[0] for line in lines)
    cell = parsed(MATRIX + "\n".join([*lines, "S' = S + outer(A @ x, B @ x)", f"output: {names}"]))
    case = random_case(flatten(cell), steps=1)
    found, s = run(case).outputs, case.values["S"]
    for word, function in words.items():
        np.testing.assert_allclose(found[f"y_{word.strip('_')}"][0], function(s, axis=1), rtol=1e-13)
    np.testing.assert_allclose(found["y_run"][0], s.cumsum(1), rtol=1e-13)
    norm = (s - s.mean(1, keepdims=True)) / np.sqrt(s.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found["y_norm"][0], norm, rtol=1e-12)


def test_a_norm_of_every_head_is_that_of_each():
    cell = parsed(
        "states: h[heads*units]\nmatrices: A[heads*units, input]\nvectors: g[units], b[heads]\n"
        "y = layer_norm(h, g, b, eps=0.1, over=units)\nh' = h + A @ x\noutput: y"
    )
    case = random_case(flatten(cell), steps=1, sizes={"input": 2, "hidden": 3, "units": 4})
    heads, units = case.sizes["heads"], case.sizes["units"]
    h = case.values["h"].reshape(-1, heads, units)
    norm = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 0.1)
    wanted = case.values["g"] * norm + case.values["b"][:, None]
    np.testing.assert_allclose(run(case).outputs["y"][0], wanted.reshape(-1, heads * units), rtol=1e-12)


def test_words_along_an_axis_are_read_and_written_alike():
    cell = parsed(
        MATRIX + "N = layer_norm(S, bias=c_n, eps=0.1, over=hidden) + cumsum(S, over=keys)\n"
        "S' = N * softmax(S, over=keys) * logsumexp(S, over=hidden) + outer(A @ x, B @ x)\nvectors: c_n[keys]"
    )
    said = (
        "N = cumsum(S, over='keys') + layer_norm(S, bias=c_n, eps=0.1, over='hidden')",
        "S' = N * logsumexp(S, over='hidden') * softmax(S, over='keys') + outer(A @ x, B @ x)",
    )
    assert parsed(write(cell)).text() == cell.text() == said
    latex = show(cell, "equations", "latex")
    assert r"\operatorname{softmax}_{\mathrm{keys}}\left(S\right)" in latex
    assert r"\operatorname{layer\_norm}_{\mathrm{hidden}}\left(S, " in latex
    listed = text(flatten(cell))
    assert "cumsum(S, over=keys)" in listed and "stop_gradient(max(S, over=keys))" in listed
    ops = [op for op in show(cell, "graph", "json")[0]["ops"] if op["op"] == "cumsum"]
    assert [op["axis"] for op in ops] == ["keys"]


def test_a_softmax_along_an_axis_is_its_formula_to_diff():
    end = "\nS' = outer(A @ x, B @ x) * P"
    one = parsed(MATRIX + "P = softmax(S, over=keys)" + end)
    formula = "m = stop_gradient(max_(S, over=keys))\nE = exp(S - m)\nP = E / sum_(E, over=keys)"
    assert diff(one, parsed(MATRIX + formula + end)).verdict == "same"
    assert not diff(one, parsed(MATRIX + "P = softmax(S, over=hidden)" + end)).same
