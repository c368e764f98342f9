"""How kernels are run: in which order, how many blocks at once, and whether races are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["forward", "reverse", "shuffle"]
ORDERS = ("forward", "reverse", "shuffle")  # as enum Order in runtime.h


@dataclass(frozen=True)
class Settings:
    """How kernels are run."""

    order: Kind = "forward"
    seed: int = 0
    residency: int | None = None
    races: bool = False


_current = Settings()


def current() -> Settings:
    return _current


@contextmanager
def _with(**changes: Any) -> Iterator[None]:
    global _current
    before, _current = _current, replace(_current, **changes)
    try:
        yield
    finally:
        _current = before


def thread_order(order: Kind, seed: int = 0) -> AbstractContextManager[None]:
    """Run the threads of a block, and the blocks of a grid, in this order.

    Correct kernels do not notice; one that lacks a barrier does in at least one of them.
    """
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}; not {order!r}")
    return _with(order=order, seed=seed)


def residency(blocks: int) -> AbstractContextManager[None]:
    """Let at most so many blocks of a launch be alive at once; the others start as these end.

    Otherwise all blocks of a cooperative launch are, and one of any other. A kernel whose blocks wait for
    more of them than a device holds never ends there; here that is an error.
    """
    if blocks < 1:
        raise ValueError(f"residency is the number of blocks that are alive, at least 1; not {blocks}")
    return _with(residency=blocks)


def race_detector() -> AbstractContextManager[None]:
    """Look for races: accesses of one byte, one of them a write, that nothing puts in order.

    Whether they met in the order that ran plays no part. The kernels are compiled once more for it.
    """
    return _with(races=True)
