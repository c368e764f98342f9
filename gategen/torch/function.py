"""A run as a function that PyTorch's autograd knows, for tensors that are what they seem: no graph is traced.

`ops.py` has the same as operators, for graphs. This way costs less time a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gategen.torch.binding import Binding, Call

Tensor = Any


def run(binding: Binding, call: Call) -> tuple[Tensor, ...]:
    """The outputs, (T, B, size) each, and then the final states, (B, size) each. Buffers change in place."""
    flat = (*call.tensors, *call.inputs, *call.initial)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in flat):
        counts = len(call.tensors), len(call.inputs), len(call.initial)
        return tuple(_Run.apply(binding, counts, call[3:], *flat))
    with torch.no_grad():
        ran = binding.run(call, tape=False)
    return (*ran.outputs, *ran.final)


def _split(values: Sequence[Any], counts: Sequence[int]) -> list[Sequence[Any]]:
    parts, start = [], 0
    for count in counts:
        parts.append(values[start : start + count])
        start += count
    return parts


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, binding: Binding, counts: Any, rest: Any, *flat: Tensor) -> tuple[Tensor, ...]:
        call = Call(*_split(flat, counts), *rest)
        ran = binding.run(call, tape=True)
        ctx.save_for_backward(*flat, *ran.tape)
        ctx.of = binding, counts, rest, ran.form, len(ran.outputs)
        return (*ran.outputs, *ran.final)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        pull = _Pull.apply if torch.is_grad_enabled() else _pull
        return (None, None, None, *pull(ctx.of, *saved, *gradients))


def _pull(of: Any, *given: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the tensors, the inputs and the initial states of a run."""
    binding, counts, rest, form, outputs = of
    states = len(binding.module.STATES)
    tape = len(given) - sum(counts) - outputs - states
    *own, kept, d_outputs, d_final = _split(given, (*counts, tape, outputs, states))
    found = binding.pull(Call(*own, *rest), kept, form, d_outputs, d_final)
    return (*found.tensors, *found.inputs, *found.initial)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, of: Any, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.name = of[0].module.NAME
        return _pull(of, *given)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Any, ...]:
        raise NotImplementedError(f"{ctx.name} has no second derivatives here")
