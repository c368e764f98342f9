"""A problem for a generated module: which optional arguments it gets, and random numbers for everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from itertools import chain, count, product
from types import ModuleType
from typing import Any, cast

import numpy as np

from gategen.judge.host import Array, ModuleError, blamed
from gategen.spec import language as lang
from gategen.spec.cell import Cell
from gategen.spec.names import Extent, Size

T, B = 5, 4
SIZES = {"input": 3, "hidden": 7}  # and all further ones different from these, from T and from B
FURTHER = (2, 8, 9, 10, 11, 12, 13)
LENGTHS = (1, T, 0, 1)

WIDE = SIZES | {"hidden": 70}  # more units of all rows than a block has threads

Key = tuple[str, str]  # ("params", "W_z"), ("inputs", "x"), ("initial", "h")


@dataclass(frozen=True)
class Setting:
    """Which of the optional arguments of `forward` are given."""

    initial: bool
    lengths: tuple[int, ...] | None
    training: bool | None  # None: the cell has no batch normalisation

    def __str__(self) -> str:
        words = [
            "" if self.initial else "initial=None",
            "" if self.lengths is None else f"lengths={self.lengths}",
            "" if self.training is None else f"training={self.training}",
        ]
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Problem:
    """A point at which to differentiate, and the gradients of a loss with respect to what comes out."""

    setting: Setting
    point: Mapping[Key, Array]
    d_y: tuple[Array, ...]
    d_final: Mapping[str, Array]
    buffers: Mapping[str, Array]

    def at(self, point: Mapping[Key, Array]) -> Problem:
        """The same problem at another point."""
        return replace(self, point=point)


def settings(cell: Cell) -> Iterator[Setting]:
    """With lengths and without; from no initial state where that differs; both modes of batch norm."""
    own_start = bool(cell.first) or any(not state.initial.is_number for state in cell.states)
    modes = (True, False) if uses(cell, lang.batch_norm) else (None,)
    for initial, lengths, training in product(
        (True, False) if own_start else (True,), (None, LENGTHS), modes
    ):
        yield Setting(initial, lengths, training)


def uses(cell: Cell, *functions: Any) -> bool:
    """Whether an equation has one of these."""
    return any(eq.rhs.has(*functions) for eq in cell.all_equations)


def draw(
    cell: Cell,
    module: ModuleType,
    setting: Setting,
    rng: np.random.Generator,
    positive: bool,
    sizes: Mapping[str, int] = SIZES,
    plain: bool = False,
) -> Problem:
    """Random numbers for everything but what a fixed parameter is said to hold.

    Initial states are in (0.2, 0.8) where `positive`. Where `plain`, other fixed parameters are of zeros and
    ones, and trained ones hold what they are said to begin with.
    """
    further = [size for size in cell.sizes if size not in sizes]
    sizes = cell.fitting({**sizes, **dict(zip(further, chain(FURTHER, count(14)), strict=False))})

    def length(size: Size) -> int:
        return lang.extent_of(size, sizes)

    def features(size: Extent) -> tuple[int, ...]:
        return tuple(map(length, size if isinstance(size, tuple) else (size,)))

    def state(size: Extent) -> Array:
        drawn = rng.standard_normal((B, *features(size)))
        return 0.2 + 0.6 / (1 + np.exp(-drawn)) if positive else drawn

    point: dict[Key, Array] = {}
    made = _initial(cell, module, sizes)
    for a in sorted(cell.arrays, key=lambda a: module.PARAMETERS.index(a.name)):
        drawn = np.array(0.5 * rng.standard_normal(made[a.name].shape))
        if a.contents and (plain or not a.trainable):
            drawn = made[a.name].copy()
        elif plain and not a.trainable:
            drawn = np.array((drawn > 0) + 0.0)
        point["params", a.name] = drawn
    for k, x in enumerate(cell.inputs):
        steps = (T,) if k == 0 or setting.lengths else ()  # further inputs may be constant in time
        point["inputs", x.name] = rng.standard_normal((*steps, B, *features(x.size)))
    if setting.initial:
        point |= {("initial", s.name): state(s.size) for s in cell.states}
    outputs = (features(_output_size(cell, symbol)) for symbol in cell.outputs)
    d_y = tuple(rng.standard_normal((T, B, *size)) for size in outputs)
    d_final = {s.name: rng.standard_normal((B, *features(s.size))) for s in cell.states}
    for array in (*point.values(), *d_y, *d_final.values()):
        array.flags.writeable = False  # a module that writes into what it is given raises
    return Problem(
        setting,
        point,
        d_y,
        d_final,
        _buffers(cell, module, sizes, rng) if setting.training is not None else {},
    )


def _initial(cell: Cell, module: ModuleType, sizes: Mapping[str, int]) -> Mapping[str, Array]:
    """What `init` makes of all parameters, by name."""
    with blamed():
        params = module.init(**init_arguments(cell, module, sizes), seed=0, dtype="float64")
        made: Mapping[str, Array] = module.unpack(params)
    for a in cell.arrays:
        if a.contents and not np.array_equal(made[a.name], a.entries(sizes)):
            raise ModuleError(f"init puts other numbers into {a.name} than {a.initial}")
    return made


def init_arguments(cell: Cell, module: ModuleType, sizes: Mapping[str, int]) -> dict[str, Any]:
    """All sizes, and ones for what fixed parameters hold, under the names that `init` has for them."""
    own = [name for name in signature(module.init).parameters if name not in ("seed", "dtype", "hidden_size")]
    further = [size for name, size in sizes.items() if name != "hidden"]
    asked = [np.ones(a.lengths(sizes)) for a in cell.arrays if not a.trainable and not a.contents]
    given = dict(zip(own, [*further, *asked], strict=True))
    return {"hidden_size": sizes.get("hidden", SIZES["hidden"]), **given}


def buffer_arguments(cell: Cell, module: ModuleType, sizes: Mapping[str, int]) -> dict[str, int]:
    """Those of them that `init_buffers` takes: the sizes of what is normalised."""
    wanted = signature(module.init_buffers).parameters
    return {name: size for name, size in init_arguments(cell, module, sizes).items() if name in wanted}


def _buffers(
    cell: Cell, module: ModuleType, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, Array]:
    """Running statistics somewhere between those of the start and twice as much."""
    with blamed():
        start = module.init_buffers(**buffer_arguments(cell, module, sizes), dtype="float64")
    return {
        name: np.asarray(array) + rng.uniform(0.1, 0.9, array.shape)
        for name, array in start._asdict().items()
    }


def _output_size(cell: Cell, symbol: Any) -> Extent:
    found = cell.size_of(symbol.state) if isinstance(symbol, lang.Next) else cell.gate_sizes[symbol.name]
    return cast(Extent, found)
