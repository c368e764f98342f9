"""What a plan must not reorder or share: cells whose numbers would be wrong if it did."""

import pytest

from gategen import Cell, Eq, gates, inputs, layer_norm, matrices, sigmoid, states, tanh, vectors
from gategen import verify as verified

x = inputs("x")
h, c, g = states("h c g")
W, U, V, W_z, U_z, U_r, V_r, V_n, W_n = matrices("W U V W_z U_z U_r V_r V_n W_n")
S = matrices("S", shape=(1, "hidden"))
z, r, n, s, y = gates("z r n s y")
b = vectors("b")

CROSSED = Cell(
    "crossed",
    Eq(h.next, tanh(W @ x + U @ g)),
    Eq(c.next, tanh(V @ h.next) + h * c),
    Eq(g.next, g * b + c),
)
TRIANGLE = Cell(
    "triangle",
    Eq(z, sigmoid(W_z @ x + U_z @ h)),
    Eq(r, sigmoid(U_r @ h + V_r @ c)),
    Eq(n, tanh(V_n @ c + W_n @ x)),
    Eq(h.next, z * h + (1 - z) * n),
    Eq(c.next, r * c + n),
)
BROADCAST = Cell(
    "broadcast",
    Eq(r, sigmoid(W @ x + U @ h)),
    Eq(s, sigmoid(S @ h)),
    Eq(h.next, r * h + s * tanh(r + b)),
)
READ_TWICE = Cell(
    "read_twice",
    Eq(r, sigmoid(W @ x)),
    Eq(z, sigmoid(U @ h)),
    Eq(y, r + z),
    Eq(n, y * (1 - y)),
    Eq(h.next, tanh(V @ n) / 2 + n * h),
)
DIVIDED_BY = Cell(
    "divided_by",
    Eq(r, sigmoid(W @ x)),
    Eq(z, sigmoid(U @ h)),
    Eq(y, r + z),
    Eq(n, r * z / y),
    Eq(h.next, n * b + h / 2),
)
UNFED = Cell("unfed", Eq(h.next, tanh(W @ x)), Eq(c.next, tanh(V @ h.next) + h * c))


def test_a_gradient_is_not_replaced_before_the_one_it_replaces_was_read() -> None:
    """d_h waits for nothing here, and what reads the d_h of the step before waits for a product."""
    (result,) = verified([CROSSED], ["numpy"])
    assert result.ok, result


def test_gates_that_no_order_puts_beside_each_other_get_products_of_their_own() -> None:
    """x, h and c drive two of three gates each, so one of the three pairs does not lie side by side."""
    (result,) = verified([TRIANGLE], ["numpy"])
    assert result.ok, result


def test_a_kernel_waits_for_one_of_another_size() -> None:
    """h_next is of the size of r, but reads s, which is of size 1 and comes after r."""
    (result,) = verified([BROADCAST], ["numpy"])
    assert result.ok, result


@pytest.mark.parametrize("cell", [READ_TWICE, DIVIDED_BY], ids=lambda cell: cell.name)
def test_a_result_may_lie_where_an_operand_was(cell: Cell) -> None:
    """y is not saved, so n may have its memory, and is computed from it."""
    (result,) = verified([cell], ["numpy"])
    assert result.ok, result


def test_a_matrix_may_meet_a_parameter() -> None:
    """The same for every row, and so it is made one row for each: a product is of rows."""
    (result,) = verified([Cell("constant", Eq(h.next, tanh(W @ x + U @ b) * h))], ["numpy"])
    assert result.ok, result


def test_a_norm_may_be_joint_over_what_lies_apart() -> None:
    m, n = layer_norm((x, U @ h))
    for result in verified([Cell("apart", Eq(h.next, tanh(W @ m + n)))], ["numpy", "cupy"]):
        assert result.ok, result


def test_a_state_that_waits_for_no_state_may_be_read_by_another() -> None:
    """d_h_next = d_h_later + V.T @ d_a_c is in no carried gradient, but reads one."""
    (result,) = verified([UNFED], ["numpy"])
    assert result.ok, result
