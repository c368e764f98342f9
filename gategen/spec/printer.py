"""Expressions as text, by precedence, in an order of our own.

SymPy sorts the terms of a sum as its version likes; generated files must not change with it. So each sum and
each product is sorted here by a key that depends on names and roles alone: products of inputs, products of
states, gates, then biases; `1 - z` stands where `z` would. Backends subclass `Printer` and change the
spelling, never the order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar

import sympy as sp
from sympy.core.relational import Relational

from gategen.errors import SpecError
from gategen.spec import language as lang
from gategen.spec.elementwise import Row
from gategen.spec.functions import row_of

SUM, MATVEC, PRODUCT, POWER, ATOM = 1, 2, 3, 4, 5
GRADIENTS = ("gradient", "term", "carried", "tangent")  # roles of what stands first in a product


class Printer:
    """Text for people: `z = sigmoid(W_z @ x + U_z @ h + b_z)`."""

    relations: ClassVar[dict[str, str]] = {}

    def __init__(self, rank: dict[str, int] | None = None, rename: dict[str, str] | None = None) -> None:
        self.rank = rank or {}
        self.rename = rename or {}
        self.keys: dict[sp.Basic, str] = {}  # printed anew in every sum around it, a term would take 2**depth

    def __call__(self, expr: sp.Basic) -> str:
        return self.at(expr, 0)

    def at(self, expr: sp.Basic, outer: int) -> str:
        """`expr`, in parentheses if it binds less tightly than its surroundings."""
        text, own = self.spell(expr)
        return f"({text})" if own < outer else text

    def spell(self, expr: sp.Basic) -> tuple[str, int]:
        if isinstance(expr, lang.Parameter):
            return str(expr), ATOM
        if isinstance(expr, sp.Symbol):
            return self.rename.get(expr.name, expr.name), ATOM
        if isinstance(expr, sp.Number):
            return self.number(expr)
        if isinstance(expr, sp.Add):
            return self.sum(expr), SUM
        if isinstance(expr, sp.Mul):
            return self.product(expr)
        if isinstance(expr, sp.Pow):
            return self.power(expr.base, expr.exp)
        if isinstance(expr, lang.matvec):
            matrix, operand, transposed = expr.args
            return self.times(f"{self.matrix(matrix)}{'.T' if transposed else ''}", operand)
        if isinstance(expr, lang.matmat):
            return self.times_weight(*expr.args)
        if isinstance(expr, lang.computed):
            return self.spell(expr.args[0])
        if type(expr) in lang.MATRIX_WORDS:
            return self.of_matrices(expr)
        if isinstance(expr, lang.normed):
            return self.norm(expr)
        if isinstance(expr, (lang.Over, lang.Along)):
            return self.over(expr), ATOM
        if isinstance(expr, lang.convolved):
            return self.convolution(expr)
        if isinstance(expr, lang.softmaxed):
            text = self.applied("softmax", ", ".join(map(self, expr.values)))
            return text if len(expr.values) == 1 else self.row(text, int(expr.args[0])), ATOM
        if isinstance(expr, Relational):
            sign = self.relations.get(expr.rel_op, expr.rel_op)
            return f"{self.at(expr.lhs, SUM)} {sign} {self.at(expr.rhs, SUM)}", 0
        if isinstance(expr, sp.Function):
            return self.call(expr), ATOM
        if expr is sp.E:
            return "exp(1)", ATOM
        if isinstance(expr, sp.Expr) and expr.is_number:
            return self.number(sp.Float(expr))
        raise SpecError(f"{type(expr).__name__} is not known to gategen: {expr}")

    def number(self, value: sp.Number) -> tuple[str, int]:
        if value.is_Integer:
            return str(int(value)), ATOM if value >= 0 else SUM
        if isinstance(value, sp.Rational):
            return f"{value.p} / {value.q}", PRODUCT if value > 0 else SUM
        text = repr(float(value))
        return text.removesuffix(".0") if "e" not in text else text, ATOM if value >= 0 else SUM

    def call(self, expr: sp.Function) -> str:
        return f"{self.name(expr)}({self.arguments(expr)})"

    def name(self, expr: sp.Function) -> str:
        """What a function is called."""
        row = row_of(expr)
        return self.word(row) if row else type(expr).__name__

    def over(self, expr: lang.Over | lang.Along) -> str:
        """What goes along one axis."""
        along = self.keyword("over", self.quoted(expr.axis))
        return self.applied(expr.word, ", ".join([*self.of_axis(expr), along]))

    def convolution(self, expr: lang.convolved) -> tuple[str, int]:
        """`conv(K, x, over="positions")`, the weights on the side on which they stand."""
        sides = [self.array(lang.stack_of(expr.weights)), self(expr.value)]
        axes = [self.quoted(axis) for axis in expr.axes]
        over = axes[0] if len(axes) == 1 else f"({', '.join(axes)})"
        inside = [*(sides if expr.left else reversed(sides)), self.keyword("over", over)]
        return self.applied("conv", ", ".join(inside)), ATOM

    def of_axis(self, expr: lang.Over | lang.Along) -> list[str]:
        """The arguments of what goes along one axis, but for that."""
        value = self(expr.args[0])
        if isinstance(expr, lang.shifted):
            return [value, self(expr.args[1])]
        if not isinstance(expr, lang.normed_over):
            return [value]
        _, gain, bias = expr.part
        return [value, *self.norm_words(gain, bias, expr.args[3], self(gain), self(bias))]

    def arguments(self, expr: sp.Function) -> str:
        args = expr.written if isinstance(expr, lang.Word) else expr.args
        return ", ".join(self.quoted(arg) if isinstance(arg, str) else self(arg) for arg in args)

    def norm(self, expr: lang.normed) -> tuple[str, int]:
        """`layer_norm(v, g)`, or a part of a joint norm, `layer_norm((v, w), g)[0]`."""
        k, count, eps = int(expr.args[0]), len(expr.values), expr.args[-1]
        _, gain, bias = expr.part
        if count == 1:
            value, shift = self(expr.values[0]), [self(gain), self(bias)]
        else:
            value, shift = self.joint(expr.values), [self.rows_like(part, k, count) for part in (gain, bias)]
            if not all(shift):  # of a tuple of other things
                return self.spell(gain * lang.normed(k, *expr.values, 1, 0, eps) + bias)
        words = self.norm_words(gain, bias, eps, *shift)
        text = self.applied("layer_norm", ", ".join([value, *words]))
        return text if count == 1 else self.row(text, k), ATOM

    def norm_words(self, gain: sp.Expr, bias: sp.Expr, eps: sp.Expr, g: str, b: str) -> list[str]:
        """The arguments of a norm behind the value, of which g and b say gain and shift."""
        return [
            *([g] if gain != 1 else []),
            *([b if gain != 1 else self.keyword("bias", b)] if bias != 0 else []),
            *([self.keyword("eps", self(eps))] if eps != lang.EPSILON else []),
        ]

    def rows_like(self, part: sp.Expr, k: int, count: int) -> str:
        """The array of which `part` is row `k` of `count`; a number as it is."""
        block = part.block if isinstance(part, lang.Parameter) else None
        if block and (block.index, len(block.rows)) == (k, count):
            return self.array(block.owner)
        return self(part) if part.is_number else ""

    def joint(self, values: tuple[sp.Expr, ...]) -> str:
        """`A @ x` for all its rows, otherwise a tuple."""
        products = all(isinstance(value, lang.matvec) and value.args[2] == 0 for value in values)
        operands = {value.args[1] for value in values} if products else set()
        owner = lang.stack_of([value.args[0] for value in values]) if len(operands) == 1 else ""
        if owner:
            return self.times(self.array(owner), operands.pop())[0]
        stack = lang.stack_of(values)
        return self.array(stack) if stack else f"({', '.join(map(self, values))})"

    def matrix(self, matrix: sp.Expr) -> str:
        """The left side of a product with a vector."""
        return str(matrix) if isinstance(matrix, lang.Parameter) else self.at(matrix, POWER)

    def of_matrices(self, expr: sp.Function) -> tuple[str, int]:
        """A function of matrices."""
        args = expr.args
        if isinstance(expr, lang.leaf):
            return self.spell(args[0])
        if isinstance(expr, lang.matmul):
            return f"{self.at(args[0], POWER)} @ {self.at(args[1], POWER)}", MATVEC
        if isinstance(expr, lang.transposed):
            return f"{self.at(args[0], ATOM)}.T", ATOM
        if isinstance(expr, lang.unit):
            return "identity", ATOM
        return f"{lang.MATRIX_WORDS[type(expr)]}({self(args[0])})", ATOM

    # what other languages write in another way

    def word(self, row: Row) -> str:
        return row.name

    def times(self, matrix: str, operand: sp.Expr) -> tuple[str, int]:
        return f"{matrix} @ {self.at(operand, POWER)}", MATVEC

    def times_weight(self, value: sp.Expr, matrix: sp.Expr, turned: sp.Expr) -> tuple[str, int]:
        return f"{self.at(value, POWER)} @ {self.matrix(matrix)}{'.T' if turned else ''}", MATVEC

    def array(self, name: str) -> str:
        return name

    def quoted(self, word: str) -> str:
        return f"'{word}'"

    def keyword(self, word: str, value: str) -> str:
        return f"{word}={value}"

    def applied(self, word: str, args: str) -> str:
        return f"{word}({args})"

    def row(self, text: str, k: int) -> str:
        return f"{text}[{k}]"

    def sum(self, expr: sp.Expr) -> str:
        text = ""
        for term in self.terms(expr):
            negative = leading_minus(term)
            tight = SUM if not negative else MATVEC if text else PRODUCT
            body = self.at(-term if negative else term, tight)
            text += (" - " if negative else " + ") + body if text else ("-" if negative else "") + body
        return text

    def product(self, expr: sp.Expr) -> tuple[str, int]:
        if leading_minus(expr):
            return f"-{self.at(-expr, PRODUCT)}", SUM
        above, below = fraction(expr)
        left = " * ".join(self.at(factor, PRODUCT) for factor in self.factors(above)) or "1"
        if not below:
            return left, PRODUCT
        right = " * ".join(self.at(factor, PRODUCT) for factor in self.factors(below))
        tight = len(below) == 1 and not isinstance(below[0], (sp.Add, sp.Mul))
        return f"{left} / {right if tight else self.bracket(below, right)}", PRODUCT

    @staticmethod
    def bracket(below: list[sp.Expr], text: str) -> str:
        return text if len(below) == 1 and text.startswith("(") else f"({text})"

    def power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if exponent == sp.Rational(1, 2):
            return f"sqrt({self(base)})", ATOM
        if leading_minus(exponent):
            below, tight = self.power(base, -exponent) if exponent != -1 else self.spell(base)
            return f"1 / {below if tight > PRODUCT else f'({below})'}", PRODUCT
        return f"{self.at(base, ATOM)}**{self.at(exponent, ATOM)}", POWER

    # ------------------------------------------------------------------------------------------ order

    def terms(self, expr: sp.Expr) -> list[sp.Expr]:
        """The terms of a sum in the order in which they are written, a positive one first if there is one."""
        terms = sorted(sp.Add.make_args(expr), key=self.term_key)
        if terms[-1].is_Number and terms[-1] > 0 and leading_minus(terms[0]):
            terms = [terms[-1], *terms[:-1]]
        return terms

    def term_key(self, term: sp.Expr) -> tuple[bool, bool, int, str]:
        if isinstance(term, lang.unit):
            rank = -1
        elif isinstance(term, (lang.matvec, lang.matmat)):
            rank = 0 if term.args[isinstance(term, lang.matvec)].has(lang.Input) else 1
        elif isinstance(term, lang.convolved):
            rank = 0 if term.value.has(lang.Input) else 1
        elif isinstance(term, (lang.Vector, lang.Scalar)):
            rank = 4
        else:
            rank = 2 if isinstance(term, (sp.Mul, sp.Symbol, lang.leaf)) else 3
        return bool(term.is_Number), leading_minus(term), rank, self.key(term)

    def factors(self, factors: list[sp.Expr]) -> list[sp.Expr]:
        return sorted(factors, key=self.factor_key)

    def factor_key(self, factor: sp.Expr) -> tuple[int, int, str]:
        if factor.is_number:
            return 0, 0, ""
        inner = factor
        if isinstance(factor, sp.Add) and any(term.is_Number for term in factor.args):
            inner = sp.S.One - factor
        if isinstance(inner, sp.Pow):
            inner = inner.base
        if isinstance(inner, lang.leaf):
            inner = inner.args[0]
        if not isinstance(inner, sp.Symbol):
            return 9 if isinstance(factor, sp.Add) else 6, 0, self.key(factor)
        if getattr(inner, "role", "") in GRADIENTS and not isinstance(factor, sp.Add):
            return 1, 0, inner.name
        role = {lang.Scalar: 2, lang.Vector: 3, lang.State: 7, lang.Input: 8}.get(type(inner), 5)
        return role, self.rank.get(inner.name, 0), inner.name

    def key(self, expr: sp.Basic) -> str:
        if expr not in self.keys:
            self.keys[expr] = self.key_text(expr)
        return self.keys[expr]

    def key_text(self, expr: sp.Basic) -> str:
        own = type(self) is Printer and (self.rank or self.rename)
        return self(expr) if own else _plain(expr)


def leading_minus(expr: sp.Basic) -> bool:
    """Whether `expr` is written with a minus sign in front."""
    if isinstance(expr, sp.Number):
        return bool(expr < 0)
    return isinstance(expr, sp.Mul) and bool(expr.args[0].is_Number and expr.args[0] < 0)


def fraction(expr: sp.Expr) -> tuple[list[sp.Expr], list[sp.Expr]]:
    """The factors above and below the line."""
    above: list[sp.Expr] = []
    below: list[sp.Expr] = []
    for factor in sp.Mul.make_args(expr):
        if isinstance(factor, sp.Pow) and leading_minus(factor.exp):
            below.append(sp.Pow(factor.base, -factor.exp))
        else:
            above.append(factor)
    return above, below


text: Callable[[sp.Basic], str] = Printer()


@lru_cache(maxsize=10_000)
def _plain(expr: sp.Basic) -> str:
    """As `text`, for sorting, where the same parts are asked for again and again."""
    return text(expr)
