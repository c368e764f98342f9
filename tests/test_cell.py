"""`Cell`: what it holds, that it is frozen, constants in a copy, cells from text."""

import itertools
from pathlib import Path

import pytest
import sympy as sp
from helpers import CELLS, cell_of

import gategen
from gategen import Cell, Eq, SpecError, gates, inputs, matrices, states, tanh, vectors
from gategen.errors import SpecWarning, Where
from gategen.graph import flatten, text
from gategen.spec import language as lang
from gategen.spec.text import read

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")
z = gates("z")


# -------------------------------------------------------------------------------- making one


def test_a_cell_knows_what_its_equations_mention() -> None:
    alpha, eps = lang.scalars("alpha"), lang.constants(eps=0.1)
    cell = cell_of(Eq(z, tanh(W @ x + eps)), Eq(h.next, alpha * z + U @ h + b))
    assert [eq.lhs.name for eq in cell.equations] == ["z", "h'"] and cell.first == ()
    assert (cell.inputs, cell.states, cell.outputs) == ((x,), (h,), (h.next,))
    assert set(cell.parameters) == {W, U, b, alpha} and cell.constants == (eps,)
    assert cell.symbols == {x, h, h.next, z, W, U, b, alpha, eps}
    assert cell.gate_sizes == {"z": "hidden"} and cell.first_sizes == {}
    assert cell.sizes_of(W) == ("hidden", "input") and cell.sizes_of(alpha) == ()


def test_a_cell_is_frozen() -> None:
    cell = cell_of(Eq(h.next, W @ x + h))
    for name in ("name", "equations", "anything"):
        with pytest.raises(AttributeError, match=f"a Cell is frozen: {name} cannot be set"):
            setattr(cell, name, None)


def test_a_cell_equals_itself_alone() -> None:
    """Two specs may well describe one function; whether they do is what `gategen diff` asks."""
    cell, twin = (cell_of(Eq(h.next, W @ x + h)) for _ in range(2))
    assert cell == cell and cell != twin and len({cell, twin, cell}) == 2
    assert cell.text() == twin.text()


def test_a_cell_shows_its_equations() -> None:
    cell = Cell("c", Eq(h.next, z * h), Eq(z, tanh(W @ x)))
    assert repr(cell) == "<Cell c: z = tanh(W @ x); h' = z * h>"
    assert cell.text(cell.equations[1:]) == ("h' = z * h",)


def test_the_words_of_sympy_become_ours() -> None:
    cell = cell_of(Eq(h.next, sp.tanh(W @ x) + sp.Max(h, b)))
    assert cell.equations[0].rhs.has(lang.maximum) and not cell.equations[0].rhs.has(sp.Max)


def test_what_is_no_equation_is_refused_in_the_words_of_the_spec() -> None:
    for given, words in (
        (sp.Eq(z, z), "an equation folded to True"),
        (h.next, "h' is not an equation"),
        ("h' = x", '"h\' = x" is not an equation'),
    ):
        with pytest.raises(SpecError, match=words):
            Cell("c", given)
    with pytest.raises(SpecError, match="a cell needs at least one equation"):
        Cell("c")


def test_a_cell_keeps_the_places_of_its_equations() -> None:
    eq = Eq(h.next, lang.normalise(sp.Max(W @ x, h)))
    cell = cell_of(eq)
    assert cell.equations[0].where == eq.where
    assert cell.where is not None and Path(cell.where.file).name == "helpers.py"


def test_an_equation_of_sympy_is_accepted() -> None:
    cell = cell_of(sp.Eq(z, tanh(W @ x)), sp.Eq(h.next, z * h))
    assert cell.text() == ("z = tanh(W @ x)", "h' = z * h")


def test_the_order_of_equations_does_not_matter() -> None:
    gru = CELLS["gru"]
    for order in itertools.permutations(gru.equations):
        cell = Cell("gru", *order)
        assert {(eq.lhs, eq.rhs) for eq in cell.equations} == {(eq.lhs, eq.rhs) for eq in gru.equations}
        met = [eq.lhs.name for eq in cell.equations]
        assert met.index("r") < met.index("n") < met.index("h'") and met.index("z") < met.index("h'")
        assert (cell.states, cell.inputs) == (gru.states, gru.inputs)
        assert set(cell.parameters) == set(gru.parameters)


def test_a_long_chain_of_equations_may_be_written_backwards() -> None:
    """Each of the 1,000 gates reads the one that is given behind it."""
    x, h, W = inputs("x"), states("h"), matrices("W")
    chain = gates(" ".join(f"g{k}" for k in range(1_000)))
    links = [Eq(gate, other * h) for gate, other in itertools.pairwise(chain)]
    cell = Cell("backwards", Eq(h.next, chain[0]), *links, Eq(chain[-1], W @ x))
    assert [eq.lhs for eq in cell.equations] == [*reversed(chain), h.next]


def test_states_and_inputs_stand_in_the_order_of_their_declaration() -> None:
    d, c, a = states("d c a")
    mask, q = inputs("mask q", size=1)
    cell = cell_of(Eq(a.next, q + a), Eq(c.next, b * c), Eq(d.next, d * mask))
    assert cell.states == (d, c, a)
    assert cell.inputs == (mask, q)
    assert cell.outputs == (d.next,)


def test_the_output_is_what_was_asked_for() -> None:
    equations = Eq(h.next, z * h), Eq(z, tanh(W @ x))
    assert cell_of(*equations).outputs == (h.next,)
    assert cell_of(*equations, output=z).outputs == (z,)
    assert cell_of(*equations, output=[h.next, z]).outputs == (h.next, z)


def test_the_first_step_has_equations_of_its_own() -> None:
    cell = cell_of(Eq(h.next, z * h), Eq(z, tanh(W @ x)), first=[Eq(h.next, z), Eq(z, U @ x + b)])
    assert cell.text(cell.first) == ("z = U @ x + b", "h' = z")
    assert [p.name for p in cell.parameters] == ["W", "U", "b"]
    assert cell.shapes["U"] == ("hidden", "input")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cell(Eq(h.next, W @ x)), "a name is text, not Eq"),
        (lambda: Cell(3, Eq(h.next, W @ x)), "a name is text, not int"),
        (lambda: inputs(3), "a name is text, not int"),
        (lambda: Cell("c", Eq(h.next, tanh(W @ x) * 10**400)), "an infinite number"),
        (lambda: Cell("c", Eq(h.next, tanh(W @ x) * 10**5000)), "an infinite number"),
    ],
)
def test_what_no_name_and_no_number_is(make, words) -> None:
    with pytest.raises(SpecError, match=words):
        make()


def test_one_equation_may_be_the_first_step() -> None:
    cell = Cell("c", Eq(h.next, tanh(W @ x)), first=Eq(h.next, W @ x))
    assert cell.text(cell.first) == ("h' = W @ x",)


def test_a_title_is_the_reference_or_the_name_unless_it_is_given() -> None:
    equation = Eq(h.next, W @ x + h)
    assert Cell("cell", equation).title == "cell"
    assert Cell("cell", equation, reference="J. Doe 2020").title == "J. Doe 2020"
    assert Cell("cell", equation, title="A cell", reference="J. Doe 2020").title == "A cell"


def test_constants_change_everywhere_and_only_in_the_copy() -> None:
    gain, power, level = gategen.constants(gain=2, power=3, level=0.5)
    s = states("s", initial=level)
    cell = cell_of(Eq(s.next, gain * s**power + W @ x), output=s.next, first=[Eq(s.next, gain * (W @ x))])
    other = cell.with_constants(gain=4, level=-1)
    assert {c.name: c.value for c in cell.constants} == {"gain": 2, "power": 3, "level": 0.5}
    assert {c.name: c.value for c in other.constants} == {"gain": 4, "power": 3, "level": -1}
    assert [str(s.initial) for s in other.states] == ["level"]
    assert other.states[0].initial.value == -1
    assert other.outputs == (other.states[0].next,)
    assert "4 * s**3" in text(flatten(other)) and "2 * s**3" in text(flatten(cell))
    assert "4 * W_x" in text(flatten(other, first=True))
    assert other.equations[0].where == cell.equations[0].where


def test_an_unknown_constant_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="gru has no constant beta") as caught:
        CELLS["gru"].with_constants(beta=2)
    assert caught.value.hint == "its constants: none"


def test_the_copy_with_other_constants_is_otherwise_the_same() -> None:
    gain = lang.constants(gain=2)
    cell = Cell("c", Eq(h.next, gain * (W @ x) + h), title="A cell", reference="J. Doe 2020")
    same = cell.with_constants()
    assert same is not cell and same.text() == cell.text() and same.states == cell.states
    other = cell.with_constants(gain=3)
    assert (other.name, other.title, other.reference) == ("c", "A cell", "J. Doe 2020")
    assert (other.where, other.shapes) == (cell.where, cell.shapes)


# -------------------------------------------------------------------------------- arrays


def test_a_matrix_of_stacked_rows_gives_as_many_vectors() -> None:
    A = matrices("A", shape=(("hidden",) * 2 + ("memory",), "input"))
    b = vectors("b", size=("hidden", "hidden", "memory"))
    i, g, m = A @ x
    assert (i, g, m) == tuple(rows @ x for rows in A)
    assert list(map(str, A)) == ["A[0]", "A[1]", "A[2]"] and str(A @ x) == "A @ x"
    k = states("k", size="memory")
    e = vectors("e", size="memory")  # which tells that size: A and b tell the sum alone
    cell = cell_of(Eq(h.next, lang.sigmoid(i + b[0]) * (g + b[1])), Eq(k.next, m + b[2] * k * e))
    assert cell.text() == (
        "h' = sigmoid(A[0] @ x + b[0]) * (A[1] @ x + b[1])",
        "k' = A[2] @ x + b[2] * e * k",
    )
    assert [(a.name, a.shape, a.stacked) for a in cell.arrays] == [
        ("A", (("hidden", "hidden", "memory"), "input"), True),
        ("b", (("hidden", "hidden", "memory"),), True),
        ("e", ("memory",), False),
    ]


def test_parameters_that_stand_alone_are_arrays_of_their_own() -> None:
    alpha = lang.scalars("alpha")
    cell = cell_of(Eq(h.next, alpha * tanh(W @ x + b)))
    assert [(a.name, a.shape, a.stacked) for a in cell.arrays] == [
        ("W", ("hidden", "input"), False),
        ("alpha", (), False),
        ("b", ("hidden",), False),
    ]


# -------------------------------------------------------------------------------- from text

TEXT = """
'''A cell.

J. Doe 2020
'''
name: mine
h' = tanh(W_h @ x + U_h @ h)
"""


def test_a_parsed_cell_is_what_its_text_says() -> None:
    cell = Cell.parse("c", TEXT, file="c.gate")
    assert (cell.name, cell.title, cell.reference) == ("c", "A cell", "J. Doe 2020")
    assert cell.text() == ("h' = tanh(W_h @ x + U_h @ h)",)
    assert cell.equations[0].where == Where("c.gate", 7)
    assert dict(cell.shapes) == {"W_h": ("hidden", "input"), "U_h": ("hidden", "hidden")}


def test_a_text_that_was_read_before_makes_the_same_cell() -> None:
    cell = Cell.from_text(read(TEXT), "c")
    assert cell.text() == Cell.parse("c", TEXT).text() and cell.name == "c"


def test_an_error_in_a_text_speaks_the_text_form() -> None:
    with pytest.raises(SpecError) as caught:
        Cell.parse("c", "h' = W_h @ x + z\nz = h' + r\nr = z", file="c.gate")
    assert caught.value.where is not None and caught.value.where.file == "c.gate"
    assert ".next" not in str(caught.value)


def test_what_a_text_declares_and_does_not_use_is_warned_of() -> None:
    with pytest.warns(SpecWarning, match="q is declared but no equation uses it"):
        Cell.parse("c", "vectors: q\nh' = W_h @ x + h")
