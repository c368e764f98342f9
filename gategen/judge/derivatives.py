"""Derivatives from values alone: the complex step, exact to rounding, and central differences.

The complex step is the forward pass at `p + 1e-30i` (Squire & Trapp 1998, doi:10.1137/S003614459631241X).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gategen.judge.host import Array
from gategen.judge.problem import Key, Problem
from gategen.judge.runner import Runner

TINY = 1e-30  # the complex step
STEP = 2e-4  # of central differences, halved twice


def complex_step(runner: Runner, problem: Problem, keys: Iterable[Key]) -> dict[Key, Array]:
    """The gradients, entry by entry."""
    point = {key: array.astype(complex) for key, array in problem.point.items()}
    gradients = {}
    for key in keys:
        gradient = np.empty(point[key].shape)
        for at in np.ndindex(gradient.shape):
            point[key][at] += 1j * TINY
            gradient[at] = runner.loss(problem, point).imag / TINY
            point[key][at] = problem.point[key][at]
        gradients[key] = gradient
    return gradients


class Slope(NamedTuple):
    """A derivative along a direction, and how far two estimates of it lie apart."""

    value: float
    spread: float


def central(runner: Runner, problem: Problem, key: Key, direction: Array) -> Slope:
    """Central differences with three steps, extrapolated twice."""

    def difference(step: float) -> float:
        moved = ({**problem.point, key: problem.point[key] + sign * step * direction} for sign in (1, -1))
        plus, minus = (float(runner.loss(problem, point)) for point in moved)
        return (plus - minus) / (2 * step)

    coarse, middle, fine = (difference(STEP / k) for k in (1, 2, 4))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return Slope(second, abs(second - first))
