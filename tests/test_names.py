"""A spec may use any name, also those that generated code uses itself."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from points import (
    CELLS,
    LENGTHS,
    assert_forward_is_right,
    assert_gradients_are_right,
    random_point,
)

from gategen import Cell, Eq, gates, inputs, matrices, sigmoid, states, tanh, vectors
from gategen.judge.verify import imported, written
from gategen.spec.language import RESERVED


def cell_with(role: str, names: list[str]) -> Cell:
    """A cell in which these names play this role, and all others end in `_q`."""
    x, h, (W, U) = inputs("x_q"), states("h_q"), matrices("W_q U_q")
    a = W @ x + U @ h
    if role == "vector":
        return Cell("named", Eq(h.next, tanh(a + sum(v * v for v in vectors(" ".join(names))) / 9)))
    if role == "input":
        return Cell("named", Eq(h.next, tanh(a + h * sum(inputs(" ".join(names), size="hidden")) / 9)))
    if role == "state":
        made = states(" ".join(names))
        equations = [Eq(s.next, s / 2 + h) for s in made]
        return Cell("named", *equations, Eq(h.next, tanh(a + sum(made) / 20)), output=h.next)
    made = gates(" ".join(names))
    equations = [Eq(g, sigmoid(a * (k + 1) / 9)) for k, g in enumerate(made)]
    return Cell("named", *equations, Eq(h.next, sum(made) / 20), first=[Eq(h.next, x_sum(x))])


def x_sum(x: Any) -> Any:
    return tanh(matrices("V_q") @ x)


@pytest.mark.parametrize("k", range(4))
def test_a_spec_may_use_every_name_that_a_module_uses(module_of, tmp_path, monkeypatch, k):
    """Each name of the code of some modules takes one of the roles."""
    used: set[str] = set()
    for name in ("caru", "sligru", "opened_from_the_start"):
        tree = ast.parse(Path(module_of(name).__file__).read_text("utf-8"))
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names = sorted(name for name in used - RESERVED if not name.startswith("_"))[k::4]
    for role, some in zip(("vector", "input", "state", "gate"), (names[j::4] for j in range(4)), strict=True):
        monkeypatch.setitem(CELLS, "named", cell_with(role, some))
        point = random_point("named", imported(written(CELLS["named"], "numpy", tmp_path)), lengths=LENGTHS)
        for initial in (True, False):
            assert_forward_is_right(replace(point, initial=initial))
            assert_gradients_are_right(replace(point, initial=initial))
