"""Single lines of generated NumPy: interpolations, and one call for neighbours."""

import sympy as sp
from points import CELLS as SPECS

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
