"""Sums over axes of matrices: which threads share them, and which go over the same axes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gategen.backends.comments import listed
from gategen.graph import Value
from gategen.plan import (
    Contraction,
    RunningSum,
    Slot,
    Stage,
    Sum,
    offset_rank,
)
from gategen.spec.language import Axes


@dataclass(frozen=True)
class Adding:
    """How the threads of a block share sums."""

    launch: str  # the helper of the host that knows the shape of the blocks
    entry: str  # which sum a thread works for
    first: str  # of the entries that it adds up
    step: str
    joined: str  # what adds up what the threads of a sum have
    between: str  # before the next one
    others: str  # who has nothing to write


ROWS = Adding(
    "along_rows",
    "(Index)blockIdx.x * blockDim.y + threadIdx.y",
    "threadIdx.x",
    "blockDim.x",
    "over_lanes({}, blockDim.x)",
    "",
    "!inside || threadIdx.x > 0",
)
COLUMNS = Adding(
    "down_columns",
    "(Index)blockIdx.x * 32 + threadIdx.x",
    "threadIdx.y",
    "8",
    "over_threads({})",
    "__syncthreads();",
    "!inside || threadIdx.y > 0",
)
BLOCKS = Adding(
    "over_matrices",
    "blockIdx.x",
    "32 * threadIdx.y + threadIdx.x",
    "256",
    "over_threads(over_lanes({}, 32))",
    "__syncthreads();",
    "threadIdx.x > 0 || threadIdx.y > 0",
)
SUM_WORDS = frozenset("j inside over_lanes".split())


def sums_matrices(stage: Stage) -> bool:
    """Whether a stage sums over axes of matrices, or goes along one."""
    if isinstance(stage, Sum):
        return len(stage.operand[0].shape) > 1 or bool(stage.out.axes)
    return isinstance(stage, Contraction) or goes_along(stage)


def goes_along(stage: Stage) -> bool:
    """Whether a stage has the largest entries along an axis, or running sums."""
    if isinstance(stage, Sum):
        return stage.how != "sum" and bool(stage.out.axes)
    return isinstance(stage, RunningSum) and bool(stage.axis)


def terms(stage: Contraction | Sum) -> list[tuple[Value, ...]]:
    """What is added up, as factors."""
    return [(stage.left, stage.right)] if isinstance(stage, Contraction) else [(v,) for v in stage.operand]


def said(stage: Contraction | Sum, summed: Axes) -> str:
    """The sum in words."""
    products = (" * ".join(v.name for v in term) for term in terms(stage))
    return f"sum of {' + '.join(products)} over {listed([str(axis) for axis in summed])}"


def apart(
    stages: Sequence[Contraction | Sum], slot: Mapping[Value, Slot]
) -> Iterator[list[Contraction | Sum]]:
    """The stages in runs of those that can be done at once: none touches what another of them writes."""
    run: list[Contraction | Sum] = []
    for stage in stages:
        wait = any(
            overlap(slot[a], slot[b])
            for other in run
            for one, two in ((stage, other), (other, stage))
            for a in one.writes
            for b in (*two.reads, *two.writes)
        )
        if wait:
            yield run
            run = []
        run.append(stage)
    if run:
        yield run


def overlap(a: Slot, b: Slot) -> bool:
    """Whether two slots share memory."""
    if (a.home, a.shift) != (b.home, b.shift):
        return False
    return a.rank < offset_rank(b.stop) and b.rank < offset_rank(a.stop)
