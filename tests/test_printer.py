"""Printed expressions: parentheses by precedence, one order of our own, and the same value when read back."""

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pytest
import sympy as sp
from helpers import CELLS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gategen import (
    SpecError,
    concat,
    equal,
    exp,
    gates,
    inputs,
    matrices,
    maximum,
    minimum,
    relu,
    scalars,
    sigmoid,
    sign,
    sqrt,
    states,
    tanh,
    vectors,
    where,
)
from gategen import abs as abs_
from gategen.graph import numeric
from gategen.spec import language as lang
from gategen.spec.elementwise import Row
from gategen.spec.language import matvec
from gategen.spec.printer import Printer, text

a, b, c, z, n = gates("a b c z n")
h, x = states("h"), inputs("x")
W, U = matrices("W U")
b_z, alpha = vectors("b_z"), scalars("alpha")
half, third = sp.Rational(1, 2), sp.Rational(1, 3)


# -------------------------------------------------------------------------------- words

A, (g_0, g_1) = matrices("A", shape=(("hidden",) * 2, "input")), vectors("g", size=("hidden",) * 2)
WORDS = [
    (lang.hard_sigmoid(a), "hard_sigmoid(a)"),
    (lang.hard_sigmoid(a, 0.2), "hard_sigmoid(a, 0.2)"),
    (lang.gelu(a, approximate="tanh") + lang.gelu(a), "gelu(a) + gelu(a, 'tanh')"),
    (-lang.elu(a * b, alpha), "-elu(a * b, alpha)"),
    (lang.layer_norm(a), "layer_norm(a)"),
    (lang.layer_norm(a, bias=b_z, eps=0.1), "layer_norm(a, bias=b_z, eps=0.1)"),
    (lang.layer_norm(a, b, b_z), "layer_norm(a, b, b_z)"),
    (lang.layer_norm((a, b))[1], "layer_norm((a, b))[1]"),
    (lang.layer_norm((a, b), (c, None), b_z)[0], "c * layer_norm((a, b))[0] + b_z"),
    (lang.layer_norm(A @ x, (g_0, g_1))[0], "layer_norm(A @ x, g)[0]"),
    (lang.layer_norm((A @ x)[::-1], (g_1, g_0))[0], "g[1] * layer_norm((A[1] @ x, A[0] @ x))[0]"),
    (lang.layer_norm(A @ x, None, (g_0, g_1), 1e-3)[1], "layer_norm(A @ x, bias=g, eps=0.001)[1]"),
]


@pytest.mark.parametrize("expr, expected", WORDS, ids=[expected for _, expected in WORDS])
def test_words_are_not_written_out(expr: sp.Expr, expected: str) -> None:
    assert text(expr) == expected


# -------------------------------------------------------------------------------- parentheses

PAIRS = [
    ((a - b) * c, "c * (a - b)"),
    (a - b * c, "a - b * c"),
    (a - (b - c), "a + c - b"),
    (a - (b + c), "a - b - c"),
    (a * (b + c), "a * (b + c)"),
    (a / (b * c), "a / (b * c)"),
    (a * b / c, "a * b / c"),
    (a / b / c, "a / (b * c)"),
    (a / (b + c), "a / (b + c)"),
    (a / (b + c) ** 2, "a / (b + c)**2"),
    (a / (b * (c + 1)), "a / (b * (c + 1))"),
    ((a + b) / c, "(a + b) / c"),
    (-a * b, "-a * b"),
    (-(a + b) * c, "c * (-a - b)"),
    (-a / b, "-a / b"),
    (a**2 * b, "a**2 * b"),
    ((a + b) ** 2, "(a + b)**2"),
    (-(a**2), "-a**2"),
    (1 / a, "1 / a"),
    (a**-2, "1 / a**2"),
    (1 / (a * b), "1 / (a * b)"),
    (a ** sp.Rational(3, 2), "a**(3 / 2)"),
    (sqrt(a), "sqrt(a)"),
    (1 / sqrt(a), "1 / sqrt(a)"),
    (b / sqrt(a), "b / sqrt(a)"),
    (sp.Pow(-2, a, evaluate=False), "(-2)**a"),
    (sp.Pow(third, a, evaluate=False), "(1 / 3)**a"),
    (a**0.3, "a**0.3"),
    (a**-0.3, "1 / a**0.3"),
    (1 - a, "1 - a"),
    (a - 1, "a - 1"),
    (-a - 1, "-a - 1"),
    (1 - a**2, "1 - a**2"),
    (a * half, "1 / 2 * a"),
    (-a * third, "-1 / 3 * a"),
    (a - third, "a - 1 / 3"),
    (1e-7 * a, "1e-07 * a"),
    (a * 1e20 - 2.0, "1e+20 * a - 2"),
    (sp.pi * a, "3.141592653589793 * a"),
    (tanh(a) ** 2, "tanh(a)**2"),
    (exp(-a), "exp(-a)"),
    (abs_(a - b), "abs(a - b)"),
    (where(a > b, a, -b), "where(a > b, a, -b)"),
    (where(a + b <= 2 * c, a * b, 0), "where(a + b <= 2 * c, a * b, 0)"),
    (where(equal(a, b), 1, 0), "where(a == b, 1, 0)"),
    (W @ x, "W @ x"),
    (W.T @ x, "W.T @ x"),
    (W @ (a * h), "W @ (a * h)"),
    (W @ (U @ x), "W @ (U @ x)"),
    (W @ tanh(h), "W @ tanh(h)"),
    (W @ -h, "W @ (-h)"),
    (2 * (W @ x), "2 * (W @ x)"),
    (a * (W @ x), "a * (W @ x)"),
    ((W @ x) / a, "(W @ x) / a"),
    (a / (W @ x), "a / (W @ x)"),
    ((W @ x) ** 2, "(W @ x)**2"),
    (-(W @ x), "-(W @ x)"),
    (a - W @ x, "a - W @ x"),
    (-(W @ x) - U @ h, "-(U @ h) - W @ x"),
    (U @ concat(h, a * x), "U @ concat(h, a * x)"),
]


@pytest.mark.parametrize(("expr", "printed"), PAIRS, ids=[printed for _, printed in PAIRS])
def test_parentheses_stand_where_they_are_needed_and_nowhere_else(expr: sp.Expr, printed: str) -> None:
    assert text(expr) == printed


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(SpecError, match="Integral is not known to gategen"):
        text(sp.Integral(a, a))


# -------------------------------------------------------------------------------- order


def test_a_sum_is_products_of_inputs_then_of_states_then_gates_then_biases() -> None:
    assert text(b_z + alpha + a * h + U @ h + W @ x) == "W @ x + U @ h + a * h + alpha + b_z"


def test_one_minus_z_stands_where_z_would() -> None:
    rank = {"z": 0, "r": 1, "n": 2}
    assert Printer(rank)((1 - z) * h + z * n) == "(1 - z) * h + z * n"
    assert Printer(rank)(z * h + (1 - z) * n) == "(1 - z) * n + z * h"
    assert text(alpha * h * (1 - z)) == "alpha * (1 - z) * h"


def test_the_equations_of_the_gru_are_printed_as_they_were_written() -> None:
    assert CELLS["gru"].text() == (
        "z = sigmoid(W_z @ x + U_z @ h + b_z)",
        "r = sigmoid(W_r @ x + U_r @ h + b_r)",
        "n = tanh(W_h @ x + U_h @ (r * h) + b_h)",
        "h' = (1 - z) * h + z * n",
    )


def test_the_order_of_sympys_arguments_changes_nothing() -> None:
    terms = (a * b, -c, W @ x, b_z, U @ h, tanh(a))
    wanted = text(sp.Add(*terms))
    for order in itertools.permutations(terms):
        assert text(sp.Add(*order, evaluate=False)) == wanted
    factors = (alpha, a, 1 - z, h, 1 / b, (a + b), x)
    wanted = text(sp.Mul(*factors))
    for order in itertools.islice(itertools.permutations(factors), 0, None, 7):
        assert text(sp.Mul(*order, evaluate=False)) == wanted


def test_a_backend_changes_the_spelling_and_never_the_order() -> None:
    class Loud(Printer):
        relations: ClassVar[dict[str, str]] = {"==": ".eq."}

        def word(self, row: Row) -> str:
            return {"tanh": "TANH", "where": "IF"}[row.name]

    printer = Loud(rename={"a": "A[i]"})
    assert printer(where(equal(a, b), tanh(a), c - a)) == "IF(A[i] .eq. b, TANH(A[i]), c - A[i])"


# -------------------------------------------------------------------------------- read back


class Weight:
    """A matrix in printed text: it stands on the left of `@`, and nothing else can be done with it."""

    def __init__(self, value: float, transposed: float) -> None:
        self.value, self.transposed = value, transposed

    @property
    def T(self) -> "Weight":
        return Weight(self.transposed, self.value)

    def __matmul__(self, operand: float) -> float:
        return self.value * operand


VALUES = {"a": 0.7, "b": -1.3, "c": 2.1, "z": 0.4, "h": -0.6, "x": 1.7, "b_z": 0.25, "alpha": -0.9}
PYTHON: dict[str, Any] = {
    **VALUES,
    "W": Weight(1.1, 0.3),
    "tanh": math.tanh,
    "exp": math.exp,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "abs": abs,
    "sign": lambda v: math.copysign(1, v) if v else 0,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "relu": lambda v: max(v, 0),
    "maximum": max,
    "minimum": min,
    "where": lambda condition, yes, no: yes if condition else no,
    "__builtins__": {},
}


def scaled(matrix: sp.Symbol, operand: sp.Expr, transposed: sp.Integer) -> sp.Expr:
    return (0.3 if transposed else 1.1) * operand


numbers = st.one_of(
    st.integers(-4, 4).map(sp.Integer),
    st.tuples(st.integers(-5, 5), st.integers(1, 5)).map(lambda pq: sp.Rational(*pq)),
    st.floats(-4, 4).map(lambda v: sp.Float(round(v, 3))),
)
leaves = st.one_of(st.sampled_from([a, b, c, z, h, x, b_z, alpha]), numbers)


def larger(inner: st.SearchStrategy) -> st.SearchStrategy:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        pairs.map(lambda p: p[0] / (1 + p[1] ** 2)),
        inner.map(lambda e: -e),
        st.tuples(inner, st.sampled_from([2, 3, -1, -2])).map(lambda p: (p[0] or sp.S.One) ** p[1]),
        st.tuples(inner, st.sampled_from([half, -half, third, 1.5, -0.7])).map(
            lambda p: (1 + p[0] ** 2) ** p[1]
        ),
        st.tuples(st.sampled_from([tanh, sigmoid, relu, abs_, sign, sp.sin]), inner).map(
            lambda p: p[0](p[1])
        ),
        st.tuples(st.sampled_from([maximum, minimum]), inner, inner).map(lambda p: p[0](p[1], p[2])),
        st.tuples(inner, inner, inner).map(lambda p: where(p[0] - p[1] > third, p[2], p[0])),
        inner.map(lambda e: e if e.is_number else W @ e),
        inner.map(lambda e: e if e.is_number else W.T @ e),
    )


expressions = st.recursive(leaves, larger, max_leaves=12)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(expressions)
def test_printed_text_has_the_value_of_the_expression(expr: sp.Expr) -> None:
    plain = expr.replace(matvec, scaled)
    with np.errstate(all="ignore"):
        parts = [
            np.max(np.abs(numeric(part, VALUES)))
            for part in sp.preorder_traversal(plain)
            if isinstance(part, sp.Expr)
        ]
    assume(all(np.isfinite(part) and (part == 0 or 1e-4 < part < 1e4) for part in parts))
    read_back = eval(text(expr), PYTHON)
    assert read_back == pytest.approx(float(numeric(plain, VALUES)), rel=1e-9, abs=1e-9 * max(parts))


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_printed_to_the_last_digit(value: float) -> None:
    assert eval(text(sp.Float(value))) == value
