"""LiBRU, light Bayesian recurrent unit (Bittar & Garner 2021, doi:10.1109/ICASSP39728.2021.9414259).

The state of `libru` is the probability of a hidden feature and feeds back as its logarithm. `libru_log`
carries that logarithm and is the same function, but for eps; its start must be the log of a probability
above 0. `libru_geomean` mixes logarithms instead of probabilities, which makes it a Li-GRU with
softplus.
"""

from gategen import (
    Cell,
    Eq,
    constants,
    gates,
    inputs,
    log,
    log_sigmoid,
    matrices,
    sigmoid,
    softplus,
    states,
    vectors,
)

x = inputs("x")
h = states("h")
W_z, W_h, U_z, U_h = matrices("W_z W_h U_z U_h")
b_z, b_h = vectors("b_z b_h")
z, n, a = gates("z n a")
eps = constants(eps=1e-11)

BITTAR = (
    "A. Bittar, P. N. Garner 2021, A Bayesian Interpretation of the Light Gated Recurrent Unit, "
    "doi:10.1109/ICASSP39728.2021.9414259"
)

libru = Cell(
    "libru",
    Eq(z, sigmoid(W_z @ x + U_z @ log(h + eps) + b_z)),
    Eq(n, sigmoid(W_h @ x + U_h @ log(h + eps) + b_h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="Light Bayesian recurrent unit: the state is a probability",
    reference=f"{BITTAR}, eqs. 19a-19c as programmed in github.com/idiap/bayesian-recurrence",
)

libru_geomean = Cell(
    "libru_geomean",
    Eq(z, sigmoid(W_z @ x + U_z @ h + b_z)),
    Eq(n, softplus(W_h @ x + U_h @ h + b_h)),
    Eq(h.next, z * h + (1 - z) * n),
    title="Light Bayesian recurrent unit, geometric mean: light GRU with softplus",
    reference=f"{BITTAR}; option geomean of github.com/idiap/bayesian-recurrence",
)

h = states("h", initial=-1)  # another h: a log-probability

libru_log = Cell(
    "libru_log",
    Eq(a, W_z @ x + U_z @ h + b_z),
    Eq(n, log_sigmoid(W_h @ x + U_h @ h + b_h)),
    # log(z*exp(h) + (1 - z)*exp(n)) with z = sigmoid(a), finite also where z is 1 in single precision
    Eq(h.next, n + softplus(a + h - n) - softplus(a)),
    title="Light Bayesian recurrent unit: the state is a log-probability",
    reference=f"{BITTAR}, eqs. 19a-19c for the logarithm of the state",
)
