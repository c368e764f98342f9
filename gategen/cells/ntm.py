"""Neural Turing machine: a memory M of slots that one head writes and one reads (Graves et al. 2014).

The equations of the paper's section 3: a head finds its weighting w over the slots by their content (5, 6)
and by where it was (7 to 9), reads with it (2), erases and adds (3, 4). The controller, which the paper
leaves open, is one layer here; what it tells the heads are linear maps of it, kept in their ranges by
softplus, sigmoid and softmax. The head that writes looks for content in the memory before, the one that reads
in what that becomes.
A head moves by one slot at most. Memory, reading and weightings begin with trained values, as in the paper;
eps keeps roots and logarithms finite.
"""

from typing import Any

from gategen import (
    Cell,
    Eq,
    constants,
    gates,
    inputs,
    log,
    matrices,
    outer,
    rotation,
    sigmoid,
    softmax,
    softplus,
    sqrt,
    states,
    sum_,
    tanh,
    vectors,
)

x = inputs("x")
M = states("M", size=("slots", "width"), initial=vectors("m_M", size="width"))
r = states("r", size="width", initial=vectors("m_r", size="width"))
W_h, U_h = matrices("W_h U_h")
b_h = vectors("b_h")
W_e, W_a = matrices("W_e W_a", shape=("width", "hidden"))
b_e, b_a = vectors("b_e b_a", size="width")
R = matrices("R", shape=("slots", "slots"), trainable=False, initial=rotation(1))
eps = constants(eps=1e-8)
h, e, a = gates("h e a")


def head(n: str, memory: Any) -> tuple[Any, list[Eq]]:
    """The weighting of a head over the slots of a memory, and the equations that give it."""
    w = states(f"w_{n}", size="slots", initial=softmax(vectors(f"m_w{n}", size="slots")))
    K = matrices(f"K_{n}", shape=("width", "hidden"))
    b = vectors(f"b_k{n}", size="width")
    V = matrices(f"V_{n}", shape=((1,) * 6, "hidden"))
    c = vectors(f"c_{n}", size=(1,) * 6)
    k, beta, norm, content, g, at, back, stay, on, moved, gamma = gates(
        f"k_{n} beta_{n} norm_{n} content_{n} g_{n} at_{n} back_{n} stay_{n} on_{n} moved_{n} gamma_{n}"
    )
    s = softmax(*(V[j] @ h + c[j] for j in (2, 3, 4)))
    return w, [
        Eq(k, K @ h + b),
        Eq(beta, softplus(V[0] @ h + c[0])),
        Eq(norm, sqrt((sum_(memory * memory, over="width") + eps) * (sum_(k * k) + eps))),
        Eq(content, softmax(beta * ((memory @ k) / norm))),
        Eq(g, sigmoid(V[1] @ h + c[1])),
        Eq(at, g * content + (1 - g) * w),
        Eq(back, s[0]),
        Eq(stay, s[1]),
        Eq(on, s[2]),
        Eq(moved, back * (R.T @ at) + stay * at + on * (R @ at)),
        Eq(gamma, 1 + softplus(V[5] @ h + c[5])),
        Eq(w.next, softmax(gamma * log(moved + eps))),
    ]


w_w, writing = head("w", M)
w_r, reading = head("r", M.next)

ntm = Cell(
    "ntm",
    Eq(h, tanh(W_h @ x + U_h @ r + b_h)),
    *writing,
    Eq(e, sigmoid(W_e @ h + b_e)),
    Eq(a, W_a @ h + b_a),
    Eq(M.next, M * (1 - outer(w_w.next, e)) + outer(w_w.next, a)),
    *reading,
    Eq(r.next, M.next.T @ w_r.next),
    output=(h, r.next),
    title="NTM: a neural Turing machine, with one head that writes and one that reads",
    reference="A. Graves, G. Wayne, I. Danihelka 2014, Neural Turing Machines, arXiv:1410.5401, section 3",
)
