"""A run as a function that PyTorch's autograd knows, for tensors that are what they seem: no graph is traced.

`ops.py` has the same as operators, for graphs. This way costs less time a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gategen.torch.binding import Binding, Call

Tensor = Any


def run(binding: Binding, call: Call) -> tuple[Tensor, ...]:
    """The outputs, (T, B, size) each, and then the final states, (B, size) each. Buffers change in place."""
    flat = (*call.inputs, *call.initial, *call.tensors)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in flat):
        return _Run.apply(binding, call, *flat)  # type: ignore[no-any-return]
    with torch.no_grad():
        ran = binding.run(call, tape=False)
    return (*ran.outputs, *ran.final)


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, binding: Binding, call: Call, *flat: Tensor) -> tuple[Tensor, ...]:
        ran = binding.run(call, tape=True)
        ctx.save_for_backward(*ran.tape, *flat)
        ctx.of = _Kind(
            binding, len(ran.tape), len(call.inputs), len(call.initial), len(ran.outputs), ran.form
        )
        ctx.rest = call[3:]
        return (*ran.outputs, *ran.final)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        pull = _Pull.apply if torch.is_grad_enabled() else _pull
        return (None, None, *pull(ctx.of, ctx.rest, gradients, *ctx.saved_tensors))


class _Kind(NamedTuple):
    """Of which binding a run is, how many tensors of each kind it has, and the form of its tape."""

    binding: Binding
    tape: int
    inputs: int
    initial: int
    outputs: int
    form: Any


def _pull(of: _Kind, rest: Any, gradients: Sequence[Tensor], *saved: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the inputs, the initial states and the tensors of a run."""
    initial = of.tape + of.inputs
    tensors = initial + of.initial
    call = Call(saved[tensors:], saved[of.tape : initial], saved[initial:tensors], *rest)
    found = of.binding.pull(call, saved[: of.tape], of.form, gradients[: of.outputs], gradients[of.outputs :])
    return (*found.inputs, *found.initial, *found.tensors)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, of: _Kind, rest: Any, gradients: Any, *saved: Tensor) -> tuple[Tensor, ...]:
        ctx.name = of.binding.module.NAME
        return _pull(of, rest, gradients, *saved)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Any, ...]:
        raise NotImplementedError(f"{ctx.name} has no second derivatives here")
