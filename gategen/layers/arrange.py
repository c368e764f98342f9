"""How arrays lie: axes for the user and inside, sides and order of the directions, masks, states, lengths.

Nothing here knows of layers or of parameters. `xp` is the module's NumPy: NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # of the module: numpy.ndarray or cupy.ndarray


@dataclass(frozen=True)
class Layout:
    """How the axes lie for the user; inside it is (T, B, size), or (B, size) for what is constant in time.

    Of what is a matrix in every row `size` is both of its sizes.
    """

    steps: int
    batch: int
    batched: bool  # whether there is an axis for B
    batch_first: bool

    @classmethod
    def of(cls, x: Array, batch_first: bool, rank: int = 1) -> Layout:
        """That of x, a row of which has so many axes."""
        if x.ndim == 1 + rank:
            return cls(x.shape[0], 1, False, batch_first)
        batch, steps = x.shape[:2] if batch_first else x.shape[1::-1]
        return cls(steps, batch, True, batch_first)

    def shape(self, *size: int) -> tuple[int, ...]:
        """Of a sequence."""
        if not self.batched:
            return self.steps, *size
        return (self.batch, self.steps, *size) if self.batch_first else (self.steps, self.batch, *size)

    def constant(self, *size: int) -> tuple[int, ...]:
        """Of what is constant in time."""
        return (self.batch, *size) if self.batched else size

    def inward(self, array: Array, rank: int = 1) -> Array:
        """As it lies inside; a row of it has so many axes."""
        if not self.batched:
            return array[None] if array.ndim == rank else array[:, None]
        return array.swapaxes(0, 1) if self.batch_first and array.ndim > 1 + rank else array

    def outward(self, array: Array, rank: int = 1) -> Array:
        if not self.batched:
            return array[0] if array.ndim == 1 + rank else array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first and array.ndim > 1 + rank else array


# ---------------------------------------------------------------------------------------------- directions


def reversal(lengths: np.ndarray[Any, Any], steps: int) -> np.ndarray[Any, Any]:
    """(T, B): the step that stands at each place when every sequence is read from its own end.

    What lies behind the end stays where it is, so that to turn twice is to do nothing.
    """
    at = np.arange(steps)[:, None]
    return np.where(at < lengths, lengths - 1 - at, at)


def turned(array: Array, direction: int, order: Any, rank: int = 1) -> Array:
    """(T, B, size) in the order in which a direction reads it; what is constant in time as it is.

    rank: how many axes a row of it has.
    """
    if not direction or array.ndim < 2 + rank:
        return array
    return array[::-1] if order is None else array[order]


def side_by_side(xp: Any, parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else xp.concatenate(list(parts), axis=-1)


def side(array: Array, direction: int, directions: int) -> Array:
    """The part of an output that one direction made."""
    width = array.shape[-1] // directions
    return array[..., direction * width : (direction + 1) * width]


def added(total: Array, part: Array) -> Array:
    return part if total is None else total + part


def mask(xp: Any, rng: np.random.Generator, dropout: float, like: Array) -> Array:
    """Dropout: 0, or what keeps the mean; drawn on the host, so that both backends draw the same."""
    kept = rng.random(like.shape, np.float32) >= dropout
    scale = 1 / (1 - dropout) if dropout < 1 else 0
    return xp.asarray((kept * scale).astype(like.dtype))


# ---------------------------------------------------------------------------------------------- what is given


def as_array(xp: Any, name: str, value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: fill it, or pass lengths")
    if xp is np:
        return np.asarray(value)
    if not isinstance(value, xp.ndarray):
        raise TypeError(f"{name} is {kind(value)}, expected a cupy.ndarray")
    return value


def as_states(States: Any, label: str, given: Any) -> Any:
    """`States`, a mapping, a sequence, or for one state an array, as the module's `States`."""
    names = list(States._fields)
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(f"{label} has the states {sorted(given)}, expected {names}")
        return States(**given)
    if isinstance(given, (tuple, list)):
        if len(given) != len(names):
            raise ValueError(f"{label} has {len(given)} states, expected {len(names)}: {names}")
        return States(*given)
    if len(names) > 1:
        raise TypeError(f"{label} is {kind(given)}, expected the states {names}")
    return States(given)


def host(array: Any) -> Any:
    """An array of the device as one of NumPy; anything else as it is."""
    return array.get() if hasattr(array, "get") else array


def kind(value: object) -> str:
    return type(value).__name__


def expect(name: str, array: Array, *shapes: tuple[int, ...]) -> None:
    if array.shape not in shapes:
        raise ValueError(f"{name} has shape {array.shape}, expected {' or '.join(map(str, shapes))}")


def checked_lengths(lengths: Any, layout: Layout) -> np.ndarray[Any, Any]:
    if not layout.batched:
        raise ValueError("lengths are for batches, but x is one sequence")
    array = np.asarray(host(lengths))
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths has dtype {array.dtype}, expected integers")
    expect("lengths", array, (layout.batch,))
    if layout.batch and (array.min() < 0 or array.max() > layout.steps):
        raise ValueError(
            f"lengths are from {array.min()} to {array.max()}, expected from 0 to {layout.steps}"
        )
    return array.astype(np.int64)
