"""A run, its gradient and its second derivatives as operators of PyTorch, which graphs can hold.

They are `gategen::run`, `gategen::pull` and `gategen::push`; `torch.compile`, `torch.export`, traces and fake
tensors need them. An operator takes tensors and plain values alone, so it names its binding by key; and it
says the shapes of its results before it runs, so those of the tape are found out by tiny runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from gategen.torch.binding import Binding, Call, Gradients, Ran, bound, split

Tensor = Any

_RUN = (
    "(str key, Tensor[] tensors, Tensor[] inputs, Tensor[] initial, Tensor? lengths, Tensor[] buffers, "
    "bool training, bool tape) -> Tensor[]"
)
_PULL = (
    "(str key, Tensor[] tensors, Tensor[] inputs, Tensor[] initial, Tensor? lengths, Tensor[] buffers, "
    "bool training, Tensor[] tape, Tensor[] d_outputs, Tensor[] d_final) -> Tensor[]"
)
_PUSH = (
    "(str key, Tensor[] tensors, Tensor[] inputs, Tensor[] initial, Tensor? lengths, Tensor[] buffers, "
    "bool training, Tensor[] tape, Tensor[] d_outputs, Tensor[] d_final, Tensor[] moved) -> Tensor[]"
)


def run(binding: Binding, call: Call) -> tuple[Tensor, ...]:
    """As in `function.py`: the outputs and the final states. Buffers change in place."""
    flat = (*call.tensors, *call.inputs, *call.initial)
    tape = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in flat)
    tape = tape or torch.jit.is_tracing()  # what is traced may be differentiated later
    tensors, inputs, initial = map(list, call[:3])
    found = run_op(
        binding.key, tensors, inputs, initial, call.lengths, list(call.buffers), call.training, tape
    )
    count = len(binding.module.OUTPUTS) + len(binding.module.STATES)
    update(call, found[count:])
    return tuple(found[:count])


def update(call: Call, found: Sequence[Tensor]) -> None:
    """Write the new running statistics, the first of what is found, over the old ones."""
    if call.training:
        for buffer, new in zip(call.buffers, found, strict=False):
            buffer.copy_(new.detach())


@torch.library.custom_op("gategen::run", mutates_args=(), schema=_RUN)
def run_op(
    key: str,
    tensors: list[Tensor],
    inputs: list[Tensor],
    initial: list[Tensor],
    lengths: Tensor | None,
    buffers: list[Tensor],
    training: bool,
    tape: bool,
) -> list[Tensor]:
    """Outputs, final states, new buffers, and what the tape leaves."""
    updated = [buffer.clone() for buffer in buffers]
    ran = bound(key).run(Call(tensors, inputs, initial, lengths, updated, training, {}), tape)
    return [*map(_own, ran.outputs), *map(_own, ran.final), *updated, *map(_own, ran.tape)]


@torch.library.custom_op("gategen::pull", mutates_args=(), schema=_PULL)
def pull_op(
    key: str,
    tensors: list[Tensor],
    inputs: list[Tensor],
    initial: list[Tensor],
    lengths: Tensor | None,
    buffers: list[Tensor],
    training: bool,
    tape: list[Tensor],
    d_outputs: list[Tensor],
    d_final: list[Tensor],
) -> list[Tensor]:
    """The gradients of the tensors, the inputs and the initial states."""
    binding, call = bound(key), Call(tensors, inputs, initial, lengths, buffers, training, {})
    found = binding.pull(call, tape, _form(binding, call), d_outputs, d_final)
    return [*map(_own, found.tensors), *map(_own, found.inputs), *map(_own, found.initial)]


@torch.library.custom_op("gategen::push", mutates_args=(), schema=_PUSH)
def push_op(
    key: str,
    tensors: list[Tensor],
    inputs: list[Tensor],
    initial: list[Tensor],
    lengths: Tensor | None,
    buffers: list[Tensor],
    training: bool,
    tape: list[Tensor],
    d_outputs: list[Tensor],
    d_final: list[Tensor],
    moved: list[Tensor],
) -> list[Tensor]:
    """How a run moves where tensors, inputs and initial states do: its outputs and final states, and then the
    gradients of the tensors, the inputs and the initial states, where `d_outputs` and `d_final` are given.
    """
    binding, call = bound(key), Call(tensors, inputs, initial, lengths, buffers, training, {})
    given, states = len(tensors), len(tensors) + len(inputs)
    direction = Gradients(moved[:given], moved[given:states], moved[states:])
    pulled = (d_outputs, d_final) if d_final else None
    found = binding.push(call, tape, _form(binding, call), direction, pulled)
    gradients = [] if found.gradients is None else [tensor for part in found.gradients for tensor in part]
    return [*map(_own, found.outputs), *map(_own, found.final), *map(_own, gradients)]


def _own(tensor: Tensor) -> Tensor:
    """Contiguous and on memory of its own, as the results of an operator are."""
    if tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


# ------------------------------------------------------------------------------------------ shapes


@run_op.register_fake
def _(
    key: str, tensors: Any, inputs: Any, initial: Any, lengths: Any, buffers: Any, training: bool, tape: bool
) -> list[Tensor]:
    call = Call(tensors, inputs, initial, lengths, buffers, training, {})
    outputs, final, kept = _empty(bound(key), call, tape)
    return [*outputs, *final, *map(torch.empty_like, buffers), *kept]


@pull_op.register_fake
def _(key: str, tensors: Any, inputs: Any, initial: Any, *_: Any) -> list[Tensor]:
    return _like(*tensors, *inputs, *initial)


@push_op.register_fake
def _(
    key: str, tensors: Any, inputs: Any, initial: Any, lengths: Any, buffers: Any, training: bool, *rest: Any
) -> list[Tensor]:
    _, d_outputs, d_final, _ = rest
    if d_final:
        return _like(*d_outputs, *d_final, *tensors, *inputs, *initial)
    call = Call(tensors, inputs, initial, lengths, buffers, training, {})
    outputs, final, _ = _empty(bound(key), call, True)
    return [*outputs, *final]


def _like(*tensors: Tensor) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


def _empty(binding: Binding, call: Call, tape: bool) -> list[list[Tensor]]:
    """Outputs, final states and tape of a run, with nothing in them."""
    (steps, batch), empty = call.inputs[0].shape[:2], call.inputs[0].new_empty
    return [
        [empty([a + b * steps + c * batch for a, b, c in dims], dtype=dtype) for dims, dtype in kind]
        for kind in _shapes(binding, call, tape)
    ]


def _facts(binding: Binding, call: Call) -> tuple[Any, ...]:
    """What the shapes of a run depend on, beside T and B."""
    steps = call.inputs[0].shape[0]
    return (
        binding,
        tuple(tuple(map(int, tensor.shape)) for tensor in call.tensors),
        tuple(
            (tensor.ndim - rank, tuple(map(int, tensor.shape[-rank:])))
            for tensor, rank in zip(call.inputs, binding.ranks, strict=True)
        ),
        tuple(tuple(map(int, tensor.shape[1:])) for tensor in call.initial),
        call.lengths is not None,
        tuple(int(buffer.shape[0]) for buffer in call.buffers),
        call.training,
        call.inputs[0].dtype,
        call.inputs[0].device.type.replace("meta", "cpu"),  # a run needs memory
        isinstance(steps, int) and steps == 0,
    )


def _form(binding: Binding, call: Call) -> Any:
    return _tried(*_facts(binding, call), True)[1]


def _shapes(binding: Binding, call: Call, tape: bool) -> Any:
    """Of outputs, final states and tape: each dimension as a, b and c in a + b * T + c * B, and the dtype."""
    return _tried(*_facts(binding, call), tape)[0]


@lru_cache(maxsize=1024)
def _tried(
    binding: Binding,
    tensors: Any,
    inputs: Any,
    initial: Any,
    lengths: bool,
    buffers: Any,
    training: bool,
    dtype: Any,
    device: str,
    empty: bool,
    tape: bool,
) -> tuple[Any, Any]:
    """Shapes and form, from runs of two or three steps and sequences, which tell the share of each."""

    def ran(steps: int, batch: int) -> Ran:
        def ones(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=dtype, device=device)

        call = Call(
            [ones(*shape) for shape in tensors],
            [ones(*(steps, batch)[2 - lead :], *size) for lead, size in inputs],
            [ones(batch, *size) for size in initial],
            torch.full((batch,), steps, device="cpu") if lengths else None,
            [ones(size) for size in buffers],
            training,
            {},
        )
        return binding.run(call, tape)

    with _disable_current_modes(), torch.no_grad():  # on real tensors, whatever is traced
        T, B = (0, 2) if empty else (2, 2)
        base, longer, wider = ran(T, B), ran(T if empty else T + 1, B), ran(T, B + 1)
    shapes = []
    for kind in ("outputs", "final", "tape"):
        found = []
        for of in zip(*(getattr(one, kind) for one in (base, longer, wider)), strict=True):
            dims = []
            for d, e, f in zip(*(tensor.shape for tensor in of), strict=True):
                b, c = e - d, f - d
                dims.append((d - b * T - c * B, b, c))
            found.append((tuple(dims), of[0].dtype))
        shapes.append(tuple(found))
    return tuple(shapes), base.form


# ------------------------------------------------------------------------------------------ autograd


def _set_up(ctx: Any, inputs: Any, output: Any) -> None:
    key, tensors, given, initial, lengths, buffers, training, _ = inputs
    module = bound(key).module
    ctx.outputs = len(module.OUTPUTS)
    ends, buffers, kept = split(output, (ctx.outputs + len(module.STATES), len(buffers)))
    # Of the statistics the new ones are kept: the old ones change in place.
    _save(ctx, tensors, given, initial, [] if lengths is None else [lengths], buffers, kept)
    ctx.of = key, training
    ctx.ends = [(end.shape, end.dtype, end.device) for end in ends]
    ctx.set_materialize_grads(False)


def _back(ctx: Any, gradients: Any) -> tuple[Any, ...]:
    tensors, inputs, initial, lengths, buffers, kept = _saved(ctx)
    known = [
        torch.zeros(shape, dtype=dtype, device=device) if d is None else d
        for d, (shape, dtype, device) in zip(gradients, ctx.ends, strict=False)
    ]
    key, training = ctx.of
    d_outputs, d_final = split(known, (ctx.outputs,))
    found = pull_op(
        key, tensors, inputs, initial, *(lengths or [None]), buffers, training, kept, d_outputs, d_final
    )
    groups = split(found, (len(tensors), len(inputs)))
    return None, *groups, None, [None] * len(buffers), None, None


def _set_up_second(ctx: Any, inputs: Any, output: Any) -> None:
    key, tensors, given, initial, lengths, buffers, training, tape, d_outputs, d_final = inputs
    times = [] if lengths is None else [lengths]
    _save(ctx, tensors, given, initial, times, buffers, tape, d_outputs, d_final)
    ctx.of = key, training


def _back_again(ctx: Any, moved: Any) -> tuple[Any, ...]:
    tensors, inputs, initial, lengths, buffers, tape, *pulled = _saved(ctx)
    key, training = ctx.of
    found = push_op(
        key, tensors, inputs, initial, *(lengths or [None]), buffers, training, tape, *pulled, list(moved)
    )
    d_outputs, d_final, *groups = split(found, [*map(len, (*pulled, tensors, inputs))])
    return None, *groups, None, [None] * len(buffers), None, [None] * len(tape), d_outputs, d_final


def _save(ctx: Any, *groups: Sequence[Tensor]) -> None:
    ctx.counts = [*map(len, groups)]
    ctx.save_for_backward(*(tensor for group in groups for tensor in group))


def _saved(ctx: Any) -> list[list[Tensor]]:
    """The groups that were saved."""
    return split(ctx.saved_tensors, ctx.counts)[:-1]


run_op.register_autograd(_back, setup_context=_set_up)
pull_op.register_autograd(_back_again, setup_context=_set_up_second)
