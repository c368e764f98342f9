"""A run as a function that PyTorch's autograd knows, for tensors that are what they seem: no graph is traced.

`ops.py` has the same as operators, for graphs. This way costs less time a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from gategen.torch.binding import Binding, Call, Gradients

Tensor = Any


def run(binding: Binding, call: Call) -> tuple[Tensor, ...]:
    """The outputs, (T, B, size) each, and then the final states, (B, size) each. Buffers change in place."""
    flat = (*call.inputs, *call.initial, *call.tensors)
    forward = forward_ad._current_level >= 0  # within `dual_level`
    if forward or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in flat)):
        return _Run.apply(binding, call, *flat)  # type: ignore[no-any-return]
    with torch.no_grad():
        ran = binding.run(call, tape=False)
    return (*ran.outputs, *ran.final)


class _Kind(NamedTuple):
    """Of which binding a run is, how many tensors of each kind it has, the form of its tape, and the rest."""

    binding: Binding
    tape: int
    inputs: int
    initial: int
    outputs: int
    form: Any
    rest: Any  # of the call

    def call(self, saved: Sequence[Tensor]) -> tuple[Call, Sequence[Tensor]]:
        """The call and the tape, of what was saved: tape, inputs, initial states, tensors."""
        initial = self.tape + self.inputs
        tensors = initial + self.initial
        call = Call(saved[tensors:], saved[self.tape : initial], saved[initial:tensors], *self.rest)
        return call, saved[: self.tape]

    def gradients(self, flat: Sequence[Any]) -> Gradients:
        """In the order of what was saved, behind the tape."""
        tensors = self.inputs + self.initial
        return Gradients(flat[tensors:], flat[: self.inputs], flat[self.inputs : tensors])


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, binding: Binding, call: Call, *flat: Tensor) -> tuple[Tensor, ...]:
        ran = binding.run(call, tape=True)
        saved = (*ran.tape, *flat)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        counts = len(ran.tape), len(call.inputs), len(call.initial), len(ran.outputs)
        ctx.of = _Kind(binding, *counts, ran.form, call[3:])
        return (*ran.outputs, *ran.final)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        pull = _Pull.apply if torch.is_grad_enabled() else _pull
        return (None, None, *pull(ctx.of, *gradients, *ctx.saved_tensors))

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *moved: Any) -> tuple[Tensor, ...]:
        call, tape = ctx.of.call(ctx.saved_tensors)
        found = ctx.of.binding.push(call, tape, ctx.of.form, ctx.of.gradients(moved))
        return (*found.outputs, *found.final)


def _pull(of: _Kind, *given: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the inputs, the initial states and the tensors of a run."""
    ends = of.outputs + len(of.binding.module.STATES)
    call, tape = of.call(given[ends:])
    found = of.binding.pull(call, tape, of.form, given[: of.outputs], given[of.outputs : ends])
    return (*found.inputs, *found.initial, *found.tensors)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, of: _Kind, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.of = of
        ctx.save_for_backward(*given)
        return _pull(of, *given)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *moved: Tensor) -> tuple[Any, ...]:
        of, given = ctx.of, ctx.saved_tensors
        ends = of.outputs + len(of.binding.module.STATES)
        call, tape = of.call(given[ends:])
        pulled = given[: of.outputs], given[of.outputs : ends]
        found = of.binding.push(call, tape, of.form, of.gradients(moved), pulled)
        parts = found.gradients
        still = [None] * of.tape
        return (None, *found.outputs, *found.final, *still, *parts.inputs, *parts.initial, *parts.tensors)
