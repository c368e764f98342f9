"""Large cells: the work of every command grows as a polynomial; counted in calls, not in seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from gategen import Cell, Eq, gates, inputs, matrices, states, tanh
from gategen.build import generate
from gategen.diff import DIFFERENT, SAME, diff
from gategen.show import show


def blocks(count: int) -> str:
    """Independent GRUs of one input."""
    lines = []
    for k in range(count):
        lines += [
            f"z{k} = sigmoid(W_z{k} @ x + U_z{k} @ h{k} + b_z{k})",
            f"r{k} = sigmoid(W_r{k} @ x + U_r{k} @ h{k} + b_r{k})",
            f"n{k} = tanh(W_n{k} @ x + b_n{k} + r{k} * (U_n{k} @ h{k} + c_n{k}))",
            f"h{k}' = (1 - z{k}) * h{k} + z{k} * n{k}",
        ]
    return "\n".join(lines)


def delays(count: int) -> str:
    """A chain of states, each of which is the one before it a step ago."""
    shifts = [f"q{k}' = q{k - 1}" for k in range(1, count)]
    return "\n".join([f"h' = tanh(W_h @ x + U_h @ q{count - 1} + b_h)", "q0' = h", *shifts])


def layers(count: int) -> str:
    """A chain of equations, each of which reads the one before it twice."""
    inner = [f"a{k} = tanh(p_{k} * a{k - 1} + b_{k}) + a{k - 1}" for k in range(1, count)]
    return "\n".join(["a0 = tanh(W_h @ x + U_h @ h)", *inner, f"h' = a{count - 1}"])


def squares(count: int) -> str:
    """Polynomials of polynomials, whose degree doubles with every equation."""
    inner = [f"a{k} = p_{k} * a{k - 1} + b_{k} * a{k - 1}**2" for k in range(1, count)]
    return "\n".join(["a0 = W_h @ x + U_h @ h", *inner, f"h' = a{count - 1}"])


def factors(count: int) -> str:
    """A product of sums, each of which is in the gradient of all others."""
    return "h' = W_h @ x + " + " * ".join(f"(p_a + {k} * h + {k})" for k in range(1, count + 1))


def choices(count: int) -> str:
    """A sum of maxima and minima."""
    return "h' = W_h @ x + " + " + ".join(
        f"{'maximum' if k % 2 else 'minimum'}(p_a, {k} * h)" for k in range(count)
    )


def twins(count: int) -> str:
    """Gates that can change places."""
    gates = [f"z{k} = sigmoid(W_z{k} @ x + U_z{k} @ h + b_z{k})" for k in range(count)]
    return "\n".join([*gates, "h' = tanh(" + " + ".join(f"z{k}" for k in range(count)) + ")"])


@contextmanager
def counted(limit: int) -> Iterator[list[int]]:
    """Within, Python functions are called `limit` times at most."""
    calls = [0]

    def note(frame: object, event: str, arg: object) -> None:
        if event == "call":
            calls[0] += 1
            if calls[0] > limit:
                sys.setprofile(None)
                raise AssertionError(f"more than {limit} calls")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def parsed(text: str) -> Cell:
    return Cell.parse("cell", text)


def renamed(text: str) -> str:
    return text.replace("W_", "V_").replace("b_", "g_").replace("z", "u")


def changed(text: str) -> str:
    """Another coefficient in the last equation."""
    head, _, tail = text.rpartition(" = ")
    return f"{head} = 2 * ({tail})"


STAGES: dict[str, Callable[[str], object]] = {
    "numpy": lambda text: generate(parsed(text), "numpy"),
    "cupy": lambda text: generate(parsed(text), "cupy"),
    "show": lambda text: show(parsed(text), "adjoint", "latex"),
    "plan": lambda text: show(parsed(text), "plan", "json"),
    "same": lambda text: diff(parsed(text), parsed(renamed(text))).verdict,
    "changed": lambda text: diff(parsed(text), parsed(changed(text))).verdict,
    "different": lambda text: diff(parsed(text), parsed(text.replace("tanh", "sin"))).verdict,
}

MILLIONS = {  # of calls, about twice as many as it takes
    (blocks, 8): {"numpy": 4, "cupy": 2, "show": 1, "plan": 2, "same": 4, "changed": 10, "different": 5},
    (blocks, 20): {"numpy": 11, "cupy": 6, "show": 3, "plan": 5, "same": 19, "different": 14},
    (delays, 40): {"numpy": 1, "cupy": 1, "show": 1, "plan": 1, "same": 1, "changed": 1, "different": 1},
    (layers, 24): {"numpy": 4, "cupy": 2, "show": 1, "plan": 1, "same": 2, "changed": 20, "different": 7},
    (squares, 7): {"numpy": 1, "cupy": 1, "show": 1, "plan": 1, "same": 3},
    (squares, 14): {"numpy": 2, "show": 1, "plan": 1},
    (factors, 40): {"numpy": 5, "cupy": 2, "show": 1, "plan": 1, "same": 18},
    (choices, 100): {"numpy": 7, "cupy": 3, "show": 2, "plan": 3, "same": 2, "changed": 3},
    (twins, 40): {"numpy": 4, "cupy": 2, "show": 1, "plan": 2, "same": 5, "changed": 6, "different": 4},
}
VERDICTS = {"same": SAME, "changed": DIFFERENT, "different": DIFFERENT}


@pytest.mark.parametrize(
    ("kind", "count", "stage", "limit"),
    [
        pytest.param(
            kind,
            count,
            stage,
            limit,
            id=f"{kind.__name__} {count} {stage}",
            marks=[pytest.mark.slow] if limit > 9 else [],
        )
        for (kind, count), limits in MILLIONS.items()
        for stage, limit in limits.items()
    ],
)
def test_no_stage_takes_longer_than_a_polynomial(kind, count, stage, limit):
    with counted(limit * 1_000_000):
        found = STAGES[stage](kind(count))
    assert found == VERDICTS.get(stage, found)


def test_diff_reads_a_long_chain_of_equations():
    """Each of which reads the one before: deeper than Python's calls may be nested."""
    x, h = inputs("x"), states("h")
    W, U = matrices("W U")
    g = gates(" ".join(f"g{k}" for k in range(400)))
    chain = [Eq(g[0], tanh(W @ x + U @ h)), *(Eq(new, tanh(old + 1)) for old, new in pairwise(g))]
    deep, other = (Cell("deep", *chain, Eq(h.next, factor * g[-1])) for factor in (1, 2))
    assert diff(deep, deep).verdict == SAME and diff(deep, other).verdict == DIFFERENT
