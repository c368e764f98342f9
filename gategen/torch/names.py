"""What the parameters of a layer are called: as in the cell, or as in PyTorch where that has the cell.

PyTorch stacks the gates of one weight in an order of its own; the fields of a module's `Params` stack them in
the order of `PARAMETERS`. A `Layout` says how the fields are made of a layer's tensors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gategen.layers.weights import TORCH, Known, named_cell

PROJECTED = '''
"""LSTM whose output is a projection of its hidden vector.

H. Sak, A. Senior, F. Beaufays 2014, Long Short-Term Memory Based Recurrent Neural Network Architectures
for Large Vocabulary Speech Recognition, arXiv:1402.1128, without peepholes
"""
name: lstm_projected
states: h[projection], c
matrices: P
i = sigmoid(W_i @ x + U_i @ h + b_i)
f = sigmoid(W_f @ x + U_f @ h + b_f)
g = tanh(W_g @ x + U_g @ h + b_g)
o = sigmoid(W_o @ x + U_o @ h + b_o)
c' = f * c + i * g
h' = P @ (o * tanh(c'))
'''
_EQUATIONS = tuple(re.findall(r"^[\w']+ = .*$", PROJECTED, re.M))
_CELLS = {name: named_cell(name) for name in ("gru_after", "lstm", "rnn", "irnn")}
_CELLS["lstm_projected"] = Known("lstm_projected", "LSTM", "ifgo", _EQUATIONS, projection="P")


def known_to_pytorch(module: ModuleType) -> Known | None:
    """The cell of a module as PyTorch has it: by its name, with these very equations."""
    cell = _CELLS.get(module.NAME)
    return cell if cell is not None and set(cell.equations) == set(module.EQUATIONS) else None


def _tensors(cell: Known) -> dict[str, list[str]]:
    """PyTorch's tensors of a layer, and the parameters that lie in each, from the first row to the last."""
    second = "c" if cell.biases == 2 else "b"
    letters = {"weight_ih": "W", "weight_hh": cell.recurrent, "bias_ih": "b", "bias_hh": second}
    gates = TORCH.orders[cell.kind]
    found = {name: [f"{letter}_{gate}" for gate in gates] for name, letter in letters.items()}
    return found | ({"weight_hr": [cell.projection]} if cell.projection else {})


@dataclass(frozen=True)
class Source:
    """What a field of `Params` is made of.

    tensors: their numbers. Without `blocks` they lie one under the other; with it they are added, and their
        rows are that many blocks of equal height, of which the field has number `blocks[k]` in place k.
    """

    tensors: tuple[int, ...]
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The names of a layer's tensors, and for every field of `Params` how it is made of them."""

    names: tuple[str, ...]
    sources: tuple[Source, ...]


def layout_of(module: ModuleType, params: Any) -> Layout:
    """PyTorch's names for the cells that it has, the cell's own for all others; `params` are any `Params`."""
    members = _members(module, params)
    cell = known_to_pytorch(module)
    if cell is None:
        numbers = iter(range(len(module.PARAMETERS)))
        return Layout(
            module.PARAMETERS, tuple(Source(tuple(next(numbers) for _ in part)) for part in members)
        )
    tensors = _tensors(cell)
    return Layout(tuple(tensors), tuple(_source(field, tensors) for field in members))


def _source(field: Sequence[str], tensors: dict[str, list[str]]) -> Source:
    numbers = tuple(k for k, parts in enumerate(tensors.values()) if set(parts) == set(field))
    parts = list(tensors.values())[numbers[0]]
    return Source(numbers, tuple(parts.index(name) for name in field))


def _members(module: ModuleType, params: Any) -> list[tuple[str, ...]]:
    """The names in every field, which take up its rows one after the other."""
    names = iter(module.unpack(params).items())
    found = []
    for field in params:
        rows, here = 0, []
        while rows < field.size:
            name, part = next(names)
            here.append(name)
            rows += part.size
        found.append(tuple(here))
    return found


def is_bias(name: str, ndim: int) -> bool:
    """Whether `bias=False` is about the tensor of that name: a vector or a scalar."""
    return ndim < 2 and name.partition("_")[0] in ("b", "c", "bias")
