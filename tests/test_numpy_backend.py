"""Single lines of generated NumPy: interpolations, and one call for neighbours."""

import numpy as np
import sympy as sp
from points import CELLS as SPECS

import gategen
from gategen.backends.numpy import interpolated
from gategen.build import generate
from gategen.graph import Pointwise, Value


def test_an_interpolation_is_a_step_from_one_end_towards_the_other() -> None:
    """One product less than `(1 - z)*a + z*b`, in whichever order the two stand."""
    k, p, q, out = (Value(name, ("hidden",)) for name in ("k", "p", "q", "out"))
    for total in ((1 - k) * p + k * q, k * q + (1 - k) * p):
        terms = sp.Add.make_args(interpolated(Pointwise(out, total)).expr)
        assert {str(term) for term in terms} == {"p", "k*(-p + q)"}
    for other in ((1 - k) * p + k * q + out, (1 + k) * p + k * q, (1 - k) * p + q, k * q):
        assert interpolated(Pointwise(out, other)).expr == other


def test_one_value_serves_all_neighbours_in_one_call():
    text = generate(SPECS["ln_gru"], "numpy")["ln_gru_numpy.py"]
    assert text.count("gates -= centre_z\n") == text.count("-= centre_z\n") == 2, "in forward and in step"


def test_a_projection_that_does_not_fit_into_the_cache_is_that_of_all_steps():
    rng = np.random.default_rng(0)
    x, matrix = rng.standard_normal((5, 4, 3)), rng.standard_normal((3, 2 * 2**16))
    out = np.empty((5, 2, 4, 2**16))
    gategen.compile("gru").project(x, matrix, out)  # two steps at a time
    wanted = (x @ matrix).reshape(5, 4, 2, 2**16).swapaxes(1, 2)
    np.testing.assert_allclose(out, wanted, rtol=1e-12)
