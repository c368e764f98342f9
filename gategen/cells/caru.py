"""CARU, content-adaptive recurrent unit (Chan, Ke & Im 2020, doi:10.1007/978-3-030-63830-6_58).

The content `a` weighs the update gate. Without a given state the first step only projects the input:
linearly in `caru`, as Wikipedia states it, and through tanh in `caru_code`, as the author's published
program does it.
"""

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors

x = inputs("x")
h = states("h")
W_n, W_z, U_n, U_z = matrices("W_n W_z U_n U_z")
b_n, b_z, c_n, c_z = vectors("b_n b_z c_n c_z")
a, n, z, l = gates("a n z l")  # noqa: E741 (the paper's name)

CHAN = (
    "K.-H. Chan, W. Ke, S.-K. Im 2020, CARU: A Content-Adaptive Recurrent Unit for the Transition of Hidden "
    "State in NLP, LNCS 12532, 693-703, doi:10.1007/978-3-030-63830-6_58"
)


def caru_with(name: str, first_equation: Eq, title: str, reference: str) -> Cell:
    """The CARU with this equation for a first step from no given state."""
    return Cell(
        name,
        Eq(a, W_n @ x + b_n),
        Eq(n, tanh(U_n @ h + c_n + a)),
        Eq(z, sigmoid(W_z @ x + b_z + U_z @ h + c_z)),
        Eq(l, sigmoid(a) * z),
        Eq(h.next, (1 - l) * h + l * n),
        first=[first_equation],
        title=title,
        reference=reference,
    )


caru = caru_with(
    "caru",
    Eq(h.next, W_n @ x + b_n),
    "Content-adaptive recurrent unit",
    CHAN,
)

caru_code = caru_with(
    "caru_code",
    Eq(h.next, tanh(W_n @ x + b_n)),
    "Content-adaptive recurrent unit as its author programs it: tanh in the first step",
    f"{CHAN}; program github.com/ChanKaHou/CARU",
)
