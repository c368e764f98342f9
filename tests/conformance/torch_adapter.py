"""A recurrent layer of PyTorch as a net of `gategen.layers`: the equations of its cell, its arrays by name.

PyTorch stacks the gates of one weight; here every gate has its own: `W` is `weight_ih`, `U` `weight_hh`,
`b` `bias_ih`, `c` `bias_hh` and `P` `weight_hr`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from gategen import Cell, Eq, gates, inputs, matrices, relu, sigmoid, states, tanh, vectors
from gategen.layers import RNN

GATES = {"RNN": "h", "GRU": "rzn", "LSTM": "ifgo"}
LETTERS = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "c": "bias_hh"}


@dataclass(frozen=True)
class Structure:
    """What decides the equations of a layer's cell."""

    kind: str  # RNN, GRU or LSTM
    bias: bool
    nonlinearity: str = "tanh"
    projected: bool = False

    @classmethod
    def of(cls, layer: torch.nn.Module) -> "Structure":
        kind = type(layer).__name__.removesuffix("Cell")
        nonlinearity = getattr(layer, "nonlinearity", "tanh")
        return cls(kind, layer.bias, nonlinearity, getattr(layer, "proj_size", 0) > 0)

    @property
    def states(self) -> tuple[str, ...]:
        return ("h", "c") if self.kind == "LSTM" else ("h",)

    def cell(self) -> Cell:
        """The equations, from PyTorch's documentation."""
        x, h = inputs("x"), states("h", size="projection" if self.projected else "hidden")

        def read(gate: str) -> tuple[Any, Any]:
            W, U = matrices(f"W_{gate} U_{gate}")
            if not self.bias:
                return W @ x, U @ h
            b, c = vectors(f"b_{gate} c_{gate}")
            return W @ x + b, U @ h + c

        def total(gate: str) -> Any:
            of_x, of_h = read(gate)
            return of_x + of_h

        if self.kind == "RNN":
            activation = {"tanh": tanh, "relu": relu}[self.nonlinearity]
            return Cell(f"torch_rnn_{self.nonlinearity}_{self.bias}", Eq(h.next, activation(total("h"))))
        if self.kind == "GRU":
            r, z, n = gates("r z n")
            of_x, of_h = read("n")
            return Cell(
                f"torch_gru_{self.bias}",
                Eq(r, sigmoid(total("r"))),
                Eq(z, sigmoid(total("z"))),
                Eq(n, tanh(of_x + r * of_h)),
                Eq(h.next, (1 - z) * n + z * h),
            )
        c, P = states("c"), matrices("P")
        i, f, g, o, s = gates("i f g o s")
        return Cell(
            f"torch_lstm_{self.bias}_{self.projected}",
            Eq(i, sigmoid(total("i"))),
            Eq(f, sigmoid(total("f"))),
            Eq(g, tanh(total("g"))),
            Eq(o, sigmoid(total("o"))),
            Eq(c.next, f * c + i * g),
            Eq(s, o * tanh(c.next)),
            Eq(h.next, P @ s if self.projected else s),
        )


def net_of(layer: torch.nn.Module, module_of: Callable[[Structure], ModuleType]) -> RNN:
    """A net that should do what the layer does; for a `Cell` of PyTorch, one layer."""
    projection = getattr(layer, "proj_size", 0)
    net = RNN(
        module_of(Structure.of(layer)),
        layer.input_size,
        layer.hidden_size,
        getattr(layer, "num_layers", 1),
        getattr(layer, "bidirectional", False),
        getattr(layer, "batch_first", False),
        dtype="float64",
        **({"projection": projection} if projection else {}),
    )
    net.load_state_dict(dict(named(layer, lambda parameter: parameter.detach().numpy())))
    return net


def named(layer: torch.nn.Module, array_of: Callable[[Any], Any]) -> Iterator[tuple[str, Any]]:
    """An array for each of the layer's parameters, gate by gate, under the names of the net."""
    kind = type(layer).__name__
    order = GATES[kind.removesuffix("Cell")]
    letter_of = {name: letter for letter, name in LETTERS.items()}
    for full, parameter in layer.named_parameters():
        name, suffix = (full, "_l0") if kind.endswith("Cell") else split_name(full)
        array = array_of(parameter)
        if name == "weight_hr":
            yield f"P{suffix}", array
            continue
        for gate, part in zip(order, np.split(array, len(order)), strict=True):
            yield f"{letter_of[name]}_{gate}{suffix}", part


def split_name(full: str) -> tuple[str, str]:
    """`weight_ih_l0_reverse` -> `weight_ih`, `_l0_reverse`."""
    at = full.index("_l")
    return full[:at], full[at:]
