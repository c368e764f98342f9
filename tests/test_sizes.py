"""Sizes by unification: what follows from use, what contradicts itself, what cannot be known."""

import pytest
from helpers import cell_of

from gategen import Cell, Eq, SpecError, gates, inputs, matrices, scalars, states, tanh, vectors
from gategen.spec import language as lang
from gategen.spec.sizes import Unifier, Variable, describe

x = inputs("x")
h = states("h")
W, U = matrices("W U")
b = vectors("b")
z, y = gates("z y")


# -------------------------------------------------------------------------------- what follows


def rank_one() -> Cell:
    P, Q = matrices("P", shape=("hidden", "rank")), matrices("Q")
    return cell_of(Eq(h.next, tanh(P @ (Q @ x) + U @ h)))


def through_gates() -> Cell:
    V = matrices("V")
    return cell_of(Eq(y, z * tanh(U @ h)), Eq(z, W @ x + b), Eq(h.next, V @ y + h))


def with_memory() -> Cell:
    m = states("m", size="memory")
    R, V = matrices("R V")
    return cell_of(Eq(m.next, tanh(R @ h + W @ x)), Eq(h.next, V @ m.next))


def of_integers() -> Cell:
    q, s = inputs("q", size=4), states("s", size=6)
    return cell_of(Eq(s.next, tanh(W @ q + U @ s)))


def stacked() -> Cell:
    A, m = matrices("A"), inputs("m", size=2)
    return cell_of(Eq(h.next, tanh(A @ lang.concat(h, x, m, scalars("alpha")))))


def of_size_one() -> Cell:
    S = matrices("S", shape=(1, "hidden"))
    return cell_of(Eq(z, S @ h), Eq(h.next, z * h + S.T @ z + W @ x))


def only_first() -> Cell:
    V = matrices("V")
    return cell_of(Eq(h.next, tanh(W @ x + U @ h)), first=[Eq(h.next, V @ x)])


SHAPES = {
    "a product": (lambda: cell_of(Eq(h.next, W @ x)), {"W": ("hidden", "input")}),
    "a sum": (lambda: cell_of(Eq(h.next, tanh(W @ x + b))), {"W": ("hidden", "input")}),
    "a transpose": (lambda: cell_of(Eq(h.next, W.T @ x + h)), {"W": ("input", "hidden")}),
    "both": (lambda: cell_of(Eq(h.next, W @ (x + W.T @ h))), {"W": ("hidden", "input")}),
    "a chain": (rank_one, {"P": ("hidden", "rank"), "Q": ("rank", "input"), "U": ("hidden", "hidden")}),
    "gates": (through_gates, {"W": ("hidden", "input"), "U": 2 * ("hidden",), "V": 2 * ("hidden",)}),
    "sizes": (with_memory, {"R": ("memory", "hidden"), "W": ("memory", "input"), "V": ("hidden", "memory")}),
    "integers": (of_integers, {"W": (6, 4), "U": (6, 6)}),
    "stacked columns": (stacked, {"A": ("hidden", ("hidden", "input", 2, 1))}),
    "size 1": (of_size_one, {"S": (1, "hidden"), "W": ("hidden", "input")}),
    "the first step": (
        only_first,
        {"W": ("hidden", "input"), "U": 2 * ("hidden",), "V": ("hidden", "input")},
    ),
}


@pytest.mark.parametrize("form", SHAPES)
def test_shapes_are_inferred_from_use(form: str) -> None:
    make, shapes = SHAPES[form]
    assert dict(make().shapes) == shapes


def test_sizes_have_a_name_each_and_the_two_usual_ones_come_first() -> None:
    assert rank_one().sizes == ("input", "hidden", "rank")
    assert with_memory().sizes == ("input", "hidden", "memory")
    assert of_integers().sizes == ("input", "hidden")


def test_gates_have_the_size_of_what_defines_them() -> None:
    assert of_size_one().gate_sizes == {"z": 1}
    assert through_gates().gate_sizes == {"y": "hidden", "z": "hidden"}
    assert cell_of(Eq(z, lang.mean(x)), Eq(h.next, z * h + b)).gate_sizes == {"z": 1}


# -------------------------------------------------------------------------------- one expression


def test_the_size_of_an_expression_is_that_of_its_widest_part() -> None:
    unifier = Unifier()
    unifier.gates["z"] = "rank"
    assert unifier.size(x) == "input" and unifier.size(h.next) == "hidden" and unifier.size(z) == "rank"
    assert unifier.size(tanh(2 * h) + lang.mean(x) * scalars("alpha")) == "hidden"
    assert unifier.size(lang.sum_(x, h)) == 1 == unifier.size(scalars("alpha") + 3)


def test_a_product_is_unknown_until_something_meets_it() -> None:
    unifier = Unifier()
    rows = unifier.size(W @ x)
    assert rows == Variable("W", "rows") and describe(rows) == "the rows of W"
    assert unifier.size(W @ x + b) == "hidden" == unifier.find(rows)
    assert unifier.solved_shape("W") == ("hidden", "input")


def test_unknown_sizes_that_meet_are_one() -> None:
    unifier = Unifier()
    unifier.size(W @ x + U @ h)
    assert isinstance(unifier.size(W @ x), Variable) and unifier.size(W @ x) == unifier.size(U @ h)
    unifier.equate(unifier.size(W @ x), "rank", "")
    assert unifier.solved(unifier.size(U @ h)) == "rank"


# -------------------------------------------------------------------------------- contradictions

q = inputs("q", size=4)
P = matrices("P", shape=("hidden", "rank"))
CONTRADICTIONS = {
    "a sum": (lambda: Eq(h.next, h + x), "h has size hidden, x has size input"),
    "a product": (lambda: Eq(h.next, P @ x), "the columns of P have size rank, x has size input"),
    "a shared matrix": (
        lambda: Eq(h.next, W @ x + W @ h),
        "the columns of W have size input, h has size hidden",
    ),
    "a transpose": (lambda: Eq(h.next, P.T @ x + h), "the rows of P have size hidden, x has size input"),
    "an integer": (lambda: Eq(h.next, h * q + W @ x), "h has size hidden, q has size 4"),
    "a next value": (lambda: Eq(h.next, tanh(x)), "h has size hidden, its next value input"),
    "a column block": (
        lambda: Eq(h.next, matrices("A", shape=("hidden", ("hidden", "rank"))) @ lang.concat(h, x)),
        "column block 1 of A has size rank, x has size input",
    ),
}


@pytest.mark.parametrize("form", CONTRADICTIONS)
def test_a_contradiction_names_both_sides(form: str) -> None:
    make, words = CONTRADICTIONS[form]
    equation = make()
    with pytest.raises(SpecError) as caught:
        cell_of(equation)
    head, _, sides = caught.value.message.partition(": ")
    assert head == "sizes contradict"
    assert sorted(sides.split(", ")) == sorted(words.split(", "))  # SymPy orders the terms of a sum
    assert caught.value.where == equation.where and caught.value.equation


def test_an_initial_value_is_as_large_as_its_state() -> None:
    s = states("s", initial=vectors("v", size="rank"))
    with pytest.raises(SpecError, match="s has size hidden, its initial value rank") as caught:
        cell_of(Eq(s.next, W @ x + s))
    assert caught.value.where == s.where


def test_an_output_has_one_size_in_every_step() -> None:
    with pytest.raises(SpecError, match="output z has size hidden, and 1 in the first step"):
        cell_of(
            Eq(z, tanh(W @ x + b)),
            Eq(h.next, z + h),
            output=z,
            first=[Eq(z, lang.mean(x)), Eq(h.next, z + b)],
        )


# -------------------------------------------------------------------------------- not to be known


def test_a_size_that_nothing_tells_cannot_be_inferred() -> None:
    V = matrices("V")
    equation = Eq(h.next, tanh(V @ (W @ x)) + h)
    with pytest.raises(SpecError, match="the rows of W cannot be inferred") as caught:
        cell_of(equation)
    assert caught.value.where == equation.where and "shape=" in caught.value.hint


def test_a_size_that_no_array_has_cannot_be_told() -> None:
    k = states("k", size="memory")
    with pytest.raises(SpecError, match="no parameter and of no input tells the size memory of k"):
        cell_of(Eq(h.next, W @ x + h), Eq(k.next, k + lang.mean(x)))


def test_a_bias_that_keeps_a_state_from_its_size_is_named():
    jordan = "states: y[out]\nh = tanh(W_h @ x + U_h @ y + b_h)\ny' = sigmoid(W_y @ h + b_y)"
    with pytest.raises(SpecError, match=r"y has size out, its next value hidden") as raised:
        Cell.parse("jordan", jordan)
    assert raised.value.hint == "vectors: b_y[out] makes b_y as wide as the state"
    assert Cell.parse("jordan", f"vectors: b_y[out]\n{jordan}").sizes == ("input", "hidden", "out")
