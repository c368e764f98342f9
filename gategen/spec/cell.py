"""`Cell`: a name and a checked set of equations, sorted by dependence, with all sizes in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gategen.callables import method_of
from gategen.errors import SpecError, Where
from gategen.spec import language as lang
from gategen.spec.checks import (
    by_dependence,
    check_blocks,
    check_contents,
    check_counts,
    check_names,
    check_norms,
    check_sizes,
    check_starts,
    check_states,
    equations_of,
    outputs_of,
    plain,
    states_of,
    warn_of_unused,
)
from gategen.spec.contents import entries, fitting, lengths
from gategen.spec.delays import with_delays
from gategen.spec.equations import Eq
from gategen.spec.heads import check_count, in_shares, moved, swap_for_heads
from gategen.spec.names import Shape, Size, names_of_size, shared
from gategen.spec.printer import Printer
from gategen.spec.quoting import placed_eq, warn
from gategen.spec.sizes import infer
from gategen.spec.text.reader import Spec, read
from gategen.spec.weights import Computed, computed_of, inner

BUILTINS = Path(__file__).parents[1] / "cells"


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

    @property
    def contents(self) -> tuple[lang.Contents, ...]:
        """What `init` puts into each of the members; empty where it draws numbers, or asks for them."""
        return tuple(p.contents for p in self.members if p.contents)

    def lengths(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in numbers."""
        return lengths(self.shape, sizes)

    def entries(self, sizes: Mapping[str, int]) -> Any:
        """What the spec says that `init` puts there, in float64; None where it says nothing."""
        rows = self.shape[0] if self.stacked else self.shape[:1]
        parts = [
            entries(contents, (size, *self.shape[1:]) if self.shape else (), sizes)
            for contents, size in zip(self.contents, rows or (1,), strict=False)  # type: ignore[arg-type]
        ]
        return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else None

    @property
    def initial(self) -> str:
        """The same as a spec says it; of stacked rows it is said once, or for each block."""
        said = [str(contents) for contents in self.contents]
        if len(set(said)) < 2 and not any(contents.word == "rows" for contents in self.contents):
            return said[0] if said else ""
        return f"({', '.join(said)}{',' * (len(said) == 1)})" if self.stacked else said[0]


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
            self.reference = plain(reference, "reference")
            self.title = plain(title, "title") or self.reference or name
            both = (equations_of(equations, self.where), equations_of(first, self.where) if first else ())
            self.equations, self.first = map(by_dependence, with_delays(*both))
            step = self.equations, self.first
            check_names(*step)
            # of a size in shares what it is made of: `heads*hidden/heads` of `hidden`
            self.whole, swap = in_shares(self.all_equations)
            step = tuple(_replaced(e, swap) for e in step[0]), tuple(_replaced(e, swap) for e in step[1])
            self.equations, self.first = step
            check_states(name, *step)
            self.states = states_of(self.equations)
            check_starts(self.states, self.all_equations)
            check_blocks(self.symbols, self.parameters)
            self.outputs = outputs_of(_swapped(output, swap), self.states, *step)
            sized = infer(*step, self.states, self.outputs, self.whole)
            self.gate_sizes, self.first_sizes, self.shapes = sized
            sizes = {symbol: self.sizes_of(symbol) for symbol in (*self.states, *self.parameters)}
            check_sizes({array.name: array.shape for array in self.arrays}, self.inputs, sizes)
            check_counts(sizes | {x: self.sizes_of(x) for x in self.inputs}, self.all_equations)
            stated = [(p, self.shape_of(p)) for p in self.parameters if p.contents]
            check_contents(stated, self.all_equations)
            check_norms(self.states, *step)
            warn_of_unused(self.outputs, *step)
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
        for message, where in spec.doubts:
            warn(message, where)
        used = {(symbol.role, symbol.name) for symbol in cell.symbols}  # whatever its size now
        for symbol, where in spec.declared:
            if (symbol.role, symbol.name) not in used:
                warn(f"{symbol} is declared but no equation uses it", where)
        return cell

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_frozen", False):
            raise AttributeError(f"a Cell is frozen: {name} cannot be set")
        super().__setattr__(name, value)

    # ------------------------------------------------------------------------------------------ what it holds

    @property
    def builtin(self) -> bool:
        """Whether it comes with gategen, if with other values for its constants."""
        return self.where is not None and Path(self.where.file).parent == BUILTINS

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
            shape = self.shape_of(first)
            if first.block:
                shape = first.block.rows, *shape[1:]
            blocks = sorted(members[name], key=lambda p: p.block.index if p.block else 0)
            made.append(Array(name, tuple(blocks), shape))
        return tuple(made)

    @cached_property
    def computed_nodes(self) -> Mapping[Any, Computed]:
        """The matrices that are computed of parameters, by what stands in the equations."""
        return computed_of(self.all_equations, self.shapes, (s.name for s in self.symbols))

    @property
    def computed(self) -> tuple[Computed, ...]:
        """The same in the order in which the equations meet them."""
        return tuple(self.computed_nodes.values())

    @cached_property
    def inner(self) -> Cell:
        """The same cell with parameters in their place, as all that plans steps sees it."""
        return inner(self)  # type: ignore[no-any-return]

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

    @property
    def has_input_size(self) -> bool:
        """Whether anything has the size `input`: not where the sequence is as wide as the state."""
        return any("input" in self.sizes_of(s) for s in (*self.inputs, *self.states, *self.parameters))

    def sizes_of(self, symbol: Any) -> tuple[str, ...]:
        """The size names in the shape of a symbol."""
        parts: Any = self.shapes[symbol.name] if isinstance(symbol, lang.Matrix) else (self.size_of(symbol),)
        flat = (size for part in parts for size in (part if isinstance(part, tuple) else (part,)))
        return tuple(name for size in flat for name in names_of_size(size))

    def shape_of(self, parameter: Any) -> Shape:
        """The sizes of a parameter, none for a scalar."""
        if isinstance(parameter, lang.Matrix):
            return self.shapes[parameter.name]
        return (parameter.size,) if isinstance(parameter, lang.Vector) else ()

    def fitting(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Sizes that fit what the parameters hold, near those given."""
        return fitting(
            sizes, ((p.contents, self.shape_of(p)) for p in self.parameters if p.contents), self.shares
        )

    @cached_property
    def shares(self) -> tuple[tuple[str, Size], ...]:
        """What is shared out, and among how many: `("hidden", "heads")`."""
        every = (size for p in self.parameters for size in self.shape_of(p))
        sizes = (part for size in every for part in (size if isinstance(size, tuple) else (size,)))
        parts = (part for size in sizes for part in lang.factors(size) if shared(part)[0])
        return tuple(dict.fromkeys(map(shared, parts)))

    def size_of(self, symbol: Any) -> Any:
        """The size of a value, both of a matrix of every row; 1 of a number."""
        return symbol.size if hasattr(symbol, "size") else 1

    @cached_property
    def orders(self) -> tuple[lang.Extent, ...]:
        """The sizes of what has several axes, in the order in which they stand: matrices, then vectors."""
        sizes = [s.size for s in (*self.inputs, *self.states)]
        sizes += [*self.gate_sizes.values(), *self.first_sizes.values()]
        sizes += [p.size for p in self.parameters if isinstance(p, lang.Vector)]
        wide = [s for s in sizes if isinstance(s, tuple) or len(lang.factors(s)) > 1]
        return tuple(dict.fromkeys(sorted(wide, key=lambda size: not isinstance(size, tuple))))

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
                swap |= moved(state, state.size, initial)
        return self._copy(self.name, swap, self.where)

    def with_heads(self, count: int) -> Cell:
        """The same cell with so many heads, 2 or more.

        Of a cell with a size `heads` that number is then the size, and `init` asks for it no more. Of others
        every weight of the shape `(hidden, hidden)` becomes one in blocks, `(hidden, hidden/count)`. Raises
        `SpecError` where the cell has neither, or where such a weight cannot be in blocks: stacked columns,
        `inv(identity + A)`.
        """
        check_count(count)
        try:
            return self._copy(self.name, swap_for_heads(self, count), self.where)
        except SpecError as error:
            error.message = f"with heads={count}: {error.message}"
            raise error.at(self.where) from None

    def renamed(self, name: str) -> Cell:
        """The same cell under another name, and no longer a built-in one."""
        where = self.where
        if where is not None and self.builtin:
            where = Where(f"gategen/cells/{Path(where.file).name}", where.line)
        return self._copy(name, {}, where)

    def _copy(self, name: str, swap: Mapping[Any, Any], where: Where | None) -> Cell:
        return Cell(
            name,
            *(_replaced(eq, swap) for eq in self.equations),
            output=tuple(symbol.xreplace(swap) for symbol in self.outputs),
            first=tuple(_replaced(eq, swap) for eq in self.first),
            reference=self.reference,
            title=self.title,
            where=where,
        )

    def text(self, equations: Sequence[Eq] | None = None) -> tuple[str, ...]:
        """The equations as text, each `name = expression`, constants by name."""
        shown = self.equations if equations is None else equations
        printer = Printer({eq.lhs.name: k for k, eq in enumerate(shown)})
        return tuple(f"{eq.lhs} = {printer(eq.rhs)}" for eq in shown)

    def __repr__(self) -> str:
        return f"<Cell {self.name}: {'; '.join(self.text())}>"

    adjoint = method_of(
        "show.notebook",
        "Adjoint",
        "The derivative: the steps back as graphs, which `print` and notebooks show.",
    )
    _repr_latex_ = method_of("show.notebook", "cell_latex")
    _repr_html_ = method_of("show.notebook", "cell_html")

    def _symbols(self, kind: type) -> list[Any]:
        found: dict[str, Any] = {}
        for eq in self.all_equations:
            for symbol in lang.names_in(eq.rhs):
                if isinstance(symbol, kind):
                    found.setdefault(symbol.name, symbol)
        for state in self.states:
            for symbol in lang.names_in(state.initial):
                if isinstance(symbol, kind):
                    found.setdefault(symbol.name, symbol)
        return list(found.values())


def _swapped(output: Any, swap: Mapping[Any, Any]) -> Any:
    """The outputs that a cell was given, of the states that took the place of others."""
    if isinstance(output, (tuple, list)):
        return tuple(_swapped(symbol, swap) for symbol in output)
    return swap.get(output, output) if isinstance(output, lang.Name) else output


def _replaced(eq: Eq, swap: Mapping[Any, Any]) -> Eq:
    return placed_eq(eq.lhs.xreplace(swap), eq.rhs.xreplace(swap), eq.where)
