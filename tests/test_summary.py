"""A cell in numbers: those of a run, those counted by hand."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CELLS, cell_of
from points import init_contents

from gategen import Eq, concat, gates, inputs, matrices, scalars, sigmoid, states, summary, tanh, vectors
from gategen.judge.host import imported, written
from gategen.plan import plan
from gategen.spec.language import batch_norm
from gategen.spec.names import extent_of

SIZES = ({"input": 5, "hidden": 3}, {"input": 1, "hidden": 4}, {"input": 7, "hidden": 1})

built_in_cell = pytest.mark.parametrize("name", CELLS)


@pytest.fixture(scope="session")
def module_of(tmp_path_factory):
    """The NumPy module of a cell, generated once."""
    folder = tmp_path_factory.mktemp("shown")
    return cache(lambda name: imported(written(CELLS[name], "numpy", folder)))


def value(formula: Any, sizes: dict[str, int]) -> int:
    """A formula at these sizes."""
    return int(formula.subs({symbol: extent_of(symbol.name, sizes) for symbol in formula.free_symbols}))


def all_sizes(cell: Any, sizes: dict[str, int]) -> dict[str, int]:
    """With sizes of the cell's own; where units are shared out, among three heads."""
    further = [size for size in cell.sizes if size not in sizes]
    heads = {"hidden": 3 * sizes["hidden"], "heads": 3} if cell.shares else {}
    return {**sizes, **{size: 9 + k for k, size in enumerate(further)}, **heads}


def arguments(module: Any, cell: Any, sizes: dict[str, int], steps: int, batch: int) -> Any:
    """Parameters, the sequence, and keywords for `forward`, initial states among them."""
    rng = np.random.default_rng(0)
    further = {name: size for name, size in sizes.items() if name not in ("input", "hidden")}
    params = module.init(
        sizes["input"], sizes["hidden"], seed=0, **further, **init_contents(cell, module, sizes)
    )

    def widths(size: Any) -> Any:
        return (sizes.get(axis, axis) for axis in (size if isinstance(size, tuple) else (size,)))

    x, *others = (rng.standard_normal((steps, batch, *widths(i.size)), np.float32) for i in cell.inputs)
    shapes = [(batch, *widths(s.size)) for s in cell.states]
    options = {i.name: array for i, array in zip(cell.inputs[1:], others, strict=True)}
    options["initial"] = module.States(*(rng.uniform(0.1, 0.9, shape).astype(np.float32) for shape in shapes))
    if hasattr(module, "init_buffers"):
        options["buffers"] = module.init_buffers(sizes["hidden"])
    return params, x, options


@built_in_cell
def test_the_parameters_are_as_many_as_init_returns(name, module_of):
    cell, module, found = CELLS[name], module_of(name), summary.summary(CELLS[name])
    for sizes in (all_sizes(cell, sizes) for sizes in SIZES):
        params, _, _ = arguments(module, cell, sizes, 1, 1)
        assert value(found.parameters, sizes) == sum(array.size for array in params)


@built_in_cell
def test_the_tape_has_as_many_bytes_as_the_formula_says(name, module_of):
    cell, module, found = CELLS[name], module_of(name), summary.summary(CELLS[name]).tape
    sizes, steps, batch = all_sizes(cell, SIZES[0]), 6, 2
    params, x, options = arguments(module, cell, sizes, steps, batch)
    _, _, tape = module.forward(params, x, **options)
    given = {"x", *(i.name for i in cell.inputs), "valid"}
    saved = {k: v for k, v in tape._asdict().items() if isinstance(v, np.ndarray) and k not in given}
    parts = (value(part, sizes) for part in (found.step, found.sequence, found.run))
    step, sequence, run = parts
    assert sum(array.nbytes for array in saved.values()) == batch * (steps * step + sequence) + run
    own = (name if name in found.buffers else re.sub("_2?$", "", name) for name in saved)
    assert sorted(own) == sorted(found.buffers)


@built_in_cell
def test_the_products_are_those_of_a_run(name, module_of, monkeypatch):
    cell, module, found = CELLS[name], module_of(name), summary.summary(CELLS[name])
    seen: Counter[str] = Counter()
    matmul = np.matmul

    def counted(a: Any, b: Any, **options: Any) -> Any:
        made = matmul(a, b, **options)
        by_block = bool(cell.shares) and max(a.ndim, b.ndim) == 4
        if a.ndim == 2 or by_block:  # a vector of ones is a sum over rows; b may be in blocks of columns
            seen[phase] += 1
            flops[phase] += 2 * made.size * a.shape[-1]
        return made

    monkeypatch.setattr(np, "matmul", counted)
    sizes, batch = all_sizes(cell, SIZES[0]), 2
    counts, work = [], []
    for steps in (3, 4):
        flops: Counter[str] = Counter()
        params, x, options = arguments(module, cell, sizes, steps, batch)
        seen.clear()
        phase = "forward"
        y, _, tape = module.forward(params, x, **options)
        phase = "backward"
        module.backward(params, tape, y)
        counts.append(dict(seen))
        work.append(dict(flops))
    for way, own in (("forward", found.forward), ("backward", found.backward)):
        once, more = (count[way] for count in counts)
        assert more - once == own.loop_products
        source = Path(module.__file__).read_text("utf-8").split("def backward")[way == "backward"]
        added = len(re.findall(r"\+= [^#\n]* @ ", source))  # gradients of a matrix of two products
        assert once + added == 3 * own.loop_products + own.other_products
        for done, steps in zip(work, (3, 4), strict=True) if not added else ():
            assert done[way] == steps * batch * of_products(cell, way, sizes)


def of_products(cell: Any, way: str, sizes: dict[str, int]) -> int:
    """The part of the operations that products have: those of a cell with free elementwise arithmetic."""
    made = plan(cell)
    fields = {field.name: field for field in made.every_field}
    stages = getattr(made.step, way).stages
    return value(sum(summary.operations(s, fields) for s in summary.products(stages)), sizes)


def test_the_operations_of_the_gru_are_those_counted_by_hand():
    found = summary.summary(CELLS["gru"])
    # Three sums of three terms, three functions, r*h, and (1 - z)*h + z*n.
    by_hand = 3 * 2 + 3 + 1 + 4
    assert summary.formula(found.forward.operations) == f"6 H I + 6 H^2 + {by_hand} H"


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("a - b", 1),
        ("-a - b", 2),
        ("a*b + c", 2),
        ("a / b", 1),
        ("1 / (a * b)", 2),
        ("a**2", 1),
        ("a**3", 2),
        ("1 / a**2", 2),
        ("sqrt(a)", 1),
        ("sigmoid(a) * (1 - sigmoid(a))", 4),
        ("where(a > b, a, 0)", 2),
        ("a", 0),
    ],
)
def test_arithmetic_is_counted_as_it_is_written(expression, count):
    import gategen

    names = dict(zip("abc", vectors("a b c"), strict=True))
    words = {word: getattr(gategen, word) for word in ("sigmoid", "sqrt", "where")}
    assert summary.arithmetic(eval(expression, words, names)) == count


def test_a_scalar_is_one_parameter_and_a_fixed_one_counts_too():
    x, h, alpha = inputs("x"), states("h"), scalars("alpha")
    W, U = matrices("W"), matrices("U", trainable=False)
    found = summary.summary(cell_of(Eq(h.next, tanh(alpha * (W @ x) + U @ h))))
    assert summary.formula(found.parameters) == "H I + H^2 + 1"


def test_formulas_name_further_sizes_in_full():
    x, h, p = inputs("x"), states("h"), states("p", size="projection")
    W, U, P = matrices("W U P")
    g = gates("g")
    cell = cell_of(Eq(g, sigmoid(W @ x + U @ p)), Eq(h.next, g * h), Eq(p.next, P @ h.next))
    assert summary.formula(summary.summary(cell).parameters) == "H I + 2 H projection"


def test_what_leaves_the_loop_is_counted_for_every_step():
    x, h, b = inputs("x"), states("h"), vectors("b")
    W = matrices("W")
    cell = cell_of(Eq(h.next, b * h + W @ x))
    found = summary.summary(cell)
    assert (found.kind, found.forward.loop_products, found.forward.other_products) == ("linear", 0, 1)
    assert summary.formula(found.forward.operations) == "2 H I + 2 H"


def test_batch_norm_has_a_tape_of_no_step():
    x, h = inputs("x"), states("h")
    W, U = matrices("W U")
    g, b = vectors("g b")
    found = summary.summary(cell_of(Eq(h.next, tanh(batch_norm(W @ x, g, b) + U @ h)))).tape
    assert summary.formula(found.run) == "4 H"


PARAMETERS = {
    "rnn": "H I + H^2 + H",
    "gru": "3 H I + 3 H^2 + 3 H",
    "lstm": "4 H I + 4 H^2 + 4 H",
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_of_known_cells_are_as_many_as_papers_say(name):
    assert summary.formula(summary.summary(CELLS[name]).parameters) == PARAMETERS[name]


def test_the_parameters_of_stacked_rows_and_columns_are_all_counted():
    x, h = inputs("x"), states("h")
    A = matrices("A", shape=("hidden", ("hidden", "input")))
    B, c = matrices("B", shape=(("hidden",) * 2, "input")), vectors("c", size=("hidden",) * 2)
    u, v = B @ x
    found = summary.summary(cell_of(Eq(h.next, tanh(A @ concat(h, x)) * (u + c[0]) + v + c[1])))
    assert summary.formula(found.parameters) == "3 H I + H^2 + 2 H"


def test_sizes_that_are_numbers_are_multiplied_out():
    q, s = inputs("q", size=4), states("s", size=6)
    W, U = matrices("W U")
    found = summary.summary(cell_of(Eq(s.next, tanh(W @ q + U @ s))))
    assert summary.formula(found.parameters) == "60"


def test_a_row_of_the_table_is_the_listing_in_short():
    found = summary.summary(CELLS["rnn"])
    row = dict(zip(summary.HEADER, summary.row(found), strict=True))
    listing = summary.rows(found)
    assert (row["cell"], row["class"], row["parameters"]) == ("rnn", "recurrent", "H I + H^2 + H")
    assert listing[0] == ("parameters", "", row["parameters"])
    assert listing[1][2] == f"{row['operations forward']} a step and sequence"
    assert row["products forward"] == "1 a step + 1"
