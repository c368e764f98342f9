"""What the parameters of a layer are called: as in the cell, or as in PyTorch where that has the cell.

PyTorch stacks the gates of one weight in an order of its own; the fields of a module's `Params` stack them in
the order of `PARAMETERS`. A `Layout` says how the fields are made of a layer's tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# By cell: for each of PyTorch's tensors the parameters that lie in it, from the first row to the last.
# https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, and the same of GRU and RNN
_LSTM = {
    "weight_ih": "W_i W_f W_g W_o",
    "weight_hh": "U_i U_f U_g U_o",
    "bias_ih": "b_i b_f b_g b_o",
    "bias_hh": "b_i b_f b_g b_o",
}
_RNN = {"weight_ih": "W_h", "weight_hh": "U_h", "bias_ih": "b_h", "bias_hh": "b_h"}
_PYTORCH = {
    "gru_after": {
        "weight_ih": "W_r W_z W_h",
        "weight_hh": "U_r U_z U_h",
        "bias_ih": "b_r b_z b_h",
        "bias_hh": "c_r c_z c_h",
    },
    "lstm": _LSTM,
    "lstm_projected": {**_LSTM, "weight_hr": "P"},
    "rnn": _RNN,
    "irnn": _RNN,
}


KINDS = {"gru_after": "GRU", "lstm": "LSTM", "lstm_projected": "LSTM", "rnn": "RNN", "irnn": "RNN"}
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
    known = {name: parts.split() for name, parts in _PYTORCH.get(module.NAME, {}).items()}
    if {part for parts in known.values() for part in parts} != set(module.PARAMETERS):
        numbers = iter(range(len(module.PARAMETERS)))
        return Layout(
            module.PARAMETERS, tuple(Source(tuple(next(numbers) for _ in part)) for part in members)
        )
    return Layout(tuple(known), tuple(_source(field, known) for field in members))


def _source(field: Sequence[str], known: dict[str, list[str]]) -> Source:
    tensors = tuple(k for k, parts in enumerate(known.values()) if set(parts) == set(field))
    (parts, *_) = (parts for parts in known.values() if set(parts) == set(field))
    return Source(tensors, tuple(parts.index(name) for name in field))


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


def is_bias(name: str) -> bool:
    """Whether `bias=False` is about the tensor of that name."""
    return name.partition("_")[0] in ("b", "c", "bias")
