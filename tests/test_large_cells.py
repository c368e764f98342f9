"""Large cells: the work of every command grows as a polynomial; counted in calls, not in seconds."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

import gategen
from gategen import Cell, Eq, gates, inputs, matrices, states, tanh, vectors
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


def pairs(count: int) -> str:
    """Gates of ordinary width, multiplied two by two."""
    every = [f"z{k} = sigmoid(W_z{k} @ x + U_z{k} @ h + b_z{k})" for k in range(count)]
    return "\n".join(
        [*every, "h' = tanh(" + " + ".join(f"z{k} * z{k + 1}" for k in range(0, count - 1, 2)) + ")"]
    )


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
    """The cell of a text; of one with more equations than the text form may have, through Python."""
    if text.count("\n") < 100:
        return Cell.parse("cell", text)
    sides = [line.split(" = ") for line in text.split("\n")]
    known = {name: getattr(gategen, name) for name in gategen.__all__} | {"x": inputs("x")}
    for left, right in sides:
        name = left.removesuffix("'")
        known[name] = gates(name) if left == name else states(name)
        for parameter, product in re.findall(r"\b([A-Za-z]_\w+)( @)?", right):
            known.setdefault(parameter, matrices(parameter) if product else vectors(parameter))
    named = [re.sub(r"\b(\w+)'", r"\1.next", side) for side in map(" = ".join, sides)]
    return Cell("cell", *(Eq(*(eval(side, known) for side in line.split(" = "))) for line in named))


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

MILLIONS = {  # of calls, about half as many again as it takes
    (blocks, 16): {
        **{"numpy": 3.4, "cupy": 1.8, "show": 0.9, "plan": 1.6},
        **{"same": 2.1, "changed": 3, "different": 2.6},
    },
    (delays, 40): {
        **{"numpy": 0.5, "cupy": 0.4, "show": 0.2, "plan": 0.3},
        **{"same": 0.5, "changed": 0.4, "different": 0.4},
    },
    (layers, 48): {
        **{"numpy": 3.1, "cupy": 1.3, "show": 0.6, "plan": 1},
        **{"same": 1.6, "changed": 2.3, "different": 1.4},
    },
    (squares, 7): {"same": 0.3},
    (squares, 14): {"numpy": 1, "cupy": 0.4, "show": 0.2, "plan": 0.3},
    (factors, 40): {"numpy": 8, "cupy": 1.4, "show": 0.3, "plan": 1.2, "same": 1.8},  # with derivatives
    (choices, 50): {"numpy": 4, "cupy": 1.3, "show": 0.5, "plan": 1.3, "same": 0.8, "changed": 0.9},
    (twins, 30): {
        **{"numpy": 1.4, "cupy": 0.7, "show": 0.4, "plan": 0.7},
        **{"same": 0.9, "changed": 1.9, "different": 1.5},
    },
    (layers, 250): {"numpy": 17, "cupy": 7.5, "plan": 5, "same": 11},
    (pairs, 250): {"numpy": 13, "cupy": 7, "plan": 6.5, "same": 7, "changed": 7.5},
}
SLOW = 4  # millions of calls that are too many for every day
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
            marks=[pytest.mark.slow] if limit > SLOW else [],
        )
        for (kind, count), limits in MILLIONS.items()
        for stage, limit in limits.items()
    ],
)
def test_no_stage_takes_longer_than_a_polynomial(kind, count, stage, limit):
    with counted(int(limit * 1_000_000)):
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
