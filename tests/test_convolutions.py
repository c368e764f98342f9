"""Convolutions and shifted values: what they mean, how they are written, and what runs of them."""

import numpy as np
import pytest
from helpers import random_case, run

from gategen import Cell, diff
from gategen.graph import Shift, flatten, text
from gategen.graph.adjoint import adjoint
from gategen.judge.host import host_of, written
from gategen.plan import MatMul, Shifted, persists, plan
from gategen.show import show
from gategen.spec.text.writer import write

SIZES = {"input": 2, "hidden": 3, "positions": 5, "height": 4, "width": 6}
FIRST = """inputs: X[input, positions]
states: H[hidden, positions]
matrices: K[(hidden, hidden, hidden), input]
"""
LAST = """inputs: X[positions, input]
states: H[positions, hidden]
matrices: K[(input, input, input), hidden]
"""
NINE = ", ".join(["input"] * 9)
IMAGE = f"inputs: X[height, width, input]\nstates: H[height, width, hidden]\nmatrices: K[({NINE}), hidden]\n"
every_backend = pytest.mark.parametrize("backend", ["numpy", "cupy", "c"])


def parsed(equations):
    return Cell.parse("cell", equations)


def values_of(cell):
    """X, the blocks of the kernel one behind the other, and the output, of one step."""
    case = random_case(flatten(cell), steps=1, sizes=SIZES)
    kernel = [case.values[name] for name in sorted(case.values) if name.startswith("K_")]
    return case.values["X"][0], np.stack(kernel), run(case).outputs["y"][0]


def convolved(x, kernel):
    """Of x (B, positions, input) with a kernel (places, input, hidden): entry by entry, no index outside."""
    made = np.zeros((*x.shape[:2], kernel.shape[-1]))
    for i in range(x.shape[1]):
        for k, weight in enumerate(kernel):
            if 0 <= (j := i + k - len(kernel) // 2) < x.shape[1]:
                made[:, i] += x[:, j] @ weight
    return made


def test_a_convolution_is_a_cross_correlation_with_zeros_outside():
    x, kernel, found = values_of(parsed(LAST + "Y = conv(X, K, over=positions)\nH' = Y + H\noutput: Y"))
    np.testing.assert_allclose(found, convolved(x, kernel), rtol=1e-12)


def test_no_places_further_on_is_the_value_itself():
    plain, moved = (
        parsed(f"inputs: x[hidden]\nvectors: v\nh' = tanh({h} * v + x)")
        for h in ("h", "shifted(h, 0, over=hidden)")
    )
    assert text(flatten(moved)) == text(flatten(plain))
    assert diff(moved, plain).verdict == "same"


def test_weights_on_the_left_are_of_matrices_with_the_channels_first():
    x, kernel, found = values_of(parsed(FIRST + "Y = conv(K, X, over=positions)\nH' = Y + H\noutput: Y"))
    wanted = convolved(x.swapaxes(1, 2), kernel.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_kernel_of_two_axes_lies_row_by_row():
    cell = parsed(IMAGE + "Y = conv(X, K, over=(height, width))\nH' = Y + H\noutput: Y")
    x, kernel, found = values_of(cell)
    (_, height, width, _), wide = x.shape, np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = ((a, b, kernel[3 * a + b]) for a in range(3) for b in range(3))
    wanted = sum(wide[:, a : a + height, b : b + width] @ weight for a, b, weight in places)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("k", [-4, -1, 1, 2])
def test_shifted_is_a_product_with_a_shift(k):
    case = random_case(flatten(parsed(f"h' = tanh(shifted(W_h @ x + h, {k}, over=hidden))")), steps=1)
    W_h, x, h = (case.values[name] for name in ("W_h", "x", "h"))
    wanted = np.tanh((x[0] @ W_h.T + h) @ np.eye(3, k=-k).T)
    np.testing.assert_allclose(run(case).outputs["y"][0], wanted, rtol=1e-13)


@every_backend
@pytest.mark.parametrize("k", [-9, -2, 1, 3, 8])
def test_entries_move_there_and_their_gradients_back(backend, k, tmp_path):
    cell = parsed(
        "inputs: v[rows, hidden, columns]\nstates: h[rows, hidden, columns]\nvectors: b\n"
        f"y = shifted(v, {k}, over=hidden)\nh' = h + v + b\noutput: y"
    )
    host = host_of(backend, emulated=True)
    module = host.load(written(cell, backend, tmp_path))
    rng = np.random.default_rng(0)
    v, d_y = rng.standard_normal((2, 3, 2, 4, 7, 5)).astype(np.float32)
    y, _, tape = module.forward(module.init(hidden_size=7, rows=4, columns=5), host.put(v))
    d_v = host.get(module.backward(module.init(hidden_size=7, rows=4, columns=5), tape, host.put(d_y)).x)
    step = np.eye(7, k=-k)
    np.testing.assert_array_equal(host.get(y), np.einsum("ij,tbrjc->tbric", step, v).astype("f4"))
    np.testing.assert_array_equal(d_v, np.einsum("ij,tbric->tbrjc", step, d_y).astype("f4"))


# -------------------------------------------------------------------------------- what runs


def test_what_is_shifted_alike_is_shifted_once_and_the_tape_has_no_copies():
    cell = parsed(LAST + "matrices: U[(hidden, hidden, hidden), hidden]\nvectors: b\n"
                  "H' = tanh(conv(X, K, over=positions) + conv(H, U, over=positions) + b)")  # fmt: skip
    step = plan(cell, arrays=True).step
    for schedule in (step.forward, step.backward):
        assert sorted(stage.by for stage in schedule.loop if isinstance(stage, Shifted)) == [-1, 1]
        assert sum(isinstance(stage, MatMul) for stage in schedule.loop) == 6
        assert not persists(schedule)
    assert [value.name for value in step.tape] == ["H_next"]
    assert sum(isinstance(op, Shift) for op in adjoint(flatten(cell)).ops) == 2


def test_a_kernel_of_one_place_shifts_nothing():
    cell = parsed(LAST.replace("(input, input, input)", "(input,)") + "H' = conv(X, K, over=positions) + H")
    assert not any(isinstance(op, Shift) for op in flatten(cell).ops)


# -------------------------------------------------------------------------------- how it is written


def test_convolutions_are_read_and_written_alike():
    both = "tanh(conv(X, K, over=positions) + shifted(H, -2, over=hidden))"
    cell = parsed(f"{LAST}H' = {both}")
    quoted = both.replace("positions", "'positions'").replace("hidden", "'hidden'")
    assert quoted in "\n".join(cell.text())
    assert Cell.parse("cell", write(cell)).text() == cell.text()
    shown = show(cell, "equations", "latex")
    assert r"X \ast_{\mathrm{positions}} K + {H}_{\mathrm{hidden} + 2}" in shown
    assert r"\left(X K_{2}\right)_{\mathrm{positions} + 1}" in show(cell, "graph", "latex")
    assert "shifted(X_K_2, -1, over=positions)" in text(flatten(cell))
    assert "X_K_2_back_1 = shifted(X_K_2, -1, over=positions)" in show(cell, "plan", "text")
    moved = [op for op in show(cell, "graph", "json")[0]["ops"] if op["op"] == "shift"]
    assert {(op["by"], op["axis"]) for op in moved} == {(1, "positions"), (-1, "positions"), (-2, "hidden")}


def test_diff_writes_convolutions_out():
    one = parsed(LAST + "H' = H + 2 * conv(X, K, over=positions)")
    parts = "shifted(X @ K[0], 1, over=positions) + X @ K[1] + shifted(X @ K[2], -1, over=positions)"
    assert diff(one, parsed(f"{LAST}H' = H + 2 * ({parts})")).same
    assert not diff(one, parsed(f"{LAST}H' = H + 2 * ({parts.replace('K[0], 1', 'K[0], -1')})")).same


def test_a_parameter_may_have_an_entry_for_each_of_three_axes():
    head = "inputs: X[height, width, hidden]\nstates: H[height, width, hidden]\n"
    cell = parsed(head + "matrices: P[height, width*hidden]\nvectors: b\nH' = P * H + X + b")
    assert cell.shapes["P"] == ("height", "width*hidden")
    case = random_case(flatten(cell), steps=1, sizes=SIZES)
    P, X, H, b = (case.values[name] for name in ("P", "X", "H", "b"))
    np.testing.assert_allclose(run(case).outputs["y"][0], P.reshape(4, 6, 3) * H + X[0] + b, rtol=1e-13)
