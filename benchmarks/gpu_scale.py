"""For `gpu.py`: how much is done, at full scale on a GPU and tiny on the emulator, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from goals import BOTH, GOALS  # the neighbour file

DTYPES = ("bfloat16", "float32", "tf32", "float16")
SHAPE = ("cell", "dtype", "T", "B", "H")
OURS, LAYER, EAGER, COMPILED = "gategen", "torch.nn", "eager loop", "compiled loop"


@dataclass(frozen=True)
class Case:
    """A layer to be timed beside others; I = H."""

    cell: str
    dtype: str
    T: int
    B: int
    H: int
    sides: tuple[str, ...]

    @property
    def shape(self) -> tuple[str, str, int, int, int]:
        return self.cell, self.dtype, self.T, self.B, self.H

    def __str__(self) -> str:
        return f"{self.cell} {self.dtype} T={self.T} B={self.B} H={self.H}"


@dataclass(frozen=True)
class Scale:
    """Sizes and counts of everything that is measured."""

    steps: tuple[int, ...] = (1024, 128)
    batch: tuple[int, ...] = (16, 64, 1, 128)
    hidden: tuple[int, ...] = (512, 256, 1024, 128, 768, 129)
    loops: tuple[tuple[int, int, int], ...] = ((128, 16, 256), (128, 16, 512), (128, 16, 1024))
    small: tuple[tuple[int, int, int], ...] = ((8, 16, 256),)  # where a loop is compiled
    elementwise: tuple[tuple[int, int, int], ...] = ((1024, 16, 1024),)
    check: tuple[dict[str, int], ...] = ({"input": 3, "hidden": 7}, {"input": 3, "hidden": 70})
    copied: int = 1 << 28  # entries of float32
    launches: int = 1000
    product: int = 4096
    narrow_product: int = 8192
    blocks: int | None = None  # that meet in barriers at most; None: one an SM
    rounds: int = 2000
    turns: int = 9
    case_seconds: float = 0.8

    def cases(self) -> list[Case]:
        """What is timed, the most important first: that of which there are goals, then long sequences."""
        grid = product(self.steps, self.hidden, self.batch, DTYPES, BOTH)
        found = [Case(cell, dtype, T, B, H, (OURS, LAYER)) for T, H, B, dtype, cell in grid]
        found.sort(key=lambda case: not has_goal(case))
        loops = product(self.loops, ("bfloat16", "float32"), ("gru_after", "mgu"))
        elementwise = product(self.elementwise, ("bfloat16", "float32"), ("indrnn", "sru", "mingru"))
        small = product(self.small, ("float32",), BOTH)
        first = [Case(c, d, *s, (OURS, *((LAYER,) * (c in BOTH)), EAGER)) for s, d, c in loops]
        first += [Case(c, d, *s, (OURS,)) for s, d, c in elementwise]
        compiled = [Case(c, d, *s, (OURS, LAYER, EAGER, COMPILED)) for s, d, c in small]
        goals = sum(map(has_goal, found))
        ordered = (*alternating(found[:goals], first), *compiled, *found[goals:])
        kept: dict[object, Case] = {}
        for case in ordered:
            kept.setdefault(case.shape, case)
        return [*kept.values()]


TINY = Scale(
    steps=(3,),
    batch=(2,),
    hidden=(5,),
    loops=((3, 2, 4),),
    small=((2, 2, 4),),
    elementwise=((3, 2, 4),),
    check=({"input": 3, "hidden": 7},),
    copied=64,
    launches=2,
    product=4,
    narrow_product=4,
    blocks=3,
    rounds=2,
    turns=3,
    case_seconds=0.0,
)


def has_goal(case: Case) -> bool:
    return any(goal.holds_at(*case.shape) for goal in GOALS)


def alternating(a: list[Case], b: list[Case]) -> list[Case]:
    """One of each in turn, then the rest."""
    both = [case for pair in zip(a, b, strict=False) for case in pair]
    return [*both, *a[len(b) :], *b[len(a) :]]
