"""Batches of tensors that stand for one, which NumPy does not know: each of a batch is computed for itself.

PyTorch has two kinds. Those of `torch.func.vmap` come here where gradients are asked for within it; the older
kind where they are asked for with `is_grads_batched`, as by `torch.autograd.functional` to vectorize. The
history of a batch is that of what it holds, so a batch is opened before a function of autograd is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch

Tensor = Any
Function = Callable[..., tuple[Tensor, ...]]


class _Kind(NamedTuple):
    """How tensors come out of batches of one level and go into them: along their first dimension."""

    level: int
    out: Callable[[Tensor, int], Tensor]  # None for what is no batch of this level
    into: Callable[[Tensor, int], Tensor]


def singly(function: Function) -> Function:
    """The function, of tensors and other values, called once for all that are in a batch."""

    @wraps(function)
    def found(*given: Any) -> tuple[Tensor, ...]:
        try:
            return function(*given)
        except RuntimeError:  # as a batch raises; to look for one before would cost time in every call
            kind = _kind(given)
            if kind is None:
                raise
        parts = [kind.out(value, kind.level) if isinstance(value, torch.Tensor) else None for value in given]
        (size, *_) = (len(part) for part in parts if part is not None)
        runs = [
            found(*(value if part is None else part[k] for value, part in zip(given, parts, strict=True)))
            for k in range(size)
        ]
        return tuple(kind.into(torch.stack(one), kind.level) for one in zip(*runs, strict=True))

    return found


def _kind(given: Sequence[Any]) -> _Kind | None:
    """Of the batches of the innermost level among the values; None where there are none."""
    tensors = [value for value in given if isinstance(value, torch.Tensor)]
    levels = [
        torch._C._functorch.maybe_get_level(t) for t in tensors if torch._C._functorch.is_batchedtensor(t)
    ]
    if levels:
        return _Kind(
            max(levels), _unwrapped, lambda t, level: torch._C._functorch._add_batch_dim(t, 0, level)
        )
    for tensor in filter(torch._C._functorch.is_legacy_batchedtensor, tensors):
        for level in range(1, 65):  # it does not say its level
            if _removed(tensor, level) is not None:
                return _Kind(level, _removed, lambda t, level: torch._add_batch_dim(t, 0, level))
    return None


def _unwrapped(tensor: Tensor, level: int) -> Tensor:
    if (
        not torch._C._functorch.is_batchedtensor(tensor)
        or torch._C._functorch.maybe_get_level(tensor) != level
    ):
        return None
    return torch._C._functorch.get_unwrapped(tensor).movedim(torch._C._functorch.maybe_get_bdim(tensor), 0)


def _removed(tensor: Tensor, level: int) -> Tensor:
    if not torch._C._functorch.is_legacy_batchedtensor(tensor):
        return None
    whole = torch._remove_batch_dim(tensor, level, 1, 0)
    return None if torch._C._functorch.is_legacy_batchedtensor(whole) else whole
