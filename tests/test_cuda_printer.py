"""Single expressions in CUDA."""

import pytest
import sympy as sp

from gategen.backends.cupy.text import CudaPrinter
from gategen.graph import Value
from gategen.spec.language import where

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
