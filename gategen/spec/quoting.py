"""How errors and warnings quote a spec: the place, the equation, the symbols as one writes them."""

from __future__ import annotations

import warnings
from typing import Any

import sympy as sp

from gategen.errors import SpecError, SpecWarning, Where
from gategen.spec import language as lang
from gategen.spec.equations import Eq
from gategen.spec.printer import Printer


def warn(message: str, where: Where | None) -> None:
    """A warning that stands where the spec's author can see it."""
    place = where or Where("<spec>", 0)
    warnings.warn_explicit(message, SpecWarning, place.file, place.line)


def placed(error: SpecError, eq: Eq) -> SpecError:
    return error.at(eq.where, f"{shown(eq.lhs)} = {shown(eq.rhs)}")


def placed_eq(lhs: Any, rhs: Any, where: Where | None) -> Eq:
    eq = Eq(lhs, rhs)
    eq.where = where
    return eq


def shown(expr: Any) -> str:
    if not isinstance(expr, sp.Basic):
        return repr(expr)
    try:
        return Printer()(expr)
    except (SpecError, TypeError):
        return str(expr)
    except ValueError:  # an integer of more digits than Python prints
        return "..."


def code(symbol: Any) -> str:
    return f"{symbol.state}.next" if isinstance(symbol, lang.Next) else str(symbol)
