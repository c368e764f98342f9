"""SymPy expressions from trees, by the words of `gategen.spec.language` and no others."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from gategen.errors import SpecError
from gategen.spec import language as lang
from gategen.spec.functions import TABLE
from gategen.spec.names import LEFT
from gategen.spec.recipes import RECIPES
from gategen.spec.text.lines import NAME_A_PART, short
from gategen.spec.text.outline import did_you_mean
from gategen.spec.text.slips import MATRIX
from gategen.spec.text.trees import DEPTH, OF_MATRICES, SWITCH, UNIT

WEIGHT = 2_000  # nodes of one expression: elu, gelu, layer_norm and others write their argument several times
EXPONENT = 1_000
ROOT = 2**31  # of greater numbers roots are floats: SymPy would factorise
BITS = 1_000  # of a numerator or a denominator; a float ends at 1024

# ------------------------------------------------------------------------------------------ functions


@dataclass(frozen=True)
class Function:
    """A function of the text form: what to call, and how people write it: `leaky_relu(v, slope=0.01)`."""

    call: Callable[..., Any]
    text: str

    @property
    def variadic(self) -> bool:
        return "..." in self.text

    @property
    def parameters(self) -> dict[str, bool]:
        """Names, and whether they must be given."""
        inside = self.text.partition("(")[2].rstrip(")").split(", ")
        return {part.partition("=")[0]: "=" not in part for part in inside}


def _folded(binary: Any) -> Callable[..., sp.Expr]:
    """`Max` and `Min` of several values, without SymPy's search for an order among them."""

    def fold(first: sp.Expr, *rest: sp.Expr) -> sp.Expr:
        if len(rest) > DEPTH:
            raise SpecError(f"this compares more than {DEPTH} values", hint=NAME_A_PART)
        for value in rest:
            first = binary(first, value)
        return first

    return fold


def _as_it_is(function: Any) -> Callable[[sp.Expr], sp.Expr]:
    """Without SymPy's search for the sign of the argument, which has no limit."""
    return lambda v: function(v, evaluate=bool(v.is_number))


_SIGNATURES = """
inv(A)  expm(A)  norm(A)  row_norms(A)
concat(a, ...)  outer(v, k)  sum_(a, ...)  mean(a, ...)  var(a, ...)  max_(a, ...)
softmax(a, ...)  logsumexp(a, ...)  cumsum(v, over=None)  shifted(v, k, over)  conv(K, C, over)
layer_norm(v, gain=None, bias=None, eps=1e-5, over=None)
batch_norm(v, gain=1, bias=0, eps=1e-5, momentum=0.1)
"""
OVER = ("sum_", "mean", "var", "max_", "softmax", "logsumexp")  # of several values, or of one along an axis
FUNCTIONS = {
    **{row.name: Function(row.apply, row.text) for row in TABLE if row.public},
    **{text.partition("(")[0]: Function(getattr(lang, text.partition("(")[0]), text)
       for text in re.findall(r"\w+\([^)]*\)", _SIGNATURES)},
    "sqrt": Function(lambda v: power(v, sp.S.Half), "sqrt(v)"),
    "abs": Function(_as_it_is(sp.Abs), "abs(v)"),
    "sign": Function(_as_it_is(sp.sign), "sign(v)"),
    # SymPy's words
    "Abs": Function(_as_it_is(sp.Abs), "Abs(v)"),
    "Max": Function(_folded(lang.maximum), "Max(a, ...)"),
    "Min": Function(_folded(lang.minimum), "Min(a, ...)"),
    "Heaviside": Function(lang.step, "Heaviside(v)"),
    "erf": Function(sp.erf, "erf(v)"),
}  # fmt: skip


def _bound(function: Function, words: Sequence[str | None]) -> list[str]:
    """The parameter that each argument is for; None stands for an argument without a word."""
    if function.variadic:
        if words == [None, "over"] and function.text.startswith(OVER):
            return ["a", "over"]
        if any(words) or not words:
            raise SpecError(f"{function.text} takes one value or more, by place")
        return ["a"] * len(words)
    parameters = list(function.parameters)
    if words.count(None) > len(parameters) - ("over" in parameters):  # an axis is never told by its place
        raise SpecError(f"{function.text} is given {len(words)} arguments", hint=function.text)
    bound = [parameters[k] if word is None else word for k, word in enumerate(words)]
    for word in bound:
        if word not in parameters:
            hint = did_you_mean(word, parameters) or function.text
            raise SpecError(f"{function.text} has no argument {word}", hint=hint)
        if bound.count(word) > 1:
            raise SpecError(f"{function.text} is given {word} twice", hint=function.text)
    for word, needed in function.parameters.items():
        if needed and word not in bound:
            raise SpecError(f"{function.text} is not given {word}", hint=function.text)
    return bound


# ------------------------------------------------------------------------------------------ numbers

_LEAST = sp.Float(2) ** -BITS
_MODEST = "numbers lie between 1e-300 and 1e300, exponents between -1000 and 1000"


def settled(expr: sp.Expr) -> sp.Expr:
    """`expr`; where it is a number, one that a float can hold, and no sum of irrational ones.

    Whether such a sum is 0 SymPy decides with effort without limit; hence it becomes a float.
    """
    _check_magnitude(expr.as_coeff_Mul()[0])
    if isinstance(expr, sp.Pow) and isinstance(expr.exp, sp.Number) and abs(expr.exp) > EXPONENT:
        raise SpecError("an exponent is too large", hint=_MODEST)
    if expr.is_Rational or not expr.is_number:
        return expr
    value = expr.evalf()
    if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        raise SpecError("a number is not finite", hint="write a large number, such as 1e30")
    if value.has(sp.I):
        raise SpecError("a number is not real", hint="the root or logarithm of a negative number is not real")
    if not value.is_Float:
        return expr
    _check_magnitude(value)
    plain = all(part.is_Number or _of_rationals(part) for part in sp.Mul.make_args(expr))
    return expr if plain else value


def _of_rationals(expr: sp.Expr) -> bool:
    return not expr.is_Add and all(arg.is_Rational for arg in expr.args)


def _check_magnitude(number: sp.Expr) -> None:
    """A number that a float can hold, and not of many digits."""
    large = number.is_Rational and max(abs(number.p), number.q).bit_length() > BITS
    far = number.is_Float and number.is_finite and number != 0 and not _LEAST < abs(number) < 1 / _LEAST
    if large or far:
        raise SpecError("a number is too large or too small", hint=_MODEST)


def power(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """`base**exponent`, unless SymPy would compute a number of many digits."""
    if exponent.is_number:
        size = abs(exponent.evalf())
        if not size.is_Number:
            raise SpecError(f"the exponent must be a number, not {exponent}")
        if size > EXPONENT:
            raise SpecError("an exponent is too large", hint=_MODEST)
        number = base.as_coeff_Mul()[0]
        if number.is_Rational and (max(abs(number.p), number.q).bit_length() - 1) * size > BITS:
            raise SpecError("a number is too large or too small", hint=_MODEST)
    if exponent.is_Float and float(2 * exponent).is_integer():
        exponent = sp.Rational(int(2 * exponent), 2)
    if base.is_Rational and not exponent.is_Integer and max(abs(base.p), base.q) > ROOT:
        base = sp.Float(base)
    return settled(base**exponent if base.is_number else _raised(base, exponent))


def _raised(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """`base**exponent` over the reals. SymPy would search the signs of all parts of a base in vain."""
    if exponent in (0, 1):
        return base if exponent == 1 else sp.S.One
    if isinstance(base, sp.Mul) and exponent.is_Integer:
        return sp.Mul(*(power(factor, exponent) for factor in base.args))
    if isinstance(base, sp.Pow):
        inner, first = base.args
        even = first.is_even and not exponent.is_Integer
        return power(sp.Abs(inner, evaluate=False) if even else inner, first * exponent)
    return sp.Pow(base, exponent, evaluate=False)


# ------------------------------------------------------------------------------------------ expressions

_COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: sp.StrictLessThan, ast.LtE: sp.LessThan, ast.Gt: sp.StrictGreaterThan, ast.GtE: sp.GreaterThan,
}  # fmt: skip
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.MatMult: operator.matmul,
}  # fmt: skip
_TUPLES = {("layer_norm", "v"), ("layer_norm", "gain"), ("layer_norm", "bias")}


def next_of(symbol: lang.Name) -> lang.Next:
    """`h'`."""
    if not isinstance(symbol, lang.State):
        message = f"only a state has a next value, and the role of {symbol} is {symbol.role}"
        raise SpecError(message, hint=f"{symbol} without '")
    return symbol.next


@dataclass(frozen=True)
class Builder:
    """Makes expressions of these names. Errors have no place."""

    symbols: Mapping[str, lang.Name]
    weights: dict[sp.Basic, int] = field(default_factory=dict, repr=False)

    def values(self, tree: ast.expr, number: int) -> tuple[sp.Expr, ...]:
        """As many expressions as there are names on the left."""
        if number == 1:
            return (self.value(tree),)
        made = self.any(tree)
        if not isinstance(made, tuple) or len(made) != number:
            given = len(made) if isinstance(made, tuple) else 1
            message = f"{number} names stand on the left and {given} on the right"
            raise SpecError(message, hint="n_a, n_b = layer_norm((a, b))")
        return made

    def value(self, tree: ast.expr) -> sp.Expr:
        """One elementwise value."""
        return self.one(self.any(tree))

    @staticmethod
    def one(made: Any) -> sp.Expr:
        """`made`, if it is one value."""
        if isinstance(made, tuple):
            hint = f"{', '.join(f'n_{k}' for k in range(len(made)))} = ..."
            raise SpecError(f"this is a tuple of {len(made)} values", hint=f"take it apart: {hint}")
        if isinstance(made, lang.Transposed):
            raise SpecError(f"{made} can only stand on the left of @", hint=f"{made} @ v")
        if isinstance(made, lang.Contents):
            raise SpecError(
                f"{made} is what a matrix holds, and no value", hint=f"S @ v, with fixed matrices: S = {made}"
            )
        return settled(lang.expression(made, "a value"))

    def any(self, tree: ast.expr) -> Any:
        """A value, a tuple of values, a comparison, or a matrix."""
        if not isinstance(tree, (ast.Name, ast.Subscript, ast.Call)) and self.is_matrix(tree):
            return self.matrices(tree)
        match tree:
            case ast.Constant(value=number) if type(number) in (int, float):
                return sp.sympify(number, strict=True)
            case ast.Constant(value=other):
                raise SpecError(f"{short(repr(other))} has no place in an expression")
            case ast.Name(id=name):
                return self.name(name)
            case ast.Attribute(value=ast.Name(id=name), attr="next"):
                return next_of(self.name(name))
            case ast.Attribute(attr=attribute):
                hint = "W.T is a transposed matrix, h' the next value of a state"
                raise SpecError(f".{attribute} has no place in an expression", hint=hint)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int(k))) if type(k) is int:
                return self.part(name, k)
            case ast.Subscript(value=ast.Call() as inner, slice=ast.Constant(value=int(k))) if type(k) is int:
                return self.member(self.any(inner), k)
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                return self.earlier(name, index)
            case ast.Subscript():
                raise SpecError("[ ] stands behind a name and holds one whole number", hint="b[0]")
            case ast.Tuple(elts=parts):
                return tuple(map(self.value, parts))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self.value(inner)
            case ast.UnaryOp(operand=inner):
                return self.value(inner)
            case ast.BinOp(op=ast.MatMult()):
                return self.product(tree)
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return power(self.value(left), self.value(right))
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return sp.Add(*self.terms(tree))
            case ast.BinOp():
                return sp.Mul(*self.factors(tree))
            case ast.Compare():
                return self.comparison(tree)
            case ast.Call(func=ast.Name(id=name)):
                return self.call(name, tree)
        raise SpecError("only a function of gategen can be called", hint="tanh(v)")

    def name(self, name: str) -> Any:
        if name == UNIT and name not in self.symbols:
            return lang.identity
        if name not in self.symbols:  # all names have a role by now, but states where their start is read
            hint = "it may be an expression of numbers, constants, vectors and scalars"
            raise SpecError(f"an initial value reads the state {name}", hint=hint)
        return self.symbols[name]

    def part(self, name: str, index: int) -> Any:
        """`A[0]`, of names that have parts."""
        symbol: Any = self.name(name)
        if not isinstance(symbol, lang.Stack):
            before = f", or {name}[t-1] of the step before" if isinstance(symbol, lang.Stepped) else ""
            raise SpecError(f"{name}[{index}]: {name} has no parts", hint=f"{name}{before}")
        try:
            return symbol[index]
        except IndexError:
            raise SpecError(f"{name}[{index}]: {name} has no such part", hint="the first is 0") from None

    def earlier(self, name: str, index: ast.expr) -> lang.Name:
        """`x[t - 1]`."""
        symbol = self.name(name)
        match index:
            case ast.Name(id="t"):
                return lang.earlier(symbol, 0)
            case ast.BinOp(ast.Name(id="t"), ast.Sub(), ast.Constant(int(k))) if type(k) is int:
                return lang.earlier(symbol, k)
            case ast.BinOp(ast.Name(id="t"), ast.Add(), ast.Constant(int(k))) if type(k) is int:
                return lang.earlier(symbol, -k)
        message = f"{name}[{short(ast.unparse(index))}]: what stands in [ ] is a whole number, or the step"
        raise SpecError(message, hint=f"b[0] of stacked rows, {name}[t-1] of the step before")

    @staticmethod
    def member(made: Any, index: int) -> Any:
        """`layer_norm((a, b))[0]`."""
        if not isinstance(made, tuple):
            raise SpecError(f"[{index}] stands behind one value", hint="layer_norm((a, b))[0]")
        if not -1 < index < len(made):
            raise SpecError(f"[{index}]: there are {len(made)} values", hint="the first is 0")
        return made[index]

    # ------------------------------------------------------------------------------------------ operations

    def matrix(self, tree: ast.expr, operand: ast.expr) -> Any:
        """What stands on the left of `@`: a matrix, or several of stacked rows."""
        if self.is_matrix(tree):
            return self.matrices(tree)
        turned = isinstance(tree, ast.Attribute) and tree.attr == "T"
        inner = tree.value if isinstance(tree, ast.Attribute) and turned else tree
        after = isinstance(inner, ast.Attribute) and inner.attr == "next" and self.is_state(inner.value)
        made = self.any(inner) if after or isinstance(inner, (ast.Name, ast.Subscript)) else None
        if not turned and isinstance(made, lang.Stack) and isinstance(made[0], lang.Matrix):
            return made
        if made is not None and self.of_rows(made):
            return made.T if turned else made
        message = f"a matrix is expected, not {short(ast.unparse(tree))}"
        raise SpecError(message, hint=self.instead_of(tree, operand))

    def matrices(self, tree: ast.expr) -> Any:
        """An expression of matrices: what they do with each other and with numbers they know themselves."""
        match tree:
            case ast.Attribute(value=inner, attr="T"):
                return self.matrices(inner).T
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self.matrices(inner)
            case ast.UnaryOp(operand=inner):
                return self.matrices(inner)
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATIONS[type(op)](self.side(left), self.side(right))
        return self.any(tree)

    def side(self, tree: ast.expr) -> Any:
        return self.matrices(tree) if self.is_matrix(tree) else self.one(self.any(tree))

    def is_matrix(self, tree: ast.AST) -> bool:
        """Whether this is a matrix, or would be one but for a mistake in it."""
        match tree:
            case ast.Name(id=name):
                known = self.symbols.get(name, lang.identity if name == UNIT else None)
                return known is lang.identity or isinstance(known, lang.Matrix)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=k)):
                parts = self.symbols.get(name)
                return (
                    isinstance(parts, lang.Stack)
                    and isinstance(parts[0], lang.Matrix)
                    and k in range(len(parts))
                )
            case ast.Attribute(value=inner, attr="T") | ast.UnaryOp(operand=inner):
                return self.is_matrix(inner)
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self.is_matrix(left) and self.is_matrix(right)
            case ast.BinOp(left=left, right=right):
                return self.is_matrix(left) or self.is_matrix(right)
            case ast.Call(func=ast.Name(id=name)):
                return name in OF_MATRICES and name != "norm"
        return False

    def is_state(self, tree: ast.expr) -> bool:
        return isinstance(tree, ast.Name) and isinstance(self.symbols.get(tree.id), lang.State)

    @staticmethod
    def of_rows(symbol: Any) -> bool:
        """Whether every row of it is a matrix, or may be: what size a gate has is not known yet."""
        of = symbol.state if isinstance(symbol, lang.Next) else symbol
        of = symbol.of if isinstance(symbol, lang.Past) else of
        sized = isinstance(of, (lang.Input, lang.State)) and isinstance(of.size, tuple)
        return sized or isinstance(of, lang.Gate)

    def instead_of(self, tree: ast.expr, operand: ast.expr | None) -> str:
        """What to write where something else than a matrix stands on the left of `@`."""
        match tree:
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                return f"multiply by the vector first: {ast.unparse(left)} @ ({ast.unparse(right)} @ ...)"
            case ast.Attribute(value=ast.Name(id=name), attr="next") if self.looks_like_one(tree.value):
                return f"the transposed matrix is {name}.T"
            case ast.Name(id=name) if isinstance(self.symbols.get(name), lang.Count):
                return f"{name} is a size, and so a number; a matrix has another name: matrices: W_{name}"
        if operand is None or any(map(self.looks_like_one, ast.walk(tree))):
            return LEFT
        sides = (tree, operand)
        a, b = (f"({ast.unparse(t)})" if isinstance(t, ast.BinOp) else ast.unparse(t) for t in sides)
        core = operand.value if isinstance(operand, ast.Attribute) and operand.attr == "T" else operand
        if self.looks_like_one(core):
            return f"the matrix stands on the left: {ast.unparse(core)} @ {a}"
        return f"the inner product is sum_({a} * {b}), and {a} * {b} is elementwise"

    def looks_like_one(self, tree: ast.AST) -> bool:
        """Whether this is the name of a matrix, or like one."""
        if not isinstance(tree, ast.Name):
            return False
        symbol = self.symbols.get(tree.id)
        return isinstance(symbol, lang.Matrix) or (
            isinstance(symbol, lang.Parameter) and bool(MATRIX.match(tree.id))
        )

    def product(self, tree: ast.BinOp) -> Any:
        turned = isinstance(tree.left, ast.Attribute) and tree.left.attr == "T"
        if self.is_matrix(tree.right) and not turned and not self.is_matrix(tree.left):
            value = self.one(self.any(tree.left))
            if lang.may_be_matrix(value):
                return value @ self.matrices(tree.right)
        matrix = self.matrix(tree.left, tree.right)
        return matrix @ self.one(self.any(tree.right))

    def terms(self, tree: ast.expr) -> list[sp.Expr]:
        """The terms of a sum."""
        found: list[sp.Expr] = []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Add, ast.Sub)):
            term = self.value(tree.right)
            found.append(term if isinstance(tree.op, ast.Add) else -term)
            tree = tree.left
        return [self.value(tree), *reversed(found)]

    def factors(self, tree: ast.expr) -> list[sp.Expr]:
        """The factors of a product: seeing two of `2 * (1 - z) * h` only, SymPy would multiply them out."""
        found: list[sp.Expr] = []
        while isinstance(tree, ast.BinOp) and isinstance(tree.op, (ast.Mult, ast.Div)):
            factor = self.value(tree.right)
            found.append(factor if isinstance(tree.op, ast.Mult) else power(factor, sp.S.NegativeOne))
            tree = tree.left
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return [sp.S.NegativeOne, self.value(tree.operand), *reversed(found)]
        return [self.value(tree), *reversed(found)]

    def comparison(self, tree: ast.Compare) -> Relational:
        if len(tree.ops) > 1:
            raise SpecError("a comparison has two sides", hint=SWITCH)
        left, right = self.value(tree.left), self.value(tree.comparators[0])
        if left.is_Number and right.is_Number:
            raise SpecError("a comparison of two numbers is no condition", hint="where(h > 0, ..., ...)")
        return _COMPARISONS[type(tree.ops[0])](left, right, evaluate=False)

    # ------------------------------------------------------------------------------------------ calls

    def call(self, name: str, tree: ast.Call) -> Any:
        if name not in FUNCTIONS:
            raise self.not_a_function(name)
        function = FUNCTIONS[name]
        given = [
            *((None, arg) for arg in tree.args),
            *((word.arg or "**", word.value) for word in tree.keywords),
        ]
        bound = _bound(function, [word for word, _ in given])
        made = [self.argument(name, word, arg) for word, (_, arg) in zip(bound, given, strict=True)]
        values = dict(zip(bound, made, strict=True)) if "over" in bound or not function.variadic else {}
        needed = [word for word, must in function.parameters.items() if must and word in values]
        required = [values.pop(word) for word in needed if word != "over"]
        result = function.call(*(required or made), **values)
        parts = result if isinstance(result, tuple) else (result,)
        if sum(map(self.weight, parts)) > WEIGHT:
            raise SpecError(f"{name}() makes an expression of more than {WEIGHT} parts", hint=NAME_A_PART)
        return result

    def weight(self, expr: sp.Basic) -> int:
        """The nodes of an expression when it is written out."""
        if expr not in self.weights:
            parts = (expr.formula,) if isinstance(expr, lang.Word) else expr.args
            self.weights[expr] = 1 + sum(map(self.weight, parts))
        return self.weights[expr]

    def not_a_function(self, name: str) -> SpecError:
        if name in self.symbols or re.match(r"[A-Za-z]_", name):
            hint = f"a product is written {name} * (...), or {name} @ (...) for a matrix"
            return SpecError(f"{name} is not a function", hint=hint)
        hint = RECIPES.get(name) or did_you_mean(name, FUNCTIONS) or f"there are: {', '.join(FUNCTIONS)}"
        return SpecError(f"there is no function {name}", hint=hint)

    def argument(self, function: str, word: str, tree: ast.expr) -> Any:
        """A value; only some arguments may be a comparison, a tuple, None or text."""
        if (function, word) == ("where", "condition"):
            made = self.any(tree)
            if not isinstance(made, Relational):
                raise SpecError("the condition of where() must be one comparison", hint=SWITCH)
            return made
        if (function, word) == ("gelu", "approximate") and isinstance(tree, ast.Constant):
            return tree.value
        if word == "over" and isinstance(tree, ast.Tuple):
            return tuple(self.argument(function, word, part) for part in tree.elts)
        if word == "over":
            return ast.unparse(tree).replace(" ", "").strip("'\"")
        if (function, word) in _TUPLES and isinstance(tree, ast.Tuple):
            return tuple(self.argument("" if word == "v" else function, word, part) for part in tree.elts)
        if (
            (function, word) in _TUPLES
            and word != "v"
            and isinstance(tree, ast.Constant)
            and tree.value is None
        ):
            return None
        if function in OF_MATRICES:
            return self.side(tree)
        made = self.any(tree)
        if isinstance(made, lang.Stack) and ((function, word) in _TUPLES or function == "conv"):
            return made
        value = self.one(made)
        if word in ("eps", "momentum") and not (value.is_number or isinstance(value, lang.Constant)):
            raise SpecError(f"{word} must be a number or a constant", hint=f"constants: {word} = 1e-3")
        return value
