"""`Cell`: a name and a checked set of equations, sorted by dependence, with all sizes in them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from gategen.errors import SpecError, SpecWarning, Where
from gategen.spec import language as lang
from gategen.spec.language import Eq, Shape, Size
from gategen.spec.printer import Printer
from gategen.spec.sizes import Unifier
from gategen.spec.text import Spec, read

# What the tree of an expression may consist of.
_KNOWN = (
    sp.Symbol, sp.Number, sp.NumberSymbol, sp.Add, sp.Mul, sp.Pow, sp.tanh, sp.exp, sp.log, sp.sin, sp.cos,
    sp.Abs, sp.sign, sp.erf, lang.Elementwise, lang.Opaque, Relational,
)  # fmt: skip


@dataclass(frozen=True)
class Array:
    """An array that a user packs: a parameter, or stacked rows, whose first axis is then a tuple of sizes."""

    name: str
    members: tuple[lang.Parameter, ...]
    shape: Shape

    @property
    def trainable(self) -> bool:
        return self.members[0].trainable

    @property
    def stacked(self) -> bool:
        return self.members[0].block is not None


class Cell:
    """A recurrent cell: equations of one step, checked on construction and frozen from then on.

    `output` is a symbol or a tuple of symbols (default: the next value of the first state); `first` is the
    equation set used instead at the first step, only when the caller gives no initial state. Raises
    `SpecError`.
    """

    def __init__(
        self,
        name: str,
        *equations: Any,
        output: Any = None,
        first: Iterable[Any] = (),
        reference: str = "",
        title: str = "",
        where: Where | None = None,
    ) -> None:
        self.where = where or lang.caller()
        try:
            self.name = lang.check_name(name)
            self.reference = _plain(reference, "reference")
            self.title = _plain(title, "title") or self.reference or name
            self.equations = _sorted(_equations(equations, self.where))
            self.first = _sorted(_equations(first, self.where)) if first else ()
            self._check_names()
            self.states = _states(self.equations)
            self._check_starts()
            self._check_blocks()
            self.outputs = self._outputs(output)
            self.gate_sizes, self.first_sizes, self.shapes = self._infer()
            self._check_sizes()
            self._check_norms()
            self._warn_of_unused()
        except SpecError as error:
            raise error.at(self.where) from None
        self._frozen = True

    @classmethod
    def parse(cls, name: str, text: str, *, file: str = "<text>") -> Cell:
        """The cell that `text` in the text form describes (see `gategen.spec.text`); executes nothing.

        `name` takes the place of a name that the text itself gives. Errors name the line as one of `file`.
        """
        return cls.from_text(read(text, file), name)

    @classmethod
    def from_text(cls, spec: Spec, name: str) -> Cell:
        """The cell that a text describes which was read before."""
        with spec.blamed():
            cell = cls(
                name,
                *spec.equations,
                output=spec.output,
                first=spec.first,
                reference=spec.reference,
                title=spec.title,
                where=spec.where,
            )
        for symbol, where in spec.declared:
            if symbol not in cell.symbols:
                warn(f"{symbol} is declared but no equation uses it", where)
        return cell

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_frozen", False):
            raise AttributeError(f"a Cell is frozen: {name} cannot be set")
        super().__setattr__(name, value)

    # ------------------------------------------------------------------------------------------ what it holds

    @property
    def all_equations(self) -> tuple[Eq, ...]:
        return (*self.equations, *self.first)

    @cached_property
    def symbols(self) -> frozenset[lang.Name]:
        """Every declared name that the equations and the initial values mention."""
        found = {symbol for eq in self.all_equations for symbol in (eq.lhs, *lang.names_in(eq.rhs))}
        found |= {s.state for s in found if isinstance(s, lang.Next)}
        return frozenset(found | {symbol for s in self.states for symbol in lang.names_in(s.initial)})

    @cached_property
    def inputs(self) -> tuple[Any, ...]:
        """The inputs in the order of their declaration; the first is the sequence `x`."""
        return tuple(sorted(self._symbols(lang.Input), key=lambda s: s.fields[-1]))

    @cached_property
    def parameters(self) -> tuple[Any, ...]:
        """Matrices, vectors and scalars, in the order in which the equations meet them."""
        return tuple(self._symbols(lang.Parameter))

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The parameters as they are packed: stacked rows are one array."""
        members: dict[str, list[lang.Parameter]] = {}
        for p in self.parameters:
            members.setdefault(p.array, []).append(p)
        made = []
        for name, (first, *_) in members.items():
            own = self.shapes[first.name] if isinstance(first, lang.Matrix) else (self.size_of(first),)
            shape = () if isinstance(first, lang.Scalar) else own
            if first.block:
                shape = first.block.rows, *own[1:]
            blocks = sorted(members[name], key=lambda p: p.block.index if p.block else 0)
            made.append(Array(name, tuple(blocks), shape))
        return tuple(made)

    @cached_property
    def constants(self) -> tuple[Any, ...]:
        return tuple(self._symbols(lang.Constant))

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """The size names, `input` and `hidden` first."""
        symbols = (*self.inputs, *self.states, *self.parameters)
        return tuple(
            dict.fromkeys(("input", "hidden", *(s for symbol in symbols for s in self.sizes_of(symbol))))
        )

    def sizes_of(self, symbol: Any) -> tuple[str, ...]:
        """The size names in the shape of a symbol."""
        parts = self.shapes[symbol.name] if isinstance(symbol, lang.Matrix) else (self.size_of(symbol),)
        flat = (size for part in parts for size in (part if isinstance(part, tuple) else (part,)))
        return tuple(size for size in flat if isinstance(size, str))

    def size_of(self, symbol: Any) -> Size:
        return symbol.size if hasattr(symbol, "size") else 1

    def with_constants(self, **values: float) -> Cell:
        """The same cell with other values for some of its constants."""
        unknown = sorted(set(values) - {c.name for c in self.constants})
        if unknown:
            names = ", ".join(c.name for c in self.constants) or "none"
            raise SpecError(f"{self.name} has no constant {unknown[0]}", hint=f"its constants: {names}")
        swap = {c: lang.constants(**{c.name: values[c.name]}) for c in self.constants if c.name in values}
        for state in self.states:
            initial = state.initial.xreplace(swap)
            if initial != state.initial:
                moved = lang.State(state.name, state.size, initial, state.fields[-1])
                moved.where = state.where
                swap |= {state: moved, state.next: moved.next}
        return Cell(
            self.name,
            *(_replaced(eq, swap) for eq in self.equations),
            output=tuple(symbol.xreplace(swap) for symbol in self.outputs),
            first=tuple(_replaced(eq, swap) for eq in self.first),
            reference=self.reference,
            title=self.title,
            where=self.where,
        )

    def text(self, equations: Sequence[Eq] | None = None) -> tuple[str, ...]:
        """The equations as text, each `name = expression`, constants by name."""
        shown = self.equations if equations is None else equations
        printer = Printer({eq.lhs.name: k for k, eq in enumerate(shown)})
        return tuple(f"{eq.lhs} = {printer(eq.rhs)}" for eq in shown)

    def __repr__(self) -> str:
        return f"<Cell {self.name}: {'; '.join(self.text())}>"

    # ------------------------------------------------------------------------------------------ checks

    def _symbols(self, kind: type) -> list[Any]:
        found: dict[str, Any] = {}
        for eq in self.all_equations:
            for symbol in lang.names_in(eq.rhs):
                if isinstance(symbol, kind):
                    found.setdefault(symbol.name, symbol)
        for state in getattr(self, "states", ()):
            for symbol in lang.names_in(state.initial):
                if isinstance(symbol, kind):
                    found.setdefault(symbol.name, symbol)
        return list(found.values())

    def _check_names(self) -> None:
        roles: dict[str, lang.Name] = {}
        for eq in self.all_equations:
            used = (eq.lhs, *lang.names_in(eq.rhs))
            for symbol in (*used, *(s.state for s in used if isinstance(s, lang.Next))):
                known = roles.setdefault(symbol.name, symbol)
                if known != symbol:
                    raise _placed(_twice(known, symbol), eq)
        for equations in (self.equations, self.first):
            defined = {eq.lhs.name for eq in equations}
            for eq in equations:
                for symbol in lang.names_in(eq.rhs):
                    if isinstance(symbol, (lang.Gate, lang.Next)) and symbol.name not in defined:
                        what = "first-step equation" if equations is self.first else "equation"
                        raise _placed(
                            SpecError(
                                f"{symbol.name} is used but no {what} defines it",
                                hint=f"add Eq({_code(symbol)}, ...)",
                            ),
                            eq,
                        )
        self._check_states()

    def _check_blocks(self) -> None:
        """Stacked rows have a name of their own, and each of their blocks is used."""
        roles = {symbol.name: symbol.role for symbol in self.symbols}
        blocks = [p for p in self.parameters if p.block]
        for p in blocks:
            if p.array in roles:
                raise SpecError(
                    f"{p.array} is declared twice, as stacked rows and as {roles[p.array]}",
                    hint="give one of them another name",
                )
            for k, _ in enumerate(p.block.rows):
                if not any(other.block == lang.Block(p.array, k, p.block.rows) for other in blocks):
                    raise SpecError(
                        f"{p.array}[{k}] is not used",
                        hint=f"declare {p.array} without those rows, or use them",
                    )

    def _check_states(self) -> None:
        states = {s.name: s for eq in self.all_equations for s in (eq.lhs, *lang.names_in(eq.rhs))}
        wanted = {s.name for s in states.values() if isinstance(s, lang.State)}
        wanted |= {s.state.name for s in states.values() if isinstance(s, lang.Next)}
        for equations, what in ((self.equations, "equation"), (self.first, "first-step equation")):
            given = {eq.lhs.state.name for eq in equations if isinstance(eq.lhs, lang.Next)}
            for name in sorted(wanted - given) if equations or what == "equation" else ():
                raise SpecError(f"no {what} gives {name}.next", hint=f"add Eq({name}.next, ...)")
        if not wanted:
            raise SpecError(f"{self.name} has no state", hint='h = states("h") and Eq(h.next, ...)')
        if not self._symbols(lang.Input):
            raise SpecError(f"{self.name} reads no input", hint='x = inputs("x") and a term such as W @ x')

    def _check_starts(self) -> None:
        roles = {s.name: s for eq in self.all_equations for s in (eq.lhs, *lang.names_in(eq.rhs))}
        for state in self.states:
            try:
                _check_start(state, roles)
            except SpecError as error:
                raise error.at(state.where) from None

    def _outputs(self, output: Any) -> tuple[Any, ...]:
        if output is None:
            return (self.states[0].next,)
        outputs = tuple(output) if isinstance(output, (tuple, list)) else (output,)
        for symbol in outputs:
            if isinstance(symbol, lang.State):
                raise SpecError(f"output {symbol} is the old state", hint=f"output={symbol}.next")
            if not isinstance(symbol, (lang.Gate, lang.Next)):
                raise SpecError(
                    f"output {_shown(symbol)} is not the name of a gate or of a next state",
                    hint='y = gates("y"), one more equation Eq(y, ...) and output=y',
                )
            for equations, place in ((self.equations, ""), (self.first, " to first")):
                if equations and symbol not in {eq.lhs for eq in equations}:
                    what = "first-step equation" if place else "equation"
                    hint = f"add Eq({_code(symbol)}, ...){place}"
                    raise SpecError(f"output {_code(symbol)} has no {what}", hint=hint)
        if not outputs:
            raise SpecError("output is empty", hint="left out, it is the next value of the first state")
        if len(set(outputs)) != len(outputs):
            raise SpecError("output names the same value twice", hint="name each once")
        return outputs

    def _infer(self) -> tuple[Mapping[str, Size], Mapping[str, Size], Mapping[str, Shape]]:
        unifier = Unifier()
        gates: list[dict[str, Any]] = []
        for equations in (self.equations, self.first):
            unifier.gates = {}
            for eq in equations:
                try:
                    self._unify(unifier, eq)
                except SpecError as error:
                    raise _placed(error, eq) from None
            gates.append(unifier.gates)
        for state in self.states:
            own = unifier.size(state.initial)
            if unifier.find(own) != 1:
                try:
                    unifier.equate(state.size, own, f"{state} has size {{a}}, its initial value {{b}}")
                except SpecError as error:
                    raise error.at(state.where) from None
        try:
            sizes = [{name: unifier.solved(size) for name, size in part.items()} for part in gates]
            shapes = {name: unifier.solved_shape(name) for name in unifier.matrices}
        except SpecError as error:
            culprit = next((eq for eq in self.all_equations if _mentions(eq, error.message)), None)
            raise (_placed(error, culprit) if culprit else error) from None
        for symbol in self.outputs:
            one, other = (part.get(symbol.name) for part in sizes)
            if self.first and one != other:
                message = f"sizes contradict: output {symbol} has size {one}, and {other} in the first step"
                raise SpecError(message, hint="give it one size in both sets of equations")
        return sizes[0], sizes[1], shapes

    @staticmethod
    def _unify(unifier: Unifier, eq: Eq) -> None:
        size = unifier.size(eq.rhs)
        if isinstance(eq.lhs, lang.Next):
            if unifier.find(size) != 1:
                unifier.equate(
                    eq.lhs.state.size, size, f"{eq.lhs.state} has size {{a}}, its next value {{b}}"
                )
            return
        unifier.gates[eq.lhs.name] = size

    def _check_sizes(self) -> None:
        """Every size is told by the shape of a parameter or of an input: modules are given nothing else."""
        told: set[Size] = set()
        sums: list[tuple[str, set[Size]]] = []  # the sizes of which a shape tells the sum alone
        for array in self.arrays:
            for part in array.shape:
                if isinstance(part, tuple):
                    sums.append((array.name, {size for size in part if isinstance(size, str)}))
                else:
                    told.add(part)
        for _ in sums:
            told.update(*(sizes for _, sizes in sums if len(sizes - told) == 1))
        for name, sizes in sums:  # parameters are looked at before inputs
            if sizes - told:
                both = " and ".join(sorted(map(str, sizes)))
                raise SpecError(
                    f"the shape of {name} tells the sum of the sizes {both} alone",
                    hint="separate parameters instead of stacked ones, or another parameter of that size",
                )
        told |= {symbol.size for symbol in self.inputs}
        for symbol in (*self.states, *self.parameters):
            for size in self.sizes_of(symbol):
                if size not in told:
                    raise SpecError(
                        f"the shape of no parameter and of no input tells the size {size} of {symbol}",
                        hint=f'a vector b = vectors("b", size="{size}"), an input of that size, or a number '
                        f"for the size: size=4",
                    )

    def _warn_of_unused(self) -> None:
        """Gates that reach neither a state nor an output are allowed, but hardly meant."""
        for equations in (self.equations, self.first):
            needed = {symbol.name for symbol in self.outputs}
            needed |= {eq.lhs.name for eq in equations if isinstance(eq.lhs, lang.Next)}
            for eq in reversed(equations):
                if eq.lhs.name in needed:
                    needed.update(symbol.name for symbol in lang.names_in(eq.rhs))
                else:
                    warn(f"{eq.lhs} is defined but nothing uses it", eq.where)

    def _check_norms(self) -> None:
        for equations in (self.equations, self.first):
            tainted = {state.name for state in self.states}
            for eq in equations:
                for norm in eq.rhs.atoms(lang.batch_norm):
                    bad = [s for s in lang.names_in(norm.args[0]) if s.name in tainted]
                    if bad:
                        how = f"{bad[0]}" if isinstance(bad[0], lang.State) else f"through {_code(bad[0])}"
                        raise _placed(
                            SpecError(
                                f"batch_norm of a value that depends on the state {how}",
                                hint="its statistics run over all steps; "
                                "inside the recurrence use layer_norm",
                            ),
                            eq,
                        )
                if any(s.name in tainted for s in lang.names_in(eq.rhs)):
                    tainted.add(eq.lhs.name)
        for eq in self.first:
            if eq.rhs.has(lang.batch_norm):
                message = (
                    "batch_norm cannot stand in a first-step equation: one step has no statistics over time"
                )
                raise _placed(SpecError(message, hint="layer_norm"), eq)


# ---------------------------------------------------------------------------------------------- helpers


def warn(message: str, where: Where | None) -> None:
    """A warning that stands where the spec's author can see it."""
    place = where or Where("<spec>", 0)
    warnings.warn_explicit(message, SpecWarning, place.file, place.line)


_BUILD_FROM = (
    "build it from + - * / **, sigmoid tanh relu softplus exp log log1p sqrt abs sign sin cos maximum "
    "minimum where mod"
)


def _equations(equations: Iterable[Any], where: Where | None) -> tuple[Eq, ...]:
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
            given = _placed_eq(given.lhs, given.rhs, where)
        if not isinstance(given, Eq):
            raise SpecError(
                f"{_shown(given)} is not an equation", where=where, hint="write Eq(z, sigmoid(...))"
            )
        try:
            _check_left(given)
            made.append(_placed_eq(given.lhs, lang.normalise(given.rhs), given.where))
            _check_right(made[-1])
        except SpecError as error:
            error.where = given.where
            raise _placed(error, given) from None
    if not made:
        raise SpecError("a cell needs at least one equation", where=where, hint="Cell(name, Eq(h.next, ...))")
    seen: dict[str, Eq] = {}
    for eq in made:
        if eq.lhs.name in seen:
            message = f"{eq.lhs} is defined twice, first at {seen[eq.lhs.name].where}"
            raise _placed(SpecError(message, hint="each gate and each s.next has exactly one equation"), eq)
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
    message = f"the left side of an equation is one gate or one s.next, not {_shown(eq.lhs)}"
    raise SpecError(message, hint="Eq(z, ...) for a gate z, Eq(h.next, ...) for a state h")


def _check_right(eq: Eq) -> None:
    _check_expression(eq.rhs, f"the right side of {eq.lhs}")


def _check_start(state: lang.State, roles: Mapping[str, lang.Name]) -> None:
    """The initial value is an expression of parameters and numbers."""
    what = f"the initial value of {state}"
    _check_expression(state.initial, what)
    for symbol in lang.names_in(state.initial):
        if not isinstance(symbol, (lang.Vector, lang.Scalar, lang.Constant)):
            raise SpecError(
                f"{what} reads the {symbol.role} {symbol.name}",
                hint="it may be an expression of numbers, constants, vectors and scalars",
            )
        if roles.get(symbol.name, symbol) != symbol:
            raise _twice(roles[symbol.name], symbol)


_LARGEST = sp.Float(sys.float_info.max)


def _check_expression(expr: Any, what: str) -> None:
    """Only known functions of finite real numbers; matrices only left of `@`, `concat` only right of it."""
    for node in sp.preorder_traversal(expr):
        if isinstance(node, sp.Symbol) and not isinstance(node, lang.Name):
            raise SpecError(
                f"{node} is not declared",
                hint="use inputs, states, gates, matrices, vectors, scalars or constants",
            )
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
                f"{len(node)} values stand where one belongs: {', '.join(map(_shown, node))}",
                hint="unpack them first: v0, v1 = A @ x",
            )
        if not isinstance(node, _KNOWN):
            raise SpecError(f"{type(node).__name__} is not a function gategen knows", hint=_BUILD_FROM)
        if isinstance(node, (lang.sum_, lang.mean, lang.var)) and not node.args:
            raise SpecError(f"{type(node).__name__}() reduces nothing", hint=f"{type(node).__name__}(v)")
        if isinstance(node, sp.Pow) and not all(isinstance(s, lang.Constant) for s in node.exp.free_symbols):
            raise SpecError(
                f"{_shown(node)}: the exponent must be a number", hint="y**p for y > 0 is exp(p * log(y))"
            )
        for arg in node.args:
            if isinstance(arg, lang.Matrix) and not (isinstance(node, lang.matvec) and arg is node.args[0]):
                raise SpecError(f"{arg} is a matrix and stands without @", hint=f"{arg} @ x")
            if isinstance(arg, lang.concat) and not isinstance(node, lang.matvec):
                raise SpecError("concat(...) can only stand on the right of @", hint="A @ concat(h, x)")
    if isinstance(expr, lang.Matrix):
        raise SpecError(f"{expr} is a matrix and stands without @", hint=f"{expr} @ x")
    if isinstance(expr, lang.concat):
        raise SpecError("concat(...) can only stand on the right of @", hint="A @ concat(h, x)")


def _sorted(equations: tuple[Eq, ...]) -> tuple[Eq, ...]:
    """The equations by dependence, otherwise in the order given."""
    by_name = {eq.lhs.name: eq for eq in equations}
    done: dict[str, Eq] = {}

    def visit(eq: Eq, path: tuple[str, ...]) -> None:
        if eq.lhs.name in path:
            cycle = " -> ".join((*path[path.index(eq.lhs.name) :], eq.lhs.name))
            raise _placed(
                SpecError(
                    f"the equations wait for each other: {cycle}",
                    hint="one of them must read the old value of a state: h instead of h.next",
                ),
                eq,
            )
        if eq.lhs.name in done:
            return
        for symbol in lang.names_in(eq.rhs):
            if symbol.name in by_name and isinstance(symbol, (lang.Gate, lang.Next)):
                visit(by_name[symbol.name], (*path, eq.lhs.name))
        done[eq.lhs.name] = eq

    for eq in equations:
        visit(eq, ())
    return tuple(done.values())


def _states(equations: Sequence[Eq]) -> tuple[Any, ...]:
    found = {eq.lhs.state for eq in equations if isinstance(eq.lhs, lang.Next)}
    return tuple(sorted(found, key=lambda state: state.fields[-1]))


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


def _placed(error: SpecError, eq: Eq) -> SpecError:
    return error.at(eq.where, f"{_shown(eq.lhs)} = {_shown(eq.rhs)}")


def _placed_eq(lhs: Any, rhs: Any, where: Where | None) -> Eq:
    eq = Eq(lhs, rhs)
    eq.where = where
    return eq


def _replaced(eq: Eq, swap: Mapping[Any, Any]) -> Eq:
    return _placed_eq(eq.lhs.xreplace(swap), eq.rhs.xreplace(swap), eq.where)


def _shown(expr: Any) -> str:
    if not isinstance(expr, sp.Basic):
        return repr(expr)
    try:
        return Printer()(expr)
    except (SpecError, TypeError):
        return str(expr)
    except ValueError:  # an integer of more digits than Python prints
        return "..."


def _code(symbol: Any) -> str:
    return f"{symbol.state}.next" if isinstance(symbol, lang.Next) else str(symbol)


def _mentions(eq: Eq, message: str) -> bool:
    return any(isinstance(s, lang.Matrix) and f"of {s.name} " in message for s in lang.names_in(eq.rhs))


def _plain(value: str, what: str) -> str:
    """Free text that generated files may quote: printable, no control or bidirectional characters."""
    if not isinstance(value, str) or not all(c.isprintable() for c in value):
        raise SpecError(f"the {what} must be printable text on one line, not {value!r}")
    return value
