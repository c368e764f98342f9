"""share: name a subexpression that several ops of one kernel compute, so that it is computed once.

Only the largest repeated parts get a name, and only within one kernel; between kernels nothing is shared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import sympy as sp

from gategen.graph import Builder, Pointwise, Value, common_size, shape_of, values_in
from gategen.plan.data import Kernel
from gategen.spec import language as lang
from gategen.spec.language import Extent


def share(kernel: Kernel, builder: Builder) -> Kernel:
    """The kernel with repeated parts named: `1 - z` is one value used by three gradients."""
    ops = over_known(kernel.ops)
    orders = (kernel.size,) if isinstance(kernel.size, tuple) else ()
    repeated = repeated_parts(ops)
    names: dict[sp.Expr, Value] = {}
    made: list[Pointwise] = []
    for op in ops:
        for part in parts(op.expr):
            if part in repeated and part not in names:
                names[part] = named(part, builder, kernel.static, orders)
                made.append(Pointwise(names[part], part))
        made.append(Pointwise(op.out, names.get(op.expr, op.expr.xreplace(names))))
    return replace(kernel, ops=tuple(made))


def over_known(ops: Sequence[Pointwise]) -> list[Pointwise]:
    """The ops, each reading the result of an earlier one where its expression holds all of that."""
    known: dict[sp.Expr, Value] = {}
    made: list[Pointwise] = []
    for op in ops:
        made.append(Pointwise(op.out, op.expr.xreplace(known)))
        if isinstance(op.expr, (sp.Add, sp.Mul)):
            known.setdefault(op.expr, op.out)
    return made


def repeated_parts(ops: Sequence[Pointwise]) -> set[sp.Expr]:
    """What stands inside several ops (or twice in one) and inside no larger such part."""
    counts = Counter(part for op in ops for part in parts(op.expr) if part != op.expr)
    often = [part for part, count in counts.items() if count > 1]
    holding: dict[Value, list[sp.Expr]] = {}
    for part in often:
        for value in values_in(part):
            holding.setdefault(value, []).append(part)

    def inside(part: sp.Expr) -> bool:
        others = min((holding[value] for value in values_in(part)), key=len)
        return any(other != part and other.has(part) for other in others)

    return {part for part in often if not inside(part)}


def parts(expr: sp.Expr) -> list[sp.Expr]:
    """The sums, products and powers inside an expression that are worth a name, outermost first."""
    if isinstance(expr, lang.where):  # not its condition
        return [part for arg in expr.args[1:] for part in parts(arg)]
    inner = [part for arg in expr.args if isinstance(arg, sp.Expr) for part in parts(arg)]
    return [expr, *inner] if worth_a_name(expr) else inner


def worth_a_name(expr: sp.Expr) -> bool:
    """Arithmetic on values, other than a number times something."""
    scaled = isinstance(expr, sp.Mul) and len(expr.args) == 2 and expr.args[0].is_Number
    return isinstance(expr, (sp.Add, sp.Mul, sp.Pow)) and bool(values_in(expr)) and not scaled


def named(expr: sp.Expr, builder: Builder, static: bool, orders: Sequence[Extent] = ()) -> Value:
    """A value for a part; it has rows where its kernel has, even if it only reads parameters."""
    reads = values_in(expr)
    wish = f"not_{reads[0]}" if expr == 1 - reads[0] else "_".join(["s", *(v.name for v in reads[:2])])
    return builder.value(wish, shape_of(common_size(reads, orders)), static)
