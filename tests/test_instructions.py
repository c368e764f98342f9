"""Instructions, run with NumPy: in place, merged, with scratch used again, the numbers are the same."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gategen.backends.instructions import Assembler, Instruction, Scratch, Test, Text, View, fit, merge
from gategen.graph import Pointwise, Value, length, numeric
from gategen.spec import language as lang
from gategen.spec.language import maximum, sigmoid, tanh

Test.__test__ = False  # not one of pytest's

H = length("hidden")
WIDTH = 3
a, b, c = (Value(name, ("hidden",)) for name in "abc")
s = Value("s", (1,))

FUNCTIONS = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "negative": np.negative,
    "power": np.power,
    "sqrt": np.sqrt,
    "copy": np.positive,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "maximum": np.maximum,
    "where": np.where,
}
SIGNS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}


class Memory:
    """Arrays by name, of two rows; scratch is there when it is asked for, full of NaN."""

    def __init__(self, arrays):
        self.arrays = {name: array.copy() for name, array in arrays.items()}

    def view(self, view):
        low, high = (int(at.subs(H, WIDTH)) for at in (view.start, view.stop))
        array = self.arrays.setdefault(view.home, np.full((2, 40 * WIDTH), np.nan))
        assert 0 <= low < high <= array.shape[1]
        return array[:, low:high]

    def read(self, arg):
        match arg:
            case View():
                return self.view(arg)
            case Text():
                return float(arg.text)
            case Test():
                return SIGNS[arg.sign](self.read(arg.left), self.read(arg.right))

    def run(self, instructions):
        """As NumPy does with `out=`: a result may lie where an operand of the same call was."""
        for one in instructions:
            out = self.view(one.out)
            result = np.broadcast_to(FUNCTIONS[one.name](*map(self.read, one.args)), out.shape)
            assert out.shape[1] == WIDTH * len(one.ops) or one.out.single, "a call is as wide as its parts"
            out[...] = result


# -------------------------------------------------------------------------------- expressions

EXPRESSIONS = [
    a, -a, a + b, a - b, b - a, -a - b, -a - b - c, -a - b * c, -a * b - c, c - a - b, -a + b - c, a * b,
    -a * b, a * b * c, 2 * a, -2 * a, 2 * a * b, a / b, b / a, -a / b, 1 / a, 1 / (a * b), -1 / a, 2 / a,
    a * b / c, c / (a + b), (a + b) / a, (a + b) / (a - b), a * (a + b), a * (1 - a), (1 - a) * (1 - b),
    (a + b) * (a - b) * c, (1 - a**2) * b, a**2, a**3, a**4, a**5, a**-2, a**-3, sp.sqrt(a),
    1 / sp.sqrt(a), a ** sp.Rational(3, 2), (a + b) ** 2, (a + b) ** 3, (a + b) ** -2, tanh(a),
    tanh(a + b), sigmoid(a - b) * a, tanh(a) * tanh(b) + tanh(a) * c, maximum(a, b),
    maximum(a + b, a * b), maximum(a, 2) * a, lang.where(a > b, a, b),
    lang.where(a + b <= 2, a * b, c) * a, s * a + s, a * s / b, 1 + 1 / (1 + a), a + sp.Integer(3),
    sp.Integer(2) + 0 * a, a * a + b * b, a - (b - (c - a) * b) * c,
]  # fmt: skip


@pytest.mark.parametrize("target", ["own", "a", "b", "c"])
@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_a_result_may_lie_in_the_memory_of_any_operand(expr, target):
    rng = np.random.default_rng(1)
    env = {v.name: rng.uniform(0.5, 1.5, (2, 1 if v is s else WIDTH)) for v in (a, b, c, s)}
    out = Value("out", ("hidden",))
    places = {v: View(v.name, sp.S.Zero, sp.S.One if v is s else H, 0, v is s) for v in (a, b, c, s)}
    places[out] = View(target, sp.S.Zero, H)
    assembler = Assembler(places.get, lambda number: repr(float(number)))
    assembler.op(Pointwise(out, expr))
    wanted = np.broadcast_to(numeric(expr, env), (2, WIDTH))
    made, merged = assembler.made, merge(assembler.made)
    for instructions in (made, merged, fit(made)[0], fit(merged)[0]):
        memory = Memory(env | {"own": np.full((2, WIDTH), np.nan)})
        memory.run(instructions)
        np.testing.assert_allclose(memory.view(places[out]), wanted, rtol=1e-14)
        others = [v for v in (a, b, c, s) if v.name != target]
        assert all(np.array_equal(memory.arrays[v.name], env[v.name]) for v in others)


# -------------------------------------------------------------------------------- many of them


def part(buffer, k):
    return View(buffer, k * H, (k + 1) * H)


def programme(steps):
    """Instructions over four parts each of the buffers p and q, some through scratch."""
    made = []
    for name, first, second, out, through in steps:
        args = (part(*first), part(*second))
        if through:
            scratch = View(Scratch(len(made) + 1), sp.S.Zero, H)
            made.append(Instruction(name, args, scratch, (f"s{len(made)}",)))
            args, name = (scratch, part(*first)), "add"
        made.append(Instruction(name, args, part(*out), (f"o{len(made)}",)))
    return made


def labels(instructions):
    return sorted(label for one in instructions for label in one.ops)


names = st.sampled_from(["add", "multiply", "subtract"])
parts = st.tuples(st.sampled_from("pq"), st.integers(0, 3))
steps = st.lists(st.tuples(names, parts, parts, parts, st.booleans()), max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_merging_and_scratch_used_again_change_no_number(steps):
    instructions = programme(steps)
    rng = np.random.default_rng(0)
    start = {name: rng.uniform(0.5, 1.5, (2, 4 * WIDTH)) for name in "pq"}
    plain = Memory(start)
    plain.run(instructions)
    merged = merge(instructions)
    assert labels(merged) == labels(instructions)
    for other in (merged, fit(instructions)[0], fit(merged)[0]):
        memory = Memory(start)
        memory.run(other)
        for name in "pq":
            np.testing.assert_array_equal(memory.arrays[name], plain.arrays[name])


def test_neighbours_become_one_call():
    """Also where the operands are swapped, where the parts come in another order, and through scratch."""
    gates = [("multiply", ("p", k), ("q", k), ("p", k), False) for k in (2, 0, 1, 3)]
    assert len(merge(programme(gates))) == 1
    swapped = [
        ("multiply", ("p", 0), ("q", 0), ("p", 0), False),
        ("multiply", ("q", 1), ("p", 1), ("p", 1), False),
    ]
    assert len(merge(programme(swapped))) == 1
    assert len(merge(programme([("subtract", *step[1:]) for step in swapped]))) == 2
    assert len(merge(programme([(*step[:4], True) for step in gates]))) == 2
    tests = [Test("<" if k < 3 else ">", part("p", k), part("q", k)) for k in range(4)]
    chosen = [
        Instruction("where", (test, part("p", k), part("q", k)), part("p", k), (str(k),))
        for k, test in enumerate(tests)
    ]
    assert len(merge(chosen)) == 2


def test_what_waits_for_each_other_is_not_merged():
    """The second of the sums waits for the first of the products, and the other way round."""
    crossed = programme(
        [
            ("add", ("p", 0), ("p", 0), ("q", 1), False),
            ("multiply", ("q", 0), ("q", 0), ("p", 1), False),
            ("add", ("p", 1), ("p", 1), ("q", 2), False),
            ("multiply", ("q", 1), ("q", 1), ("p", 2), False),
        ]
    )
    merged = merge(crossed)
    assert len(merged) == 3 and labels(merged) == labels(crossed)
    start = {name: np.random.default_rng(2).uniform(0.5, 1.5, (2, 4 * WIDTH)) for name in "pq"}
    plain, memory = Memory(start), Memory(start)
    plain.run(crossed)
    memory.run(merged)
    for name in "pq":
        np.testing.assert_array_equal(memory.arrays[name], plain.arrays[name])


def test_a_call_waits_for_a_neighbour_that_is_not_ready():
    """On either side of it, while there is something else to do."""
    for late in (0, 2):
        ready = [("multiply", ("p", k), ("q", k), ("p", k), False) for k in (0, 1, 2) if k != late]
        first = ("add", ("q", late), ("q", 3), ("q", late), False)
        merged = merge(programme([*ready, first, ("multiply", ("p", late), ("q", late), ("p", late), False)]))
        assert [one.name for one in merged] == ["add", "multiply"]


def test_scratch_is_used_again_when_what_was_in_it_is_not_read_any_more():
    steps = [("add", ("p", k), ("q", k), ("p", k), True) for k in (0, 2, 0, 2)]
    assert fit(programme(steps))[1] == [H]
    kept = programme(steps[:2])
    kept.append(Instruction("add", (kept[0].out, kept[2].out), part("q", 0), ("both",)))
    assert fit(kept)[1] == [H, H]
