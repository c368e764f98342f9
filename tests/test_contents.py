"""What parameters are said to hold: fixed ones for good, trained ones at first; what `init` asks for."""

import numpy as np
import pytest
from points import EXTRA, fitting_sizes, init_contents, init_keywords

import gategen
from gategen import (
    Cell,
    SpecError,
    blocks,
    diff,
    identity,
    lower,
    matrices,
    rotation,
    scalars,
    shift,
    vectors,
)
from gategen.backends.cupy import files as cupy_files
from gategen.backends.numpy import files as numpy_files
from gategen.judge.host import host_of, imported, written
from gategen.judge.verify import verify
from gategen.layers import RNN
from gategen.plan import plan
from gategen.show import show
from gategen.spec import contents
from gategen.spec import language as lang
from gategen.spec.text.writer import write

STATED = ("patterns", "numbers", "stacks", "asked")


def parsed(text):
    return Cell.parse("cell", text)


@pytest.fixture
def module_made(tmp_path):
    return lambda cell: imported(written(cell, "numpy", tmp_path))


PLAIN = "states: h\n{}h' = tanh({} + U_h @ h)\n"
UNSTATED = parsed(PLAIN.format("fixed matrices: E\nfixed vectors: seed\n", "E @ x * seed"))

# ------------------------------------------------------------------------------------------ modules


@pytest.mark.parametrize("backend", ["numpy", "cupy"])
@pytest.mark.parametrize("name", STATED)
def test_init_puts_there_what_the_spec_says(name, backend, tmp_path):
    cell, host = EXTRA[name], host_of(backend, emulated=True)
    module = host.load(written(cell, backend, tmp_path))
    sizes = fitting_sizes(cell)
    given = init_keywords(cell, module, sizes) | init_contents(cell, module, sizes)
    params = module.init(sizes["input"], sizes["hidden"], seed=1, **given)
    found = {key: host.get(array) for key, array in module.unpack(params).items()}
    for a in cell.arrays:
        if a.contents:
            np.testing.assert_array_equal(found[a.name], a.entries(sizes).astype(np.float32), a.name)
        elif not a.trainable:
            assert (found[a.name] == 1).all()
        else:
            assert np.unique(found[a.name]).size == found[a.name].size


def test_patterns_are_what_they_are_called():
    def entries(held, *shape):
        return contents.entries(held, shape, {}).tolist()

    assert entries(identity, 2, 2) == [[1, 0], [0, 1]]
    assert entries(lower, 3, 3) == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert entries(lang.strict_lower, 2, 2) == [[0, 0], [1, 0]]
    assert (np.array(entries(shift(1), 3, 3)) @ [1, 2, 3]).tolist() == [0, 1, 2]
    assert (np.array(entries(shift(-2), 3, 3)) @ [1, 2, 3]).tolist() == [3, 0, 0]
    assert (np.array(entries(rotation(1), 3, 3)) @ [1, 2, 3]).tolist() == [3, 1, 2]
    assert (np.array(entries(rotation(-2), 3, 3)) @ [1, 2, 3]).tolist() == [3, 1, 2]
    assert entries(blocks(2, lower), 4, 4) == [[2, 2, 0, 0], [2, 2, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert entries(blocks(1, 2, 4), 6) == [1, 1, 2, 2, 4, 4]
    assert entries(blocks(1, 3), 2, 4) == [[1, 1, 0, 0], [0, 0, 3, 3]]


def test_init_asks_for_what_is_fixed_and_unsaid(module_made):
    module = module_made(UNSTATED)
    with pytest.raises(
        ValueError, match=r"E is fixed, and cell does not state what it holds: pass E=an array"
    ):
        module.init(2, 3)
    with pytest.raises(ValueError, match=r"E has shape \(3, 2\), but its contents have shape \(2, 3\)"):
        module.init(2, 3, E=np.ones((2, 3)), seed_=1)
    params = module.init(2, 3, E=[[1, 0], [0, 1], [2, 2]], seed_=0.5)
    assert module.unpack(params)["E"].tolist() == [[1, 0], [0, 1], [2, 2]]
    assert module.unpack(params)["seed"].tolist() == [0.5] * 3
    assert module.FIXED == ("E", "seed")


def test_contents_that_do_not_fit_a_size_are_refused_by_init(module_made):
    module = module_made(parsed(PLAIN.format("fixed vectors: q = (1, 2)\n", "q * (W_h @ x)")))
    assert module.unpack(module.init(4, 2))["q"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"q has shape \(3,\), but its contents have shape \(2,\)"):
        module.init(4, 3)
    module = module_made(parsed(PLAIN.format("fixed vectors: q = blocks(1, 2)\n", "q * (W_h @ x)")))
    with pytest.raises(ValueError, match=r"q has shape \(3,\), but its contents have shape \(2,\)"):
        module.init(4, 3)


def test_a_module_says_what_is_fixed_and_what_begins_where():
    for files in (numpy_files, cupy_files):
        text = "".join(files(plan(EXTRA["numbers"], arrays=files is numpy_files)).values())
        assert "fixed: N = ((1, 0.5), (0, -2), (0.001, 4))" in text
        assert "at first: " in text and "b_f = 1" in text
        assert 'FIXED = ("half", "N", "e")' in text
    text = "".join(numpy_files(plan(UNSTATED, arrays=True)).values())
    assert "    E: (H, I), fixed; the cell does not state what it holds." in text


def test_what_is_stated_leaves_the_other_numbers_as_they_were(module_made):
    one = module_made(parsed(PLAIN.format("vectors: b_h\n", "W_h @ x + b_h")))
    before = one.unpack(one.init(2, 3, seed=4))
    other = module_made(parsed(PLAIN.format("vectors: b_h = 1\n", "W_h @ x + b_h")))
    after = other.unpack(other.init(2, 3, seed=4))
    np.testing.assert_array_equal(before["U_h"], after["U_h"])
    assert after["b_h"].tolist() == [1, 1, 1] and before["b_h"].tolist() != [1, 1, 1]


# ------------------------------------------------------------------------------------------ layers


def test_a_fixed_parameter_of_an_initial_state_has_no_gradient(module_made):
    declared = "states: h = tanh(a * b)\nvectors: a\nfixed vectors: b = 0.5\n"
    module = module_made(parsed(declared + "h' = tanh(W_h @ x + h + b)\n"))
    params = module.init(3, 4, seed=0, dtype="float64")
    x_array = np.random.default_rng(0).standard_normal((5, 2, 3))
    y, _, tape = module.forward(params, x_array)
    found = module.unpack(module.backward(params, tape, np.ones_like(y)).params)
    assert np.all(found["b"] == 0) and np.all(found["a"] != 0)


def test_fixed_parameters_are_kept_but_not_trained(module_made):
    module = module_made(UNSTATED)
    with pytest.raises(ValueError, match="E is fixed"):
        RNN(module, 3, 3)
    with pytest.raises(TypeError, match=r"no further sizes and the contents \['E', 'seed_'\]"):
        RNN(module, 3, 3, F=1)
    E = np.arange(9.0).reshape(3, 3)
    net = RNN(module, 3, 3, num_layers=2, seed=0, E=E, seed_=2)
    assert list(net.parameters()) == ["U_h_l0", "U_h_l1"]
    x = np.random.default_rng(0).standard_normal((4, 2, 3), np.float32)
    y, _ = net(x)
    assert list(net.backward(y).params) == list(net.parameters())
    assert net.state_dict()["E_l1"].tolist() == E.tolist()
    other = RNN(module, 3, 3, num_layers=2, seed=1, E=0, seed_=0)
    other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other(x)[0], y)


def test_input_size_is_asked_for_where_there_is_one(module_made):
    wide = module_made(parsed("inputs: x[hidden]\nh' = tanh(x + U_h @ h)\n"))
    assert wide.init(hidden_size=3).U_h.shape == (3, 3)
    assert wide.init(8, 3).U_h.shape == wide.init(input_size=3, hidden_size=3).U_h.shape
    with pytest.raises(ValueError, match="hidden_size is None, expected a positive integer"):
        wide.init(3)
    assert RNN(wide, hidden_size=3, num_layers=2).input_size == 3
    three = module_made(parsed("inputs: x[3]\nh' = tanh(W_h @ x + U_h @ h)\n"))
    assert RNN(three, hidden_size=4).input_size == 3
    usual = module_made(parsed("h' = tanh(W_h @ x + U_h @ h)\n"))
    with pytest.raises(TypeError, match="hidden_size"):
        usual.init(3)
    with pytest.raises(ValueError, match="input_size is None, expected a positive integer"):
        RNN(usual, hidden_size=4)


# ------------------------------------------------------------------------------------------ the language


def test_a_spec_may_give_arrays_lists_and_numbers():
    assert matrices("A", initial=np.array([[1.0, 0.5], [0, 2]])).contents == lang.Contents(
        "rows", ((1, 0.5), (0, 2))
    )
    assert vectors("v", initial=[1, 2]).contents == vectors("w", initial=(1.0, 2)).contents
    assert str(scalars("alpha", initial=0.1).contents) == "0.1"
    assert scalars("alpha", initial=1).contents.args == (1,)
    assert matrices("A", initial=lower) != matrices("A") != matrices("A", initial=identity)


def test_a_literal_of_stacked_columns_is_one_for_each_block():
    A = matrices("A", shape=("hidden", ("hidden", "input")), initial=(identity, 0.5))
    assert str(A.contents) == "(identity, 0.5)"
    assert A.contents.column(1) == lang.Contents("number", (0.5,))
    assert matrices("A", shape=("hidden", ("hidden", "input")), initial=2).contents.column(1).args == (2,)


def test_latex_and_json_tell_what_parameters_hold():
    latex, found = (show(EXTRA["numbers"], "equations", form) for form in ("latex", "json"))
    assert r"N &= \begin{pmatrix} 1 & 0.5 \\ 0 & -2" in latex and "% fixed:" in latex
    assert "% trained, and at first:" in latex and r"\alpha &= 0.5" in latex
    assert found["parameters"]["alpha"]["initial"] == "0.5"
    assert found["parameters"]["e"] == {
        "role": "vector",
        "shape": [2],
        "trainable": False,
        "initial": "(0.25, 3)",
    }
    latex = show(EXTRA["patterns"], "equations", "latex")
    assert r"B &= \operatorname{blocks}\left(\operatorname{lower}, \operatorname{identity}\right)" in latex
    assert r"D &= \operatorname{shift}\left(1\right)" in latex


def test_text_says_it_as_it_was_said():
    for said in ("D = shift(1)", "E[hidden, input] = blocks(1, -0.5)", "B = blocks(lower, identity)"):
        assert said in write(EXTRA["patterns"])
    assert "g[hidden, hidden] = (1, blocks(0, -1))" in write(EXTRA["stacks"])
    assert "A[(hidden, hidden), (hidden, input)] = ((shift(-1), 2), 0.5)" in write(EXTRA["stacks"])


# ------------------------------------------------------------------------------------------ diff


def held(text):
    return parsed(PLAIN.format(f"fixed matrices: S{text}\n", "W_h @ x + S @ h"))


def test_cells_of_other_contents_are_other_cells():
    assert diff(held(" = lower"), held(" = lower")).verdict == "same"
    found = diff(held(" = lower"), held(" = identity"))
    assert (found.verdict, found.note) == ("different", "fixed parameters differ: S is lower and identity")
    assert not diff(held(" = lower"), held("")).same


def test_fixed_parameters_correspond_by_what_they_hold():
    text = "states: h\nfixed matrices: P = {}, Q = {}\nh' = tanh(P @ h) + Q @ h + W_h @ x\n"
    assert not diff(parsed(text.format("lower", "identity")), parsed(text.format("identity", "lower"))).same
    swapped = parsed(text.format("identity", "lower").replace("P @ h) + Q", "Q @ h) + P"))
    found = diff(parsed(text.format("lower", "identity")), swapped)
    assert found.same and {("P", "Q"), ("Q", "P")} <= {*found.renaming}


def test_columns_correspond_by_what_they_hold():
    text = "fixed matrices: A[hidden, (hidden, input)] = {}\nh' = tanh(A @ concat(h, x))\n"
    one, same, other = (parsed(text.format(c)) for c in ("(identity, 2)", "(identity, 2)", "(lower, 2)"))
    assert diff(one, same).verdict == "same" and not diff(one, other).same


def test_to_begin_elsewhere_is_no_other_function():
    one, other = (parsed(PLAIN.format(f"vectors: b_h{c}\n", "W_h @ x + b_h")) for c in (" = 1", ""))
    found = diff(one, other)
    assert (found.verdict, found.note) == ("same", "beginning with other numbers: b_h")


# ------------------------------------------------------------------------------------------ verify


def test_verify_takes_what_is_stated():
    """With numbers of either sign the root is of a negative one."""
    text = (
        "states: h, w[4] = 0.25\nfixed matrices: E{}\nh' = tanh(W_h @ x + U_h @ h)\nw' = sqrt(E @ w + {})\n"
    )
    (stated,) = verify(parsed(text.format(" = lower", "0")), ["numpy"])
    (drawn,) = verify(parsed(text.format("", "0.001")), ["numpy"])
    assert stated.ok and drawn.ok


def test_verify_names_the_equation_that_is_not_finite():
    text = "states: h\nfixed vectors: f\nz = log(-1 - f**2)\nh' = tanh(W_h @ x) * h + z\n"
    (found,) = verify(parsed(text), ["numpy"])
    assert not found.ok
    assert "the first equation that is not: z = log(-f**2 - 1)" in found.note
    assert found.note.endswith("numbers were drawn for f: state what is in them")


def test_verify_takes_initial_values_where_nothing_else_is_finite():
    text = "states: h\nscalars: alpha = 2\nh' = tanh(W_h @ x + U_h @ h) * log(alpha - 1.9)\n"
    (found,) = verify(parsed(text), ["numpy"])
    assert found.ok, found


def test_verify_refuses_an_init_that_puts_other_numbers_there(monkeypatch):
    cell = held(" = lower")
    monkeypatch.setattr("gategen.backends.contents._PATTERNS", {"lower": "np.eye({})"})
    (found,) = verify(cell, ["numpy"])
    assert not found.ok and found.note == "init puts other numbers into S than lower"


def test_a_fixed_parameter_that_two_specs_state_otherwise_is_two():
    with pytest.raises(SpecError, match="S is declared twice"):
        S, T = matrices("S", initial=lower), matrices("S", initial=identity)
        x, h = gategen.inputs("x", size="hidden"), gategen.states("h")
        Cell("cell", gategen.Eq(h.next, S @ x + T @ h))
