"""A module of second derivatives, judged by the module that it stands beside.

`jvp` is compared with the complex step of `forward`, exact to rounding, `backward_jvp` with differences of
the gradients that `backward` gives at points along a direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from gategen.judge.derivatives import STEP, TINY
from gategen.judge.host import Array, blamed
from gategen.judge.problem import Key, Problem
from gategen.judge.runner import Outcome, Runner


@dataclass(frozen=True)
class Second:
    """A module of second derivatives, and the one that it stands beside."""

    first: Runner
    module: ModuleType

    @blamed()
    def tangent(self, problem: Problem, by: Mapping[Key, Array]) -> Outcome:
        """How outputs and final states move in a direction; instead of a tape what both functions leave."""
        tape = self.first.forward(problem, problem.point, tape=True).tape
        params = self.first.params(problem.point)
        y, final, tangent = self.module.jvp(params, tape, self.direction(problem, by))
        outputs = y if len(self.first.cell.outputs) > 1 else (y,)
        return Outcome(
            tuple(map(self.first.host.get, outputs)), self.first.by_state(final), (params, tape, tangent)
        )

    def direction(self, problem: Problem, by: Mapping[Key, Array]) -> Any:
        """A direction as a record; what it does not name stands still."""
        first, put = self.first, self.first.host.put
        moves = {key: by.get(key, np.zeros_like(array)) for key, array in problem.point.items()}
        inputs = (put(moves["inputs", x.name]) for x in first.cell.inputs)
        states = first.states(moves) if problem.setting.initial else None
        return first.module.Grads(first.params(moves), *inputs, states)

    @blamed()
    def gradients(self, problem: Problem, by: Mapping[Key, Array]) -> dict[Key, Array]:
        """How the gradients of the loss move in a direction."""
        first, put, get = self.first, self.first.host.put, self.first.host.get
        params, tape, tangent = self.tangent(problem, by).tape
        d_y = tuple(map(put, problem.d_y))
        d_final = self.module.States(*(put(problem.d_final[s.name]) for s in first.cell.states))
        made = self.module.backward_jvp(params, tape, tangent, d_y if len(d_y) > 1 else d_y[0], d_final)
        found = {("params", name): get(array) for name, array in first.module.unpack(made.params).items()}
        found |= {("inputs", x.name): get(d) for x, d in zip(first.cell.inputs, made[1:], strict=False)}
        if problem.setting.initial:
            found |= {("initial", name): array for name, array in first.by_state(made.initial).items()}
        return found


def stepped(exact: Runner, problem: Problem, by: Mapping[Key, Array]) -> Outcome:
    """How outputs and final states move in a direction, by complex step."""
    run = exact.forward(problem, moved(problem.point, by, 1j * TINY))
    final = {name: array.imag / TINY for name, array in run.final.items()}
    return Outcome(tuple(y.imag / TINY for y in run.y), final, None)


def differences(
    runner: Runner, problem: Problem, by: Mapping[Key, Array]
) -> tuple[dict[Key, Array], dict[Key, float]]:
    """How the gradients move in a direction, by central differences with three steps, extrapolated twice; and
    how far the last two estimates lie apart.
    """

    def difference(step: float) -> dict[Key, Array]:
        plus, minus = (
            runner.gradients(problem.at(moved(problem.point, by, sign * step))) for sign in (1, -1)
        )
        return {key: (plus[key] - minus[key]) / (2 * step) for key in plus}

    coarse, middle, fine = (difference(STEP / k) for k in (1, 2, 4))
    first = {key: (4 * middle[key] - coarse[key]) / 3 for key in fine}
    second = {key: (4 * fine[key] - middle[key]) / 3 for key in fine}
    spread = {key: float(np.abs(second[key] - first[key]).max(initial=0)) for key in fine}
    return second, spread


def moved(point: Mapping[Key, Array], by: Mapping[Key, Array], step: complex) -> dict[Key, Array]:
    """A point some way along a direction."""
    return {key: array + step * by[key] if key in by else array for key, array in point.items()}
