"""What equations must satisfy to be a cell; what they do not is a `SpecError` in the words of the spec.

Each check takes the parts that it looks at. That sizes agree is for `sizes.py`, that generated code can carry
every name for `names.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sympy as sp
from sympy.core.relational import Relational
from sympy.core.symbol import Str

from gategen.errors import SpecError, Where
from gategen.spec import language as lang
from gategen.spec.contents import check_fit, sizes_told
from gategen.spec.equations import Eq
from gategen.spec.functions import TABLE
from gategen.spec.names import Shape, Size, names_of_size
from gategen.spec.quoting import code, placed, placed_eq, shown, warn

# What the tree of an expression may consist of.
_KNOWN = (
    *(sp.Symbol, sp.Number, sp.NumberSymbol, sp.Add, sp.Mul, sp.Pow, Relational),
    *(row.apply for row in TABLE if isinstance(row.apply, type)),
    *(lang.Word, lang.Opaque, Str),
)

# ---------------------------------------------------------------------------------------------- equations

_BUILD_FROM = f"build it from + - * / **, {' '.join(row.name for row in TABLE if row.numpy and row.public)}"


def equations_of(equations: Iterable[Any], where: Where | None) -> tuple[Eq, ...]:
    """Checked `Eq`s in gategen's words; a `sympy.Eq` is accepted where it has not folded."""
    made = []
    for given in (equations,) if isinstance(equations, Eq) else equations:
        if isinstance(given, (bool, sp.logic.boolalg.BooleanAtom)):
            raise SpecError(
                f"an equation folded to {bool(given)}",
                where=where,
                hint="use gategen's Eq instead of sympy.Eq",
            )
        if isinstance(given, sp.Equality):
            given = placed_eq(given.lhs, given.rhs, where)
        if not isinstance(given, Eq):
            raise SpecError(
                f"{shown(given)} is not an equation", where=where, hint="write Eq(z, sigmoid(...))"
            )
        try:
            _check_left(given)
            made.append(placed_eq(given.lhs, lang.normalise(given.rhs), given.where))
            _check_right(made[-1])
        except SpecError as error:
            error.where = given.where
            raise placed(error, given) from None
    if not made:
        raise SpecError("a cell needs at least one equation", where=where, hint="Cell(name, Eq(h.next, ...))")
    seen: dict[str, Eq] = {}
    for eq in made:
        if eq.lhs.name in seen:
            message = f"{eq.lhs} is defined twice, first at {seen[eq.lhs.name].where}"
            raise placed(SpecError(message, hint="each gate and each s.next has exactly one equation"), eq)
        seen[eq.lhs.name] = eq
    return tuple(made)


def _check_left(eq: Eq) -> None:
    if isinstance(eq.lhs, (lang.Gate, lang.Next)):
        return
    if isinstance(eq.lhs, lang.State):
        raise SpecError(f"{eq.lhs} on the left is the old state", hint=f"Eq({eq.lhs}.next, ...)")
    if isinstance(eq.lhs, lang.Name):
        raise SpecError(
            f"{eq.lhs} is declared as {eq.lhs.role} and cannot be assigned",
            hint=f'an equation gives a gate or the next value of a state: {eq.lhs}0 = gates("{eq.lhs}0")',
        )
    message = f"the left side of an equation is one gate or one s.next, not {shown(eq.lhs)}"
    raise SpecError(message, hint="Eq(z, ...) for a gate z, Eq(h.next, ...) for a state h")


def _check_right(eq: Eq) -> None:
    _check_expression(eq.rhs, f"the right side of {eq.lhs}")


_LARGEST = sp.Float(sys.float_info.max)


def _check_expression(expr: Any, what: str) -> None:
    """Only known functions of finite real numbers; matrices only left of `@`, `concat` only right of it."""
    traversal = sp.preorder_traversal(expr)
    for node in traversal:
        if isinstance(node, (lang.computed, lang.frobenius)):
            traversal.skip()
            if node is expr:
                _check_place(node, None)
            continue
        if isinstance(node, sp.Symbol) and not isinstance(node, lang.Name):
            raise SpecError(
                f"{node} is not declared",
                hint="use inputs, states, gates, matrices, vectors, scalars or constants",
            )
        if isinstance(node, lang.Step):
            raise SpecError(f"{node} is the step and no value", hint="x[t - 1] is x of the step before")
        if node in (sp.nan, sp.zoo) or (isinstance(node, sp.Number) and not abs(node) <= _LARGEST):
            named = {sp.nan: "nan", sp.zoo: "a division by 0"}.get(node, "an infinite number")
            raise SpecError(
                f"{what} is not finite: it holds {named}", hint="write a large number, such as 1e30"
            )
        if isinstance(node, sp.Expr) and node.is_number and node.is_real is False:
            raise SpecError(
                f"{what} is not real: it holds {node}",
                hint="carry the real and the imaginary part as two states",
            )
        if isinstance(node, sp.Tuple):
            raise SpecError(
                f"{len(node)} values stand where one belongs: {', '.join(map(shown, node))}",
                hint="unpack them first: v0, v1 = A @ x",
            )
        if not isinstance(node, _KNOWN):
            raise SpecError(f"{type(node).__name__} is not a function gategen knows", hint=_BUILD_FROM)
        if isinstance(node, lang.REDUCTIONS) and not node.args:
            raise SpecError(f"{type(node).__name__}() reduces nothing", hint=f"{type(node).__name__}(v)")
        if isinstance(node, (*lang.REDUCTIONS, lang.cumsum)) and all(arg.is_number for arg in node.args):
            raise SpecError(f"{shown(node)} is of numbers alone, which have no features", hint="sum_(v)")
        if isinstance(node, sp.Pow) and not all(isinstance(s, lang.Constant) for s in node.exp.free_symbols):
            raise SpecError(
                f"{shown(node)}: the exponent must be a number", hint="y**p for y > 0 is exp(p * log(y))"
            )
        for arg in node.args:
            if isinstance(arg, (lang.Matrix, lang.computed)):
                _check_place(arg, node)
            if isinstance(arg, lang.concat) and not isinstance(node, lang.matvec):
                raise SpecError("concat(...) can only stand on the right of @", hint="A @ concat(h, x)")
    if isinstance(expr, lang.Matrix):
        _check_place(expr, None)
    if isinstance(expr, lang.concat):
        raise SpecError("concat(...) can only stand on the right of @", hint="A @ concat(h, x)")
    numbers: list[sp.Expr] = []
    if _fixed(expr, numbers):
        numbers.append(expr)
    for number in numbers:
        _check_number(number)


def _lonely(expr: sp.Basic) -> bool:
    """Whether this is a weight. A matrix of two stated, different sizes may also stand beside others."""
    return isinstance(expr, lang.Matrix) and not (
        expr.shape and not isinstance(expr.shape[1], tuple) and expr.shape[0] != expr.shape[1]
    )


def _check_place(matrix: Any, node: sp.Basic | None) -> None:
    """A matrix, or one that is computed, is the left side of a product, or in a convolution; a norm is a
    number.
    """
    side = 0 if isinstance(node, lang.matvec) else 1 if isinstance(node, lang.matmat) else None
    if isinstance(node, lang.convolved):
        return
    if isinstance(matrix, lang.frobenius) or (side is not None and node and matrix is node.args[side]):
        return
    weights = matrix.atoms(lang.Matrix)
    if weights and not any(map(_lonely, weights)):
        return
    said = shown(matrix)
    rest = [other for other in node.args if other is not matrix] if node is not None and node.is_Mul else []
    operand = shown(rest[0]) if len(rest) == 1 and rest[0].is_Symbol else "x"
    hint = f"{said} @ {operand}" if isinstance(matrix, lang.Matrix) else f"({said}) @ {operand}"
    raise SpecError(f"{said} is a matrix and stands without @", hint=hint)


def _fixed(expr: sp.Basic, numbers: list[sp.Expr]) -> bool:
    """Whether all of it is numbers and constants; if not, the largest parts that are go into `numbers`."""
    if not expr.args:
        return isinstance(expr, (sp.Number, sp.NumberSymbol, lang.Constant))
    parts = [arg for arg in expr.args if _fixed(arg, numbers)]
    if isinstance(expr, sp.Expr) and not isinstance(expr, lang.Opaque) and len(parts) == len(expr.args):
        return True
    numbers += [sp.Mul(*parts)] if expr.is_Mul else parts
    return False


# Of float32: the least number, the least that is not stored in fewer digits, and the largest.
_LEAST32, _NORMAL32, _LARGEST32 = 2.0**-149, 2.0**-126, (2 - 2.0**-23) * 2.0**127


def _check_number(number: sp.Expr) -> None:
    """float32, in which modules compute unless told otherwise, must know it from 0 and from infinity."""
    own = number.xreplace({c: c.value for c in number.free_symbols})
    value = abs(float(own)) if own.is_number and own.is_real else 0.0
    if value == 0 or _LEAST32 / 2 < value <= _LARGEST32:
        return
    said = shown(number) if number.is_Number else f"{shown(number)}, which is {value:.3g},"
    raise SpecError(
        f"{said} is {'infinite' if value > 1 else '0'} in float32",
        hint=f"write a number from {_NORMAL32:.1e} to {_LARGEST32:.1e}, such as "
        + ("1e30" if value > 1 else "1e-30"),
    )


# ---------------------------------------------------------------------------------------------- names


def check_names(equations: Sequence[Eq], first: Sequence[Eq]) -> None:
    """Every symbol has one role, and each gate that is used is defined."""
    roles: dict[str, lang.Name] = {}
    for eq in (*equations, *first):
        used = (eq.lhs, *lang.names_in(eq.rhs))
        for symbol in (*used, *(s.state for s in used if isinstance(s, lang.Next))):
            known = roles.setdefault(symbol.name, symbol)
            if known != symbol:
                raise placed(_twice(known, symbol), eq)
    for one in (equations, first):
        defined = {eq.lhs.name for eq in one}
        for eq in one:
            for symbol in lang.names_in(eq.rhs):
                if isinstance(symbol, (lang.Gate, lang.Next)) and symbol.name not in defined:
                    what = "first-step equation" if one is first else "equation"
                    raise placed(
                        SpecError(
                            f"{symbol.name} is used but no {what} defines it",
                            hint=f"add Eq({code(symbol)}, ...)",
                        ),
                        eq,
                    )


def _twice(known: lang.Name, other: lang.Name) -> SpecError:
    if str(known) != str(other):
        message = f"{known.name} is also what generated code calls {max(str(known), str(other), key=len)}"
    elif isinstance(other, lang.Parameter) and known.role == other.role and known != other and other.block:
        message = f"{other.array} is declared twice as {other.role}, and both are used"
    elif known.role != other.role:
        message = f"{known.name} is declared twice, as {known.role} and as {other.role}"
    else:
        message = f"{known.name} is declared twice as {known.role}, and both are used"
    return SpecError(message, hint="declare it once, or give one of them another name")


def check_blocks(symbols: Iterable[lang.Name], parameters: Iterable[lang.Parameter]) -> None:
    """Stacked rows have a name of their own, and each of their blocks is used."""
    roles = {symbol.name: symbol.role for symbol in symbols}
    blocks = [p.block for p in parameters if p.block]
    for block in blocks:
        if block.owner in roles:
            raise SpecError(
                f"{block.owner} is declared twice, as stacked rows and as {roles[block.owner]}",
                hint="give one of them another name",
            )
        for k, _ in enumerate(block.rows):
            if lang.Block(block.owner, k, block.rows) not in blocks:
                raise SpecError(
                    f"{block.owner}[{k}] is not used",
                    hint=f"declare {block.owner} without those rows, or use them",
                )


def check_states(name: str, equations: Sequence[Eq], first: Sequence[Eq]) -> None:
    """There is a state, each has a next value, and an input is read."""
    used = [s for eq in (*equations, *first) for s in (eq.lhs, *lang.names_in(eq.rhs))]
    wanted = {s.name for s in used if isinstance(s, lang.State)}
    wanted |= {s.state.name for s in used if isinstance(s, lang.Next)}
    for one, what in ((equations, "equation"), (first, "first-step equation")):
        given = {eq.lhs.state.name for eq in one if isinstance(eq.lhs, lang.Next)}
        for state in sorted(wanted - given) if one or what == "equation" else ():
            raise SpecError(f"no {what} gives {state}.next", hint=f"add Eq({state}.next, ...)")
    if not wanted:
        raise SpecError(f"{name} has no state", hint='h = states("h") and Eq(h.next, ...)')
    if not any(isinstance(s, lang.Input) for s in used):
        raise SpecError(f"{name} reads no input", hint='x = inputs("x") and a term such as W @ x')


def by_dependence(equations: tuple[Eq, ...]) -> tuple[Eq, ...]:
    """The equations by dependence, otherwise in the order given."""
    by_name = {eq.lhs.name: eq for eq in equations}

    def read_by(eq: Eq) -> Iterator[str]:
        symbols = (s for s in lang.names_in(eq.rhs) if isinstance(s, (lang.Gate, lang.Next)))
        return (symbol.name for symbol in symbols if symbol.name in by_name)

    done: dict[str, Eq] = {}
    for eq in equations:
        path = {} if eq.lhs.name in done else {eq.lhs.name: read_by(eq)}  # each waits for the one behind it
        while path:
            name, unread = next(reversed(path.items()))
            other = next(unread, None)
            if other is None:
                done[name] = by_name[name]
                del path[name]
            elif other in path:
                ring = [by_name[name] for name in path][list(path).index(other) :]
                raise placed(_waiting(ring), by_name[other])
            elif other not in done:
                path[other] = read_by(by_name[other])
    return tuple(done.values())


def _waiting(ring: Sequence[Eq]) -> SpecError:
    """Equations of which each reads the next one, and the last one the first."""
    cycle = " -> ".join(eq.lhs.name for eq in (*ring, ring[0]))
    hint = "one of them must read the old value of a state"
    states = [eq.lhs.state for eq in ring if isinstance(eq.lhs, lang.Next)]
    if states:
        hint = f"{hint}: {states[0]} instead of {states[0]}.next"
    else:  # the one that reads itself is hardly meant to be a gate
        own = next((eq.lhs for eq in ring if eq.lhs in lang.names_in(eq.rhs)), ring[-1].lhs)
        hint = f'{hint}; if {own} is carried, it is one: {own} = states("{own}"), Eq({own}.next, ...)'
    return SpecError(f"the equations wait for each other: {cycle}", hint=hint)


def states_of(equations: Sequence[Eq]) -> tuple[Any, ...]:
    """The states in the order of their declaration."""
    found = {eq.lhs.state for eq in equations if isinstance(eq.lhs, lang.Next)}
    return tuple(sorted(found, key=lambda state: state.fields[-1]))


def check_starts(states: Iterable[lang.State], equations: Iterable[Eq]) -> None:
    """What each state begins with; errors point at its declaration."""
    roles = {s.name: s for eq in equations for s in (eq.lhs, *lang.names_in(eq.rhs))}
    for state in states:
        try:
            _check_start(state, roles)
        except SpecError as error:
            raise error.at(state.where) from None


def _check_start(state: lang.State, roles: dict[str, lang.Name]) -> None:
    """The initial value is an expression of parameters and numbers."""
    what = f"the initial value of {state}"
    _check_expression(state.initial, what)
    for symbol in lang.names_in(state.initial):
        if not isinstance(symbol, (lang.Vector, lang.Scalar, lang.Constant, lang.Count)):
            raise SpecError(
                f"{what} reads the {symbol.role} {symbol.name}",
                hint="it may be an expression of numbers, constants, vectors and scalars",
            )
        if roles.setdefault(symbol.name, symbol) != symbol:
            raise _twice(roles[symbol.name], symbol)


def outputs_of(
    output: Any, states: Sequence[lang.State], equations: Sequence[Eq], first: Sequence[Eq]
) -> tuple[Any, ...]:
    """The symbols that a cell puts out: gates or next values of states."""
    if output is None:
        return (states[0].next,)
    outputs = tuple(output) if isinstance(output, (tuple, list)) else (output,)
    for symbol in outputs:
        if isinstance(symbol, lang.State):
            raise SpecError(f"output {symbol} is the old state", hint=f"output={symbol}.next")
        if not isinstance(symbol, (lang.Gate, lang.Next)):
            raise SpecError(
                f"output {shown(symbol)} is not the name of a gate or of a next state",
                hint='y = gates("y"), one more equation Eq(y, ...) and output=y',
            )
        for one, place in ((equations, ""), (first, " to first")):
            if one and symbol not in {eq.lhs for eq in one}:
                what = "first-step equation" if place else "equation"
                hint = f"add Eq({code(symbol)}, ...){place}"
                raise SpecError(f"output {code(symbol)} has no {what}", hint=hint)
    if not outputs:
        raise SpecError("output is empty", hint="left out, it is the next value of the first state")
    if len(set(outputs)) != len(outputs):
        raise SpecError("output names the same value twice", hint="name each once")
    return outputs


# ---------------------------------------------------------------------------------------------- use


def check_sizes(
    shapes: Mapping[str, Shape], inputs: Iterable[lang.Input], sizes: Mapping[lang.Name, Sequence[str]]
) -> None:
    """Every size is told by the shape of a parameter or of an input: modules are given nothing else."""
    told: set[Size] = set()
    sums: list[tuple[str, set[Size]]] = []  # the sizes of which a shape tells the sum alone
    shares: list[tuple[str, Size]] = []  # what is shared out, and among how many
    for name, shape in shapes.items():
        for part in lang.as_said(shape):
            if isinstance(part, tuple):
                sums.append((name, {size for size in part if isinstance(size, str)}))
            elif lang.shared(part)[0]:
                shares.append(lang.shared(part))
            else:
                told.add(part)
    _tell(told, sums, shares)
    for name, summed in sums:  # parameters are looked at before inputs
        if summed - told:
            both = " and ".join(sorted(map(str, summed)))
            raise SpecError(
                f"the shape of {name} tells the sum of the sizes {both} alone",
                hint="separate parameters instead of stacked ones, or another parameter of that size",
            )
    apart: set[Size] = set()
    for symbol in inputs:
        apart.update(symbol.size if isinstance(symbol.size, tuple) else (symbol.size,))
    for of, who in ((lang.Parameter, "parameter"), (lang.State, "parameter and of no input")):
        told |= apart if of is lang.State else set()  # those of parameters are asked of parameters alone
        _tell(told, sums, shares)
        for symbol, own in sizes.items():
            for size in own:
                if isinstance(symbol, of) and size not in told:
                    other = "" if of is lang.Parameter else "an input of that size, "
                    raise SpecError(
                        f"the shape of no {who} tells the size {size} of {symbol}",
                        hint=f'a vector b = vectors("b", size="{size}"), {other}or a number for the size: '
                        "size=4",
                    )


def _tell(told: set[Size], sums: Sequence[tuple[str, set[Size]]], shares: Sequence[tuple[str, Size]]) -> None:
    """Add what follows from the sizes that are told, some of them products such as `heads*keys`."""
    before = -1
    while len(told) > before:
        before = len(told)
        for _, summed in sums:
            told |= {size for size in summed if {*names_of_size(size)} <= told}
            told |= summed if len(summed - told) == 1 else set()
        told |= {count for whole, count in shares if whole in told}
        for size in [*told]:
            names = {factor for factor in lang.factors(size) if isinstance(factor, str)}
            told |= names if len(names - told) == 1 else set()


def check_counts(sizes: Mapping[lang.Name, Sequence[str]], equations: Iterable[Eq]) -> None:
    """Sizes whose numbers stand in equations are those of something."""
    known = sorted({size for own in sizes.values() for size in own})
    for eq in equations:
        for symbol in lang.names_in(eq.rhs):
            if isinstance(symbol, lang.Count) and symbol.name not in known:
                message = f"nothing has the size {symbol}, so it is no number"
                raise placed(SpecError(message, hint=f"there are: {', '.join(known)}"), eq)


def check_contents(stated: Sequence[tuple[lang.Parameter, Shape]], equations: Iterable[Eq]) -> None:
    """What parameters are said to hold fits their sizes: numbers, and those that other parameters tell."""
    sizes = sizes_told((parameter.contents, shape) for parameter, shape in stated)
    for parameter, shape in stated:
        try:
            check_fit(parameter.contents, str(parameter), shape, sizes)
        except SpecError as error:
            user = next((eq for eq in equations if parameter in lang.names_in(eq.rhs)), None)
            raise placed(error, user) if user else error from None


def check_norms(states: Iterable[lang.State], equations: Sequence[Eq], first: Sequence[Eq]) -> None:
    """Statistics over time exist for values that depend on no state alone, and not in the first step."""
    for one in (equations, first):
        tainted = {state.name for state in states}
        for eq in one:
            for norm in eq.rhs.atoms(lang.batch_norm):
                bad = [s for s in lang.names_in(norm.args[0]) if s.name in tainted]
                if bad:
                    how = f"{bad[0]}" if isinstance(bad[0], lang.State) else f"through {code(bad[0])}"
                    raise placed(
                        SpecError(
                            f"batch_norm of a value that depends on the state {how}",
                            hint="its statistics run over all steps; inside the recurrence use layer_norm",
                        ),
                        eq,
                    )
            if any(s.name in tainted for s in lang.names_in(eq.rhs)):
                tainted.add(eq.lhs.name)
    for eq in first:
        if eq.rhs.has(lang.batch_norm):
            message = "batch_norm cannot stand in a first-step equation: one step has no statistics over time"
            raise placed(SpecError(message, hint="layer_norm"), eq)


def warn_of_unused(outputs: Iterable[lang.Name], equations: Sequence[Eq], first: Sequence[Eq]) -> None:
    """Gates that reach neither a state nor an output are allowed, but hardly meant."""
    for one in (equations, first):
        needed = {symbol.name for symbol in outputs}
        needed |= {eq.lhs.name for eq in one if isinstance(eq.lhs, lang.Next)}
        for eq in reversed(one):
            if eq.lhs.name in needed:
                needed.update(symbol.name for symbol in lang.names_in(eq.rhs))
            else:
                warn(f"{eq.lhs} is defined but nothing uses it", eq.where)


def plain(value: str, what: str) -> str:
    """Free text that generated files may quote: printable, no control or bidirectional characters."""
    if not isinstance(value, str) or not all(c.isprintable() for c in value):
        raise SpecError(f"the {what} must be printable text on one line, not {value!r}")
    return value
