"""A run and its gradient for the transforms of `torch.func`: `grad`, `vjp`, `vmap` and what is made of them.

They take one transform after the other off the functions here, which then call the operators of `ops.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gategen.torch.binding import Binding, Call, split
from gategen.torch.ops import pull_op, push_op, run_op, update

Tensor = Any


def run(binding: Binding, call: Call) -> tuple[Tensor, ...]:
    """As in `function.py`: the outputs and the final states. Buffers change in place."""
    counts = tuple(map(len, (call.tensors, call.inputs, call.initial, call.buffers)))
    flat = (*call.tensors, *call.inputs, *call.initial, *call.buffers)
    ends = len(binding.module.OUTPUTS), len(binding.module.STATES)
    found = _Run.apply((binding.key, counts, ends, call.training), call.lengths, *flat)
    update(call, found[sum(ends) :])
    return tuple(found[: sum(ends)])


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a function for `vmap`: an independent call for every index of the mapped dimension."""

    def rule(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        def chosen(value: Any, dim: Any, k: int) -> Any:
            if dim is None:
                return value
            if not info.batch_size:  # one that tells the shapes
                return value.new_zeros([n for at, n in enumerate(value.shape) if at != dim % value.dim()])
            return value.select(dim, k)

        runs = [
            function(
                *(chosen(value, dim, k) for value, dim in zip(given, dims_of(given, in_dims), strict=True))
            )
            for k in range(max(1, info.batch_size))
        ]
        found = tuple(torch.stack(parts)[: info.batch_size] for parts in zip(*runs, strict=True))
        return found, (0,) * len(found)

    def dims_of(given: Sequence[Any], in_dims: Sequence[Any]) -> list[Any]:
        return [
            dim if isinstance(value, torch.Tensor) else None
            for value, dim in zip(given, in_dims, strict=True)
        ]

    return rule


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(of: Any, lengths: Any, *flat: Tensor) -> tuple[Tensor, ...]:
        key, counts, _, training = of
        tensors, inputs, initial, buffers, _ = split(flat, counts)
        return tuple(run_op(key, tensors, inputs, initial, lengths, buffers, training, True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.of, lengths, *flat = inputs
        _, counts, ends, _ = ctx.of
        rest = output[sum(ends) :]
        ctx.mark_non_differentiable(*rest)
        ctx.timed = lengths is not None
        given = flat[: len(flat) - counts[-1]]  # the old statistics change in place: the new ones are kept
        saved = (*([lengths] if ctx.timed else []), *given, *rest)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.results = len(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        _, counts, ends, _ = ctx.of
        saved = list(ctx.saved_tensors)
        lengths = saved.pop(0) if ctx.timed else None
        found = _Pull.apply(ctx.of, lengths, *saved, *gradients[: sum(ends)])
        return None, None, *found, *[None] * counts[-1]

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *moved: Any) -> tuple[Any, ...]:
        _, counts, ends, _ = ctx.of
        saved = list(ctx.saved_tensors)
        lengths = saved.pop(0) if ctx.timed else None
        given = saved[: sum(counts[:3])]
        direction = [torch.zeros_like(t) if d is None else d for t, d in zip(given, moved, strict=False)]
        tape = len(saved) - sum(counts)
        found = _Push.apply(ctx.of, lengths, tape, False, *saved, *direction)
        return *found, *[None] * (ctx.results - sum(ends))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        return one_by_one(_Run.apply)(info, in_dims, *given)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(of: Any, lengths: Any, *given: Tensor) -> tuple[Tensor, ...]:
        key, counts, ends, training = of
        kept = len(given) - sum(counts) - sum(ends)
        tensors, inputs, initial, buffers, tape, d_outputs, d_final, _ = split(given, (*counts, kept, *ends))
        found = pull_op(key, tensors, inputs, initial, lengths, buffers, training, tape, d_outputs, d_final)
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.of, lengths, *given = inputs
        ctx.timed = lengths is not None
        saved = (*([lengths] if ctx.timed else []), *given)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *moved: Any) -> tuple[Tensor, ...]:
        _, counts, ends, _ = ctx.of
        saved = list(ctx.saved_tensors)
        lengths = saved.pop(0) if ctx.timed else None
        at = len(saved) - sum(ends)
        directions = [torch.zeros_like(t) if d is None else d for t, d in zip(saved, moved, strict=True)]
        pulled = _Pull.apply(ctx.of, lengths, *saved[:at], *directions[at:])
        own = directions[: sum(counts[:3])]
        found = _Push.apply(ctx.of, lengths, at - sum(counts), True, *saved, *own)
        return tuple(one + other for one, other in zip(pulled, found[sum(ends) :], strict=True))

    @staticmethod
    def backward(ctx: Any, *moved: Tensor) -> tuple[Any, ...]:
        _, counts, ends, _ = ctx.of
        saved = list(ctx.saved_tensors)
        lengths = saved.pop(0) if ctx.timed else None
        tape = len(saved) - sum(counts) - sum(ends)
        found = _Push.apply(ctx.of, lengths, tape, True, *saved, *moved)
        d_outputs, d_final, tensors, inputs, initial, _ = split(found, (*ends, *counts[:3]))
        still = [None] * (len(saved) - sum(counts[:3]) - sum(ends))
        return None, None, *tensors, *inputs, *initial, *still, *d_outputs, *d_final

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        return one_by_one(_Pull.apply)(info, in_dims, *given)


class _Push(torch.autograd.Function):
    """How the results of a run move; with `pulled` their gradients are given, and how its own do is found."""

    @staticmethod
    def forward(of: Any, lengths: Any, tape: int, pulled: bool, *given: Tensor) -> tuple[Tensor, ...]:
        key, counts, ends, training = of
        ends = ends if pulled else (0, 0)
        *own, kept, d_outputs, d_final, moved = split(given, (*counts, tape, *ends))
        tensors, inputs, initial, buffers = own
        return tuple(
            push_op(
                key, tensors, inputs, initial, lengths, buffers, training, kept, d_outputs, d_final, moved
            )
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.of, lengths, ctx.tape, ctx.pulled, *given = inputs
        ctx.timed = lengths is not None
        ctx.save_for_backward(*([lengths] if ctx.timed else []), *given)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple[Any, ...]:
        if ctx.pulled:
            raise NotImplementedError("third derivatives of a layer are not known")
        _, counts, ends, _ = ctx.of
        saved = list(ctx.saved_tensors)
        lengths = saved.pop(0) if ctx.timed else None
        *own, moved = split(saved, (sum(counts), ctx.tape))
        held = [tensor for part in own for tensor in part]
        through = _Pull.apply(ctx.of, lengths, *held, *d)
        others = _Push.apply(ctx.of, lengths, ctx.tape, True, *held, *d, *moved)
        still = [None] * (counts[-1] + ctx.tape)
        return None, None, None, None, *others[sum(ends) :], *still, *through

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        return one_by_one(_Push.apply)(info, in_dims, *given)
