"""A run as a function that PyTorch's autograd knows, for tensors that are what they seem: no graph is traced.

`ops.py` has the same as operators, for graphs. This way costs less time a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from gategen.torch.binding import Binding, Call, Gradients, Pushed

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

    @property
    def ends(self) -> int:
        """How many results a run has."""
        return self.outputs + len(self.binding.module.STATES)

    def gradients(self, flat: Sequence[Any]) -> Gradients:
        """Of what was saved behind the tape, in that order."""
        tensors = self.inputs + self.initial
        return Gradients(flat[tensors:], flat[: self.inputs], flat[self.inputs : tensors])

    @staticmethod
    def flat(found: Any) -> tuple[Tensor, ...]:
        """Gradients in the order of what was saved."""
        return (*found.inputs, *found.initial, *found.tensors)

    def parts(self, pulled: bool, given: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
        """What `_Push` was given: gradients of the results, what was saved, and a direction."""
        start = self.ends if pulled else 0
        moved = (len(given) - start + self.tape) // 2 + start
        return given[:start], given[start:moved], given[moved:]


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, binding: Binding, call: Call, *flat: Tensor) -> tuple[Tensor, ...]:
        ran = binding.run(call, tape=True)
        saved = (*ran.tape, *flat)
        ctx.save_for_backward(*saved)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*saved)
        counts = len(ran.tape), len(call.inputs), len(call.initial), len(ran.outputs)
        ctx.of = _Kind(binding, *counts, ran.form, call[3:])
        return (*ran.outputs, *ran.final)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        again = torch.is_grad_enabled() or forward_ad._current_level >= 0
        pull = _Pull.apply if again else _pull
        return (None, None, *pull(ctx.of, *gradients, *ctx.saved_tensors))

    @staticmethod
    def jvp(ctx: Any, _: Any, __: Any, *moved: Any) -> tuple[Tensor, ...]:
        return _Push.apply(ctx.of, False, *ctx.saved_tensors, *moved)  # type: ignore[no-any-return]


def _pull(of: _Kind, *given: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the inputs, the initial states and the tensors of a run."""
    call, tape = of.call(given[of.ends :])
    found = of.binding.pull(call, tape, of.form, given[: of.outputs], given[of.outputs : of.ends])
    return of.flat(found)


class _Pull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, of: _Kind, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.of = of
        ctx.save_for_backward(*given)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(*given)
        return _pull(of, *given)

    @staticmethod
    def backward(ctx: Any, *moved: Tensor) -> tuple[Any, ...]:
        found = _Push.apply(ctx.of, True, *ctx.saved_tensors, *moved)
        ends = ctx.of.ends
        return (None, *found[:ends], *[None] * ctx.of.tape, *found[ends:])

    @staticmethod
    def jvp(ctx: Any, _: Any, *moved: Tensor) -> tuple[Tensor, ...]:
        of, saved = ctx.of, ctx.saved_tensors
        pulled = _Pull.apply(of, *moved[: of.ends], *saved[of.ends :])
        found = _Push.apply(of, True, *saved, *moved[of.ends + of.tape :])
        return tuple(one + other for one, other in zip(pulled, found[of.ends :], strict=True))


class _Push(torch.autograd.Function):
    """How the results of a run move in a direction, and with `pulled` how its gradients do.

    Given are, with `pulled`, the gradients of the results, then what the run saved, and the direction.
    """

    @staticmethod
    def forward(ctx: Any, of: _Kind, pulled: bool, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.of, ctx.pulled = of, pulled
        ctx.save_for_backward(*given)
        gradients, saved, moved = of.parts(pulled, given)
        found = _push(of, saved, moved, gradients)
        if not pulled:
            return (*found.outputs, *found.final)
        return (*found.outputs, *found.final, *of.flat(found.gradients))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d: Tensor) -> tuple[Any, ...]:
        of, ends = ctx.of, ctx.of.ends
        gradients, saved, moved = of.parts(ctx.pulled, ctx.saved_tensors)
        through = _pull(of, *d[:ends], *saved)
        if not ctx.pulled:  # of J v: by v it is J^T d, by all else the tangent of that
            others = of.flat(_push(of, saved, moved, d).gradients)
            return (None, None, *[None] * of.tape, *others, *through)
        for node, _ in ctx.next_functions[: -len(moved)]:
            if node is not None and torch._C._will_engine_execute_node(node):
                raise NotImplementedError("third derivatives of a layer are not known")
        again = of.flat(_push(of, saved, d[ends:], gradients).gradients)  # second derivatives are symmetric
        total = (one + other for one, other in zip(through, again, strict=True))
        return (None, None, *[None] * (ends + len(saved)), *total)


def _push(of: _Kind, saved: Sequence[Tensor], moved: Sequence[Tensor], gradients: Sequence[Tensor]) -> Pushed:
    call, tape = of.call(saved)
    pulled = (gradients[: of.outputs], gradients[of.outputs :]) if gradients else None
    return of.binding.push(call, tape, of.form, of.gradients(moved), pulled)
