"""What an elementwise function is: a row of the table in `functions.py`, and the SymPy class that it brings.

A function gives its derivative in terms of its own value (`sigmoid` -> `s*(1 - s)`), so that a backward step
can read what the forward step saved.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean, BooleanFalse, BooleanTrue

from gategen.errors import SpecError
from gategen.spec.names import Matrix, caller, expression

_CLASS: Any = type(sp.Function)
HOME = "gategen.spec.functions"  # where the classes that rows bring are found again

# ---------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Call:
    """How a language applies a function: by a name, with numbers that follow the arguments.

    `text` is the helper that defines the name, where the language has no such function itself; `overflows`,
    whether that may happen on its way to what is finite.
    """

    name: str
    text: str = ""
    more: tuple[str, ...] = ()
    overflows: bool = False


@dataclass(frozen=True)
class Row:
    """Everything gategen knows of one elementwise function.

    text       how people write it, `leaky_relu(v, slope=0.01)`; its name stands in front
    apply      what makes an expression of it: a SymPy class, or a function where it is made of others
    evaluate   its value for arrays, real and complex: what `graph.evaluate` computes with, slow and plain
    numpy      how generated NumPy applies it, with `out=` behind; None where it is made of others
    exact      the same to the last digit where values are small, if `numpy` is not
    cuda       the same in CUDA; None also where CUDA has a notation of its own
    c          the same in C
    onnx       the operator of ONNX, or what makes nodes of it: of a function that adds a node, and the
               arguments; empty where what its class says in SymPy's words is good enough
    latex      its LaTeX word; where it is empty, its name in upright letters
    finite     whether it is finite wherever its arguments are
    symmetric  whether its arguments can change places
    parity     f(-a) is "odd" -f(a), "even" f(a), or "opposite" 1 - f(a)
    public     whether specs have it; formulas and derivatives may need more
    """

    text: str
    apply: Any
    evaluate: Callable[..., Any] | None = None
    numpy: Call | None = None
    exact: Call | None = None
    cuda: Call | None = None
    c: Call | None = None
    onnx: str | Callable[..., str] = ""
    latex: str = ""
    finite: bool = True
    symmetric: bool = False
    parity: str = ""
    public: bool = True

    @property
    def name(self) -> str:
        return self.text.partition("(")[0]


def helpers(names: Iterable[str], calls: Iterable[Call | None]) -> tuple[str, ...]:
    """The texts of the helpers of these names, and of those that they call, in the order of `calls`."""
    known = {call.name: call.text for call in calls if call and call.text}
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in known and name not in needed:
            needed.add(name)
            waiting += called(known[name])
    return tuple(text for name, text in known.items() if name in needed)


def called(text: str) -> list[str]:
    """The functions that stand in a text by a name alone."""
    return re.findall(r"(?<![\w.])(\w+)\(", text)


# ---------------------------------------------------------------------------------------------- classes


class Elementwise(sp.Function):  # type: ignore[misc]
    """A real function, entry by entry; `fdiff` gives its derivative, in terms of `self` if that is cheap."""

    is_real = True
    nargs: Any = 1
    number: ClassVar[Callable[..., sp.Expr] | None] = None  # the same in SymPy's words

    def _eval_evalf(self, prec: int) -> Any:
        """The value for numbers alone, such as that of `maximum(beta, 0.1)` for a constant."""
        same = type(self).number
        return same(*self.args)._eval_evalf(prec) if same else super()._eval_evalf(prec)


def elementwise(name: str, meaning: str, number: Callable[..., sp.Expr], *slopes: Callable[..., Any]) -> Any:
    """The class of a function: in SymPy's words, and its derivatives by each of its arguments.

    Each takes the value of the function and then its arguments: `lambda s, v: s * (1 - s)`.
    """

    def fdiff(self: sp.Expr, argindex: int = 1) -> sp.Expr:
        return cast(sp.Expr, sp.sympify(slopes[argindex - 1](self, *self.args)))

    inside = {"__doc__": meaning, "__module__": HOME, "nargs": len(slopes), "fdiff": fdiff}
    return _CLASS(name, (Elementwise,), {**inside, "number": staticmethod(number)})


class where(Elementwise):
    """a where the condition holds, else b; the condition is a comparison `< <= > >=` or `equal(a, b)`."""

    nargs = 3
    number = staticmethod(lambda condition, a, b: sp.Piecewise((a, condition), (b, True)))

    def __new__(cls, condition: Any, a: Any, b: Any, **options: Any) -> sp.Expr:
        if isinstance(condition, bool):
            raise SpecError(
                f"the condition of where() is already {condition}: it does not depend on any value",
                where=caller(),
                hint="== compares symbols structurally in Python: write where(equal(a, b), ...)",
            )
        a, b = expression(a, "a value of where()"), expression(b, "a value of where()")
        if isinstance(condition, (BooleanTrue, BooleanFalse)):  # decided by SymPy: square(v) >= 0
            return a if condition else b
        if isinstance(condition, sp.Ne):
            condition, a, b = equal(*condition.args), b, a
        if isinstance(condition, sp.Dummy):  # SymPy looks for the period of a condition, and goes without
            raise NotImplementedError
        if not isinstance(condition, Relational):
            raise SpecError(
                f"the condition of where() must be one comparison, not {condition}",
                where=caller(),
                hint="where(a > 0, ...); for two conditions where(a > 0, where(b > 0, ...), ...)",
            )
        if a == b:
            return a
        return cast(sp.Expr, super().__new__(cls, condition, a, b, **options))

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        condition, a, b = self.args
        return cast(sp.Expr, where(condition, a.diff(s), b.diff(s)))


def equal(a: Any, b: Any) -> Boolean:
    """The comparison a == b, for `where` (Python's == on symbols is structural)."""
    a, b = expression(a, "a side of equal()"), expression(b, "a side of equal()")
    return cast(Boolean, sp.Eq(a, b, evaluate=False))


class tanh(sp.tanh):  # type: ignore[misc]
    """SymPy's, which asks whether it is real by expanding its argument: for minutes, where there is a log."""

    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return cast(sp.Expr, 1 - self**2)


# ---------------------------------------------------------------------------------------------- words


class Word(Elementwise):
    """A function that stands for a formula, which `formula` writes out.

    Equations are printed with the word. Before anything is computed or differentiated, `graph.flatten` puts
    the formula in its place.
    """

    nargs = None
    defaults: tuple[Any, ...] = ()  # of the last arguments

    def __new__(cls, *args: Any, **options: Any) -> sp.Expr:
        options.pop("evaluate", None)
        made = cls._filled(*args, **options)
        self = sp.Expr.__new__(cls, *made)
        formula = cast(sp.Expr, self.formula)
        decided = formula in made or all(arg.is_number for arg in made)  # `elu(exp(v))` is `exp(v)`
        return formula if decided else self

    @classmethod
    def _filled(cls, *args: Any) -> list[sp.Expr]:
        """All arguments, as expressions."""
        return [expression(arg, f"an argument of {cls.__name__}()") for arg in args]

    @property
    def formula(self) -> sp.Expr:
        raise NotImplementedError

    @property
    def written(self) -> tuple[Any, ...]:
        """The arguments that people write: without defaults at the end."""
        args, defaults = [*self.args], [*self.defaults]
        while defaults and args[-1] == defaults.pop():
            args.pop()
        return tuple(args)

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        return cast(sp.Expr, self.formula.diff(s))


def word(text: str, meaning: str, formula: Callable[..., Any], *defaults: Any) -> Row:
    """The row of a word that stands for a formula; `defaults` are those of its last arguments."""
    name, _, inside = text.rstrip(")").partition("(")
    names = [part.partition("=")[0] for part in inside.split(", ")]
    values = [inspect.Parameter.empty] * (len(names) - len(defaults)) + [*defaults]
    signature = inspect.Signature(
        [
            inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
            for n, value in zip(names, values, strict=True)
        ]
    )

    def filled(cls: type[Word], *args: Any, **options: Any) -> list[sp.Expr]:
        try:
            bound = signature.bind(*args, **options)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        return [expression(arg, f"an argument of {name}()") for arg in bound.args]

    made = {
        "__doc__": meaning,
        "__module__": HOME,
        "defaults": tuple(map(sp.sympify, defaults)),
        "_filled": classmethod(filled),
        "formula": property(lambda self: _entry_by_entry(formula, self.args)),
    }
    return Row(text, _CLASS(name, (Word,), made))


def _entry_by_entry(formula: Callable[..., Any], args: Sequence[sp.Expr]) -> sp.Expr:
    """The formula of arguments, in which a matrix is a number: its own `+` and `*` are those of matrices."""
    stand = {arg: sp.Dummy(real=True) if arg.atoms(Matrix) else arg for arg in args}
    made = cast(sp.Expr, formula(*(stand[arg] for arg in args)))
    return made.xreplace({dummy: arg for arg, dummy in stand.items() if dummy is not arg})
