"""Random cells: a Hypothesis strategy over the whole language of specs, and a drawn cell as a spec file.

`cells()` draws the equations of a cell that is right: what its sizes are is known while it is drawn, so a
`SpecError` is a finding. What judges them is in `hunt.py`.
"""

from __future__ import annotations

import builtins
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import sympy as sp
from hypothesis import strategies as st

import gategen as gg
from gategen.backends.cupy.text import CUDA_WORDS
from gategen.backends.names import SIZE_WORDS, WORDS
from gategen.errors import SpecError
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.language import Eq, Shape, Size
from gategen.spec.printer import ATOM, MATVEC, POWER, Printer

# ---------------------------------------------------------------------------------------------- names

ORDINARY = {
    "inputs": "x m u w noise dt",
    "states": "h c s q mem v_0",
    "gates": "z r n g o f a e j l",
    "matrices": "W U V W_z U_z W_r U_r V_n P Q A W_h R_x S_1",
    "vectors": "b b_z b_r p p_f gain bias beta_h v",
    "scalars": "alpha gamma delta lam",
    "constants": "eps beta theta",
}


def usable(name: str) -> bool:
    try:
        return bool(lang.check_name(name))
    except SpecError:
        return False


GENERATED = Path(__file__).parent.parent / "generated"
# What generated code calls its own.
TAKEN = tuple(sorted({
    word
    for cell in ("sligru", "caru", "zoneout_gru", "sru")
    for file in GENERATED.glob(f"{cell}_*")
    for word in re.findall(r"\w+", file.read_text("utf-8"))
    if usable(word)
} | {*filter(usable, {*WORDS, *CUDA_WORDS, *SIZE_WORDS})} - {*dir(builtins)}))  # fmt: skip
# What it makes of the names of a spec.
MADE = ("d_{}", "d_{}_later", "{}_next", "{}_t", "{}_T", "{}_2", "{}_", "a_{}", "x_{}", "v_{}", "sum_{}",
        "y_{}", "d_y_{}", "first_{}", "{}_start", "bias_{}", "centre_{}", "mean_{}", "var_{}", "g_{}", "s_{}",
        "not_{}", "tanh_{}", "{}_0", "{}_all", "{}_part", "W_{}", "{}_parts")  # fmt: skip
ODD_SIZES = ("B", "T", "k", "seed", "H", "steps", "x", "cell")
FURTHER: tuple[Size, ...] = ("memory", "rank", 1, 2, 5, *ODD_SIZES)

# ---------------------------------------------------------------------------------------------- functions

Expr = Any

SMOOTH: tuple[Callable[[Expr], Expr], ...] = (
    gg.sigmoid, gg.tanh, gg.relu, gg.leaky_relu, gg.elu, gg.silu, gg.gelu, gg.softplus, gg.log_sigmoid,
    gg.softsign, gg.hard_sigmoid, gg.hard_tanh, gg.sin, gg.cos, gg.abs, gg.sign, gg.stop_gradient, sp.erf,
    lambda v: gg.leaky_relu(v, 0.2),
    lambda v: gg.elu(v, 0.7),
    lambda v: gg.gelu(v, approximate="tanh"),
    lambda v: gg.hard_sigmoid(v, 0.2),
    lambda v: gg.square(gg.tanh(v)),
    lambda v: gg.exp(-gg.square(v)),
    lambda v: gg.exp(gg.tanh(v)),
    lambda v: gg.exp(-gg.abs(v)),
    lambda v: gg.log(0.5 + gg.square(v)),
    lambda v: gg.log1p(gg.square(v)),
    lambda v: gg.log(gg.square(v)) / 5,
    lambda v: v / (gg.square(v) + 1e-3),
    lambda v: gg.exp(-v) / 5,
    lambda v: gg.log1p(gg.exp(-v)),
    lambda v: gg.sqrt(0.5 + gg.square(v)),
    lambda v: 1 / gg.sqrt(1 + gg.square(v)),
    lambda v: 1 / (1 + gg.square(v)),
    lambda v: (2 + gg.square(v)) ** -2,
    lambda v: (1 + gg.square(v)) ** sp.Rational(1, 3),
    lambda v: (1 + gg.abs(v)) ** -1.5,
    lambda v: (1 + gg.softplus(v)) ** 0.7,
    lambda v: gg.tanh(v) ** 3,
    lambda v: gg.sin(v) ** 4,
    lambda v: gg.tanh(v) ** 5 - v,
    lambda v: gg.clip(v, -0.5, 0.6),
    lambda v: gg.mod(v, 0.75),
    lambda v: sp.Heaviside(v),
    lambda v: -v if v.has(sp.Piecewise) else sp.Piecewise((v / 2, v > 1), (v**2, v > 0), (-v, True)),
    lambda v: 1 - v,
    lambda v: -v,
)  # fmt: skip

TWO: tuple[Callable[[Expr, Expr], Expr], ...] = (
    gg.maximum, gg.minimum, sp.Max, sp.Min,
    lambda a, b: gg.mod(a, 0.5 + gg.square(b)),
    lambda a, b: a / (1 + gg.square(b)),
    lambda a, b: a / (2 + gg.cos(b)),
    lambda a, b: a / gg.sqrt(1 + gg.abs(b)),
    lambda a, b: a * gg.exp(-gg.square(b)),
    lambda a, b: gg.where(a > b, a, b / 2),
    lambda a, b: gg.where(a <= b, a * b, a),
    lambda a, b: gg.where(a < 0.1, 1, b),
    lambda a, b: gg.where(a >= 0, a, gg.where(b > 0, b, 0)),
    lambda a, b: gg.where(gg.equal(gg.sign(a), gg.sign(b)), a, -b),
    lambda a, b: gg.clip(a, gg.minimum(b, -0.1), gg.abs(b)),
    lambda a, b: gg.surrogate(gg.step(a), gg.sigmoid(a * b)),
)  # fmt: skip

NUMBERS: tuple[Any, ...] = (
    2, 3, -1, 7, 0.5, 0.3, 1.5, -0.25, 1e-3, sp.Rational(1, 3), sp.Rational(-3, 4), sp.sqrt(2), sp.pi / 4,
)  # fmt: skip


def parts(axis: Any) -> tuple[Size, ...]:
    return axis if isinstance(axis, tuple) else (axis,)


# ---------------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class Drawn:
    """The equations of a cell, before anything of gategen has judged them."""

    name: str
    equations: tuple[Eq, ...]
    first: tuple[Eq, ...] = ()
    output: tuple[Any, ...] | None = None

    def cell(self) -> Cell:
        return Cell(self.name, *self.equations, first=self.first, output=self.output)

    def __repr__(self) -> str:
        return spec(self)


Dice = Callable[[int], int]  # a number from 0 up to and including the one given


@st.composite
def cells(draw: Any) -> Drawn:
    """A cell of one to three states, which Hypothesis can shrink."""
    return _Maker(lambda most: draw(st.integers(0, most))).drawn("random")


def rolled(start: int, nth: int, heads: bool = False) -> Drawn:
    """One cell, the same for the same numbers; not by Hypothesis, which likes to repeat what it drew.

    With `heads` it has a matrix for every head of every row.
    """
    stem = f"heads_{start}_{nth}" if heads else f"random_{start}_{nth}"
    dice = random.Random(stem.replace("random_", "").replace("_", " "))
    return _Maker(lambda most: dice.randint(0, most), heads).drawn(stem)


class _Maker:
    """Draws the parts of one cell; knows the size of everything declared so far."""

    def __init__(self, upto: Dice, heads: bool = False) -> None:
        self.upto = upto
        self.names: set[str] = set()
        self.oddity = self.pick((0, 0, 10, 60))
        self.sizes: list[Size] = ["hidden", "hidden", "hidden", "input"]
        for _ in range(self.upto(2)):
            self.sizes.append(self.pick(FURTHER if self.oddity else FURTHER[: -len(ODD_SIZES)]))
        named = [size for size in dict.fromkeys(self.sizes) if isinstance(size, str)]
        self.wide: tuple[Size, ...] = (
            (named[0], named[1 + self.upto(len(named) - 2)]) if len(named) > 1 else ()
        )
        self.wide = self.wide if self.chance(35) else ()  # of matrices of every row, where there are any
        self.heads: Size | None = self.pick(("heads", "heads", 2, 3)) if heads else None
        self.axes = self.sides = (
            self.wide
        )  # two axes of matrices, and the sizes of vectors that go along them
        if self.heads:
            whole = self.chance(50)  # whether vectors of the size hidden have a part for every head
            self.axes = (f"hidden/{self.heads}" if whole else "values", "keys")
            self.sides = ("hidden" if whole else f"{self.heads}*values", f"{self.heads}*keys")
            self.wide = (self.heads, *self.axes)
            self.sizes += self.sides
        self.beside: Any = None  # a parameter that stands beside them
        self.table: dict[Any, Any] = {}  # of every symbol that is no weight
        self.shapes: dict[Any, Shape] = {}  # of every matrix
        self.computed: dict[Any, Shape] = {}  # of those that are computed
        self.blocks: dict[Any, Shape] = {}  # of those in blocks, what a whole one would have
        self.pool: list[Any] = []  # what an equation can read
        self.spare: list[Any] = []  # expressions that wait for a use: the other part of a joint norm
        self.clean: set[Any] = set()  # what depends on no state
        self.norms = 0
        self.by_state = True  # whether what is drawn may depend on a state
        self.stepping = True  # not in the rule for the first step

    # ------------------------------------------------------------------------------------------ primitives

    def pick(self, items: Sequence[Any]) -> Any:
        return items[self.upto(len(items) - 1)]

    def chance(self, percent: int) -> bool:
        return self.upto(99) >= 100 - percent

    def name(self, role: str) -> str:
        """A name that nothing has yet."""
        odd = self.oddity and self.chance(self.oddity)
        if odd and self.names and self.chance(50):
            wishes = [self.pick(MADE).format(self.pick(sorted(self.names)))]
        elif odd:
            wishes = [self.pick(TAKEN)]
        else:
            wishes = ORDINARY[role].split()
        free = [wish for wish in wishes if wish not in self.names and usable(wish)]
        name = (
            free[0] if free else next(f"{role[0]}{k}" for k in range(99) if f"{role[0]}{k}" not in self.names)
        )
        self.names.add(name)
        return name

    def known(self, size: Size, *, states: bool = True) -> list[Any]:
        """What can be read of that size."""
        return [s for s in self.pool if self.table[s] == size and (states or s in self.clean)]

    @property
    def beside_wide(self) -> tuple[Size, ...]:
        """The sizes of vectors that can stand beside matrices of every row."""
        return (*self.sides, *([self.heads] if self.heads else []))

    def axis(self, size: Size) -> Size:
        """The axis along which a vector of that size goes."""
        return dict(zip(self.sides, self.axes, strict=True)).get(size, size)

    def size(self, expr: Any) -> Size:
        """Of an expression; an assertion where it mixes sizes."""
        if isinstance(expr, (*lang.REDUCTIONS, lang.logsumexp)):
            return 1
        if isinstance(expr, (lang.matvec, lang.matmat)):
            left = isinstance(expr, lang.matvec)
            matrix, operand = expr.args[:2] if left else expr.args[1::-1]
            known = (shapes.get(matrix) for shapes in (self.shapes, self.computed, self.blocks))
            rows, columns = next(filter(None, known), self.sides)
            made = columns if expr.args[2] == left else rows
            own = 1 if isinstance(operand, lang.concat) else self.size(operand)
            if isinstance(own, tuple):
                return (*own[:-2], made, own[-1]) if left else (*own[:-1], made)
            return made
        if isinstance(expr, lang.outer):
            return self.wide
        if isinstance(expr, lang.convolved):
            return self.size(expr.value)
        if isinstance(expr, (lang.cumsum_over, lang.softmax_over, lang.normed_over, lang.shifted)):
            return self.size(expr.args[0])
        if isinstance(expr, (lang.Over, lang.logsumexp_over)):
            if self.heads and not isinstance(self.size(expr.args[0]), tuple):
                return self.heads
            return next(size for axis, size in zip(self.axes, self.sides, strict=True) if axis != expr.axis)
        if isinstance(expr, sp.Symbol):
            return self.table.get(expr, 1)
        args = expr.args
        if isinstance(expr, lang.Joint):  # with values of other sizes
            args = expr.part
            assert all(self.size(value) for value in expr.values)
        found = {self.size(arg) for arg in args} - {1}
        if self.wide in found:
            assert found <= {self.wide, *self.beside_wide}, f"{expr} mixes {found}"
            return self.wide
        assert len(found) < 2, f"{expr} mixes {found}"
        return found.pop() if found else 1

    # ------------------------------------------------------------------------------------------ declarations

    def vector(self, size: Size) -> Any:
        there = [s for s in self.table if isinstance(s, lang.Vector) and self.table[s] == size]
        if there and self.chance(40):
            return self.pick(there)
        made = gg.vectors(self.name("vectors"), size=size, **self.held(size))
        self.table[made] = size
        return made

    def held(self, *shape: Any) -> dict[str, Any]:
        """Whether a parameter of this shape is trained, and at times what it holds."""
        trainable = not self.chance(12)
        if not self.chance(50 if not trainable else 5):
            return {"trainable": trainable}
        kinds: list[Any] = [0.75, -1]
        if len(shape) == 2 and shape[0] == shape[1]:
            kinds += [gg.identity, gg.lower, gg.strict_lower, gg.shift(1), gg.rotation(-1)]
        if shape and all(isinstance(size, str) and size.isidentifier() for size in shape):
            kinds.append(gg.blocks(1, -0.5))
        return {"trainable": trainable, "initial": self.pick(kinds)}

    def scalar(self) -> Any:
        there = [s for s in self.table if isinstance(s, lang.Scalar)]
        if there and self.chance(50):
            return self.pick(there)
        made = gg.scalars(self.name("scalars"), **self.held())
        self.table[made] = 1
        return made

    def matrix(self, rows: Size, columns: Any) -> Any:
        """One of that shape, at times one that is computed of others, or in blocks."""
        if self.heads and rows == columns == "hidden" and self.chance(30):
            shape = "hidden", f"hidden/{self.heads}"
            made = gg.matrices(self.name("matrices"), shape=shape, trainable=not self.chance(12))
            self.blocks[made] = rows, columns
            return made.T if self.chance(30) else made
        if isinstance(columns, tuple) or not self.chance(15):
            return self.plain(rows, columns)
        try:
            made = self.of_matrices(rows, columns)
        except SpecError:  # nothing is left: A - A
            return self.plain(rows, columns)
        made = made.T if self.chance(15) and rows == columns else made
        if isinstance(made, lang.computed):
            self.computed[made] = (rows, columns)
        return made

    def of_matrices(self, rows: Size, columns: Size) -> Any:
        """An expression of matrices, finite and with finite gradients whatever is in them."""
        kinds = "mask mask sum scaled product norm rows power"
        kind = self.pick((kinds + " anti inverse exponential Cayley" * (rows == columns)).split())
        made = self.plain(rows, columns)
        match kind:
            case "mask":
                return made * self.plain(rows, columns)
            case "sum":
                factor = sp.sympify(self.pick(NUMBERS))
                return made + factor * self.plain(rows, columns) - self.plain(rows, columns)
            case "scaled":
                return self.scalar() * made
            case "product":
                size = self.pick(self.sizes)
                return self.plain(rows, size) @ self.plain(size, columns)
            case "power":
                return made**2 - made
            case "norm" | "rows":
                own = gg.matrices(self.name("matrices"), shape=(rows, columns))
                self.shapes[own] = rows, columns
                return made / (gg.norm(own) if kind == "norm" else gg.row_norms(own))
        skew = made - made.T
        match kind:
            case "inverse":
                return gg.inv(3 * gg.identity + skew)
            case "exponential":
                return gg.expm(skew)
            case "Cayley":
                return gg.inv(gg.identity + skew) @ (gg.identity - skew)
        return skew

    def plain(self, rows: Size, columns: Any) -> Any:
        """A matrix, or the transpose of one; often one that is used already."""
        there = [m for m, shape in self.shapes.items() if shape == (rows, columns)]
        there += [m.T for m, shape in self.shapes.items() if shape == (columns, rows)]
        if there and self.chance(45):
            return self.pick(there)
        stacked = isinstance(columns, tuple)
        turned = not stacked and self.chance(15)
        shape = (columns, rows) if turned else (rows, columns)
        made = gg.matrices(self.name("matrices"), shape=shape, **self.held(*shape))
        self.shapes[made] = shape
        return made.T if turned else made

    def number(self) -> Any:
        if self.chance(20):
            return self.constant()
        if self.chance(12) and (sizes := self.counted()):
            count = gg.size(self.pick(sizes))
            self.names.add(count.name)
            return self.pick((1 / count, count / 7, 1 / gg.sqrt(count), gg.log(1 + count)))
        return sp.sympify(self.pick(NUMBERS))

    def counted(self) -> list[str]:
        """The sizes of states that nothing else is called."""
        used = {s.name for s in self.table} | {m.name for m in self.shapes}
        sizes = {size for s, size in self.table.items() if isinstance(s, lang.State)}
        return sorted(s for s in sizes if isinstance(s, str) and s.isidentifier() and s not in used)

    def constant(self) -> Any:
        there = [s for s in self.table if isinstance(s, lang.Constant)]
        if there and self.chance(60):
            return self.pick(there)
        made = gg.constants(**{self.name("constants"): self.pick((0.5, 2, 1, 0.1, -0.75))})
        self.table[made] = 1
        return made

    # ------------------------------------------------------------------------------------------ expressions

    def expr(self, size: Size, depth: int) -> Any:
        """An expression of that size; a leaf where SymPy has cancelled what was drawn."""
        if isinstance(size, tuple):
            made = self.matrix_of_rows(depth)
        else:
            made = self.inner(size, depth) if depth > 0 else self.leaf(size)
        return made if self.size(made) == size and not made.is_number else self.leaf(size)

    def matrix_of_rows(self, depth: int) -> Any:
        """A matrix of every row."""
        if depth < 1:
            return self.leaf(self.wide)
        value = self.expr(self.wide, depth - 1)
        kind = self.upto(6)
        if kind == 0 and not isinstance(value, (lang.Matrix, lang.computed)):
            return self.pick(SMOOTH)(value)
        if kind == 5:
            return self.along(value, depth)
        if kind == 6:
            return self.weighted(value)
        sizes = (1, *self.beside_wide, self.wide)
        other = self.number() if self.chance(10) else self.expr(self.pick(sizes), depth - 1)
        if kind == 1:
            share = gg.sigmoid(self.expr(self.pick(sizes), depth - 2))
            mixed = ((1 - share) * value, share * self.expr(self.wide, depth - 1))
            return (
                mixed[0] + mixed[1] if 0 not in mixed else self.leaf(self.wide)
            )  # SymPy may have cancelled one
        if kind == 2 and not (other.is_number and isinstance(value, (lang.Matrix, lang.computed))):
            return value + other if other != 0 else value
        return value * other

    def weighted(self, value: Any) -> Any:
        """A matrix of every row times one or two weights, on one side."""
        plain = [s for s in self.sizes if not isinstance(s, str) or s.isidentifier()]
        between = [s for s in plain if s not in (1, *self.wide, *(self.sides if self.heads else ()))]
        side = self.upto(1) if "/" not in str(self.axes[:1]) else 1
        axis = self.axes[side]
        through = self.pick(between) if between and self.chance(40) else axis
        if value.is_number or not lang.may_be_matrix(value):
            return value
        if self.chance(30):
            places = self.pick((1, 3, 3, 5))
            kernel = gg.matrices(self.name("matrices"), shape=((axis,) * places, axis))
            return gg.conv(*((value, kernel) if side else (kernel, value)), over=self.axes[not side]) / 3
        weights = [self.matrix(axis, through), self.matrix(through, axis)][: 1 if through == axis else 2]
        if side == 0:
            for weight in reversed(weights):
                value = weight @ value
        else:
            for weight in weights:
                value = value @ weight
        return value / 3

    def along(self, value: Any, depth: int) -> Any:
        """What goes along one axis of a matrix of every row and is as large."""
        over = self.pick(self.wide)
        kind = self.upto(3)
        if kind == 0:
            return gg.softmax(value, over=over)
        if kind == 3:
            return gg.shifted(value, self.pick((-5, -1, 1, 2)), over=over)
        if kind == 1:
            return gg.cumsum(value, over=over) / 3
        gain, bias = (self.expr(self.pick((1, *self.beside_wide)), depth - 2) for _ in range(2))
        eps = self.pick((1e-3, 0.1))
        return gg.layer_norm(value, gain if self.chance(50) else None, bias, eps=eps, over=over)

    def applied(self, size: Size, depth: int) -> Any:
        """What a matrix of every row makes of a vector, or a sum along one of its axes."""
        first = size == self.sides[0]
        over = self.axes[int(first)]
        if self.chance(25):
            total = self.pick((gg.sum_, gg.mean, gg.max_, gg.logsumexp, gg.var))
            return total(self.expr(self.wide, depth - 1), over=over) / 3
        read = self.known(self.wide, states=self.by_state)
        if not read:
            return self.leaf(size)
        chosen, operand = self.pick(read), self.expr(self.sides[int(first)], depth - 1)
        return (chosen if first else chosen.T) @ operand / 3

    def leaf(self, size: Any) -> Any:
        read = self.known(size, states=self.by_state)
        if self.spare and self.by_state and self.chance(10):
            k = next((k for k, e in enumerate(self.spare) if self.size(e) == size), None)
            if k is not None:
                return self.spare.pop(k)
        stepped = [s for s in read if isinstance(s, (lang.Input, lang.State))]
        if stepped and self.by_state and self.chance(7):
            past = self.pick(stepped)[gg.t - 1 - self.upto(2)]
            self.table[past] = size
            return past
        if read and self.chance(75):
            return self.pick(read)
        if isinstance(size, tuple):
            if self.chance(0 if self.heads else 25):
                self.beside = self.beside or gg.matrices(self.name("matrices"), shape=self.wide)
                self.table[self.beside] = self.wide
                return self.beside
            return gg.outer(*(self.expr(part, 1) for part in self.sides))
        if self.chance(30) or not self.pool:
            return self.scalar() if size == 1 and self.chance(60) else self.vector(size)
        others = [s for s in self.pool if self.by_state or s in self.clean]
        others = [s for s in others if not isinstance(self.table[s], tuple)]
        operand = self.pick(others or [self.vector(size)])
        return self.matrix(size, self.table[operand]) @ operand

    def partner(self, size: Size, depth: int) -> Any:
        """Something to combine with a value of that size."""
        if self.chance(12):
            return self.number()
        if size != 1 and self.chance(15):
            return self.expr(1, depth)
        return self.expr(size, depth)

    KINDS: ClassVar[tuple[str, ...]] = tuple(
        "sum sum sum difference product product function function function function two matrix matrix matrix "
        "blend concat norm reduction softmax cumsum scaled power".split()
    )

    def inner(self, size: Size, depth: int) -> Any:
        if self.wide and size in self.sides and self.chance(20):
            return self.applied(size, depth)
        if self.heads and size == self.heads and self.chance(30):
            side = self.upto(1)
            return gg.sum_(self.expr(self.sides[side], depth - 1), over=self.axes[side]) / 3
        kind = self.pick(self.KINDS)
        if kind in ("matrix", "concat") or (kind == "norm" and size == 1):
            return self.product(size, depth, kind == "concat")
        if kind == "norm":
            return self.norm(size, depth)
        if kind == "softmax":
            return self.softmax(size, depth)
        if kind == "reduction":
            reduced = self.reduction(depth)
            return reduced if size == 1 else reduced * self.expr(size, depth - 1)
        value = self.expr(size, depth - 1)
        if kind == "function":
            return self.pick(SMOOTH)(value)
        if kind == "cumsum" and isinstance(size, str) and self.chance(40):
            return gg.shifted(value, self.pick((-3, -1, 1, 2)), over=self.axis(size))
        if kind == "cumsum":
            return gg.cumsum(value) / 2
        if kind == "scaled":
            return self.number() * value
        if kind == "power" and self.chance(40):
            return (1 + gg.square(value)) ** (-gg.square(self.constant()) / 4)
        if kind == "power":
            return gg.tanh(value) ** (2 + self.upto(3))
        other = self.partner(size, depth - 1)
        if kind == "blend":
            share = gg.sigmoid(self.expr(size, depth - 2)) if self.chance(60) else self.partner(size, 0)
            return (1 - share) * value + share * other
        if kind == "two":
            return self.pick(TWO)(*((value, other) if self.chance(70) or other.is_number else (other, value)))
        return {"sum": value + other, "difference": value - other, "product": value * other}[kind]

    def product(self, size: Size, depth: int, stacked: bool) -> Any:
        if stacked:
            parts = [self.expr(self.pick(self.sizes), depth - 2) for _ in range(2 + self.upto(1))]
            return self.matrix(size, tuple(map(self.size, parts))) @ gg.concat(*parts)
        operand = self.expr(self.pick(self.sizes), depth - 1)
        return self.matrix(size, self.size(operand)) @ operand

    def reduction(self, depth: int) -> Any:
        parts = [self.expr(self.pick(self.sizes), depth - 2) for _ in range(1 + self.chance(25))]
        if self.wide and self.chance(25):
            whole = self.expr(self.wide, depth - 2)
            return gg.mean(whole) if self.chance(60) else gg.tanh(gg.sum_(whole) / 5)
        if self.chance(20):
            return gg.sqrt(gg.var(*parts) + 0.5)
        if self.chance(30):
            return self.pick((gg.max_, gg.logsumexp))(*parts)
        return gg.mean(*parts) if self.chance(60) else gg.sum_(*parts) / self.pick((2, 5))

    def norm(self, size: Size, depth: int) -> Any:
        if self.stepping and self.by_state and self.norms < 2 and self.chance(15):
            return self.batch_norm(size, depth)
        gain, bias = (self.vector(size) if self.chance(50) else None for _ in range(2))
        eps = self.pick((1e-5, 1e-3, 0.1))
        value = self.expr(size, depth - 1)
        if self.heads and size in self.sides and self.chance(50):
            return gg.layer_norm(value, gain, bias, eps=max(eps, 1e-3), over=self.axis(size))
        if not self.chance(30):
            return gg.layer_norm(value, gain, bias, eps=eps)
        other = self.expr(self.pick(self.sizes), depth - 2)
        one, two = gg.layer_norm((value, other), (gain, None), (bias, None), eps=eps)
        self.spare.append(two)
        return one

    def softmax(self, size: Size, depth: int) -> Any:
        value = self.expr(size, depth - 1)
        if self.heads and size in self.sides and self.chance(50):
            return gg.softmax(value, over=self.axis(size))
        if not self.chance(30):
            return gg.softmax(value)
        one, two = gg.softmax(value, self.expr(self.pick(self.sizes), depth - 2))
        self.spare.append(two)
        return one

    def batch_norm(self, size: Size, depth: int) -> Any:
        self.norms += 1
        self.by_state = False
        value = self.expr(size, depth - 1)
        if not value.atoms(lang.Input):
            x = self.pick([s for s in self.pool if isinstance(s, lang.Input)])
            matrix = isinstance(self.table[x], tuple)
            value = value + (gg.mean(x) if matrix else self.matrix(size, self.table[x]) @ x)
        self.by_state = True
        options: dict[str, Any] = {"gain": self.vector(size)} if self.chance(60) else {}
        options |= {"bias": self.vector(size)} if self.chance(60) else {}
        options |= {"momentum": 0.3, "eps": 1e-3} if self.chance(40) else {}
        return gg.batch_norm(value, **options)

    # ------------------------------------------------------------------------------------------ equations

    def right(self, size: Size, bounded: bool) -> Any:
        """A whole right side."""
        made = self.expr(size, self.pick((1, 1, 2, 2, 3, 4)))
        if not bounded:
            return made
        bound = self.upto(3)
        if bound == 0:
            return gg.tanh(made)
        if bound == 1:
            share = gg.sigmoid(self.expr(size, 2))
            return (1 - share) * self.leaf(size) + share * gg.tanh(made)
        return gg.sigmoid(made) * self.leaf(size) / 2 if bound == 2 else made / 3

    def start(self, size: Any) -> Any:
        """What a state begins with."""
        kind = self.upto(9)
        if isinstance(size, tuple) and kind > 5:
            return self.scalar() / 2 if kind < 8 else gg.tanh(self.vector(self.pick(self.beside_wide)))
        if kind < 6:
            return (0, 0, 0, 0.5, -0.25, sp.Rational(1, 3))[kind]
        v = self.vector(size)
        if kind == 6:
            return v
        if kind == 7:
            return gg.tanh(v) * self.scalar() + 0.5
        return self.scalar() / 2 + self.constant() if kind == 8 else gg.square(v) - gg.mean(v)

    def declared(self) -> tuple[list[Any], list[Any]]:
        """Inputs and states."""
        inputs = []
        for k in range(self.pick((1, 1, 2, 3))):
            wide = "input" if k == 0 and self.chance(85) else self.pick([*self.sizes, 1])
            wide = self.wide if self.wide and self.chance(20) else wide
            inputs.append(gg.inputs(self.name("inputs"), size=wide))
            self.table[inputs[-1]] = wide
        self.clean.update(inputs)
        made = []
        for k in range(self.pick((1, 1, 2, 2, 3))):
            size = "hidden" if k == 0 and self.chance(80) else self.pick([*self.sizes, 1])
            made.append(gg.states(self.name("states"), size=size, initial=self.start(size)))
            self.table[made[-1]] = size
        for _ in range(1 + self.chance(30) if self.wide else 0):
            made.append(gg.states(self.name("states"), size=self.wide, initial=self.start(self.wide)))
            self.table[made[-1]] = self.wide
        return inputs, made

    def define(self, symbol: Any, size: Size, bounded: bool) -> Eq:
        eq = Eq(symbol, self.right(size, bounded))
        self.table[symbol] = self.size(eq.rhs) if isinstance(symbol, lang.Gate) else size
        self.pool.append(symbol)
        if all(
            s in self.clean or isinstance(s, (lang.Parameter, lang.Constant)) for s in eq.rhs.atoms(lang.Name)
        ):
            self.clean.add(symbol)
        return eq

    def drawn(self, name: str) -> Drawn:
        inputs, states = self.declared()
        self.pool = [*inputs, *states]
        equations: list[Eq] = []
        left = [s.next for s in states]
        for _ in range(self.upto(3)):
            left.insert(self.upto(len(left)), gg.gates(self.name("gates")))
        for symbol in left:
            gate = isinstance(symbol, lang.Gate)
            sizes = [*self.sizes, *([self.wide] if self.wide else [])]
            size = self.pick(sizes) if gate else self.table[symbol.state]
            equations.append(self.define(symbol, size, not gate and self.chance(70)))
        output = None
        if self.chance(50):
            output = tuple(dict.fromkeys(self.pick(left) for _ in range(1 + self.upto(2))))
        outputs = output or (min((s.next for s in states), key=lambda s: s.state.fields[-1]),)
        equations = self.completed(equations, inputs)
        first = self.opening(inputs, states, left, outputs) if self.chance(20) else ()
        shuffled: list[Eq] = []
        for eq in equations:
            shuffled.insert(self.upto(len(shuffled)), eq)
        made = Drawn(name, tuple(shuffled), first, output)
        return self.inferred(made) if self.chance(50) else made

    def opening(
        self, inputs: Sequence[Any], states: Sequence[Any], left: Sequence[Any], outputs: Sequence[Any]
    ) -> tuple[Eq, ...]:
        """The rule for the first step: every next state, every output, and perhaps gates that it shares."""
        self.stepping = False
        self.pool, self.spare = [*inputs, *states], []
        sizes = dict(self.table)
        wanted = [s for s in left if isinstance(s, lang.Next) or s in outputs or self.chance(30)]
        made = []
        for symbol in wanted:
            free = isinstance(symbol, lang.Gate) and symbol not in outputs
            made.append(self.define(symbol, self.pick(self.sizes) if free else sizes[symbol], True))
        return tuple(made)

    def completed(self, equations: list[Eq], inputs: Sequence[Any]) -> list[Eq]:
        """The equations with an input in them, and with something that tells the size of every state."""
        read = {s for eq in equations for s in eq.rhs.atoms(lang.Name)}
        if read.isdisjoint(inputs):
            eq, x = equations[-1], inputs[0]
            size, *_ = parts(self.table[eq.lhs.state if isinstance(eq.lhs, lang.Next) else eq.lhs])
            matrix = isinstance(self.table[x], tuple)
            more = gg.mean(x) if matrix else self.matrix(size, self.table[x]) @ x
            equations[-1] = Eq(eq.lhs, eq.rhs + more)
        read = {s for eq in equations for s in eq.rhs.atoms(lang.Name)}
        told = {self.table[s] for s in read if isinstance(s, lang.Vector)}
        if self.heads:
            more = [size for size in self.beside_wide if size not in told and not isinstance(size, int)]
            equations[-1] = Eq(
                equations[-1].lhs, equations[-1].rhs + sum(gg.mean(self.vector(s)) for s in more)
            )
            told.update(self.beside_wide, self.wide)
        told.update(*(shape for m, shape in self.shapes.items() if m in read))
        told.update(self.wide if self.beside in read else ())
        columns = {size for m in read & {*self.shapes} for size in parts(self.shapes[m][1])}
        for size in sorted(columns - told, key=str):
            equations[-1] = Eq(equations[-1].lhs, equations[-1].rhs + gg.mean(self.vector(size)))
            told.add(size)
        told |= {1} | {part for s in read & {*inputs} for part in parts(self.table[s])}
        for k, eq in enumerate(equations):
            missing = [
                size
                for size in (parts(self.table[eq.lhs.state]) if isinstance(eq.lhs, lang.Next) else ())
                if size not in told
            ]
            if missing:
                equations[k] = Eq(eq.lhs, sp.Add(eq.rhs, *map(self.vector, missing)))
        return equations

    def inferred(self, made: Drawn) -> Drawn:
        """The same with the shapes of some matrices left out, where they can be."""
        bare = {
            m: lang.Matrix(m.name, None, m.contents, None, m.trainable)
            for m in self.shapes
            if self.chance(70)
        }
        swapped = Drawn(
            made.name,
            tuple(Eq(eq.lhs, eq.rhs.xreplace(bare)) for eq in made.equations),
            tuple(Eq(eq.lhs, eq.rhs.xreplace(bare)) for eq in made.first),
            made.output,
        )
        try:
            swapped.cell()
        except SpecError:
            return made
        return swapped


# ---------------------------------------------------------------------------------------------- as a file


class _SpecPrinter(Printer):
    """Expressions as a spec says them."""

    functions: ClassVar[dict[str, str]] = {"Abs": "abs", "step": "Heaviside"}

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, lang.Parameter) and expr.name in self.rename:
            return self.rename[expr.name], ATOM
        if isinstance(expr, lang.Count):
            return f'size("{expr}")', ATOM
        if isinstance(expr, lang.Past):
            return f"{self.rename[expr.of.name]}[t - {expr.steps}]", ATOM
        if isinstance(expr, lang.matvec):
            matrix, operand, transposed = expr.args
            if isinstance(matrix, lang.computed):
                return super().spell(expr)
            name = self.rename.get(matrix.name, matrix.name)
            return f"{name}{'.T' if transposed else ''} @ {self.at(operand, POWER)}", MATVEC
        if isinstance(expr, sp.Equality):
            return f"equal({self(expr.lhs)}, {self(expr.rhs)})", ATOM
        if isinstance(expr, sp.Piecewise):
            parts = ", ".join(f"({self(a)}, {'True' if c is sp.true else self(c)})" for a, c in expr.args)
            return f"Piecewise({parts})", ATOM
        if isinstance(expr, (sp.Max, sp.Min)):  # no functions to SymPy
            return self.call(expr), ATOM
        return super().spell(expr)

    def key_text(self, expr: sp.Basic) -> str:
        return self(expr)

    def array(self, name: str) -> str:
        return self.rename.get(name, name)


SYMPY_WORDS = {"erf", "Heaviside", "Piecewise", "Max", "Min"}
MAKERS = {
    lang.Input: "inputs", lang.State: "states", lang.Gate: "gates", lang.Matrix: "matrices",
    lang.Vector: "vectors", lang.Scalar: "scalars", lang.Constant: "constants",
}  # fmt: skip


def spec(made: Drawn) -> str:
    """A spec file with this cell."""
    equations = (*made.equations, *made.first)
    symbols = {s for eq in equations for s in (eq.lhs, *eq.rhs.atoms(lang.Name))}
    symbols |= {s.state for s in symbols if isinstance(s, lang.Next)}
    symbols |= {s.of for s in symbols if isinstance(s, lang.Past)}
    symbols |= {p for s in symbols if isinstance(s, lang.State) for p in s.initial.atoms(lang.Name)}
    blocks = {s.block.owner: s for s in symbols if isinstance(s, lang.Matrix) and s.block}  # of kernels
    symbols = {
        s for s in symbols if not isinstance(s, (lang.Count, lang.Past)) and not getattr(s, "block", None)
    }
    gates_made = {s for s in symbols if isinstance(s, lang.Gate)}
    words = {"Cell", "Eq", "True", *lang.RESERVED, *SYMPY_WORDS, *gg.__all__}
    rename: dict[str, str] = {}
    for name in sorted([*blocks, *(s.name for s in symbols if not isinstance(s, lang.Next))]):
        rename[name] = next(n for k in range(99) if (n := name + "_" * k) not in {*words, *rename.values()})
    rename |= {s.name: f"{rename[s.state.name]}.next" for s in symbols if isinstance(s, lang.Next)}
    printer = _SpecPrinter(rename=rename)
    order = list(MAKERS)
    declared = [s for s in symbols if not isinstance(s, lang.Next)]
    states = [s for s in declared if isinstance(s, lang.State)]
    begins = {p for s in states for p in s.initial.atoms(lang.Name)}

    def rank(s: Any) -> tuple[Any, ...]:
        serial = s.fields[-1] if isinstance(s, (lang.Input, lang.State)) else 0
        return s not in begins, order.index(type(s)), serial, s.name

    lines = [f"{rename[s.name]} = {declaration(s, printer)}" for s in sorted(declared, key=rank)]
    for name, s in sorted(blocks.items()):
        lines.append(f"{rename[name]} = matrices({name!r}, shape=({s.block.rows!r}, {s.shape[1]!r}))")
    body = [f"    Eq({printer(eq.lhs)}, {printer(eq.rhs)})," for eq in made.equations]
    if made.first:
        body += [
            "    first=[",
            *(f"        Eq({printer(e.lhs)}, {printer(e.rhs)})," for e in made.first),
            "    ],",
        ]
    if made.output is not None:
        body.append(f"    output=({', '.join(map(printer, made.output))},),")
    lines += ["", f"{made.name} = Cell(", f'    "{made.name}",', *body, ")"]
    text = "\n".join(lines)
    used = sorted(
        w
        for w in gg.__all__
        if f"{w}(" in text or f"initial={w}" in text or f"[{w} - " in text or (w == "identity" and w in text)
    )
    more = sorted(w for w in SYMPY_WORDS if f"{w}(" in text)
    head = [f"from gategen import {', '.join(used)}"]
    head += [f"from sympy import {', '.join(more)}"] if more else []
    assert gates_made <= symbols
    return "\n".join([*head, "", *lines, ""])


def declaration(s: Any, printer: Printer) -> str:
    """How a symbol is declared."""
    options = []
    if isinstance(s, lang.Constant):
        return f"constants({s.name}={printer(s.value)})"
    if isinstance(s, lang.Matrix) and s.shape is not None:
        options.append(f"shape={s.shape!r}")
    if isinstance(s, (lang.Input, lang.State, lang.Vector)):
        options.append(f"size={s.size!r}")
    if isinstance(s, lang.State) and s.initial != 0:
        options.append(f"initial={printer(s.initial)}")
    if isinstance(s, lang.Parameter) and not s.trainable:
        options.append("trainable=False")
    if isinstance(s, lang.Parameter) and s.contents:
        options.append(f"initial={s.contents}")
    return f"{MAKERS[type(s)]}({', '.join([repr(s.name), *options])})"
