"""A generated module, called as documented with the spec's own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gategen.judge.host import Array, Host, blamed
from gategen.judge.problem import Key, Problem
from gategen.spec.cell import Cell


class Outcome(NamedTuple):
    """What `forward` gives: outputs, final states by name, the tape."""

    y: tuple[Array, ...]
    final: Mapping[str, Array]
    tape: Any


@dataclass(frozen=True)
class Runner:
    """A generated module, called with the spec's own names and arrays of the host."""

    cell: Cell
    module: ModuleType
    host: Host

    @blamed()
    def forward(self, problem: Problem, point: Mapping[Key, Array], tape: bool = False) -> Outcome:
        put, get = self.host.put, self.host.get
        first, *others = self.cell.inputs
        spelled = self.module.Grads._fields[2:-1]  # as the module calls the further inputs
        options: dict[str, Any] = {
            key: put(point["inputs", x.name]) for key, x in zip(spelled, others, strict=True)
        }
        if problem.setting.initial:
            options["initial"] = self.states(point)
        if problem.setting.lengths is not None:
            options["lengths"] = np.array(problem.setting.lengths)
        if problem.setting.training is not None:
            arrays = {name: put(array) for name, array in problem.buffers.items()}
            options |= {"buffers": self.module.Buffers(**arrays), "training": problem.setting.training}
        x = put(point["inputs", first.name])
        y, final, kept = self.module.forward(self.params(point), x, tape=tape, **options)
        outputs = y if len(self.cell.outputs) > 1 else (y,)
        return Outcome(tuple(map(get, outputs)), self.by_state(final), kept)

    def params(self, point: Mapping[Key, Array]) -> Any:
        return self.module.pack(
            {name: self.host.put(a) for (kind, name), a in point.items() if kind == "params"}
        )

    def states(self, point: Mapping[Key, Array]) -> Any:
        return self.module.States(*(self.host.put(point["initial", s.name]) for s in self.cell.states))

    def by_state(self, arrays: Any) -> dict[str, Array]:
        return {s.name: self.host.get(array) for s, array in zip(self.cell.states, arrays, strict=True)}

    @blamed()
    def gradients(self, problem: Problem) -> dict[Key, Array]:
        """Of the loss, by what the module gives a gradient of."""
        put, get = self.host.put, self.host.get
        tape = self.forward(problem, problem.point, tape=True).tape
        d_y = tuple(map(put, problem.d_y))
        d_final = self.module.States(*(put(problem.d_final[s.name]) for s in self.cell.states))
        grads = self.module.backward(
            self.params(problem.point), tape, d_y if len(d_y) > 1 else d_y[0], d_final
        )
        found = {("params", name): get(array) for name, array in self.module.unpack(grads.params).items()}
        for x, array in zip(self.cell.inputs, grads[1:], strict=False):
            found["inputs", x.name] = get(array)
        if problem.setting.initial:
            found |= {("initial", name): array for name, array in self.by_state(grads.initial).items()}
        return found

    def loss(self, problem: Problem, point: Mapping[Key, Array]) -> Any:
        run = self.forward(problem, point)
        outputs = sum((d * y).sum() for d, y in zip(problem.d_y, run.y, strict=True))
        return outputs + sum((d * run.final[name]).sum() for name, d in problem.d_final.items())
