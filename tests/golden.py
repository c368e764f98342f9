"""The golden table of the catalogue: one deterministic run of every built-in cell, as printed there.

Parameter `name`, row-major index k: 0.5 sin(0.7 k + o), o = (sum of the character codes of name) mod
17. Inputs x_t[j] = cos(0.9 j + 0.4 t + 0.3) for t = 0, 1, 2, batch 1. States start as declared,
first-step rules apply. L is the sum of all outputs. Batch statistics are those of the three steps,
differentiated through.
"""

from dataclasses import dataclass

import numpy as np
from reference import REFERENCES, Reference

T, D, E = 3, 2, 3  # steps, input size, hidden size


@dataclass(frozen=True)
class Golden:
    """One row. The first three columns were printed with 6 decimals, the two sums with 5."""

    last: tuple[float, ...]  # (e,) the output at the last step
    loss: float  # L
    d_x0: tuple[float, ...]  # (d,) dL/dx_0
    d_params_sum: float  # the sum over all entries of all parameters of dL/dp
    d_params_square: float  # ... of (dL/dp)^2


@dataclass(frozen=True)
class GoldenCase:
    """A row with what it was computed from."""

    reference: Reference
    params: dict[str, np.ndarray]
    x: np.ndarray  # (T, 1, d)
    golden: Golden


def golden_case(name: str) -> GoldenCase:
    """The parameters, the input and the expected values of one cell, in float64."""
    reference = REFERENCES[name]
    params = {param: golden_parameter(param, shape) for param, shape in reference.shapes(D, E).items()}
    t, j = np.arange(T)[:, None, None], np.arange(D)
    return GoldenCase(reference, params, np.cos(0.9 * j + 0.4 * t + 0.3), GOLDEN[name])


def golden_parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The table's value of a parameter."""
    o = sum(map(ord, name)) % 17
    return 0.5 * np.sin(0.7 * np.arange(np.prod(shape, dtype=int)) + o).reshape(shape)


# cell        | output at t = 2               | L         | dL/dx_0             | sum dL/dp | sum (dL/dp)^2
TABLE = """
gru           | 0.474880 0.478764 -0.179805   |  1.969684 | 0.195781 -0.229841  |  8.45509 |  8.74710
gru_cho       | 0.112567 0.153910 -0.115297   |  0.162412 | -0.029657 -0.333125 |  4.55977 |  7.57734
gru_before    | 0.418509 0.488935 -0.146112   |  1.433747 | -0.153262 -0.313185 |  7.43702 | 13.75321
gru_after     | 0.486836 0.486378 -0.321775   |  1.140829 | -0.131725 -0.331217 | 10.26956 | 20.88929
gru_concat    | 0.209748 0.449276 -0.198266   |  0.856223 | -0.533204 -0.400764 |  9.89888 | 14.16965
gru_type1     | 0.465293 0.492236 -0.206886   |  1.830693 | -0.003191 -0.292206 |  8.84106 | 10.21866
gru_type2     | 0.468063 0.483711 -0.197025   |  1.693926 | -0.035052 -0.327429 |  8.59255 | 11.10803
gru_type3     | 0.461589 0.474568 -0.197612   |  1.788803 | 0.013796 -0.275658  |  8.77191 | 10.15540
mgu           | 0.432129 0.474284 -0.096293   |  1.572759 | -0.099686 -0.267834 | 10.31065 | 14.77466
mgu1          | 0.451923 0.461018 -0.107036   |  1.620664 | 0.005954 -0.304634  |  9.34672 | 13.04950
mgu2          | 0.464556 0.441644 -0.138712   |  1.663362 | 0.015763 -0.287455  |  8.53267 | 11.42801
mgu3          | 0.451903 0.487113 -0.149936   |  1.616474 | -0.023837 -0.325274 |  9.36213 | 12.88189
caru          | 0.645966 0.009425 -0.125671   |  1.115740 | -1.658251 -1.485583 | 20.89956 | 48.69219
caru_code     | 0.630003 0.009777 -0.124745   |  1.052099 | -1.646305 -1.331218 | 19.74604 | 43.58490
ligru         | 0.232858 0.599481 0.255343    |  1.934132 | -0.535152 0.278225  |  5.65763 |  7.52450
ligru_nobn    | 0.503637 0.750318 0.000000    |  3.021593 | 0.514662 0.212417   |  7.93653 | 21.76589
sligru        | 0.184905 1.181715 0.000000    |  2.403027 | -0.481515 0.123875  |  1.35141 | 14.12637
libru         | 0.023331 0.000000 0.000001    |  0.064653 | 0.022562 0.019261   | -3.63708 |  5.89770
libru_log     | -0.488834 -0.846770 -0.464740 | -5.961128 | 0.146816 -0.125427  | -1.68418 | 15.25597
libru_geomean | 0.784961 1.268924 0.368712    |  5.923556 | 0.194036 0.185329   |  5.26341 | 13.08772
lstm          | 0.111193 0.216739 0.114268    |  1.188132 | -0.000406 -0.061047 |  5.84616 |  2.27304
rnn           | 0.312727 0.740118 -0.237082   |  2.257317 | -0.037120 -0.325803 | 12.15422 | 22.01984
"""


def _row(line: str) -> tuple[str, Golden]:
    name, *columns = (column.strip() for column in line.split("|"))
    last, loss, d_x0, d_sum, d_square = (tuple(map(float, column.split())) for column in columns)
    return name, Golden(last, *loss, d_x0, *d_sum, *d_square)


GOLDEN: dict[str, Golden] = dict(map(_row, TABLE.strip().splitlines()))

# The number of trained scalars, from the same catalogue.
COUNTS = {
    "gru": lambda d, e: 3 * (d * e + e * e + e),
    "gru_cho": lambda d, e: 3 * (d * e + e * e),
    "gru_before": lambda d, e: 3 * (d * e + e * e + e),
    "gru_after": lambda d, e: 3 * (d * e + e * e + 2 * e),
    "gru_concat": lambda d, e: 3 * (e * (e + d) + e),
    "gru_type1": lambda d, e: 3 * (d * e + e * e + e) - 2 * d * e,
    "gru_type2": lambda d, e: 3 * (d * e + e * e + e) - 2 * d * e - 2 * e,
    "gru_type3": lambda d, e: 3 * (d * e + e * e + e) - 2 * d * e - 2 * e * e,
    "mgu": lambda d, e: 2 * (d * e + e * e + e),
    "mgu1": lambda d, e: 2 * (d * e + e * e + e) - d * e,
    "mgu2": lambda d, e: 2 * (d * e + e * e + e) - d * e - e,
    "mgu3": lambda d, e: 2 * (d * e + e * e + e) - d * e - e * e,
    "caru": lambda d, e: 2 * (d * e + e * e + 2 * e),
    "caru_code": lambda d, e: 2 * (d * e + e * e + 2 * e),
    "ligru": lambda d, e: 2 * d * e + 2 * e * e + 4 * e,
    "ligru_nobn": lambda d, e: 2 * (d * e + e * e + e),
    "sligru": lambda d, e: 2 * d * e + 2 * e * e + 4 * e,
    "libru": lambda d, e: 2 * (d * e + e * e + e),
    "libru_log": lambda d, e: 2 * (d * e + e * e + e),
    "libru_geomean": lambda d, e: 2 * (d * e + e * e + e),
    "lstm": lambda d, e: 4 * (d * e + e * e + e),
    "rnn": lambda d, e: d * e + e * e + e,
}
