"""The module for CuPy, and what of its memory is kept in the type that is computed with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from gategen.backends.module import Module, OneStep, Target, Way
from gategen.graph import length
from gategen.plan import (
    ColumnSum,
    Given,
    Home,
    InBuffer,
    MatMul,
    OuterSum,
    RunningSum,
    Schedule,
    Sum,
    overwritten,
)


class CupyModule(Module):
    """A module for CuPy, whose functions for one step take the arrays of all steps and work at t = 0.

    What sums over features, or over steps and rows, read and give is kept in the type that is computed with:
    in 16 bits a square, or a sum of many, is soon too large.
    """

    target = Target(
        title="CuPy",
        numpy=False,
        cupy=True,
        xp="cp",
        as_array="cp.ascontiguousarray(here(name, value))",
        dtypes="float32, float64, float16 or bfloat16",
        parameters='(cp.asarray(array, order="C") for array in params)',
        finished_now="finished[t]",
        real="{}",
        real_dtype="arithmetic(dtype)",
        init_dtype="arithmetic(dtype)",
        init_note="; float32 for dtypes of 16 bits",
        kept_dtype=".astype(dtype, copy=False)",
        shape="{}.shape",  # an array on the device, or an error of its own
        broadcast="cp.ascontiguousarray(cp.broadcast_to({}, {}))",
        one_step="(1, B",
    )

    @cached_property
    def overwrites(self) -> bool:
        """Whether `backward` writes all gradients of parameters whole, so that none is filled with zeros."""
        plan = self.plan
        if plan.of is not None or plan.computed or len(plan.rules) > 1:
            return False
        return all(overwritten(plan.step.backward, field) for field in plan.fields)

    @cached_property
    def precise(self) -> frozenset[Home]:
        """Memory in the type that is computed with: of sums, and of one number a row or for all rows,
        unless others than kernels and sums use it.
        """
        found: set[Home] = {Given(str(s.value.name)) for s in self.plan.step.forward.graph.statistics}
        for rule in self.plan.rules:
            for schedule in (rule.forward, rule.backward):
                found |= precise(schedule) - {InBuffer(b.name) for b in schedule.buffers if b.kind in FIXED}
        for rule in self.plan.rules:
            for schedule in (rule.forward, rule.backward):
                found -= outside(schedule)
        if self.plan.of is None:
            return frozenset(found)
        lent = {InBuffer(b.name) for rule in self.plan.rules for b in rule.lent}  # as the run left them
        return frozenset((found - lent) | (CupyModule(self.plan.of).precise & lent))

    def dtype(self, buffer: str) -> str:
        return "arithmetic(dtype)" if InBuffer(buffer) in self.precise else "dtype"

    @property
    def parallel(self) -> bool:
        return self.plan.of is None and self.plan.step.forward.linearized is not None

    @property
    def parallel_back(self) -> bool:
        return self.plan.of is None and self.plan.step.backward.linearized is not None

    def stretches(self, way: Way) -> str:
        cut, back = way.schedule.linearized, way.schedule.graph.backwards
        if cut is None or way.rule is not self.plan.step:
            return ""
        (value, _), *_ = cut.states
        entries = f"B * {self.names.width(length(value.size), value.axes if value.wide else ())}"
        steps = "T - start" if self.plan.opens and not back else "T"
        if cut.linear:
            return f"stretches = stretches_of({steps}, {entries}, parallel)"
        return f"stretches = stretches_of({steps}, {entries}, True) if parallel else 1"

    def one_step(self, states: Sequence[str]) -> OneStep:
        arrays = tuple(self.names["memory", s] for s in states)
        return OneStep(
            states=arrays,
            both=arrays,
            made=(),
            passed=arrays,
            saved=arrays,
            results=(),
            at="",
            further=("dtype",),
            measured="B = x.shape[1]",
            measured_back=f"B, dtype = x.shape[1], {arrays[0]}.dtype" if arrays else "",
        )


FIXED = ("input", "state", "carry")  # the caller's arrays, and what they become


def precise(schedule: Schedule) -> set[Home]:
    """The memory of sums, and of one number a row or of all rows."""
    summed = [s for s in schedule.stages if isinstance(s, Sum | RunningSum | ColumnSum)]
    values = {v for stage in summed for v in (*stage.reads, *stage.writes)}
    values |= {v for s in schedule.stages for v in s.writes if v.static or v.size == 1}
    return {
        home for v in values if v in schedule.slot and isinstance(home := schedule.slot[v].home, InBuffer)
    }


def outside(schedule: Schedule) -> set[Home]:
    """The memory of what products read and give, and of results."""
    products = [s for s in schedule.stages if isinstance(s, MatMul | OuterSum)]
    values = {v for stage in products for v in (*stage.reads, *stage.writes)}
    values |= {v for _, v in schedule.graph.outputs}
    return {schedule.slot[v].home for v in values if v in schedule.slot}
