"""The words of a spec: declarations, functions with their derivatives, equations."""

import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from helpers import TINY, assert_close, cell_of, random_case, run

import gategen
from gategen import Cell, Eq, SpecError, gates, inputs, matrices, scalars, states, tanh, vectors
from gategen.graph import Value, flatten, numeric
from gategen.spec import language as lang

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")
z, y = gates("z y")
v, w = Value("v", ("hidden",)), Value("w", ("hidden",))


# -------------------------------------------------------------------------------- declarations


def test_one_name_gives_one_symbol_and_several_give_a_tuple() -> None:
    assert isinstance(inputs("q"), lang.Input)
    assert [s.name for s in gates("z r n")] == ["z", "r", "n"]
    assert [s.name for s in vectors("a,b, c")] == ["a", "b", "c"]


@pytest.mark.parametrize("declare", [inputs, states, gates, matrices, vectors, scalars])
def test_a_declared_name_is_a_real_commutative_symbol(declare) -> None:
    symbol = declare("q")
    assert isinstance(symbol, sp.Symbol)
    assert symbol.is_real and symbol.is_commutative
    assert str(symbol) == symbol.name == "q"


def test_declarations_remember_what_they_were_told() -> None:
    assert inputs("m", size=1).size == 1
    assert inputs("m").size == "input"
    assert states("m", size="memory", initial=-1).initial == -1
    assert states("m").initial == 0 and states("m").size == "hidden"
    assert vectors("p", size="rank").size == "rank"
    assert matrices("A", shape=["hidden", ["hidden", 2]]).shape == ("hidden", ("hidden", 2))
    assert matrices("A").shape is None
    assert [p.trainable for p in (*vectors("a b", trainable=False), scalars("s"))] == [False, False, True]


def test_constants_come_in_the_order_given() -> None:
    eps, beta = gategen.constants(eps=1e-5, beta=sp.Rational(1, 3))
    assert (eps.name, eps.value, beta.value) == ("eps", 1e-5, sp.Rational(1, 3))
    assert gategen.constants(k=np.float32(0.5)).value == 0.5


def test_the_next_value_of_a_state_is_one_symbol() -> None:
    assert h.next == h.next
    assert h.next.name == "h'" and h.next.state is h
    assert h.next != h


def test_two_states_of_one_name_are_two_states() -> None:
    """SymPy caches by equality, so an old state must not come back inside a cached expression."""
    old, new = states("m", size="memory"), states("m", size="rank")
    assert old != new and old.next != new.next
    assert tanh(old.next).args[0].state is old
    assert tanh(new.next).args[0].state is new
    R = matrices("R")
    assert [(R @ s.next).args[1].state.size for s in (old, new)] == ["memory", "rank"]


def test_symbols_survive_a_copy() -> None:
    import copy
    import pickle

    for symbol in (x, h, h.next, z, W, b, gategen.constants(k=2), v):
        assert copy.deepcopy(symbol) == symbol
        assert pickle.loads(pickle.dumps(symbol)) == symbol


WANTED = "t i j k b s T B H I N np cp out grad tape x y p d_y h_next params states self len shape dtype"


@pytest.mark.parametrize("name", WANTED.split())
def test_names_that_generated_code_would_like_for_itself_are_accepted(name: str) -> None:
    s = states(name)
    assert Cell(name, Eq(s.next, tanh(matrices("A") @ inputs("q") + s))).states == (s,)


@pytest.mark.parametrize("name", ["class", "None", "int", "template", "blockIdx", "dim3", "typeof"])
def test_keywords_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match="is a keyword of Python, C or CUDA"):
        gates(name)


# -------------------------------------------------------------------------------- functions

A_FEW = np.array([-3.1, -1.2, -0.6, -0.3, 0.2, 0.55, 0.9, 1.4, 3.3])
FAR = np.array([-750.0, -40.0, 40.0, 750.0])
SMOOTH = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
    "elu": lambda a: np.where(a > 0, a, np.exp(a) - 1),
    "silu": lambda a: a / (1 + np.exp(-a)),
    "softplus": lambda a: np.logaddexp(0, a),
    "log_sigmoid": lambda a: -np.logaddexp(0, -a),
    "softsign": lambda a: a / (1 + np.abs(a)),
    "hard_sigmoid": lambda a: np.clip(a / 6 + 0.5, 0, 1),
    "hard_tanh": lambda a: np.clip(a, -1, 1),
    "abs": np.abs,
    "sign": np.sign,
    "stop_gradient": lambda a: a,
}
NEAR = {
    "gelu": None,
    "exp": np.exp,
    "log1p": lambda a: np.log1p(np.abs(a)),
    "sin": np.sin,
    "cos": np.cos,
    "square": lambda a: a * a,
}


def applied(name: str) -> sp.Expr:
    """The function of that name applied to `v` (log1p: to what it can take)."""
    return getattr(lang, name)(lang.abs(v) if name == "log1p" else v)


@pytest.mark.parametrize("name", [name for name in SMOOTH | NEAR if name != "gelu"])
def test_functions_have_their_values(name: str) -> None:
    function = (SMOOTH | NEAR)[name]
    np.testing.assert_allclose(numeric(applied(name), {"v": A_FEW}), function(A_FEW), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", SMOOTH)
def test_functions_keep_their_values_far_out(name: str) -> None:
    with np.errstate(over="ignore"):
        want = SMOOTH[name](FAR)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_allclose(numeric(applied(name), {"v": FAR}), want, rtol=1e-14)
        assert np.isfinite(derivative(applied(name), FAR)).all()


def derivative(expr: sp.Expr, at: np.ndarray) -> np.ndarray:
    """The derivative by `v`, as the adjoint takes it."""
    from gategen.graph import Pointwise
    from gategen.graph.adjoint import partial

    slope = partial(Pointwise(Value("out", ("hidden",)), expr), v)
    value = numeric(expr, {"v": at, "w": A_FEW[::-1]})
    return np.broadcast_to(numeric(slope, {"v": at, "w": A_FEW[::-1], "out": value}), at.shape)


def stepped(expr: sp.Expr) -> np.ndarray:
    return numeric(expr, {"v": A_FEW + 1j * TINY, "w": A_FEW[::-1]}).imag / TINY


@pytest.mark.parametrize("name", SMOOTH | NEAR)
def test_functions_have_the_derivative_of_complex_step(name: str) -> None:
    expr = applied(name)
    np.testing.assert_allclose(derivative(expr, A_FEW), stepped(expr), rtol=1e-13, atol=1e-15)


COMPOUND = {
    "maximum": lang.maximum(v, w),
    "minimum": lang.minimum(w, v),
    "clip": lang.clip(v, -0.7, 0.8),
    "mod": lang.mod(v, 0.8),
    "mod_of_the_second": lang.mod(w, lang.exp(v)),
    "where": lang.where(v > w, v * w, lang.sin(v)),
    "where_equal": lang.where(lang.equal(lang.sign(v), 1), v * w, lang.sin(v)),
    "hard_sigmoid_of_keras_2": lang.hard_sigmoid(v, 0.2),
    "leaky_relu": lang.leaky_relu(v, 0.2),
    "elu": lang.elu(v, 1.7),
    "gelu_by_tanh": lang.gelu(v, "tanh"),
    "erf": sp.erf(v),
    "sqrt": lang.sqrt(1 + v**2),
    "log": lang.log(1 + v**2),
    "powers": (1 + v**2) ** 1.3 / (2 + v) ** 2 + v**3,
    "stop_gradient": lang.stop_gradient(v) * v,
    "surrogate": lang.surrogate(lang.step(v) * w, lang.sin(v)) * v,
}


@pytest.mark.parametrize("name", COMPOUND)
def test_functions_of_several_values_have_the_derivative_of_complex_step(name: str) -> None:
    expr = COMPOUND[name]
    np.testing.assert_allclose(derivative(expr, A_FEW), stepped(expr), rtol=1e-13, atol=1e-15)


def test_the_derivative_of_a_step_is_zero() -> None:
    for function in (lang.sign, lang.step, lang.stop_gradient):
        np.testing.assert_array_equal(derivative(function(v), A_FEW), np.zeros_like(A_FEW))


def test_activations_give_their_derivative_in_terms_of_their_value() -> None:
    assert lang.sigmoid(v).diff(v) == lang.sigmoid(v) * (1 - lang.sigmoid(v))
    assert tanh(v).diff(v) == 1 - tanh(v) ** 2
    assert lang.relu(v).diff(v) == lang.step(lang.relu(v))


def test_the_condition_of_an_activation_may_be_decided_by_sympy() -> None:
    assert lang.leaky_relu(lang.exp(v)) == lang.exp(v)
    assert lang.elu(lang.square(v) + 1) == v**2 + 1
    assert lang.where(lang.exp(v) < 0, v, w) == w
    assert lang.where(v > 0, w, w) == w


def test_unequal_is_equal_the_other_way_round() -> None:
    assert lang.where(sp.Ne(v, w), v, 0) == lang.where(lang.equal(v, w), 0, v)


SYMPYS = {
    "Max": (sp.Max(v, w, 0), lambda v, w: np.maximum(np.maximum(v, w), 0)),
    "Min": (sp.Min(v, 2 * w), lambda v, w: np.minimum(v, 2 * w)),
    "Piecewise": (
        sp.Piecewise((v, v > 1), (w, v > 0), (3, True)),
        lambda v, w: np.where(v > 1, v, np.where(v > 0, w, 3)),
    ),
    "Heaviside": (sp.Heaviside(v) * w, lambda v, w: np.where(v > 0, w, 0)),
    "Mod": (sp.Mod(v, 2) + w % sp.Rational(1, 2), lambda v, w: np.mod(v, 2) + np.mod(w, 0.5)),
    "Abs": (sp.Abs(v) + abs(w), lambda v, w: np.abs(v) + np.abs(w)),
    "nested": (
        sp.Max(sp.Min(v, w), sp.Mod(v, 2) - 1),
        lambda v, w: np.maximum(np.minimum(v, w), np.mod(v, 2) - 1),
    ),
    "a float exponent": (v**2.0 + (w**2 + 1) ** 0.5, lambda v, w: v**2 + np.sqrt(w**2 + 1)),
}


@pytest.mark.parametrize("name", SYMPYS)
def test_sympys_own_functions_mean_the_same(name: str) -> None:
    expr, by_hand = SYMPYS[name]
    normal = lang.normalise(expr)
    assert not normal.has(sp.Max, sp.Min, sp.Piecewise, sp.Heaviside, sp.Mod)
    assert not any(power.exp.is_Float for power in normal.atoms(sp.Pow))
    values = {"v": A_FEW, "w": A_FEW[::-1] + 0.05}
    np.testing.assert_allclose(numeric(normal, values), by_hand(**values), rtol=1e-14, atol=1e-15)


def test_layer_norm_is_the_formula() -> None:
    g = vectors("g")
    cell = cell_of(Eq(y, lang.layer_norm(h, g, b)), Eq(h.next, h + W @ x), output=y)
    case = random_case(flatten(cell), steps=1)
    s, values = case.values["h"], case.values
    normed = (s - s.mean(-1, keepdims=True)) / np.sqrt(s.var(-1, keepdims=True) + 1e-5)
    assert_close(run(case).outputs["y"][0], values["g"] * normed + values["b"], 1e-14)


def test_a_joint_layer_norm_is_that_of_the_concatenation() -> None:
    g = vectors("g")
    one, two = lang.layer_norm((h, x), (g, None), eps=0.1)
    cell = cell_of(Eq(y, one), Eq(z, two), Eq(h.next, h + W @ x), output=(y, z))
    case = random_case(flatten(cell), steps=1)
    s = np.concatenate([case.values["h"], case.values["x"][0]], axis=-1)
    normed = (s - s.mean(-1, keepdims=True)) / np.sqrt(s.var(-1, keepdims=True) + 0.1)
    found = run(case).outputs
    assert_close(found["y_y"][0], case.values["g"] * normed[:, :3], 1e-14)
    assert_close(found["y_z"][0], normed[:, 3:], 1e-14)


def test_reductions_take_several_values_as_one() -> None:
    cell = cell_of(
        Eq(y, lang.sum_(h, x) + 10 * lang.mean(h, x) + 100 * lang.var(h, x)), Eq(h.next, W @ x + h), output=y
    )
    case = random_case(flatten(cell), steps=1)
    s = np.concatenate([case.values["h"], case.values["x"][0]], axis=-1)
    want = s.sum(-1) + 10 * s.mean(-1) + 100 * s.var(-1)
    assert_close(run(case).outputs["y"][0, :, 0], want, 1e-14)


def test_text_is_never_executed() -> None:
    for refused in (
        lambda: Eq(z, "tanh(h)"),
        lambda: states("q", initial="1 + 1"),
        lambda: gategen.constants(k="1"),
        lambda: W @ "x",
        lambda: lang.where(v > 0, "v", 0),
        lambda: lang.equal(v, "1"),
    ):
        with pytest.raises(SpecError):
            refused()


# -------------------------------------------------------------------------------- equations


def test_an_equation_knows_the_file_and_line_it_was_written_on() -> None:
    eq, line = Eq(z, tanh(h)), sys._getframe().f_lineno
    assert (Path(eq.where.file), eq.where.line) == (Path(__file__), line)
    assert eq.sympy == sp.Eq(z, tanh(h))
    assert repr(eq) == "Eq(z, tanh(h))"


def test_everything_that_is_exported_is_there() -> None:
    for name in gategen.__all__:
        if name not in ("build", "verify", "load"):
            assert getattr(gategen, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gategen.nothing


# -------------------------------------------------------------------------------- stacked rows


def test_a_joint_layer_norm_of_stacked_rows_takes_stacked_gains() -> None:
    A = matrices("A", shape=(("hidden",) * 2, "input"))
    gains, biases = vectors("gains biases", size=("hidden",) * 2)
    found = lang.layer_norm(A @ x, gains, biases)
    assert tuple(found) == tuple(lang.layer_norm((A[0] @ x, A[1] @ x), tuple(gains), tuple(biases)))


def test_stacked_rows_that_no_equation_uses_are_warned_of_once(tmp_path) -> None:
    spec = tmp_path / "spec.py"
    spec.write_text(
        "from gategen import *\nx, h = inputs('x'), states('h')\n"
        "b = vectors('b', size=('hidden',) * 3)\ncell = Cell('cell', Eq(h.next, matrices('W') @ x))\n"
    )
    with pytest.warns(gategen.errors.SpecWarning) as caught:
        gategen.load(str(spec))
    assert [str(warning.message) for warning in caught] == ["b is declared but no equation uses it"]
